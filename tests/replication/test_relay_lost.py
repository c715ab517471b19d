"""A relay, the server behind it or their portal is killed, cut off, restored or away for too long.

Nothing is lost or comes twice where nothing had to be; what is lost is named, and the printed fix brings it back.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import copied, new_ids, older_bindir, remedy, until
from tests.replication.many import load
from tests.replication.relays import Relayed
from tests.replication.scenes import (
    POISON,
    allow_poison,
    count_arrivals,
    enroll,
    later,
    line,
    refuse_poison,
    stands_still,
    stream_early,
)
from tests.replication.test_verify_repair import versions

pytestmark = pytest.mark.slow


@dataclass
class Machines(Relayed):
    """A portal, a relay and a server, each a PostgreSQL server of the test's own."""

    servers: dict[str, PrivateServer] = field(kw_only=True)  # portal, hub, east

    def again(self) -> None:
        """Start what is down and connect anew."""
        for server in self.servers.values():
            server.start()
        for conn in (self.portal, self.hub, self.server):
            conn.close()
        self.portal, self.hub, self.server = (
            psycopg.connect(dsn, autocommit=True) for dsn in (self.portal_dsn, self.hub_dsn, self.server_dsn)
        )

    def build(self, *courses: str) -> None:
        """Add relay and server, and attach courses."""
        self.add_hub()
        self.add()
        self.attach(*courses)

    def backup(self, name: str) -> Path:
        """Stop a server, copy its data directory, and start it again."""
        server = self.servers[name]
        server.stop()
        subprocess.run(["cp", "-a", str(server.data), str(server.home / "backup")], check=True)
        self.again()
        return server.home / "backup"

    def restore(self, name: str, data: Path) -> None:
        """Put an older copy in the place of a server."""
        self.servers[name].stop()
        copied(data, self.servers[name])
        self.again()

    def fixed(self, *courses: str) -> None:
        """Run the printed fix of each course that is not ok, as printed, until all are; all are equal then."""
        for _ in range(6):
            needy = [row for row in (line(self, course) for course in courses) if row["state"] != "ok"]
            if not needy:
                break
            if needy[0]["fix"] and needy[0]["state"] != "lagging":
                assert remedy(self, needy[0]["fix"]).code == 0, needy
            else:
                self.wait()
        assert {course: self.states()[course] for course in courses} == dict.fromkeys(courses, "ok")
        enroll(self, 2)
        self.wait()
        assert all(self.is_equal(course) for course in courses)
        assert self.run("replication", "verify").code == 0
        assert set(self.states().values()) == {"ok"}


@pytest.fixture
def machines(
    seeds: tuple[Path, Path], place: Callable[..., PrivateServer], call: Callable[..., Result]
) -> Iterator[Callable[..., Machines]]:
    """Make a site of three servers; `bounds` are settings of portal and relay."""
    made: list[Machines] = []

    def make(hub_bindir: Path | None = None, **bounds: str) -> Machines:
        hub = place(None, hub_bindir, **bounds) if hub_bindir else place(seeds[1], **bounds)
        if hub_bindir:
            hub.start()
            with psycopg.connect(hub.dsn(), autocommit=True) as conn:
                conn.execute("create database site template template0")
        servers = {"portal": place(seeds[0], **bounds), "hub": hub, "east": place(seeds[1])}
        dsns = [server.dsn("site") for server in servers.values()]
        portal, hub_conn, east = (psycopg.connect(dsn, autocommit=True) for dsn in dsns)
        site = Machines(portal, dsns[0], east, dsns[2], call, hub=hub_conn, hub_dsn=dsns[1], servers=servers)
        new_ids(site)
        made.append(site)
        return site

    yield make
    for site in made:
        for conn in (site.portal, site.hub, site.server):
            conn.close()


# --- killed and cut off -----------------------------------------------------------------------------------------------


def kill(site: Machines, name: str) -> None:
    """Kill a server's postmaster, and start it again."""
    server = site.servers[name]
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    until(lambda: not server.is_running())
    server.start()


def cut(site: Machines, name: str) -> None:
    """End the connections by which a server is fed, at its source."""
    feeds = {"hub": "portal", "east": "hub"}[name]
    with psycopg.connect(site.servers[feeds].dsn("site"), autocommit=True) as conn:
        conn.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null")


