"""What servers cost a portal, direct and behind a relay; the lag over two hops; `status` of many servers.

`python -m tests.bench.relay --help` has the measures and the settings. Each cluster is a private server: two portals,
whose servers are direct or behind a relay, the relay, and one for all servers. Nothing fails but in `broken` and
`behind`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import FrameType
from typing import LiteralString, NoReturn

import psycopg
from psycopg import sql

from rollbook.core.db import connect as connect_portal
from rollbook.replication.build import publish
from rollbook.replication.link import find_server
from rollbook.replication.observe import DIAGNOSED_AT_ONCE
from rollbook.system import migration
from rollbook.system.demo.server import PrivateServer
from tests.bench.bench import Bench, enrollment_query, fill, private_mb
from tests.bench.replication import (
    Db,
    Side,
    course_rows,
    enroll_one,
    lag,
    make_bare,
    publish_bare,
    rollbook,
    second_server,
    until,
)

FED = [int(number) for number in os.environ.get("BENCH_FED", "1,4,8").split(",")]
ASKED = [int(number) for number in os.environ.get("BENCH_ASKED", "50,200").split(",")]
BROKEN = [int(number) for number in os.environ.get("BENCH_BROKEN", "1,3,10").split(",")]
BEHIND_ONE = [int(number) for number in os.environ.get("BENCH_BEHIND", "1,10,30").split(",")]
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
COURSES, USERS, CLIENTS, UPDATES = 24, 4000, 4, 500  # updates of each client in a round
BEATS = 2000  # heartbeats that a portal keeps
FLEET, SILENT = 30, 3  # servers of which some are broken, or silent
MANY = str(max(ASKED) + 20)
SETTINGS = {
    "shared_buffers": "128MB", "max_wal_size": "4GB", "max_locks_per_transaction": "1024", "autovacuum": "off",
    "max_connections": str(2 * max(ASKED) + 60), "max_wal_senders": MANY, "max_replication_slots": MANY,
    "max_logical_replication_workers": MANY, "max_worker_processes": str(max(ASKED) + 30),
    "max_active_replication_origins": MANY,
}  # fmt: skip

SENDERS: LiteralString = "select pid from pg_stat_activity where backend_type = 'walsender' order by 1"
BEHIND: LiteralString = "select count(*) from pg_replication_slots where confirmed_flush_lsn < %s::pg_lsn"
WRITTEN: LiteralString = "select pg_current_wal_insert_lsn()::text, (pg_current_wal_insert_lsn() - '0/0')::float8"


# --- clusters ---------------------------------------------------------------------------------------------------------


@contextmanager
def clusters(*names: str, **settings: str) -> Iterator[list[PrivateServer]]:
    """Yield new clusters, which are removed in the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-relay-"))
        Path(folder).chmod(0o755)
        os.environ["ROLLBOOK_LOG_FILE"] = str(Path(folder) / "rollbook.log")
        made = [PrivateServer(Path(folder) / name, settings=SETTINGS | settings) for name in names]
        for server in made:
            stack.callback(server.remove)
        with ThreadPoolExecutor() as pool:
            list(pool.map(PrivateServer.start, made))
        yield made


def connect(server: PrivateServer, dbname: str = "postgres") -> Db:
    return psycopg.connect(server.dsn(dbname), autocommit=True)


