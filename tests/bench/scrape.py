"""What a scrape of `rollbook metrics` costs the portal: CPU milliseconds of its session, at 1,000 courses.

`python -m tests.bench.scrape` builds a portal on a private server and scrapes it. BENCH_COURSES (1000) and BENCH_USERS
(20000, each in three courses) are the size, BENCH_ROUNDS (30) is how often; the first scrapes of a session are left
out, as they fill its caches. Nothing fails.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import psycopg

from rollbook.core.command import Run
from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from rollbook.system.metrics import Exporter, text
from tests.bench import bench

COURSES = int(os.environ.get("BENCH_COURSES", "1000"))
USERS = int(os.environ.get("BENCH_USERS", "20000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "30"))
WARM = 10  # scrapes, after which the session's statements are prepared
GOAL = 50.0  # ms
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off", "max_locks_per_transaction": "2048"}


def build(server: PrivateServer) -> str:
    """Create courses, users and enrollments, and a monitor; return its conninfo."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("create database portal")
    schema.upgrade(server.dsn("portal"))
    with psycopg.connect(server.dsn("portal"), autocommit=True) as conn:
        bench.fill(conn, COURSES, enrolled=False, users=USERS)
        conn.execute("vacuum analyze portal.auth_user, portal.auth_userprofile")
        rows = bench.enrollment_query(COURSES)
        conn.execute(f"insert into portal.student_courseenrollment (user_id, course_id) {rows}")
        conn.execute("create role scraper login in role rollbook_monitor")
        conn.execute("vacuum analyze")
    return server.dsn("portal").replace("user=postgres", "user=scraper")


def spent(exporter: Exporter) -> float:
    """Return the CPU milliseconds that the exporter's session has used on the portal."""
    assert exporter.conn is not None
    return int(Path(f"/proc/{exporter.conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6


def main() -> None:
    """Build, scrape, print."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as directory:
        Path(directory).chmod(0o755)
        server = PrivateServer(Path(directory) / "pg", settings=SETTINGS)
        server.start()
        try:
            exporter = Exporter(Run(name="rollbook metrics", dsn=build(server)), print)
            began = time.perf_counter()
            found = exporter.scrape(60)
            first, wall = spent(exporter), time.perf_counter() - began
            for _ in range(WARM):
                exporter.scrape(60)
            costs = []
            for _ in range(ROUNDS):
                before = spent(exporter)
                found = exporter.scrape(60)
                costs.append(spent(exporter) - before)
            exporter.close()
        finally:
            server.remove()
    median = statistics.median(costs)
    print(f"{COURSES:,} courses, {3 * USERS:,} enrollments, {len(found):,} samples, {len(text(found)[0]) / 1e6:.1f} MB")
    print(f"portal's CPU a scrape: median {median:.1f} ms, least {min(costs):.1f} ms; goal <= {GOAL:.0f} ms: "
          f"{'ok' if median <= GOAL else 'missed'}")  # fmt: skip
    print(f"first scrape of a session: {first:.0f} ms, {wall:.2f} s in all")


if __name__ == "__main__":
    main()