def test_whatever_is_killed_or_cut_on_either_hop_while_clients_write_nothing_is_lost_or_comes_twice(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    site.build(KEEP, REMOVE)
    count_arrivals(site)
    site.server.execute("checkpoint")  # the tests' servers do not flush at commit
    site.portal.execute("insert into portal.auth_user (username, email) select 'many' || n, n || '@example.org' "
                        "from generate_series(1, 50) as n")  # fmt: skip
    chance = random.Random(18)
    acts = [*((kill, name) for name in ("hub", "east")), *((cut, name) for name in ("hub", "east"))]
    with load(site.portal_dsn, clients=2, pause=0.002) as writers:
        for act, name in [*chance.sample(acts, 4), *chance.sample(acts, 4)]:
            before = writers.written
            until(lambda before=before: writers.written > before + 40)  # type: ignore[misc]
            act(site, name)
    assert writers.broken == []
    kill(site, "portal")
    site.again()
    enroll(site, 3)
    until(lambda: site.is_equal(KEEP) and site.is_equal(REMOVE))
    until(lambda: set(site.states().values()) == {"ok"})
    assert site.run("replication", "verify").code == 0
    net = site.server.execute(
        "select count(*) from (select user_id, count(*) filter (where operation = 'INSERT') "
        f"- count(*) filter (where operation = 'DELETE') as net from {KEEP_SCHEMA}.arrival group by 1) as s "
        "where net not in (0, 1)"
    ).fetchone()
    assert net == (0,)


def test_a_streamed_a_prepared_and_a_truncating_transaction_go_through_both_hops(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    stream_early(site)
    site.hub.execute("alter database site set logical_decoding_work_mem = '64kB'")
    site.build(KEEP, REMOVE)
    count_arrivals(site)
    with site.portal.transaction():
        enroll(site, 600)
        site.portal.execute("update portal.auth_user set last_name = 'streamed' where id in (101, 102)")
    site.wait()
    for conn, name in ((site.portal, "rollbook_hub"), (site.hub, "rollbook_east")):
        until(lambda conn=conn, name=name: conn.execute(  # type: ignore[misc]
            "select stream_count from pg_stat_replication_slots where slot_name = %s", [name]
        ).fetchone() > (0,))  # fmt: skip
    assert site.is_equal(KEEP)
    assert site.server.execute(
        f"select count(*), count(distinct user_id) from {KEEP_SCHEMA}.arrival where operation = 'INSERT'"
    ).fetchone() == (600, 600)
    refuse_poison(site)
    site.portal.execute("begin")
    site.portal.execute("update portal.auth_user set first_name = 'poisoned', email = %s where id = 102", [POISON])
    site.portal.execute("prepare transaction 'poisoned'")
    site.wait()
    site.portal.execute("commit prepared 'poisoned'")
    stands_still(site)
    assert "no_poison" in line(site)["fix"]
    allow_poison(site)
    site.ok("replication", "resume", KEEP)
    site.wait()
    assert "poisoned" in {row[2] for row in site.copy(KEEP)}
    site.portal.execute("truncate portal.student_courseenrollment")
    site.wait()
    assert site.copy(KEEP, "student_courseenrollment") == []
    site.fixed(KEEP, REMOVE)


# --- restored ---------------------------------------------------------------------------------------------------------


def test_a_relay_restored_with_its_slots_is_behind_its_server_and_the_printed_fix_makes_both_follow(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    site.build(KEEP, REMOVE)
    data = site.backup("hub")
    site.wait()
    later(site, "lost")
    site.restore("hub", data)
    enroll(site, 2)
    for course in (KEEP, REMOVE):
        row = line(site, course)
        assert row["state"] in ("broken", "unknown"), row
        assert row["fix"] == f"rollbook replication resync '{course}'"
    site.fixed(KEEP, REMOVE)


def test_a_relay_restored_where_only_positions_tell_is_seen_to_be_behind(machines: Callable[..., Machines]) -> None:
    site = machines()
    site.build(KEEP)
    data = site.backup("hub")
    enroll(site, 200)
    until(lambda: site.is_equal(KEEP))
    site.restore("hub", data)
    row = line(site)
    assert row["state"] == "unknown", row
    assert "its relay hub never sent: was the relay restored?" in row["reason"]
    (east,) = [each for each in site.run("server", "list", "--json").data if each["server"] == "east"]
    assert (east["state"], east["lag_bytes"]) == ("unknown", 0)
    before = versions(site.server, KEEP_SCHEMA)
    assert remedy(site, row["fix"]).code == 0
    assert versions(site.server, KEEP_SCHEMA) == before  # what the relay lacked, the server had
    site.fixed(KEEP)


def test_a_relay_restored_without_its_slots_loses_those_of_its_servers(machines: Callable[..., Machines]) -> None:
    site = machines()
    site.build(KEEP, REMOVE)
    hub = site.servers["hub"]
    hub._run("pg_basebackup", "-d", hub.dsn(), "-D", str(hub.home / "backup"), "-c", "fast")
    later(site, "lost")
    site.restore("hub", hub.home / "backup")
    enroll(site, 2)
    row = line(site)
    assert row["state"] == "broken", row
    assert "is gone" in row["reason"]
    site.fixed(KEEP, REMOVE)


@pytest.mark.parametrize("name", ["portal", "east"])
def test_a_portal_or_a_server_restored_on_the_ends_of_a_relay_is_named_and_resynced(
    machines: Callable[..., Machines], name: str
) -> None:
    site = machines()
    site.build(KEEP, REMOVE)
    data = site.backup(name)
    site.wait()
    later(site, "lost")
    source = {"portal": site.portal, "east": site.hub}[name]
    until(lambda: source.execute(
        "select bool_and(confirmed_flush_lsn >= pg_current_wal_flush_lsn()) from pg_replication_slots"
    ).fetchone() == (True,))  # fmt: skip
    site.restore(name, data)
    enroll(site, 2)
    site.run("replication", "canary", "--timeout", "2")
    assert line(site)["state"] in ("broken", "unknown"), line(site)
    site.fixed(KEEP, REMOVE)


# --- away for too long ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hub", "east"])
def test_a_slot_that_is_lost_on_either_hop_is_told_apart_and_resynced(
    machines: Callable[..., Machines], name: str
) -> None:
    site = machines(max_slot_wal_keep_size="32MB")
    site.build(KEEP, REMOVE)
    site.wait()
    site.servers[name].stop()
    site.portal.execute("update portal.auth_user set first_name = 'away' where id in (101, 102)")
    enroll(site, 5)
    source = site.source(name)
    if name == "east":
        until(lambda: site.copy(KEEP, on=site.hub) == site.copy(KEEP, on=site.portal))

    def is_lost() -> bool:
        source.execute("select pg_logical_emit_message(false, '', repeat('x', 1000000)) from generate_series(1, 20)")
        source.execute("checkpoint")
        return source.execute("select wal_status from pg_replication_slots").fetchone() == ("lost",)

    until(is_lost)
    site.again()
    kept = (site.hub if name == "east" else site.server).execute("select oid from pg_subscription").fetchall()
    row = line(site)
    assert (row["state"], "was lost" in row["reason"]) == ("broken", True), row
    assert ("on its relay hub" in row["reason"]) == (name == "hub")
    assert row["fix"] == f"rollbook replication resync '{KEEP}'"
    site.fixed(KEEP, REMOVE)
    assert (site.hub if name == "east" else site.server).execute("select oid from pg_subscription").fetchall() == kept


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_relay_of_an_older_version_feeds_a_server_and_its_faults_are_fixed(machines: Callable[..., Machines]) -> None:
    older = older_bindir()
    if older is None:
        pytest.skip("no older PostgreSQL here")
    site = machines(hub_bindir=older, wal_retrieve_retry_interval="100ms")
    assert site.hub.info.server_version < site.portal.info.server_version
    site.build(KEEP, REMOVE)
    site.hub.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint own check (first_name <> 'No')".encode())
    site.portal.execute("update portal.auth_user set first_name = 'No' where id = 101")
    stands_still(site, "hub")
    row = line(site)
    there, then = row["fix"].split("; then: ")
    assert there.startswith("on server hub: alter table ")
    site.hub.execute(there.removeprefix("on server hub: ").encode())
    assert remedy(site, then).code == 0
    site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301", at="hub")
    site.ok("replication", "repair", "--yes")
    site.fixed(KEEP, REMOVE)
