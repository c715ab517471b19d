"""Imports against psql's \\copy of the same rows into the same tables, interleaved in the same run, medians.

`python -m tests.bench.bulk [users|enrollments]...`. Both sides are processes with all triggers on and every row
committed; psql is given the ids that its rows need, the program finds them, and judges each row as well.
"""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.bench.bench import PAIRS

ROWS = int(os.environ.get("BENCH_ROWS", "100000"))
COURSES = 50
LIMIT = 2.0  # times the yardstick: at least half as fast
USERS = "username,email,name,gender,level_of_education,year_of_birth,mailing_address,goals,language,location"
PROFILES = "user_id,name,gender,level_of_education,year_of_birth,mailing_address,goals,language,location"
SEATS = "portal.student_courseenrollment"


def psql(dsn: str, *commands: str) -> None:
    """Run \\copy commands in one transaction."""
    options = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        [str(Path(find_bindir()) / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", dsn, *options], check=True
    )


def rollbook(dsn: str, *arguments: str) -> None:
    """Run the program; its answer goes nowhere, but is written."""
    subprocess.run(
        [sys.executable, "-c", "from rollbook.cli import main; main()", *arguments, "-d", dsn],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def measure(name: str, ours: Callable[[], None], yardstick: Callable[[], None], reset: Callable[[], None]) -> None:
    """Time both in turn, PAIRS times after one warm-up; print both medians and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(PAIRS + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            reset()
            began = time.perf_counter()
            (ours, yardstick)[side]()
            if turn:
                times[side].append(time.perf_counter() - began)
    mine, theirs = (statistics.median(side) for side in times)
    verdict = "ok" if mine / theirs <= LIMIT else "missed"
    print(f"{name}: {mine:.2f} s / {theirs:.2f} s = {mine / theirs:.2f} (<= {LIMIT}) {verdict}", flush=True)


def users(db: Connection[Any], dsn: str, folder: Path) -> None:
    """User, profile and key for each row, against three \\copy of rows with their ids."""

    def profile(n: int) -> str:
        return f"Name {n} Foo,f,hs,{1950 + n % 50},{n} Main Street,To learn {n},en,Boston"

    numbers = range(1, ROWS + 1)
    one, account, person, key = (folder / name for name in ("one.csv", "account.csv", "person.csv", "key.csv"))
    one.write_text("\n".join([USERS, *(f"user{n},user{n}@example.com,{profile(n)}" for n in numbers)]) + "\n")
    account.write_text("".join(f"{n},user{n},user{n}@example.com,f\n" for n in numbers))
    person.write_text("".join(f"{n},{profile(n)}\n" for n in numbers))
    key.write_text("".join(f"{n},{secrets.token_hex(16)}\n" for n in numbers))

    def reset() -> None:
        db.execute("truncate portal.auth_user restart identity cascade")
        db.execute("truncate rollbook.route")
        db.execute("checkpoint")

    measure(
        f"user import, {ROWS} rows",
        lambda: rollbook(dsn, "user", "import", str(one)),
        lambda: psql(
            dsn, f"\\copy portal.auth_user (id,username,email,is_active) from '{account}' csv",
            f"\\copy portal.auth_userprofile ({PROFILES}) from '{person}' csv",
            f"\\copy portal.auth_registration (user_id,activation_key) from '{key}' csv",
        ),
        reset,
    )  # fmt: skip


def enrollments(db: Connection[Any], dsn: str, folder: Path) -> None:
    """Enrollments by username, against one \\copy by user id."""
    people = ROWS // 2
    db.execute("truncate portal.auth_user restart identity cascade")
    db.execute(
        "insert into portal.auth_user (id, username, email) "
        "select n, 'user' || n, 'user' || n || '@example.com' from generate_series(1, %s) as n",
        [people],
    )
    db.execute("insert into portal.auth_userprofile (user_id, name) select id, username from portal.auth_user")
    for n in range(COURSES):
        db.execute("select rollbook.create_course(%s)", [f"Bench/C{n:04}/2012"])
    schemas = [name for (name,) in db.execute("select schema_name from rollbook.course order by 1")]
    seats = [(1 + n % people, f"Bench/C{(n * 7 + n // people) % COURSES:04}/2012") for n in range(ROWS)]
    assert len(set(seats)) == ROWS
    named, numbered = folder / "named.csv", folder / "numbered.csv"
    named.write_text("course_id,user\n" + "".join(f"{course},user{n}\n" for n, course in seats))
    numbered.write_text("".join(f"{n},{course}\n" for n, course in seats))
    copies = ", ".join(
        f"{name}.{table}" for name in schemas for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
    )

    def reset() -> None:
        with db.transaction():
            db.execute("set local session_replication_role = replica")
            db.execute(f"truncate {SEATS}, rollbook.route, {copies}".encode())
        db.execute(f"vacuum (analyze) {SEATS}".encode())
        db.execute("checkpoint")

    db.execute("vacuum analyze")
    measure(
        f"enrollment import, {ROWS} rows, {COURSES} courses",
        lambda: rollbook(dsn, "enrollment", "import", str(named)),
        lambda: psql(dsn, f"\\copy {SEATS} (user_id,course_id) from '{numbered}' csv"),
        reset,
    )


MEASURES = {measure.__name__: measure for measure in (users, enrollments)}


def main(names: list[str]) -> None:
    """Run the named measures, or both, on a private server that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as where:
        folder = Path(where)
        folder.chmod(0o755)
        settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_locks_per_transaction": "1024",
                    "autovacuum": "off"}  # fmt: skip
        server = PrivateServer(folder / "pg", settings=settings)
        server.start()
        try:
            for name in names or MEASURES:
                dsn = server.dsn(f"bench_{name}")
                with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
                    conn.execute(f"create database bench_{name}".encode())
                schema.upgrade(dsn)
                with psycopg.connect(dsn, autocommit=True) as db:
                    MEASURES[name](db, dsn, folder)
        finally:
            server.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
