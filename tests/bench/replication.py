"""What a course server costs against bare native replication of the same tables, without routing and without Rollbook.

Two servers, alike in their settings. On the portal's: `routed` is Rollbook as it ships; `plain` is a clone of it whose
triggers are off, with a publication, a slot and a subscription made by hand, which flushes what it applies, as ours
does. On the other: `ours` and `bare`, which hold the same tables with the same indexes. One run measures both in turn.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import Connection, sql

from rollbook import cli
from rollbook.replication import repair, subscription
from rollbook.system.demo.server import PrivateServer
from tests.program import COPIED

if TYPE_CHECKING:
    from tests.bench.bench import Bench

Db = Connection[Any]
COURSES = 50
PER_SECOND = 20
SAMPLES, BLOCK = int(os.environ.get("BENCH_SAMPLES", "480")), 20  # lags measured on each side; so many in a row
SENDERS: LiteralString = """
select count(*)::int from pg_stat_activity where backend_type = 'walsender' and datname = current_database()
"""
CLIENTS, UPDATES = 4, 250  # of each client, in one round
STUDENTS = 100_000


@dataclass
class Side:
    """One portal database and its database on the other server, with a session on each."""

    portal: Db
    server: Db

    def is_copied(self) -> bool:
        """Say whether all first copies are done."""
        query = "select bool_and(srsubstate = 'r') from pg_subscription_rel"
        return self.server.execute(query).fetchall() == [(True,)]

    def sender(self) -> int:
        """Return the process that sends its changes."""
        query = "select active_pid from pg_replication_slots where database = current_database()"
        return int(self.portal.execute(query).fetchall()[0][0])

    def position(self) -> int:
        """Return where the portal's WAL ends, in bytes."""
        return int(self.portal.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchall()[0][0])

    def has_confirmed(self) -> bool:
        """Say whether the server has all that the portal has written by now."""
        query = (
            "select confirmed_flush_lsn >= pg_current_wal_flush_lsn() from pg_replication_slots "
            "where database = current_database()"
        )
        return self.portal.execute(query).fetchall() == [(True,)]


def until(condition: Callable[[], bool], pause: float = 0.01, seconds: float = 300) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come")
        time.sleep(pause)


def rollbook(portal: str, *arguments: str) -> None:
    """Run the program in process; nothing of what it says is shown unless it fails."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = cli.run([*arguments, "-d", portal])
    if code != 0:
        raise RuntimeError(f"rollbook {' '.join(arguments)}: exit code {code}\n{said.getvalue()}")


@contextmanager
def second_server(bench: Bench, settings: dict[str, str] | None = None) -> Iterator[PrivateServer]:
    """Start a server for courses, set as the portal's is but for these settings."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ["ROLLBOOK_LOG_FILE"] = str(Path(folder) / "rollbook.log")
        server = PrivateServer(Path(folder) / "pg", settings={**bench.server.settings, **(settings or {})})
        server.start()
        try:
            yield server
        finally:
            server.remove()


@contextmanager
def sides(bench: Bench, courses: int, everybody: int = 0) -> Iterator[tuple[Side, Side]]:
    """Yield ours, with a course server that has no course yet, and the yardstick's, whose subscription has no table.

    All courses are filled on the portal: with three of them for each user, or one with so many students.
    """
    with ExitStack() as stack:
        routed, plain = stack.enter_context(bench.databases(courses, enrolled=True, users=everybody))
        server = stack.enter_context(second_server(bench))
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create database ours")
            conn.execute("create database bare")
        ours, bare = (
            stack.enter_context(psycopg.connect(server.dsn(name), autocommit=True)) for name in ("ours", "bare")
        )
        plain.execute("create publication bare")
        made = "create subscription bare connection {} publication bare with (synchronous_commit = local)"
        bare.execute(sql.SQL(made).format(bench.server.dsn("plain")))
        rollbook(bench.server.dsn("routed"), "server", "add", "east", "--admin-dsn", server.dsn("ours"),
                 "--subscription-dsn", bench.server.dsn("routed"))  # fmt: skip
        try:
            yield Side(routed, ours), Side(plain, bare)
        finally:
            for conn in (ours, bare):
                drop_subscription(conn)
            for conn in (routed, plain):
                until(lambda conn=conn: drop_slot(conn))  # type: ignore[misc]


