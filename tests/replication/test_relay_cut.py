"""The connection of a server to its relay is cut inside a transaction; transactions and workers end while it moves."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, Site, drop_subscriptions, until
from tests.replication.many import load
from tests.replication.relays import relayed
from tests.replication.scenes import count_arrivals, enroll, stream_early
from tests.replication.test_cut_connection import (
    APPLY_WORKER,
    VICTIMS,
    WALSENDER,
    Wire,
    assert_each_came_once,
    is_stuck,
)
from tests.replication.test_relay_failover import arrived
from tests.replication.test_relay_lost import Machines, machines

__all__ = ["machines"]
pytestmark = pytest.mark.slow

WORKERS = "select pg_terminate_backend(pid) from pg_stat_subscription where pid is not null"


def test_a_transaction_whose_connection_to_the_relay_was_cut_inside_it_is_applied_once(
    school: Db, dsn: str, course_server: PrivateServer, call: Callable[..., Result]
) -> None:
    with (
        relayed(school, dsn, course_server, call) as site,
        tempfile.TemporaryDirectory(prefix="rb-wire-") as folder,
    ):
        Path(folder).chmod(0o755)
        wire = Wire(Path(folder), course_server)
        stream_early(replace(site, portal=site.hub))
        site.add_hub()
        route = make_conninfo(site.hub_dsn, host=folder)
        site.ok("server", "add", "east", "--through", "hub", "--admin-dsn", site.server_dsn,
                "--subscription-dsn", route)  # fmt: skip
        site.attach(KEEP)
        count_arrivals(site)
        for count in (20, 300):  # the larger one is streamed
            for victim in VICTIMS:
                with psycopg.connect(site.server_dsn) as blocker:
                    blocker.execute(f"select from {KEEP_SCHEMA}.auth_user where username = 'bob' for update")
                    with site.portal.transaction():
                        enroll(site, count)
                        site.portal.execute("update portal.auth_user set last_name = last_name || '+' "
                                            "where username = 'bob'")  # fmt: skip
                        enroll(site, 20)
                    until(lambda: is_stuck(site))
                    if "walsender" in victim:
                        site.hub.execute(WALSENDER)
                    if "wire" in victim:
                        wire.cut()
                    if "apply worker" in victim:
                        site.server.execute(APPLY_WORKER)
                until(lambda: site.is_equal(KEEP))
        streamed = "select stream_count > 0 from pg_stat_replication_slots where slot_name = 'rollbook_east'"
        until(lambda: site.hub.execute(streamed).fetchone() == (True,))
        assert_each_came_once(site, 1440, "++++++++")
        wire.socket.close()
        drop_subscriptions(site.server)
        wire.cut()


def to_hub(site: Machines, *more: str) -> Result:
    """Move the server behind the relay."""
    return site.run("server", "move", "east", "--through", "hub", "--subscription-dsn", site.hub_dsn, "--yes", *more)


def to_portal(site: Machines, *more: str) -> Result:
    """Move it back."""
    return site.run("server", "move", "east", "--direct", "--subscription-dsn", site.portal_dsn, "--yes", *more)


def test_a_transaction_that_is_prepared_while_a_server_moves_is_named_and_applied_once(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    site.add_hub()
    Site.add(site)
    site.attach(KEEP)
    count_arrivals(site)
    with psycopg.connect(site.portal_dsn, autocommit=True) as other:
        for name, move in (("to hub", to_hub), ("to portal", to_portal)):
            other.execute("begin")
            enroll(replace(site, portal=other), 5)
            other.execute(f"prepare transaction '{name}'".encode())
            waits = move(site, "--timeout", "3")
            assert (waits.code, site.states()[KEEP]) == (4 if move is to_hub else 3, "moving"), waits
            if move is to_portal:
                assert "transaction 'to portal' of postgres on the portal has been prepared for" in waits.err
            other.execute(f"commit prepared '{name}'".encode())
            assert move(site).code == 0
    site.wait()
    assert arrived(site) == [("INSERT", 10)]
    assert Site.is_equal(site, KEEP)
    assert site.states()[KEEP] == "ok"


@contextmanager
def killing(*dsns: str) -> Iterator[list[int]]:
    """Kill the workers of subscriptions all the time; the list grows by one for each killed."""
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        conns = [psycopg.connect(dsn, autocommit=True) for dsn in dsns]
        while not ended.wait(0.2):
            killed.extend(1 for conn in conns for _ in conn.execute(WORKERS))
        for conn in conns:
            conn.close()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def test_workers_that_are_killed_all_the_time_while_a_server_moves_lose_nothing(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    site.add_hub()
    Site.add(site)
    site.attach(KEEP, REMOVE)
    count_arrivals(site)
    site.portal.execute("insert into portal.auth_user (username, email) select 'many' || n, 'many' || n || '@ex.org' "
                        "from generate_series(1, 50) as n")  # fmt: skip
    with load(site.portal_dsn, clients=2, pause=0.005) as writers:
        for move in (to_hub, to_portal):
            with killing(site.hub_dsn, site.server_dsn) as killed:
                moved = move(site)
            assert killed
            if moved.code != 0:  # a printed fix is the same command again
                assert "rollbook server move east" in moved.err, moved
                moved = move(site)
            assert moved.code == 0, moved
    assert writers.broken == []
    net = site.server.execute(
        "select count(*) from (select user_id, count(*) filter (where operation = 'INSERT') "
        f"- count(*) filter (where operation = 'DELETE') as net from {KEEP_SCHEMA}.arrival group by 1) as s "
        "where net not in (0, 1)"
    ).fetchone()
    assert net == (0,)
    site.wait()
    assert Site.is_equal(site, KEEP)
    assert Site.is_equal(site, REMOVE)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
