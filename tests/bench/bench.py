"""Speed as ratios: each measure beside its yardstick, interleaved in the same run, medians. Not a test: nothing fails.

`make bench` runs all and writes bench.json; `python -m tests.bench.bench NAME...` runs some.
Two clones of one database: `routed` is Rollbook as it ships; in `plain` every trigger but the foreign keys is off, so
that a client may fill the same tables, with the same indexes, by hand.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql
from rich.console import Console
from rich.table import Table

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.bench import condition, replication, saturation, serializable, servers

USERS = 20_000
PAIRS = int(os.environ.get("BENCH_PAIRS", "7"))
Pair = tuple[Callable[[], None], Callable[[], None]]
TABLES = ("student_courseenrollment", "auth_userprofile", "auth_user")


class Bench:
    """A server with a database per layout, and the results so far."""

    pairs = PAIRS

    def __init__(self, server: PrivateServer) -> None:
        self.server = server
        self.results: list[dict[str, Any]] = []

    def connect(self, dbname: str) -> Connection[Any]:
        return psycopg.connect(self.server.dsn(dbname), autocommit=True)

    @contextmanager
    def databases(
        self, courses: int, enrolled: bool, users: int = 0, each: int = 3
    ) -> Iterator[tuple[Connection[Any], Connection[Any]]]:
        """Yield connections to `routed` and `plain`, with USERS users and so many courses; drop both at the end."""
        admin = self.connect("postgres")
        admin.execute("create database routed")
        schema.upgrade(self.server.dsn("routed"))
        with self.connect("routed") as routed:
            fill(routed, courses, enrolled=enrolled, users=users, each=each)
        admin.execute("create database plain template routed")
        with self.connect("routed") as routed, self.connect("plain") as plain:
            for table in TABLES:
                plain.execute(f"alter table portal.{table} disable trigger user")
                for name in schemas(plain):
                    plain.execute(f'alter table "{name}".{table} disable trigger user')
            for conn in (routed, plain):
                conn.execute("vacuum analyze")
            yield routed, plain
        for name in ("routed", "plain"):
            admin.execute(f"drop database {name} with (force)")
        admin.close()

    def measure(self, name: str, limit: float, pair: Pair, reset: Pair | None = None, rounds: int = 1) -> None:
        """Time ours and the yardstick in turn, PAIRS times after one warm-up, and note both medians and their ratio.

        `rounds` calls make one time, so that short things are not lost in the clock. Times in seconds a call.
        """
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(PAIRS + 1):
            for side in (0, 1) if turn % 2 else (1, 0):
                if reset:
                    reset[side]()
                began = time.perf_counter()
                for _ in range(rounds):
                    pair[side]()
                if turn:
                    times[side].append((time.perf_counter() - began) / rounds)
        ours, yardstick = (statistics.median(side) for side in times)
        self.note(name, ours, yardstick, limit)

    def note(self, name: str, ours: float, yardstick: float, limit: float | None, unit: str = "ms") -> None:
        """Keep and print a result; a limit of None: the ratio is for information."""
        ratio = ours / yardstick
        self.results.append(
            {
                "measure": name,
                "ours": ours,
                "yardstick": yardstick,
                "ratio": round(ratio, 3),
                "limit": limit,
                "unit": unit,
            }
        )
        scale = 1000 if unit == "ms" else 1
        verdict = "" if limit is None else f" (<= {limit}) {'ok' if ratio <= limit else 'missed'}"
        print(f"{name}: {ours * scale:.2f} {unit} / {yardstick * scale:.2f} {unit} = {ratio:.2f}{verdict}", flush=True)


def schemas(conn: Connection[Any]) -> list[str]:
    return [name for (name,) in conn.execute("select schema_name from rollbook.course order by course_id")]


def fill(conn: Connection[Any], courses: int, *, enrolled: bool, users: int = 0, each: int = 3) -> None:
    """USERS users, or so many, with profiles and, if so, `each` enrollments, spread evenly over the courses."""
    conn.execute(
        """
        insert into portal.auth_user (username, email, first_name, last_name, password, last_login)
        select 'user' || n, 'user' || n || '@example.com', 'First' || n, 'Last' || n,
               'pbkdf2_sha256$1000000$' || md5(n::text) || '$' || md5(n::text) || md5((n + 1)::text), now()
        from generate_series(1, %s) as n order by n
        """,
        [users or USERS],
    )
    conn.execute(
        """
        insert into portal.auth_userprofile (user_id, name, mailing_address, goals, year_of_birth, gender)
        select id, first_name || ' ' || last_name, id || ' Main Street', 'To learn ' || id, 1980, 'f'
        from portal.auth_user order by id
        """
    )
    for n in range(courses):
        conn.execute("select rollbook.create_course(%s)", [f"Bench/C{n:04}/2012"])
    if enrolled:
        enrollments = enrollment_query(courses, each)
        conn.execute("insert into portal.student_courseenrollment (user_id, course_id) " + enrollments)


def enrollment_query(courses: int, each: int = 3) -> str:
    return (
        f"select u.id, format('Bench/C%s/2012', lpad(((u.id * 7 + k * 17) % {courses})::text, 4, '0')) "
        f"from portal.auth_user as u, generate_series(0, {min(courses, each) - 1}) as k order by 1, 2"
    )


def clear(conn: Connection[Any]) -> None:
    """Take all enrollments and copies away, quickly and untimed."""
    names = [sql.Identifier(s, t) for s in schemas(conn) for t in TABLES]
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute("truncate portal.student_courseenrollment")
        conn.execute("truncate rollbook.route")
        for start in range(0, len(names), 300):
            conn.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(names[start : start + 300])))
    conn.execute("vacuum (analyze) portal.student_courseenrollment")
    conn.execute("checkpoint")


def columns(conn: Connection[Any], table: str) -> str:
    row = conn.execute("select array_to_string(rollbook.replicated_columns(%s), ', ')", [table]).fetchone()
    assert row
    return str(row[0])


def copy_enrollments(bench: Bench) -> None:
    """One COPY of 60,000 enrollments: routed, against COPY and then three INSERT ... SELECT a course by hand."""
    for courses, limit in ((50, 1.3), (1000, 1.5)):
        with bench.databases(courses, enrolled=False) as (routed, plain):
            rows = routed.execute(enrollment_query(courses)).fetchall()
            lists = {table: columns(routed, table) for table in TABLES}
            hand = [
                (row[0], row[1])
                for row in plain.execute("select course_id, schema_name from rollbook.course order by 1").fetchall()
            ]

            def copy(conn: Connection[Any], rows: list[Any] = rows) -> None:
                with conn.cursor().copy(
                    "copy portal.student_courseenrollment (user_id, course_id) from stdin"
                ) as copier:
                    for row in rows:
                        copier.write_row(row)

            def ours(routed: Connection[Any] = routed) -> None:
                copy(routed)

            def yardstick(
                plain: Connection[Any] = plain, hand: list[Any] = hand, lists: dict[str, str] = lists
            ) -> None:
                with plain.transaction():
                    copy(plain)
                    for course_id, name in hand:
                        members = "(select user_id from portal.student_courseenrollment where course_id = %s)"
                        for table, where in (
                            ("auth_user", f"id in {members}"),
                            ("auth_userprofile", f"user_id in {members}"),
                            ("student_courseenrollment", "course_id = %s"),
                        ):
                            plain.execute(
                                f"insert into {name}.{table} ({lists[table]}) "
                                f"select {lists[table]} from portal.{table} where {where}",
                                [course_id],
                                prepare=False,
                            )

            bench.measure(
                f"COPY 60,000 enrollments, {courses} courses",
                limit,
                (ours, yardstick),
                (lambda routed=routed: clear(routed), lambda plain=plain: clear(plain)),  # type: ignore[misc]
            )


def update_user(bench: Bench) -> None:
    """One user in three courses, or in thirty, one column: against a client that updates portal and copies by hand."""
    for courses, each, users, rounds in ((50, 3, USERS, 400), (30, 30, 2000, 60)):
        with bench.databases(courses, enrolled=True, users=users, each=each) as (routed, plain):
            turn = iter(range(10**9))
            homes = dict(routed.execute("select user_id, schemas from rollbook.route where user_id < 200").fetchall())

            def ours(routed: Connection[Any] = routed, turn: Iterator[int] = turn) -> None:
                n = next(turn)
                routed.execute(
                    "update portal.auth_user set last_name = %s where id = %s", [f"new{n}", 1 + n % 199], prepare=True
                )

            def yardstick(
                plain: Connection[Any] = plain, turn: Iterator[int] = turn, homes: dict[int, list[str]] = homes
            ) -> None:
                n = next(turn)
                user = 1 + n % 199
                with plain.transaction():
                    plain.execute(
                        "update portal.auth_user set last_name = %s where id = %s", [f"new{n}", user], prepare=True
                    )
                    for name in homes[user]:
                        plain.execute(
                            f"update {name}.auth_user set last_name = %s where id = %s", [f"new{n}", user], prepare=True
                        )

            bench.measure(f"single user update, {each} courses", 1.0, (ours, yardstick), rounds=rounds)


def update_unlisted(bench: Bench) -> None:
    """A column that is not on the whitelist: with the triggers against without; single rows and all rows."""
    with bench.databases(50, enrolled=True) as (routed, plain):
        for conn in (routed, plain):
            conn.execute("alter table portal.auth_user add column karma integer not null default 0")
            conn.execute("vacuum full analyze portal.auth_user")
        turn = iter(range(10**9))

        def single(conn: Connection[Any]) -> Callable[[], None]:
            return lambda: conn.execute(  # type: ignore[return-value]
                "update portal.auth_user set karma = karma + 1 where id = %s", [1 + next(turn) % 199], prepare=True
            )

        def bulk(conn: Connection[Any]) -> Callable[[], None]:
            return lambda: conn.execute("update portal.auth_user set karma = karma + 1")  # type: ignore[return-value]

        def vacuum(conn: Connection[Any]) -> Callable[[], None]:
            return lambda: conn.execute("vacuum portal.auth_user")  # type: ignore[return-value]

        def copies() -> int:
            row = routed.execute(
                "select sum(n_tup_upd) from pg_stat_user_tables where schemaname ~ '^course_'"
            ).fetchone()
            assert row
            return int(row[0] or 0)

        before = copies()
        bench.measure("update of an unlisted column, one row", 1.5, (single(routed), single(plain)), rounds=400)
        bench.measure(
            "update of an unlisted column, all rows", 1.5, (bulk(routed), bulk(plain)), (vacuum(routed), vacuum(plain))
        )
        time.sleep(1.5)  # the statistics arrive
        assert copies() == before, "an update of an unlisted column wrote a copy"


def update_many_courses(bench: Bench) -> None:
    """The same single user update with 2,000 courses in the database against 50."""
    few = bench.databases(50, enrolled=False)
    with few as (small, _):
        small.execute("insert into portal.student_courseenrollment (user_id, course_id) " + enrollment_query(50))
        small.execute("vacuum analyze")
        admin = bench.connect("postgres")
        admin.execute("drop database plain with (force)")
        admin.execute("create database large")
        schema.upgrade(bench.server.dsn("large"))
        with bench.connect("large") as large:
            fill(large, 2000, enrolled=False)
            large.execute(  # in 3 of the first 50, as in the small one
                "insert into portal.student_courseenrollment (user_id, course_id) " + enrollment_query(50)
            )
            large.execute("vacuum analyze")
            turn = iter(range(10**9))

            def update(conn: Connection[Any]) -> Callable[[], None]:
                return lambda: conn.execute(  # type: ignore[return-value]
                    "update portal.auth_user set last_name = %s where id = %s",
                    [f"new{(n := next(turn))}", 1 + n % 199],
                    prepare=True,
                )

            bench.measure(
                "single user update, 2,000 courses against 50", 1.15, (update(large), update(small)), rounds=400
            )
            memory(bench, large)
        admin.execute("drop database large with (force)")
        admin.execute("create database plain")
        admin.close()


def memory(bench: Bench, large: Connection[Any]) -> None:
    """How much one backend grows by updating users in 2,000 different courses, in MB of private memory."""
    large.execute(
        """
        insert into portal.student_courseenrollment (user_id, course_id)
        select n + 1, format('Bench/C%s/2012', lpad(n::text, 4, '0')) from generate_series(0, 1999) as n
        on conflict do nothing
        """
    )
    with bench.connect("large") as conn:
        pid = conn.info.backend_pid
        conn.execute("update portal.auth_user set last_name = 'warm' where id = 15000")
        before = private_mb(pid)
        for user in range(1, 2001):
            conn.execute("update portal.auth_user set last_name = 'memory' where id = %s", [user], prepare=True)
        grown = private_mb(pid) - before
        bench.note("backend memory after 2,000 courses", grown, 60, 1.0, unit="MB")


def private_mb(pid: int) -> float:
    """Return the anonymous memory of a backend: its own, without the shared buffers that it has touched."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def create_course(bench: Bench) -> None:
    """create_course with 100,000 waiting enrollments against INSERT ... SELECT of the same rows."""
    global USERS  # noqa: PLW0603 (one layout needs more users)
    USERS, usual = 100_000, USERS
    with bench.databases(1, enrolled=False) as (routed, plain):
        for conn in (routed, plain):
            conn.execute(
                "insert into portal.student_courseenrollment (user_id, course_id) "
                "select id, 'Big' from portal.auth_user"
            )
            conn.execute("vacuum analyze")
        name = schemas(plain)[0]
        lists = {table: columns(plain, table) for table in TABLES}

        def ours() -> None:
            routed.execute("select rollbook.create_course('Big')")

        def drop() -> None:
            if routed.execute("select 1 from rollbook.course where course_id = 'Big'").fetchone():
                routed.execute("select rollbook.drop_course('Big')")
            routed.execute("vacuum rollbook.route")
            routed.execute("checkpoint")

        members = "(select user_id from portal.student_courseenrollment where course_id = 'Big')"

        def yardstick() -> None:
            with plain.transaction():
                for table, where in (
                    ("auth_user", f"id in {members}"),
                    ("auth_userprofile", f"user_id in {members}"),
                    ("student_courseenrollment", "course_id = 'Big'"),
                ):
                    plain.execute(
                        f"insert into {name}.{table} ({lists[table]}) "
                        f"select {lists[table]} from portal.{table} where {where}"
                    )

        def empty() -> None:
            plain.execute(f"truncate {name}.auth_user, {name}.auth_userprofile, {name}.student_courseenrollment")
            plain.execute("checkpoint")

        bench.measure("create_course, 100,000 waiting", 1.3, (ours, yardstick), (drop, empty))
    USERS = usual


