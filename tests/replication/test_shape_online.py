"""The shape changes while everybody writes: columns that join, leave, get another name or type, and the condition."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
from psycopg import sql

from rollbook.replication import columns, rollout
from rollbook.replication.queries import shape as queries
from tests.replication.conftest import until
from tests.replication.many import attach_empty, enroll_all, load, make_courses
from tests.replication.test_move import Two, two

__all__ = ["two"]

pytestmark = pytest.mark.slow  # two servers of its own

COURSES = int(os.environ.get("TEST_COURSES", "24"))  # 1000: ten minutes
USERS = 5 * COURSES
NEW = "alter table portal.auth_userprofile add column pronouns varchar(20) not null default ''"


@pytest.fixture
def many(two: Two) -> Two:
    """Two servers with two fifths of the courses each, the others beside the portal; some profiles have pronouns."""
    names = make_courses(two.portal, COURSES, USERS)
    attach_empty(two.portal_dsn, "east", names[: COURSES * 2 // 5])
    attach_empty(two.portal_dsn, "west", names[COURSES * 2 // 5 : COURSES * 4 // 5])
    enroll_all(two.portal, COURSES)
    two.wait()
    two.portal.execute(NEW)
    two.portal.execute("update portal.auth_userprofile set pronouns = 'she' where user_id % 3 = 0")
    return two


def done(many: Two, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command of `shape`; return its row."""
    answer = many.run("shape", *arguments, "--json")
    assert answer.code == code, answer.out + answer.err
    return dict(answer.row)


def equal(many: Two) -> None:
    """Assert that nothing is wrong anywhere, and nothing under way."""
    until(lambda: set(many.states().values()) == {"ok"})
    many.ok("replication", "verify", "--timeout", "30")
    found = [row for row in many.run("schema", "check", "--json").data if row["kind"] != "sequence"]
    assert found == []
    assert many.portal.execute("select course_id from rollbook.course where due <> '{}'").fetchall() == []


def values(many: Two, column: str = "pronouns", table: str = "auth_userprofile") -> set[tuple[Any, ...]]:
    """Return in which copies, on which side, the column is."""
    query = (
        "select n.nspname from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid and c.relname = %s "
        "inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname like 'course\\_%%' "
        "where a.attname = %s and not a.attisdropped"
    )
    return {
        (side, name)
        for side, conn in (("portal", many.portal), ("east", many.server), ("west", many.west))
        for (name,) in conn.execute(query, [table, column])
    }


def test_a_column_joins_and_leaves_under_load(many: Two) -> None:
    with load(many.portal_dsn) as writers:
        row = done(many, "column", "add", "auth_userprofile", "pronouns")
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES + 2)
    equal(many)
    assert len(values(many)) == COURSES + 2 + COURSES * 4 // 5 + 2
    many.portal.execute("update portal.auth_userprofile set pronouns = 'they'")
    many.wait()
    for conn in (many.server, many.west):
        schemas = [row[0] for row in conn.execute("select nspname from pg_namespace where nspname like 'course%'")]
        for schema in schemas:
            query = sql.SQL("select distinct pronouns from {}").format(sql.Identifier(schema, "auth_userprofile"))
            assert set(conn.execute(query).fetchall()) <= {("they",)}
    equal(many)
    again = done(many, "column", "add", "auth_userprofile", "pronouns")
    assert (again["outcome"], again["courses"]) == ("unchanged", 0)
    with load(many.portal_dsn) as writers:
        row = done(many, "column", "drop", "auth_userprofile", "pronouns", "--yes")
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES + 2)
    assert values(many) == set()
    assert many.portal.execute("select distinct without from rollbook.course").fetchall() == [([],)]
    equal(many)


STEPS = ["switch", "on_portal", "fence", "drop_columns"]  # the others that write were killed too, once


@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_killed_runs_it_again(many: Two, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: object, **__: object) -> None:
        if next(calls) == (2 if step in ("on_portal", "drop_columns") else 0):
            raise KeyboardInterrupt
        original(*_, **__)

    module = next(module for module in (columns, rollout, queries) if hasattr(module, step))
    original = getattr(module, step)
    with load(many.portal_dsn, clients=1) as writers:
        for words in (
            ("column", "add", "auth_userprofile", "pronouns"),
            ("column", "rename", "auth_userprofile", "pronouns", "pronoun"),
            ("column", "drop", "auth_userprofile", "pronoun", "--yes"),
        ):
            calls = itertools.count()
            with monkeypatch.context() as patch:
                patch.setattr(module, step, killed)
                many.run("shape", *words)
            until(lambda: "stopped" not in many.states().values())  # the stream goes on, whatever was done
            done(many, *words)
            if words[1] == "rename":
                assert values(many) == set()
                many.ok("replication", "verify", "--timeout", "30")
    assert writers.broken == []
    assert values(many) == values(many, "pronoun") == set()
    equal(many)


def test_a_column_joins_whose_name_another_table_has(many: Two) -> None:
    many.portal.execute("alter table portal.auth_userprofile add column email varchar(75) not null default ''")
    many.portal.execute("update portal.auth_userprofile set email = 'p' || id || '@example.com'")
    left = ["Many/C0000/2013", "Many/C0015/2013", "Many/C0022/2013"]
    many.ok("course", "update", *left, "--without", "email")
    with load(many.portal_dsn) as writers:
        done(many, "column", "add", "auth_userprofile", "email")
    assert (writers.broken, values(many, "email", "auth_user")) == ([], values(many, "email"))
    query = "select distinct without from rollbook.course order by 1"
    assert many.portal.execute(query).fetchall() == [([],), (["auth_user.email"],)]
    many.portal.execute("update portal.auth_userprofile set email = 'new' || id")
    many.portal.execute("update portal.auth_user set email = id || '@example.org'")
    equal(many)
    done(many, "column", "drop", "auth_userprofile", "email", "--yes")
    assert (many.portal.execute(query).fetchall(), values(many, "email")) == ([([],), (["email"],)], set())
    equal(many)


def test_a_condition_changes_under_load(many: Two) -> None:
    many.portal.execute("alter table portal.student_courseenrollment add is_active boolean not null default true")
    many.portal.execute("update portal.student_courseenrollment set is_active = false where user_id % 3 = 0")
    with load(many.portal_dsn) as writers:
        row = done(many, "where", "is_active")
        many.portal.execute(
            "update portal.student_courseenrollment set is_active = not is_active where user_id % 2 = 0"
        )
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES + 2)
    equal(many)
    with load(many.portal_dsn) as writers:
        done(many, "where", "")
        done(many, "column", "widen", "auth_user", "first_name", "varchar(300)")
        many.portal.execute("update portal.auth_user set first_name = repeat('x', 250) where id % 2 = 0")
    assert writers.broken == []
    equal(many)
