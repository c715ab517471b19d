"""Connections that are cut inside a transaction: it is applied once, and no command is run in between."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.conftest import (
    Site,
    drop_subscriptions,
    new_ids,
    until,
)
from tests.replication.scenes import count_arrivals, enroll, stream_early, streamed

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


class Wire:
    """A socket between the server and the portal that carries every byte until it is cut."""

    def __init__(self, folder: Path, portal: PrivateServer) -> None:
        self.folder, self.portal = folder, portal.home / ".s.PGSQL.5432"
        self.socket = socket.socket(socket.AF_UNIX)
        here = folder / self.portal.name
        self.socket.bind(str(here))
        here.chmod(0o777)
        self.socket.listen()
        self.ends: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                server, _ = self.socket.accept()
            except OSError:
                return
            portal = socket.socket(socket.AF_UNIX)
            portal.connect(str(self.portal))
            self.ends += [server, portal]
            for one, other in ((server, portal), (portal, server)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        self.close(one, other)

    def close(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut what is connected now; new connections are let through."""
        self.close(*self.ends)


@pytest.fixture
def wire(site: Site, cluster: Cluster) -> Iterator[Wire]:
    """A wire to the portal for the server of `site`, see `feed`."""
    with tempfile.TemporaryDirectory(prefix="rb-wire-") as folder:
        Path(folder).chmod(0o755)
        wire = Wire(Path(folder), cluster.server)
        yield wire
        wire.socket.close()
        drop_subscriptions(site.server)
        wire.cut()


def feed(site: Site, wire: Wire) -> None:
    """Add the server with the wire as its route, and attach a course that counts what arrives."""
    route = make_conninfo(site.portal_dsn, host=str(wire.folder))
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", route)
    site.attach(KEEP)
    new_ids(site)
    count_arrivals(site)


def cut_inside(site: Site, wire: Wire, victim: str, write: Callable[[], None]) -> None:
    """Write a transaction, and cut its connection when the server has applied a part of it."""
    with psycopg.connect(site.server_dsn) as blocker:
        blocker.execute(f"select from {KEEP_SCHEMA}.auth_user where username = 'bob' for update")
        write()
        until(lambda: is_stuck(site))
        if "walsender" in victim:
            site.portal.execute(WALSENDER)
        if "wire" in victim:
            wire.cut()
        if "apply worker" in victim:
            site.server.execute(APPLY_WORKER)
    until(lambda: site.is_equal(KEEP))


VICTIMS = ("walsender", "apply worker", "walsender and apply worker", "wire")


def test_a_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site, wire: Wire) -> None:
    feed(site, wire)

    def write() -> None:
        with site.portal.transaction():
            enroll(site, 20)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, wire, victim, write)
    assert_each_came_once(site, 160, "++++")


def test_a_streamed_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site, wire: Wire) -> None:
    stream_early(site)
    feed(site, wire)

    def write() -> None:
        with site.portal.transaction():
            with streamed(site):
                enroll(site, 300)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, wire, victim, write)
    with site.portal.transaction():  # and once before the server has all of it
        with streamed(site):
            enroll(site, 300)
        wire.cut()
        enroll(site, 20)
    until(lambda: site.is_equal(KEEP))
    assert_each_came_once(site, 1600, "++++")


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
