"""Copies flow one way: portals are not servers, and a server takes one portal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    until,
)
from tests.replication.scenes import another_user, slots

pytestmark = pytest.mark.slow  # `make check` runs it


def test_a_portal_is_refused_as_a_server_so_that_no_ring_can_be_made(
    streaming: Site, course_server: PrivateServer
) -> None:
    with database(course_server) as other:
        schema.upgrade(other)
        for where, words in ((streaming.portal_dsn, "the portal's own database"), (other, "is a portal itself")):
            refused = streaming.run("server", "add", "west", "--admin-dsn", where,
                                    "--subscription-dsn", streaming.portal_dsn)  # fmt: skip
            assert refused.code == 1
            assert words in refused.err
    assert slots(streaming) == ["rollbook_east"]
    assert streaming.ok("server", "list", "--json").column("server") == ["east"]


def test_a_server_that_another_portal_feeds_is_refused_under_the_same_name_too(
    streaming: Site, course_server: PrivateServer
) -> None:
    with second_portal(course_server) as other:
        for name in ("east", "west"):
            refused = streaming.call("server", "add", name, "--admin-dsn", streaming.server_dsn,
                                     "--subscription-dsn", other, "-d", other)  # fmt: skip
            assert refused.code == 1
            assert "already receives copies" in refused.err
            with psycopg.connect(other) as conn:
                assert conn.execute("select count(*) from rollbook.server").fetchone() == (0,)
                assert (
                    conn.execute(
                        "select slot_name from pg_replication_slots where database = current_database()"
                    ).fetchall()
                    == []
                )
    streaming.portal.execute("update portal.auth_user set first_name = 'still' where username = 'ada'")
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def test_what_a_server_publishes_on_itself_goes_no_further_with_origin_none(
    streaming: Site, course_server: PrivateServer
) -> None:
    """Rows that came from the portal are re-published to whoever asks for any origin, from 16 on not for none."""
    server = streaming.server
    server.execute(f"create publication further for table {KEEP_SCHEMA}.auth_user")
    origins = ("any", "none") if server.info.server_version >= 160000 else ("any",)
    with ExitStack() as stack:
        third = {}
        for origin in origins:
            where = stack.enter_context(database(course_server))
            third[origin] = stack.enter_context(psycopg.connect(where, autocommit=True))
            third[origin].execute(f"create schema {KEEP_SCHEMA}")
            third[origin].execute(f"create table {KEEP_SCHEMA}.auth_user (like pg_catalog.pg_class)".replace(
                "(like pg_catalog.pg_class)", "(id bigint primary key, username text, first_name text, last_name text, "
                "email text, password text, is_staff boolean, is_active boolean, is_superuser boolean, "
                "last_login timestamptz, date_joined timestamptz)"))  # fmt: skip
            name = f"further_{origin}_{third[origin].info.dbname}"
            server.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
            stack.callback(drop_slots, server)
            stack.callback(drop_subscriptions, third[origin])
            options = f"create_slot = false, slot_name = '{name}', copy_data = false"
            options += f", origin = {origin}" if len(origins) == 2 else ""
            third[origin].execute(
                f"create subscription {name} connection '{streaming.server_dsn}' publication further with ({options})"
            )
        streaming.portal.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) values (103, %s)", [KEEP]
        )
        streaming.wait()
        streaming.as_worker(another_user(999))  # the server's own, which both are sent: the fence
        for conn in third.values():
            until(partial(has, conn, 999))
        assert ids(third["any"]) == [(103,), (999,)]
        if "none" in third:
            assert ids(third["none"]) == [(999,)]
    assert streaming.portal.execute("select count(*) from pg_subscription where subdbid = "
           "(select oid from pg_database where datname = current_database())").fetchone() == (0,)  # fmt: skip
    assert streaming.copy(KEEP, on=streaming.portal) == streaming.copy(KEEP)[:-1]  # nothing came back


def has(conn: Db, user_id: int) -> bool:
    """Say whether the course has a user."""
    return (user_id,) in ids(conn)


def ids(conn: Db) -> list[tuple[Any, ...]]:
    """The ids of a course's users."""
    return conn.execute(f"select id from {KEEP_SCHEMA}.auth_user order by 1").fetchall()


@contextmanager
def second_portal(server: PrivateServer) -> Iterator[str]:
    """Make another portal, empty, in another cluster than the first, and leave no slot of it."""
    with database(server) as where:
        schema.upgrade(where)
        with psycopg.connect(where, autocommit=True) as conn:
            yield where
            drop_slots(conn)
