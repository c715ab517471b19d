"""A server that is lost: its courses and its stream are removed on the portal alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.replication.conftest import (
    Own,
    Site,
    until,
)

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it


def left_on_portal(site: Site) -> list[Any]:
    """The slots, publications and walsenders of the portal's database; its cluster may have other sites as well."""
    return site.portal.execute(
        "select slot_name::text from pg_replication_slots where database = current_database() "
        "union all select pubname from pg_publication "
        "union all select application_name from pg_stat_activity "
        "where datname = current_database() and backend_type = 'walsender'"
    ).fetchall()


def test_a_course_and_its_server_that_is_gone_are_dropped_and_the_portal_keeps_nothing_of_them(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    site.there.stop("immediate")
    before = sorted(left_on_portal(site))
    for command in (("course", "detach", KEEP), ("server", "remove", "east")):
        assert site.run(*command, "--yes").code in (1, 3)
    refused = site.run("course", "delete", KEEP, "--confirm", KEEP)
    assert refused.code == 1
    assert "on server east" in refused.err
    assert {("rollbook_east",)} <= set(before)
    assert set(site.states().values()) == {"unreachable"}
    detached = site.run("course", "detach", KEEP, "--unreachable", "--yes", "--json")
    assert (detached.code, detached.row["outcome"]) == (5, f"left there: schema {KEEP_SCHEMA}")
    site.ok("course", "delete", KEEP, "--confirm", KEEP)
    removed = site.run("server", "remove", "east", "--unreachable", "--yes", "--json")
    assert removed.code == 5
    assert {row["what"] for row in removed.data if row["outcome"] == "left there"} == {
        "subscription on the server", f"schema {REMOVE_SCHEMA} on the server", "schema rollbook on the server"
    }  # fmt: skip
    assert "drop subscription rollbook_east" in removed.err
    assert left_on_portal(site) == []
    assert site.states() == {REMOVE: "ok"}
    assert site.portal.execute("select count(*) from rollbook.server").fetchone() == (0,)


def test_a_server_that_only_we_cannot_reach_loses_its_walsender_and_does_not_come_back(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    site.portal.execute("update rollbook.server set admin_dsn = 'host=/nowhere dbname=site'")
    assert site.run("server", "remove", "east", "--unreachable", "--yes").code == 5
    until(lambda: left_on_portal(site) == [])  # its worker tries again, and is there for a moment
    site.portal.execute("update portal.auth_user set first_name = 'alone' where username = 'ada'")
    until(lambda: site.server.execute("select count(*) from pg_stat_activity where datname = current_database() "
                                      "and backend_type like 'logical replication%'").fetchone() == (0,))  # fmt: skip
    until(lambda: left_on_portal(site) == [])
