"""Connections that are cut inside a transaction: it is applied once."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Own,
    Site,
    new_ids,
    until,
)
from tests.replication.scenes import count_arrivals, enroll, go_on, stream_early, streamed

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

WALSENDER = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'rollbook_east'"


APPLY_WORKER = "select pg_terminate_backend(pid) from pg_stat_subscription where subname = 'rollbook_east'"


def is_stuck(site: Site) -> bool:
    """Say whether the server's apply worker waits for a lock."""
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() "
        "and backend_type like 'logical replication%' and wait_event_type = 'Lock')"
    )
    return site.server.execute(query).fetchone() == (True,)


def cut_inside(site: Site, victim: str, write: Callable[[], None]) -> None:
    """Write a transaction, and cut its connection when the server has applied a part of it."""
    with psycopg.connect(site.server_dsn) as blocker:
        blocker.execute(f"select from {KEEP_SCHEMA}.auth_user where username = 'bob' for update")
        write()
        until(lambda: is_stuck(site))
        if "walsender" in victim:
            site.portal.execute(WALSENDER)
        if "apply worker" in victim:
            site.server.execute(APPLY_WORKER)
    go_on(site)


VICTIMS = ("walsender", "apply worker", "walsender and apply worker")


def test_a_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    new_ids(site)
    count_arrivals(site)

    def write() -> None:
        with site.portal.transaction():
            enroll(site, 20)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, victim, write)
    assert_each_came_once(site, 120, "+++")


def test_a_streamed_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site) -> None:
    stream_early(site)
    site.add()
    site.attach(KEEP)
    new_ids(site)
    count_arrivals(site)

    def write() -> None:
        with site.portal.transaction():
            with streamed(site):
                enroll(site, 300)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, victim, write)
    with site.portal.transaction():  # and once before the server has all of it
        with streamed(site):
            enroll(site, 300)
        site.portal.execute(WALSENDER)
        enroll(site, 20)
    go_on(site)
    assert_each_came_once(site, 1280, "+++")


def assert_each_came_once(site: Site, count: int, bob: str) -> None:
    """Assert that so many users came, none twice, and that bob was changed as often as he should."""
    arrived = site.server.execute(
        f"select count(*), count(distinct user_id) from {KEEP_SCHEMA}.arrival where operation = 'INSERT'"
    ).fetchone()
    assert arrived == (count, count)
    assert site.server.execute(f"select last_name from {KEEP_SCHEMA}.auth_user where username = 'bob'").fetchone() == (
        bob,
    )
    assert site.is_equal(KEEP)
    assert site.run("replication", "verify", KEEP).code == 0


def test_a_stream_whose_connection_was_cut_goes_on_by_itself(streaming: Site) -> None:
    for on, victim in ((streaming.server, APPLY_WORKER), (streaming.portal, WALSENDER)):
        on.execute(victim.encode())
        streaming.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'ada'")
        until(lambda: set(streaming.states().values()) == {"ok"} and streaming.is_equal(KEEP), 10)


def test_a_stream_goes_on_by_itself_when_the_portal_was_restarted(own: Callable[..., Own]) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    site.here.stop()
    site.again()
    site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'ada'")
    until(lambda: site.states() == {KEEP: "ok", REMOVE: "ok"} and site.is_equal(KEEP), 10)