def verify(bench: Bench) -> None:
    """verify of all courses against one md5 of every row on both sides."""
    with bench.databases(50, enrolled=True) as (routed, _):
        lists = {table: columns(routed, table) for table in TABLES}
        homes = routed.execute("select course_id, schema_name from rollbook.course").fetchall()

        def ours() -> None:
            assert routed.execute("select * from rollbook.verify()").fetchall() == []

        def yardstick() -> None:
            for course_id, name in homes:
                members = "(select user_id from portal.student_courseenrollment where course_id = %s)"
                for table, where in (
                    ("auth_user", f"id in {members}"),
                    ("auth_userprofile", f"user_id in {members}"),
                    ("student_courseenrollment", "course_id = %s"),
                ):
                    scan = "select count(*), sum(('x' || left(md5(row({})::text), 15))::bit(60)::bigint) from {}"
                    routed.execute(
                        scan.format(lists[table], f"portal.{table} where {where}"), [course_id], prepare=False
                    )
                    routed.execute(scan.format(lists[table], f"{name}.{table}"), prepare=False)

        bench.measure("verify of all courses (SQL)", 1.5, (ours, yardstick))

        def counted() -> None:
            assert {row[-1] for row in routed.execute("select * from rollbook.compare(null)")} == {"match"}

        bench.measure("verify of all courses (compare, as the command line)", 1.5, (counted, yardstick))


