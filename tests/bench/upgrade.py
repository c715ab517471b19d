"""How long writers wait for `rollbook schema upgrade`: `python -m tests.bench.upgrade`.

BENCH_COURSES (200) courses, BENCH_USERS (20000) users in 3 courses each, BENCH_WRITERS (4) sessions that write without
a pause, BENCH_ROUNDS (5) upgrades to a revision that replaces every function, trigger and view, and as many downgrades.
For each, in milliseconds: the whole step, the time from the first lock that writers meet to the commit, as a session
sees it that only reads pg_locks, and the longest statement of a writer; beside them the longest one without an upgrade.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests import next_revision

COURSES = int(os.environ.get("BENCH_COURSES", "200"))
USERS = int(os.environ.get("BENCH_USERS", "20000"))
WRITERS = int(os.environ.get("BENCH_WRITERS", "4"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "synchronous_commit": "off"}

# Held, not waited for: what a writer waits for behind it.
HELD = """select exists (
    select from pg_locks
    where relation = 'portal.auth_user'::regclass and granted and mode = 'ShareRowExclusiveLock'
)"""


class Writers:
    """Sessions that write without a pause, and how long their statements take."""

    def __init__(self, dsn: str) -> None:
        self.stop = threading.Event()
        self.longest = 0.0
        self.statements = 0
        self.threads = [threading.Thread(target=self.work, args=[dsn, number]) for number in range(WRITERS)]
        self.threads.append(threading.Thread(target=self.look, args=[dsn]))
        self.held = 0.0
        for thread in self.threads:
            thread.start()

    def work(self, dsn: str, number: int) -> None:
        """Change users of this writer's own, with their profile and an enrollment, two statements a transaction."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            turn = 0
            while not self.stop.is_set():
                turn += 1
                user = 1 + number + WRITERS * (turn % (USERS // WRITERS))
                with conn.transaction():
                    self.timed(conn, "update portal.auth_user set first_name = %s where id = %s", [str(turn), user])
                    self.timed(conn, "update portal.auth_userprofile set goals = %s where user_id = %s",
                               [str(turn), user])  # fmt: skip

    def timed(self, conn: Connection[Any], statement: str, values: list[Any]) -> None:
        """Run a statement."""
        began = time.perf_counter()
        conn.execute(statement.encode(), values)
        self.longest = max(self.longest, time.perf_counter() - began)
        self.statements += 1

    def look(self, dsn: str) -> None:
        """Watch the lock."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            began = None
            while not self.stop.is_set():
                (is_held,) = conn.execute(HELD).fetchone() or (False,)
                now = time.perf_counter()
                began = (began or now) if is_held else None
                self.held = max(self.held, now - began if began else 0.0)
                time.sleep(0.001)

    def end(self) -> None:
        """End the sessions."""
        self.stop.set()
        for thread in self.threads:
            thread.join()


def measured(dsn: str, *, to: str | None, up: bool = True) -> tuple[float, float, float]:
    """Return seconds: the step, its lock, the longest statement of a writer."""
    writers = Writers(dsn)
    time.sleep(0.5)
    began = time.perf_counter()
    if to is None:
        time.sleep(1.5)
    else:
        schema.move(dsn, to, up=up, report=print)
    took = time.perf_counter() - began
    time.sleep(0.5)
    writers.end()
    return took, writers.held, writers.longest


def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(Path(folder) / "pg", settings=SETTINGS)
        server.start()
        try:
            dsn = server.dsn()
            schema.upgrade(dsn)
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(
                    "insert into portal.auth_user (username) select 'u' || n from generate_series(1, %s) as n", [USERS]
                )
                conn.execute(
                    "insert into portal.auth_userprofile (user_id, name) select id, 'Foo' from portal.auth_user"
                )
                conn.execute(
                    "insert into portal.student_courseenrollment (user_id, course_id) select u.id, "
                    "'course' || (u.id * 7 + k * 31) %% %s from portal.auth_user as u, generate_series(0, 2) as k",
                    [COURSES],
                )
                for number in range(COURSES):
                    conn.execute("select rollbook.create_course(%s)", [f"course{number}"])
            migrations = next_revision.write(Path(folder))
            found: dict[str, list[tuple[float, float, float]]] = {"no upgrade": [], "upgrade": [], "downgrade": []}
            with next_revision.installed(migrations):
                for _ in range(ROUNDS):
                    found["no upgrade"].append(measured(dsn, to=None))
                    found["upgrade"].append(measured(dsn, to="head"))
                    found["downgrade"].append(measured(dsn, to="0002", up=False))
            for name, rows in found.items():
                step, lock, longest = (
                    f"{statistics.median(each) * 1000:.0f} (worst {max(each) * 1000:.0f})"
                    for each in zip(*rows, strict=True)
                )
                print(f"{name}: step {step} ms, lock held {lock} ms, longest statement of a writer {longest} ms")
        finally:
            server.remove()


if __name__ == "__main__":
    main()