def drop_subscription(conn: Db) -> None:
    for (name,) in conn.execute("select subname from pg_subscription s join pg_database d on d.oid = s.subdbid "
                                "where d.datname = current_database()").fetchall():  # fmt: skip
        subscription = sql.Identifier(name)
        conn.execute(sql.SQL("alter subscription {} disable").format(subscription))
        conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
        conn.execute(sql.SQL("drop subscription {}").format(subscription))


def drop_slot(conn: Db) -> bool:
    """Drop the slot of a database; say whether there is none any more."""
    query = "select slot_name, active_pid from pg_replication_slots where database = current_database()"
    for name, pid in conn.execute(query).fetchall():
        if pid is not None:
            conn.execute("select pg_terminate_backend(%s)", [pid])
            return False
        conn.execute("select pg_drop_replication_slot(%s)", [name])
    return True


def course_rows(conn: Db) -> list[tuple[str, str]]:
    """Return id and schema of each course."""
    return conn.execute("select course_id, schema_name::text from rollbook.course order by 1").fetchall()


def make_bare(yardstick: Side, schemas: list[str]) -> None:
    """Make the tables of courses on the other server as they stand on the portal, without guards."""
    for name in schemas:
        with yardstick.server.transaction():
            yardstick.server.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
            for table in COPIED:
                for (words,) in yardstick.portal.execute(
                    "select rollbook.copy_statements(%(s)s, %(t)s) union all "
                    "(select rollbook.guard_statements(%(s)s, %(t)s) limit 2)", {"s": name, "t": table},
                ).fetchall():  # fmt: skip
                    yardstick.server.execute(words)


def publish_bare(yardstick: Side, schemas: list[str]) -> None:
    """Publish the tables of courses by hand, and let the subscription copy them."""
    listed = sql.SQL(", ").join(sql.Identifier(name, table) for name in schemas for table in COPIED)
    yardstick.portal.execute(sql.SQL("alter publication bare add table {}").format(listed))
    yardstick.server.execute("alter subscription bare refresh publication")
    until(yardstick.is_copied)


def forget_bare(yardstick: Side, schemas: list[str]) -> None:
    """Take the tables of courses out of the stream again, and away from the other server."""
    listed = sql.SQL(", ").join(sql.Identifier(name, table) for name in schemas for table in COPIED)
    yardstick.portal.execute(sql.SQL("alter publication bare drop table {}").format(listed))
    yardstick.server.execute("alter subscription bare refresh publication")
    for name in schemas:
        yardstick.server.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


# --- a stream that runs -----------------------------------------------------------------------------------------------


def flow(bench: Bench) -> None:
    """Fifty courses on one server: WAL senders; lag at 20 changes a second; 4 clients that write without a pause."""
    with sides(bench, COURSES) as (ours, yardstick):
        courses = course_rows(ours.portal)
        for portal in (ours.portal, yardstick.portal):  # the triggers of the one copy it; by hand on the other
            enroll_one(portal, *courses[0])
        make_bare(yardstick, [name for _, name in courses])
        publish_bare(yardstick, [name for _, name in courses])
        rollbook(bench.server.dsn("routed"), "course", "attach", *(course for course, _ in courses), "--to", "east")
        ((senders,),) = ours.portal.execute(SENDERS).fetchall()
        bench.note(f"WAL senders for {COURSES} courses on one server", senders, 1, 1.0, unit="")
        homes = dict(ours.portal.execute("select user_id, schemas::text[] from rollbook.route").fetchall())
        lag(bench, ours, yardstick, homes, f"commit-to-visible lag at {PER_SECOND} changes/s", 1.2)
        throughput(bench, ours, yardstick, homes)
        # A commit that is seen before it is flushed can be lost with the server: faster, and not what ours promises.
        yardstick.server.execute("alter subscription bare set (synchronous_commit = off)")
        until(lambda: yardstick.portal.execute(SENDERS).fetchall() == [(1,)])
        lag(bench, ours, yardstick, homes, "the same, bare replication not flushing what it applies", None)


