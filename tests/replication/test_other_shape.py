"""A course of another platform's tables on course servers: attached, verified, repaired, resynced, moved."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.program import Result
from tests.replication.conftest import Site, database, drop_slots, drop_subscriptions
from tests.school import database as portal_database

TABLES = Path(__file__).parents[1] / "shapes" / "moodle.sql"
SHAPE = Path(__file__).parents[2] / "shapes" / "moodle.toml"
pytestmark = pytest.mark.slow


@pytest.fixture
def moodle(cluster: Cluster, course_server: PrivateServer, call: Callable[..., Result]) -> Iterator[Site]:
    """A portal with the tables of a Moodle-like platform, its course 42 with two members, and an empty server."""
    with ExitStack() as stack:
        where = stack.enter_context(portal_database(cluster, f"p_{uuid.uuid4().hex[:10]}", "template0"))
        portal = stack.enter_context(psycopg.connect(where, autocommit=True))
        there = stack.enter_context(database(course_server))
        server = stack.enter_context(psycopg.connect(there, autocommit=True))
        site = Site(portal, where, server, there, call)
        portal.execute(TABLES.read_bytes())
        portal.execute(
            "create table mdl_course_member (id bigserial primary key, userid bigint not null, "
            "courseid bigint not null, status bigint not null, timecreated bigint not null default 0, stat text);"
            "insert into mdl_user (id, username, email) select n, 'user' || n, '' from generate_series(1, 4) as n;"
            "insert into mdl_course_member (userid, courseid, status) values (1, 42, 0), (2, 42, 0), (3, 42, 1)"
        )
        site.ok("schema", "upgrade", "--shape", str(SHAPE))
        site.ok("course", "create", "42", "--on-leave", "remove")
        stack.callback(drop_slots, portal)
        stack.callback(drop_subscriptions, server)
        yield site


def test_a_course_of_other_tables_is_attached_verified_repaired_resynced_and_moved(
    moodle: Site, course_server: PrivateServer
) -> None:
    site = moodle
    schema = site.ok("course", "show", "42", "--json").data["schema_name"]

    def there(query: str) -> list[tuple[object, ...]]:
        site.wait()
        return site.server.execute(query.format(schema=schema).encode()).fetchall()

    site.add()
    assert {row["table"]: row["rows"] for row in site.ok("course", "attach", "42", "--to", "east", "--json").data} == {
        "mdl_user": 2, "mdl_course_member": 2
    }  # fmt: skip
    site.portal.execute("update mdl_user set email = 'a@b.org' where id = 1")
    site.portal.execute("update mdl_course_member set status = 0 where userid = 3")
    site.portal.execute("update mdl_course_member set status = 1 where userid = 2")
    assert there("select id, email from {schema}.mdl_user order by id") == [(1, "a@b.org"), (3, "")]
    assert there("select userid from {schema}.mdl_course_member order by 1") == [(1,), (3,)]
    site.portal.execute("set role rollbook_monitor")
    assert site.portal.execute("select enrolled, copied_users from rollbook.course_status").fetchall() == [(2, 2)]
    for hidden in ("email from mdl_user", "stat from mdl_course_member"):  # the condition has status
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            site.portal.execute(f"select {hidden}".encode())
    site.portal.execute("reset role")
    assert site.ok("replication", "verify", "--json").column("verdict") == ["match"] * 2
    assert site.ok("replication", "verify", "--user", "user1", "--user", "id:3", "--json").column("user") == [
        "user1", "user1", "user3", "user3"
    ]  # fmt: skip

    site.as_worker(f"update {schema}.mdl_user set email = 'x' where id = 1")
    site.as_worker(f"delete from {schema}.mdl_course_member where userid = 3")
    found = site.run("replication", "verify", "--rows", "--json")
    assert found.code == 4
    assert [(row["table"], row["finding"], row["columns"]) for row in found.data] == [
        ("mdl_user", "changed", ["email"]), ("mdl_course_member", "missing", None)
    ]  # fmt: skip
    site.ok("replication", "repair", "--user", "user1", "--yes")
    assert site.run("replication", "verify", "--table", "mdl_user", "--json").column("verdict") == ["match"]
    site.ok("replication", "repair", "42", "--yes")
    site.as_worker(f"delete from {schema}.mdl_user where id = 1")
    site.ok("replication", "resync", "42", "--yes")
    assert there("select id from {schema}.mdl_user order by 1") == [(1,), (3,)]

    site.as_worker(f"insert into {schema}.mdl_user (select (jsonb_populate_record(u, '{{\"id\": 4}}')).* "
                   f"from {schema}.mdl_user as u where id = 1)")  # fmt: skip
    site.portal.execute("insert into mdl_course_member (userid, courseid, status) values (4, 42, 0)")
    site.ok("replication", "repair", "42", "--yes")  # its key is taken: the worker stops at it
    assert there("select username from {schema}.mdl_user where id = 4") == [("user4",)]

    site.server.execute(f"alter table {schema}.mdl_user add column note text; update {schema}.mdl_user set note = 'n'")
    with database(course_server) as where, psycopg.connect(where, autocommit=True) as west:
        try:
            site.ok("server", "add", "west", "--admin-dsn", where, "--subscription-dsn", site.portal_dsn)
            first = site.run("course", "move", "42", "--to", "west", "--yes", "--json")
            assert first.code == 4, first
            assert [row["object"] for row in first.data if row["command"]] == ["column mdl_user.note"]
            site.ok("course", "move", "42", "--to", "west", "--finish", "--drop-local", "--yes")
            assert west.execute(f"select id from {schema}.mdl_user order by 1".encode()).fetchall() == [
                (1,), (3,), (4,)
            ]  # fmt: skip
            assert site.ok("replication", "verify", "--json").column("server") == ["west"] * 2
        finally:
            drop_subscriptions(west)