MEASURES = (
    {
        f.__name__: f
        for f in (copy_enrollments, update_user, update_unlisted, update_many_courses, create_course, verify)
    }
    | condition.MEASURES
    | replication.MEASURES
    | servers.MEASURES
    | serializable.MEASURES
    | saturation.MEASURES
)


def main(names: list[str]) -> None:
    """Run the named measures, or all, on a private server that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(
            Path(folder) / "pg",
            settings={
                "shared_buffers": "512MB",
                "max_wal_size": "4GB",
                "max_locks_per_transaction": "1024",
                "autovacuum": "off",
                "max_wal_senders": str(servers.SERVERS + 4),
                "max_replication_slots": str(servers.SERVERS + 4),
            },
        )
        server.start()
        try:
            bench = Bench(server)
            version = bench.connect("postgres").execute("show server_version").fetchone()
            for name in names or MEASURES:
                MEASURES[name](bench)
        finally:
            server.remove()
    table = Table(
        "measure", "ours", "yardstick", "ratio", "limit", title=f"PostgreSQL {version[0] if version else '?'}"
    )
    for r in bench.results:
        scale, digits = (1000, 2) if r["unit"] == "ms" else (1, 1)
        table.add_row(
            r["measure"],
            *(f"{r[side] * scale:,.{digits}f} {r['unit']}" for side in ("ours", "yardstick")),
            f"{r['ratio']:.2f}",
            f"<= {r['limit']}" if r["limit"] is not None else "",
        )
    Console().print(table)
    Path("bench.json").write_text(json.dumps(bench.results, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