def enroll_one(portal: Db, course: str, name: str) -> None:
    """Add a user who is in one course alone; fill the copy by hand where no trigger does."""
    portal.execute("insert into portal.auth_user (username) values ('one')")
    chosen = "from portal.auth_user where username = 'one'"
    portal.execute(f"insert into portal.student_courseenrollment (user_id, course_id) select id, %s {chosen}", [course])
    if portal.info.dbname == "plain":
        ((columns,),) = portal.execute(
            "select array_to_string(rollbook.replicated_columns('auth_user'), ', ')"
        ).fetchall()
        portal.execute(f"insert into {name}.auth_user ({columns}) select {columns} {chosen}")


def lag(
    bench: Bench, ours: Side, yardstick: Side, homes: dict[int, list[str]], what: str, limit: float | None
) -> None:  # fmt: skip
    """From a commit on the portal until the row is seen on the server; a few changes on each side in turn."""
    user, (name,) = next((user, schemas) for user, schemas in homes.items() if len(schemas) == 1)
    turn = iter(range(10**9))
    statements = (
        "update portal.auth_user set last_name = %s where id = %s",
        f"update {name}.auth_user set last_name = %s where id = %s",
    )
    query = f"select from {name}.auth_user where id = %s and last_name = %s"
    lags: tuple[list[float], list[float]] = ([], [])
    for block in range(2 * (SAMPLES // BLOCK) + 2):
        side = in_turn(block)
        each = (ours, yardstick)[side]
        for _ in range(BLOCK):
            value = f"lag{next(turn)}"
            began = time.perf_counter()
            each.portal.execute(statements[side], [value, user], prepare=True)
            committed = time.perf_counter()
            while not each.server.execute(query, [user, value], prepare=True).rowcount:
                pass
            arrived = time.perf_counter()
            if block > 1:
                lags[side].append(arrived - committed)
            time.sleep(max(0.0, began + 1 / PER_SECOND - arrived))
    for word, pick in (("median", statistics.median), ("p99", lambda found: statistics.quantiles(found, n=100)[98])):
        bench.note(f"{what}, {word}", pick(lags[0]), pick(lags[1]), limit)


def throughput(bench: Bench, ours: Side, yardstick: Side, homes: dict[int, list[str]]) -> None:
    """Four clients update users who are in three courses; then how long until the server has the last of it."""
    turn = iter(range(10**9))
    everybody = sorted(user for user, schemas in homes.items() if len(schemas) == 3)
    users = [everybody[number * 50 : number * 50 + 50] for number in range(CLIENTS)]

    def updated(conn: Db, mine: list[int]) -> tuple[str, int]:
        for n in range(UPDATES):
            values = (f"new{next(turn)}", mine[n % len(mine)])
            conn.execute("update portal.auth_user set last_name = %s where id = %s", values, prepare=True)
        return values

    def by_hand(conn: Db, mine: list[int]) -> tuple[str, int]:
        for n in range(UPDATES):
            values = (f"new{next(turn)}", mine[n % len(mine)])
            with conn.transaction():
                conn.execute("update portal.auth_user set last_name = %s where id = %s", values, prepare=True)
                for name in homes[values[1]]:
                    conn.execute(f"update {name}.auth_user set last_name = %s where id = %s", values, prepare=True)
        return values

    def is_there(side: Side, name: str, user: int) -> bool:
        return bool(side.server.execute(f"select from {homes[user][0]}.auth_user where last_name = %s and id = %s",
                                        [name, user]).rowcount)  # fmt: skip

    writing: tuple[list[float], list[float]] = ([], [])
    catching: tuple[list[float], list[float]] = ([], [])
    together: tuple[list[float], list[float]] = ([], [])
    used, written_mb = [0.0, 0.0], [0.0, 0.0]
    with ThreadPoolExecutor(CLIENTS) as pool, ExitStack() as stack:
        sessions = [[stack.enter_context(bench.connect(name)) for _ in range(CLIENTS)] for name in ("routed", "plain")]
        for block in range(2 * bench.pairs + 2):
            side = in_turn(block)
            each, write = (ours, yardstick)[side], (updated, by_hand)[side]
            position, cpu = each.position(), cpu_seconds(each.sender())
            began = time.perf_counter()
            last = list(pool.map(write, sessions[side], users))
            written = time.perf_counter()
            for name, user in last:
                until(lambda: is_there(each, name, user), pause=0.002)  # noqa: B023 (called within the round)
            caught_up = time.perf_counter()
            until(lambda: all(one.has_confirmed() for one in (ours, yardstick)))
            if block > 1:
                writing[side].append((written - began) / (CLIENTS * UPDATES))
                catching[side].append(caught_up - written)
                together[side].append((caught_up - began) / (CLIENTS * UPDATES))
                used[side] += cpu_seconds(each.sender()) - cpu
                written_mb[side] += (each.position() - position) / 2**20
    for what, (mine, theirs) in (
        (f"user update, 3 courses on a server, {CLIENTS} clients", writing),
        (f"catching up after {CLIENTS * UPDATES:,} of them", catching),
        ("user update until it has arrived, as a mean", together),
    ):
        bench.note(what, statistics.median(mine), statistics.median(theirs), None)
    bench.note("CPU of the WAL sender, a MB of WAL", used[0] / written_mb[0], used[1] / written_mb[1], None)


def in_turn(block: int) -> int:
    """Return whose turn it is: ours, theirs, theirs, ours, ..."""
    return (block + block // 2) % 2


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- a first copy -----------------------------------------------------------------------------------------------------


def first_copy(bench: Bench) -> None:
    """`course attach` of a course with 100,000 students, as a whole and by its parts, against a subscription's copy."""
    with sides(bench, 1, STUDENTS) as (ours, yardstick):
        ((course, name),) = course_rows(ours.portal)
        where = bench.server.dsn("routed")
        parts: dict[str, list[float]] = {"native copy": [], "comparison": []}

        def attach() -> None:
            with timed(subscription, "refresh_copying", parts["native copy"]), \
                    timed(subscription, "await_copies", parts["native copy"]), \
                    timed(repair, "compare", parts["comparison"]):  # fmt: skip
                rollbook(where, "course", "attach", course, "--to", "east")

        def detach() -> None:
            if ours.server.execute("select to_regnamespace(%s)", [name]).fetchall() != [(None,)]:
                rollbook(where, "course", "detach", course, "--yes")
            settle()

        def subscribe() -> None:
            make_bare(yardstick, [name])
            publish_bare(yardstick, [name])

        def forget() -> None:
            if yardstick.server.execute("select to_regnamespace(%s)", [name]).fetchall() != [(None,)]:
                forget_bare(yardstick, [name])
            settle()

        def settle() -> None:
            for conn in (ours.portal, ours.server):
                conn.execute("checkpoint")

        bench.measure(f"course attach, {STUDENTS:,} students", 2, (attach, subscribe), (detach, forget))
        yard = bench.results[-1]["yardstick"]
        copies = [sum(pair) for pair in zip(*[iter(parts["native copy"])] * 2, strict=True)]
        bench.note("  of it the copy by PostgreSQL", statistics.median(copies[1:]), yard, None)
        bench.note("  of it the comparison", statistics.median(parts["comparison"][1:]), yard, None)


@contextmanager
def timed(module: Any, name: str, into: list[float]) -> Iterator[None]:
    """Note how long each call of a function takes."""
    function = getattr(module, name)

    def noting(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            into.append(time.perf_counter() - began)

    setattr(module, name, noting)
    try:
        yield
    finally:
        setattr(module, name, function)


MEASURES: dict[str, Callable[[Bench], None]] = {function.__name__: function for function in (flow, first_copy)}