def make_portal(server: PrivateServer, courses: int, users: int) -> str:
    """Make a portal with courses and users, each in three of them; return its conninfo."""
    with connect(server) as conn:
        conn.execute("create database portal")
    where = server.dsn("portal")
    migration.upgrade(where)
    with connect(server, "portal") as conn:
        fill(conn, courses, enrolled=False, users=users)
        rows = enrollment_query(courses)
        conn.execute(f"insert into portal.student_courseenrollment (user_id, course_id) {rows}".encode())
        conn.execute("vacuum analyze")
    return where


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cluster_cpu(server: PrivateServer) -> float:
    """Return the CPU seconds of a cluster: its postmaster, its processes, and those that have ended."""
    postmaster = (server.data / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if stat.parent.name == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# --- what servers cost the portal -------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What a round of updates has cost: CPU milliseconds and MB, each for 1,000 updates."""

    rate: float  # updates a second, as the clients had it
    senders: float  # CPU of the portal's WAL senders
    portal: float  # CPU of the portal, with them
    wal: float
    relay: float = 0.0  # CPU of the relay
    relay_senders: float = 0.0
    relay_wal: float = 0.0
    servers: float = 0.0  # CPU of the cluster of all servers


@dataclass
class Fed:
    """A portal whose courses are on servers, direct or behind a relay."""

    portal: PrivateServer
    relay: PrivateServer | None
    servers: PrivateServer

    @property
    def sources(self) -> list[PrivateServer]:
        """The clusters that feed others, in the order of the stream."""
        return [self.portal, *([self.relay] if self.relay else [])]

    def build(self, count: int, prefix: str) -> None:
        """Add so many servers, and spread the courses over them."""
        where = make_portal(self.portal, COURSES, USERS)
        route = ["--subscription-dsn", where]
        if self.relay is not None and count:
            with connect(self.relay) as conn:
                conn.execute("create database hub")
            rollbook(where, "server", "add", "hub", "--admin-dsn", self.relay.dsn("hub"), *route)
            route = ["--through", "hub", "--subscription-dsn", self.relay.dsn("hub")]
        with connect(self.portal, "portal") as conn:
            courses = [course for course, _ in course_rows(conn)]
        for number in range(count):
            name = f"{prefix}{number}"
            with connect(self.servers) as conn:
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            rollbook(where, "server", "add", name, "--admin-dsn", self.servers.dsn(name), *route)
            rollbook(where, "course", "attach", *courses[number::count], "--to", name)
        self.settle()

    def settle(self) -> None:
        """Wait until all have confirmed what their source has written."""
        for source in self.sources:
            with connect(source) as conn:
                ((end, _),) = conn.execute(WRITTEN).fetchall()
                conn.execute("select pg_log_standby_snapshot()")  # so that the end is flushed, and sent
                until(lambda: conn.execute(BEHIND, [end]).fetchall() == [(0,)])  # noqa: B023 (called here)

    def round(self, load: Callable[[PrivateServer], float], thousands: float) -> Cost:
        """Let clients write so many thousand changes; return what it has cost until the last server has them."""
        with ExitStack() as stack:
            conns = [stack.enter_context(connect(source)) for source in self.sources]
            senders = [[row[0] for row in conn.execute(SENDERS).fetchall()] for conn in conns]

            def measured() -> list[float]:
                written = [conn.execute(WRITTEN).fetchall()[0][1] / 2**20 for conn in conns]
                used = [sum(map(cpu, pids)) * 1000 for pids in senders]
                whole = [cluster_cpu(each) * 1000 for each in (*self.sources, self.servers)]
                return [*written, *used, *whole]

            before = measured()
            rate = load(self.portal)
            self.settle()
            spent = [(after - was) / thousands for after, was in zip(measured(), before, strict=True)]
            assert senders == [[row[0] for row in conn.execute(SENDERS).fetchall()] for conn in conns]
        if self.relay is None:
            wal, used, portal, servers = spent
            return Cost(rate, used, portal, wal, servers=servers)
        wal, relay_wal, used, relay_used, portal, relay, servers = spent
        return Cost(rate, used, portal, wal, relay, relay_used, relay_wal, servers)


def singly(portal: PrivateServer) -> float:
    """Let pgbench update users, each in three courses; return the updates a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set user random(1, {USERS})\n\\set value random(1, 1000000000)\n"
                     "update portal.auth_user set last_name = 'new' || :value::text where id = :user;\n")  # fmt: skip
        script.flush()
        done = subprocess.run(
            [portal.bindir / "pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-t", str(UPDATES), "-f",
             script.name, portal.dsn("portal")], check=True, capture_output=True, text=True,
        )  # fmt: skip
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    assert rate, done.stdout
    return float(rate[1])


def at_once(portal: PrivateServer) -> float:
    """Update all users in one transaction; return the users a second."""
    with connect(portal, "portal") as conn:
        began = time.perf_counter()
        conn.execute("update portal.auth_user set last_name = 'new' || %s", [began])
        return USERS / (time.perf_counter() - began)


def feeding(_bench: Bench) -> None:
    """Servers fed by the portal, and by one relay: CPU of portal, WAL senders and relay; updates a second."""
    print(f"CPU in ms and WAL in MB for 1,000 updates of a user in 3 courses; medians of {PAIRS}\n"
          f"{'':28}    portal:             (a sender,              relay:                 servers:\n"
          f"{'':28} updates/s   CPU  senders  a MB)   WAL       CPU  senders   WAL       CPU")  # fmt: skip
    for count in (0, *FED):
        with clusters("a", "b", "relay", "servers") as (first, second, relay, servers):
            sides = [Fed(first, None, servers), Fed(second, relay, servers)][: 2 if count else 1]
            for side, prefix in zip(sides, "dr", strict=False):
                side.build(count, prefix)
            for how, load, thousands in (
                (f"{CLIENTS} clients", singly, CLIENTS * UPDATES / 1000), ("at once", at_once, USERS / 1000),
            ):  # fmt: skip
                costs: list[list[Cost]] = [[] for _ in sides]
                for turn in range(PAIRS + 1):
                    for number in (0, 1) if turn % 2 else (1, 0):
                        if number < len(sides):
                            cost = sides[number].round(load, thousands)
                            costs[number] += [cost] if turn else []  # the first is not counted
                for number, spent in enumerate(costs):
                    where = "behind a relay" if number else "direct"
                    show(f"{count} {where}, {how}", 1 if number else count, spent)
            memory(sides[-1])


def memory(side: Fed) -> None:
    """Print what a WAL sender of the portal, and of the relay, holds of its own."""
    for source, words in zip(side.sources, ("portal", "relay"), strict=False):
        with connect(source) as conn:
            if pids := [row[0] for row in conn.execute(SENDERS).fetchall()]:
                print(f"  memory of a WAL sender of the {words}: {statistics.median(map(private_mb, pids)):.1f} MB")


def show(what: str, senders: int, costs: Sequence[Cost]) -> None:
    """Print the medians of rounds."""
    cost = Cost(*(statistics.median(column) for column in zip(*map(astuple, costs), strict=True)))
    each = cost.senders / cost.wal / max(1, senders)
    print(f"{what:28} {cost.rate:9.0f}  {cost.portal:4.0f}  {cost.senders:7.1f} ({each:4.1f})   {cost.wal:8.2f}  "
          f"{cost.relay:8.0f}  {cost.relay_senders:7.1f}  {cost.relay_wal:4.2f}  {cost.servers:8.0f}",
          flush=True)  # fmt: skip


# --- lag over two hops ------------------------------------------------------------------------------------------------


def hops(bench: Bench) -> None:
    """From a commit on the portal until a server behind a relay shows it, against a cascade made by hand."""
    with (
        bench.databases(COURSES, enrolled=True, users=USERS) as (routed, plain),
        second_server(bench) as relay, second_server(bench) as servers,
        ExitStack() as stack,
    ):  # fmt: skip
        for cluster in (relay, servers):
            with connect(cluster) as conn:
                conn.execute("create database ours")
                conn.execute("create database bare")
        hub, east = (stack.enter_context(connect(cluster, "bare")) for cluster in (relay, servers))
        courses = course_rows(routed)
        for portal in (routed, plain):
            enroll_one(portal, *courses[0])
        for source, where, target in ((plain, bench.server.dsn("plain"), hub), (hub, relay.dsn("bare"), east)):
            make_bare(Side(plain, target), [name for _, name in courses])
            source.execute("create publication bare")
            made = "create subscription bare connection {} publication bare with (synchronous_commit = local)"
            target.execute(sql.SQL(made).format(where))
            publish_bare(Side(source, target), [name for _, name in courses])
        where = bench.server.dsn("routed")
        rollbook(where, "server", "add", "hub", "--admin-dsn", relay.dsn("ours"), "--subscription-dsn", where)
        rollbook(where, "server", "add", "east", "--through", "hub", "--admin-dsn", servers.dsn("ours"),
                 "--subscription-dsn", relay.dsn("ours"))  # fmt: skip
        rollbook(where, "course", "attach", *(course for course, _ in courses), "--to", "east")
        homes = dict(routed.execute("select user_id, schemas::text[] from rollbook.route").fetchall())
        ours = stack.enter_context(connect(servers, "ours"))
        chains = [
            [(bench.server, first), (relay, then), (servers, then)]
            for first, then in (("routed", "ours"), ("plain", "bare"))
        ]
        before = [stream_cpu(chain) for chain in chains]
        lag(bench, Side(routed, ours), Side(plain, east), homes, "commit-to-visible lag over two hops", 1.2)
        mine, theirs = (stream_cpu(chain) - was for chain, was in zip(chains, before, strict=True))
        bench.note("  CPU of senders and workers, both hops, in all", mine, theirs, None)
        forget(servers, relay, bench.server)


def stream_cpu(databases: Sequence[tuple[PrivateServer, str]]) -> float:
    """Return the CPU seconds of the WAL senders and apply workers of these databases."""
    query = "select pid from pg_stat_activity where datname = %s and backend_type ~ 'walsender|logical replication'"
    used = 0.0
    for cluster, dbname in databases:
        with connect(cluster) as conn:
            used += sum(cpu(pid) for (pid,) in conn.execute(query, [dbname]).fetchall())
    return used


def forget(*clusters: PrivateServer) -> None:
    """Drop all subscriptions and slots, so that databases can be dropped."""
    for cluster in clusters:
        with connect(cluster) as conn:
            found = conn.execute("select d.datname, s.subname from pg_subscription s "
                                 "join pg_database d on d.oid = s.subdbid").fetchall()  # fmt: skip
        for dbname, name in found:
            with connect(cluster, dbname) as conn:
                subscription = sql.Identifier(name)
                for words in ("disable", "set (slot_name = none)"):
                    conn.execute(sql.SQL("alter subscription {} " + words).format(subscription))
                conn.execute(sql.SQL("drop subscription {}").format(subscription))
        with connect(cluster) as conn:
            until(lambda: is_free(conn))


def is_free(conn: Db) -> bool:
    """Drop the slots that nobody uses any more; say whether there is none left."""
    conn.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
    return not conn.execute("select from pg_replication_slots").rowcount


# --- asking many servers ----------------------------------------------------------------------------------------------


@contextmanager
def many(count: int) -> Iterator[tuple[PrivateServer, PrivateServer, Db, list[tuple[str, str]]]]:
    """Yield a portal, the cluster of so many servers with a course each, a session on the portal, and the courses."""
    # Without flushes: some hundred servers have as many disks.
    with clusters("portal", "servers", fsync="off") as (portal, servers), ExitStack() as stack:
        where = make_portal(portal, count, USERS)
        here, there = stack.enter_context(connect(portal, "portal")), stack.enter_context(connect(servers))
        rows = course_rows(here)
        there.execute("create database first")
        rollbook(where, "server", "add", "first", "--admin-dsn", servers.dsn("first"), "--subscription-dsn", where)
        rollbook(where, "course", "attach", rows[0][0], "--to", "first")
        for _ in range(BEATS):
            here.execute("select rollbook.beat()")
        rollbook(where, "replication", "wait", "--timeout", "60")
        forget(servers, portal)
        for number in range(count):
            copy_server(here, there, servers, f"s{number:04}", rows[0][1], rows[number])
        yield portal, servers, here, rows


def asking(_bench: Bench) -> None:
    """`rollbook status` of many servers with a course each: seconds, its own CPU, and the CPU of the portal."""
    program = str(Path(sys.executable).with_name("rollbook"))
    print(f"status, medians of {PAIRS}   seconds  its CPU  CPU of the portal")
    with many(max(ASKED)) as (portal, _, _, rows):
        for count in ASKED:
            asked = [program, "status", "--json", "-d", portal.dsn("portal"), *(course for course, _ in rows[:count])]
            rounds = []
            for _ in range(PAIRS + 1):
                began, used, theirs = time.perf_counter(), os.times(), cluster_cpu(portal)
                done = subprocess.run(asked, capture_output=True, text=True, check=False)
                wall, after = time.perf_counter() - began, os.times()
                own = after.children_user + after.children_system - used.children_user - used.children_system
                rounds.append((wall, own, cluster_cpu(portal) - theirs))
                assert done.returncode in (0, 3, 4), done.stderr
            medians = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
            states = Counter(row["state"] for row in json.loads(done.stdout)["courses"])
            print(f"{count:4} servers              {medians[0]:7.2f}  {medians[1]:7.2f}  {medians[2]:7.2f}  "
                  f"{dict(states)}", flush=True)  # fmt: skip


def copy_server(here: Db, there: Db, servers: PrivateServer, name: str, first: str, row: tuple[str, str]) -> None:
    """Make a server with a course as a copy of the first: adding some hundred by command would take too long."""
    course, schema = row
    there.execute(sql.SQL("create database {} template first").format(sql.Identifier(name)))
    here.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) "
        "select %s, %s, subscription_dsn, portal_identity from rollbook.server where name = 'first'",
        [name, servers.dsn(name)],
    )
    here.execute("update rollbook.course set server = %s, state = 'ok' where course_id = %s", [name, course])
    here.execute("select rollbook.publish_courses(%s)", [name])
    stream = f"rollbook_{name}"
    here.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [stream])
    with connect(servers, name) as conn:
        if schema != first:
            conn.execute(sql.SQL("alter schema {} rename to {}").format(*map(sql.Identifier, (first, schema))))
        create = sql.SQL(
            "create subscription {name} connection {route} publication {name} with (create_slot = false, "
            "slot_name = {slot}, copy_data = false, streaming = on, synchronous_commit = local)"
        )
        conn.execute(create.format(name=sql.Identifier(stream), route=here.info.dsn, slot=sql.Literal(stream)))


# --- servers that are broken, or silent -------------------------------------------------------------------------------


def broken(_bench: Bench) -> None:
    """`status` and `check` of 30 servers: all well, some silent, some broken; diagnosed as now, and one at a time."""
    print(f"{FLEET} servers, seconds, medians of {PAIRS} in turns: {DIAGNOSED_AT_ONCE} diagnosed at once, one, ratio")
    with many(FLEET) as (portal, servers, here, rows):
        where = portal.dsn("portal")
        rollbook(where, "replication", "wait", "--timeout", "60")
        in_turns(where, "all well")
        route = "update rollbook.server set admin_dsn = %s || name || %s where name = any(%s)"
        silent = [f"s{number:04}" for number in range(SILENT)]
        before, _, after = servers.dsn("DATABASE").partition("DATABASE")
        with socket.create_server(("127.0.0.1", 0), backlog=1000) as deaf:  # it takes connections, and says nothing
            here.execute(route, [f"host=127.0.0.1 port={deaf.getsockname()[1]} dbname=", "", silent])
            in_turns(where, f"{SILENT} silent")
        here.execute(route, [before, after, silent])
        done = 0
        for count in BROKEN:
            for number in range(done, count):
                with connect(servers, f"s{number:04}") as conn:
                    table = sql.Identifier(rows[number][1], "auth_user")
                    conn.execute(sql.SQL("alter table {} add constraint own check (false) not valid").format(table))
                here.execute(
                    "with u as (insert into portal.auth_user (username) values (%s) returning id) "
                    "insert into portal.student_courseenrollment (user_id, course_id) select id, %s from u",
                    [f"refused{number}", rows[number][0]],
                )
            done = count
            time.sleep(6)  # each worker has met it, and waits for its next try
            in_turns(where, f"{count} broken")
        forget(servers, portal)


def in_turns(where: str, words: str) -> None:
    """Time `status` and `check`, diagnosing as now and one server at a time, in turns; print medians and states."""
    start = (
        "import sys; from rollbook.replication import observe; observe.DIAGNOSED_AT_ONCE = int(sys.argv.pop(1)); "
        "from rollbook.program import main; main()"
    )
    for command in ("status", "check"):
        times: dict[int, list[float]] = {DIAGNOSED_AT_ONCE: [], 1: []}
        for turn in range(PAIRS + 1):
            for at_once in sorted(times, reverse=bool(turn % 2)):
                asked = [sys.executable, "-c", start, str(at_once), command, "--json", "-d", where]
                began = time.perf_counter()
                done = subprocess.run(asked, capture_output=True, text=True, check=False)
                times[at_once] += [time.perf_counter() - began] if turn else []  # the first is not counted
        found = json.loads(done.stdout)
        states = Counter(row["state"] for row in (found["courses"] if command == "status" else found))
        now, singly = (statistics.median(each) for each in times.values())
        spread = ", ".join(f"{min(each):.2f} to {max(each):.2f}" for each in times.values())
        print(f"{words:12} {command:8} {now:6.2f} {singly:6.2f}  {now / singly:4.2f}  ({spread})  {dict(states)}",
              flush=True)  # fmt: skip


# --- many servers behind one relay ------------------------------------------------------------------------------------


def behind(_bench: Bench) -> None:
    """What commands take with a course on each server behind one relay: all well, each failing, the relay down."""
    print("servers behind one relay; seconds (CPU of the program)")
    with clusters("portal", "relay", "servers", fsync="off") as (portal, relay, servers), ExitStack() as stack:
        where = make_portal(portal, max(BEHIND_ONE) + 1, USERS)
        here, there = stack.enter_context(connect(portal, "portal")), stack.enter_context(connect(servers))
        rows = course_rows(here)
        there.execute("create database first")
        with connect(relay) as conn:
            conn.execute("create database zone")
        zone = stack.enter_context(connect(relay, "zone"))
        rollbook(where, "server", "add", "hub", "--admin-dsn", relay.dsn("zone"), "--subscription-dsn", where)
        rollbook(where, "server", "add", "first", "--through", "hub", "--admin-dsn", servers.dsn("first"),
                 "--subscription-dsn", relay.dsn("zone"))  # fmt: skip
        rollbook(where, "course", "attach", *(course for course, _ in rows[:-1]), "--to", "first")
        forget(servers)
        made = 0
        for count in BEHIND_ONE:
            for number in range(made, count):
                copy_behind(here, zone, servers, f"s{number:02}", rows[number])
            made = count
            own = [course for course, _ in rows[:count]]
            rollbook(where, "replication", "wait", "--timeout", "60", *own)
            for words, asked in (
                ("status", ["status", *own]), ("server list", ["server", "list"]), ("check", ["check"]),
                ("replication wait", ["replication", "wait", *own]), ("doctor", ["doctor"]),
            ):  # fmt: skip
                timed(where, count, words, asked)
            timed(where, count, "course attach", ["course", "attach", rows[-1][0], "--to", f"s{count - 1:02}"])
            timed(where, count, "course detach", ["course", "detach", rows[-1][0], "--yes"])
            for number in range(count):
                with connect(servers, f"s{number:02}") as conn:
                    table = sql.Identifier(rows[number][1], "auth_user")
                    conn.execute(sql.SQL("alter table {} add constraint own check (first_name <> 'No')").format(table))
            here.execute(
                "update portal.auth_user set first_name = 'No' where id in (select min(user_id) from "
                "portal.student_courseenrollment where course_id = any (%s) group by course_id)",
                [own],
            )
            time.sleep(6)  # each worker has met it, and waits for its next try
            timed(where, count, "status, each failing", ["status", *own])
            for number in range(count):
                with connect(servers, f"s{number:02}") as conn:
                    table = sql.Identifier(rows[number][1], "auth_user")
                    conn.execute(sql.SQL("alter table {} drop constraint own").format(table))
            relay.stop()
            timed(where, count, "status, relay down", ["status", *own])
            relay.start()
            zone = stack.enter_context(connect(relay, "zone"))
            rollbook(where, "replication", "wait", "--timeout", "60", *own)
            here.execute("update portal.auth_user set first_name = 'Yes' where first_name = 'No'")
        forget(servers, relay, portal)


def timed(where: str, count: int, words: str, asked: Sequence[str]) -> None:
    """Run a command; print what it took, and its code and states."""
    program = str(Path(sys.executable).with_name("rollbook"))
    began, used = time.perf_counter(), os.times()
    done = subprocess.run([program, *asked, "--json", "-d", where], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, os.times()
    own = after.children_user + after.children_system - used.children_user - used.children_system
    found = json.loads(done.stdout) if done.stdout else []
    lines = found["courses"] if isinstance(found, dict) else found
    states = Counter(row.get("state") for row in lines)
    print(f"{count:4} servers  {words:24} {wall:6.2f} ({own:.2f})  {done.returncode} {dict(states)}", flush=True)


def copy_behind(here: Db, zone: Db, servers: PrivateServer, name: str, row: tuple[str, str]) -> None:
    """Make a server with a course behind the relay as a copy of the first, whose courses the relay has."""
    with connect(servers) as conn:
        conn.execute(sql.SQL("create database {} template first").format(sql.Identifier(name)))
    here.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity, through) "
        "select %s, %s, subscription_dsn, portal_identity, through from rollbook.server where name = 'first'",
        [name, servers.dsn(name)],
    )
    here.execute("update rollbook.course set server = %s where course_id = %s", [name, row[0]])
    stream, route = f"rollbook_{name}", zone.info.dsn
    with connect_portal(here.info.dsn, name="rollbook bench") as portal:
        zone.execute(publish(portal, find_server(portal, name)))
    zone.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [stream])
    with connect(servers, name) as conn:
        conn.execute("delete from rollbook.heartbeat")  # those since then were never sent to it
        create = sql.SQL(
            "create subscription {name} connection {route} publication {name} with (create_slot = false, "
            "slot_name = {slot}, copy_data = false, streaming = on, synchronous_commit = local)"
        )
        conn.execute(create.format(name=sql.Identifier(stream), route=route, slot=sql.Literal(stream)))


MEASURES: dict[str, Callable[[Bench], None]] = {
    function.__name__: function for function in (feeding, hops, asking, broken, behind)
}  # fmt: skip


SETTINGS_TEXT = """
settings, in the environment:
  BENCH_FED=1,4,8          feeding: how many servers are fed
  BENCH_SAMPLES=480        hops: how many changes are timed on each side, in blocks of 20
  BENCH_ASKED=50,200       asking: how many servers are asked
  BENCH_BROKEN=1,3,10      broken: how many of 30 servers are broken
  BENCH_BEHIND=1,10,30     behind: how many servers are behind one relay
  BENCH_PAIRS=5            feeding, asking, broken: how many rounds are counted

a quick look, about a minute each where nothing else runs:
  BENCH_FED=1 BENCH_PAIRS=1 python -m tests.bench.relay feeding
  BENCH_SAMPLES=20 python -m tests.bench.relay hops
"""


def usage() -> str:
    """Return what can be measured, and how much of it."""
    lines = ["usage: python -m tests.bench.relay [MEASURE ...]", "", "measures, all if none is named:"]
    lines += [f"  {name:8} {function.__doc__}" for name, function in MEASURES.items()]
    return "\n".join(lines) + "\n" + SETTINGS_TEXT


def end(number: int, _frame: FrameType | None) -> NoReturn:
    """End as after an error: the clusters are removed."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # once is enough, and removing takes a moment
    raise SystemExit(128 + number)


def main(names: Sequence[str]) -> None:
    """Run the named measures, or all."""
    if "-h" in names or "--help" in names:
        print(usage(), end="")
        return
    if unknown := [name for name in names if name not in MEASURES]:
        print(f"there is no measure {unknown[0]}\n\n{usage()}", end="", file=sys.stderr)
        raise SystemExit(2)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, end)
    for name in names or MEASURES:
        began = time.perf_counter()
        with clusters("portal") as (server,):
            MEASURES[name](Bench(server))
        print(f"({name}: {time.perf_counter() - began:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
