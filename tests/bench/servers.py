"""What an operator waits for: the status of many servers, a repair there, a server that catches up after a pause."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.bench.replication import (
    SENDERS,
    STUDENTS,
    Db,
    Side,
    course_rows,
    drop_slot,
    drop_subscription,
    make_bare,
    publish_bare,
    rollbook,
    second_server,
    sides,
    until,
)
from tests.program import COPIED

if TYPE_CHECKING:
    from tests.bench.bench import Bench

SERVERS = int(os.environ.get("BENCH_SERVERS", "20"))
TIMEOUT = 5  # seconds


# --- status of many servers, two of them dead -------------------------------------------------------------------------


@contextmanager
def silent() -> Iterator[str]:
    """Yield the route to a server that takes the connection and never answers, as a stopped postmaster does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"host=127.0.0.1 port={listening.getsockname()[1]} dbname=gone"


@contextmanager
def unheard() -> Iterator[str]:
    """Yield the route to a host that drops each packet: Linux does so where the queue of a socket is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"host=127.0.0.1 port={listening.getsockname()[1]} dbname=gone"


def status(bench: Bench) -> None:
    """`rollbook status`, as a whole, of servers with a course each, two of which do not answer, against its timeout."""
    names = [f"s{n:02}" for n in range(SERVERS)]
    many = {
        "max_logical_replication_workers": str(SERVERS + 4), "max_worker_processes": str(SERVERS + 12),
        "max_replication_slots": str(SERVERS + 4),
    }  # fmt: skip
    with ExitStack() as stack:
        portal, _ = stack.enter_context(bench.databases(SERVERS, enrolled=True, users=1000))
        if portal.info.server_version >= 180000:
            many["max_active_replication_origins"] = str(SERVERS + 4)
        server = stack.enter_context(second_server(bench, many))
        where = bench.server.dsn("routed")
        courses = [row[0] for row in portal.execute("select course_id from rollbook.course order by 1").fetchall()]
        admin = stack.enter_context(psycopg.connect(server.dsn(), autocommit=True))
        for name, course in zip(names, courses, strict=True):
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            rollbook(where, "server", "add", name, "--admin-dsn", server.dsn(name), "--subscription-dsn", where)
            rollbook(where, "course", "attach", course, "--to", name)
        routes = [stack.enter_context(silent()), stack.enter_context(unheard())]
        for name, route in zip(names, routes, strict=False):
            portal.execute("update rollbook.server set admin_dsn = %s where name = %s", [route, name])
        program = Path(sys.executable).with_name("rollbook")
        times = []
        for _ in range(bench.pairs):
            began = time.perf_counter()
            asked = subprocess.run(
                [program, "status", "--timeout", str(TIMEOUT), "--json", "-d", where], capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            times.append(time.perf_counter() - began)
            assert asked.returncode == 3, asked.stderr
            assert (asked.stdout.count('"unreachable"'), asked.stdout.count('"ok"')) == (2, SERVERS - 2), asked.stdout
        bench.note(f"status of {SERVERS} servers, 2 of them dead, --timeout {TIMEOUT}", statistics.median(times),
                   TIMEOUT, 1.2)  # fmt: skip
        for name in names:
            with psycopg.connect(server.dsn(name), autocommit=True) as conn:
                drop_subscription(conn)
        until(lambda: drop_slot(portal))


# --- a repair on a server ---------------------------------------------------------------------------------------------

WRONG = 25_000  # rows, of a course with as many students
CHANGED, MISSING, EXTRA = (WRONG * part // 10 for part in (4, 4, 2))


def repair(bench: Bench) -> None:
    """`rollbook replication repair` of 25,000 rows on a server, against deleting and inserting them there by hand."""
    with sides(bench, 1, WRONG) as (ours, yardstick):
        ((course, name),) = course_rows(ours.portal)
        where = bench.server.dsn("routed")
        rollbook(where, "course", "attach", course, "--to", "east")
        make_bare(yardstick, [name])
        publish_bare(yardstick, [name])
        wrong = {
            "auth_user": (f"id <= {CHANGED}", f"update {name}.auth_user set last_name = 'wrong' where id <= {CHANGED}"),
            "auth_userprofile": (f"id <= {MISSING}", f"delete from {name}.auth_userprofile where id <= {MISSING}"),
            "student_courseenrollment": (
                f"id <= {EXTRA}",
                f"insert into {name}.student_courseenrollment (id, user_id, course_id, created) select 10000000 + id, "
                f"user_id, course_id, created from {name}.student_courseenrollment where id <= {EXTRA}",
            ),
        }
        columns = {
            table: ours.portal.execute("select array_to_string(rollbook.replicated_columns(%s), ', ')", [table])
            .fetchall()[0][0] for table in COPIED
        }  # fmt: skip

        def spoil(conn: Db) -> None:
            with conn.transaction():
                conn.execute("set local session_replication_role = replica")
                for _, statement in wrong.values():
                    conn.execute(statement)
            conn.execute("checkpoint")

        def ours_repaired() -> None:
            rollbook(where, "replication", "repair", course, "--yes")

        def by_hand() -> None:
            with yardstick.server.transaction():
                for table, (rows, _) in wrong.items():
                    place = f"{name}.{table}"
                    yardstick.server.execute(f"delete from {place} where {rows} or id > 10000000")
                    source = f"copy (select {columns[table]} from {place} where {rows}) to stdout"
                    target = f"copy {place} ({columns[table]}) from stdin"
                    with yardstick.portal.cursor().copy(source) as out, \
                            yardstick.server.cursor().copy(target) as into:  # fmt: skip
                        for block in out:
                            into.write(block)

        bench.measure(f"repair of {WRONG:,} wrong rows on a server", 5, (ours_repaired, by_hand),
                      (lambda: spoil(ours.server), lambda: spoil(yardstick.server)))  # fmt: skip


# --- catching up after a pause ----------------------------------------------------------------------------------------

CAUGHT_UP = """
select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where database = current_database()
"""


def catch_up(bench: Bench) -> None:
    """From the moment the stream goes on until the server has all, against a subscription with PostgreSQL's defaults.

    The changes are single rows, each in a transaction of its own, or all in one. The yardstick updates the copies
    alone; a second one updates the portal's rows too, so that both sides have the same rows to decode.
    """
    with sides(bench, 1, STUDENTS) as (ours, yardstick):
        ((course, name),) = course_rows(ours.portal)
        where = bench.server.dsn("routed")
        rollbook(where, "course", "attach", course, "--to", "east")
        make_bare(yardstick, [name])
        yardstick.server.execute("alter subscription bare set (synchronous_commit = off)")
        publish_bare(yardstick, [name])
        turn = iter(range(10**9))

        def switch(side: Side, word: str) -> None:
            stream = sql.Identifier("rollbook_east" if side is ours else "bare")
            side.server.execute(sql.SQL(f"alter subscription {{}} {word}").format(stream))

        def one(side: Side, tables: list[str], rows: int, *, at_once: bool) -> float:
            switch(side, "disable")
            until(lambda: side.portal.execute(SENDERS).fetchall() == [(0,)])
            value = f"new{next(turn)}"
            for first, last in [(1, rows)] if at_once else [(row, row) for row in range(1, rows + 1)]:
                with side.portal.transaction():
                    for table in tables:
                        query = f"update {table} set last_name = %s where id between %s and %s"
                        side.portal.execute(query, [value, first, last], prepare=True)
            end = side.portal.execute("select pg_current_wal_insert_lsn()::text").fetchall()[0][0]
            began = time.perf_counter()
            switch(side, "enable")
            until(lambda: side.portal.execute(CAUGHT_UP, [end]).fetchall() == [(True,)], pause=0.005)
            took = time.perf_counter() - began
            assert side.server.execute(
                f"select count(*)::int from {name}.auth_user where last_name = %s", [value]
            ).fetchall() == [(rows,)]
            return took

        kinds = (
            (ours, ["portal.auth_user"]), (yardstick, [f"{name}.auth_user"]),
            (yardstick, ["portal.auth_user", f"{name}.auth_user"]),
        )  # fmt: skip
        for rows, at_once in ((1000, False), (STUDENTS, True)):
            times: list[list[float]] = [[], [], []]
            for block in range(bench.pairs + 1):  # the first is not counted
                for turn_of in (0, 1, 2) if block % 2 else (2, 1, 0):
                    took = one(*kinds[turn_of], rows, at_once=at_once)
                    if block:
                        times[turn_of].append(took)
            how = "in one transaction" if at_once else "in as many transactions"
            mine, copies_alone, same_rows = map(statistics.median, times)
            bench.note(f"catching up after {rows:,} row changes {how}", mine, copies_alone, 1.2)
            bench.note("  against the same rows to decode", mine, same_rows, 1.2)


MEASURES: dict[str, Callable[[Bench], None]] = {
    function.__name__: function for function in (status, repair, catch_up)
}  # fmt: skip
