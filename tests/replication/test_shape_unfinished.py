"""A change of the shape that is not finished: nothing is missed that need not be, and every look names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from psycopg import sql

from rollbook.replication import columns
from tests.program import KEEP, KEEP_SCHEMA, REMOVE_SCHEMA
from tests.replication.conftest import Site

RENAME = ("shape", "column", "rename", "auth_userprofile", "zip", "plz")


@contextmanager
def down(site: Site) -> Iterator[None]:
    """Let no command reach the server east meanwhile; its stream goes on."""
    route = "update rollbook.server set admin_dsn = %s where name = 'east'"
    site.portal.execute(route, ["host=/nonexistent dbname=nowhere"])
    try:
        yield
    finally:
        site.portal.execute(route, [site.server_dsn])


@pytest.fixture
def half(site: Site) -> Site:
    """One course on east, one beside the portal; a column `zip` travels to both."""
    site.add()
    site.attach(KEEP)
    site.portal.execute("alter table portal.auth_userprofile add column zip text")
    site.ok("shape", "column", "add", "auth_userprofile", "zip")
    return site


def killed(*_: object) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def values(site: Site, column: str, schema: str) -> set[str | None]:
    """What the copies of a course beside the portal hold in a column."""
    query = sql.SQL("select distinct {} from {}").format(
        sql.Identifier(column), sql.Identifier(schema, "auth_userprofile")
    )
    return {value for (value,) in site.portal.execute(query)}


def unfinished(site: Site) -> list[str]:
    """The commands that `status` prints for changes that are not finished."""
    return [row["fix"] for row in site.run("status", "--json").data["portal"]["faults"]]


@pytest.mark.slow
def test_a_rename_waits_for_a_server_and_no_course_misses_a_change(half: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with down(half):
        refused = half.run(*RENAME)
    assert refused.code == 3
    fix = f"rollbook server ping east; then: rollbook {' '.join(RENAME)}"
    assert fix in " ".join(refused.err.split())
    assert unfinished(half) == []

    # The server goes away once the other course has left the column out.
    with monkeypatch.context() as patch, down(half):
        patch.setattr(columns, "refuse_unready", lambda *_: None)
        failed = half.run(*RENAME, "--json")
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 0, 1)
    assert fix in " ".join(failed.err.split())
    assert "keeps its name" in failed.err
    half.portal.execute("update portal.auth_userprofile set zip = 'new'")
    assert values(half, "zip", REMOVE_SCHEMA) == values(half, "zip", KEEP_SCHEMA) == {"new"}
    assert unfinished(half) == []
    assert half.portal.execute("select without, leaving, renamed from rollbook.shape").fetchall() == [([], [], {})]

    # Killed there, it cannot take anything back; a course that is made then has the column in the end.
    with monkeypatch.context() as patch, down(half):
        patch.setattr(columns, "refuse_unready", lambda *_: None)
        patch.setattr(columns, "take_back", killed)
        half.run(*RENAME)
    assert unfinished(half) == [f"rollbook {' '.join(RENAME)}"]
    half.portal.execute("update portal.auth_userprofile set zip = 'newer'")
    half.ok("course", "create", "made/meanwhile/2013")
    half.ok(*RENAME)
    assert unfinished(half) == []
    assert values(half, "plz", REMOVE_SCHEMA) == values(half, "plz", KEEP_SCHEMA) == {"newer"}
    assert half.portal.execute("select distinct without from rollbook.course").fetchall() == [([],)]
    half.wait()
    half.ok("replication", "verify")

    # The server goes away once the portal's column is renamed: the other courses have it all the same.
    back = ("shape", "column", "rename", "auth_userprofile", "plz", "zip")
    declared = columns.rename_declared

    with monkeypatch.context() as patch, ExitStack() as stack:

        def and_down(*given: Any) -> None:
            declared(*given)
            stack.enter_context(down(half))

        patch.setattr(columns, "rename_declared", and_down)
        failed = half.run(*back, "--json")
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 2, 1)
    half.portal.execute("update portal.auth_userprofile set zip = 'newest'")
    assert values(half, "zip", REMOVE_SCHEMA) == {"newest"}
    assert unfinished(half) == [f"rollbook {' '.join(back)}"]
    half.ok(*back)
    assert (unfinished(half), values(half, "zip", KEEP_SCHEMA)) == ([], {"newest"})
    half.wait()
    half.ok("replication", "verify")
