"""What grows with the number of courses: the same users, each in 3 courses, in databases with ever more courses.

`make bench-scale` runs it: BENCH_COURSES (50,500,5000) and BENCH_USERS (60000) are the sizes, BENCH_ROUNDS (3) is how
often the sizes are measured in turn; the table has the medians. Times are CPU seconds, of the server's processes and of
the program. Nothing fails.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from rich.console import Console
from rich.table import Table

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.bench import bench
from tests.program import PROGRAM, environment

COURSES = [int(word) for word in os.environ.get("BENCH_COURSES", "50,500,5000").split(",")]
USERS = int(os.environ.get("BENCH_USERS", "60000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
UPDATES = 2000
TICK = os.sysconf("SC_CLK_TCK")
SETTINGS = {
    "shared_buffers": "2GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
    "max_locks_per_transaction": "2048",
}  # fmt: skip


class Measure(NamedTuple):
    """What is measured at each size; the goal is the most that the last may be of the first."""

    name: str
    unit: str
    goal: float
    digits: int


MEASURES = (
    Measure("update of a user in 3 courses", "ms", 1.1, 3),
    Measure("bulk enrollment in all courses", "µs a copy", 1 / 0.6, 1),
    Measure("rollbook.verify(), all courses", "µs a row", 1 / 0.5, 1),
    Measure("rollbook replication verify", "µs a row", 1 / 0.5, 1),
    Measure("rollbook status", "s", 1.5, 2),
    Measure("rollbook course list", "s", 1.5, 2),
    Measure("rollbook schema check", "s", 3, 2),
)


class Site:
    """A database with so many courses."""

    def __init__(self, server: PrivateServer, courses: int) -> None:
        self.server = server
        self.courses = courses
        self.name = f"scale{courses}"
        self.dsn = server.dsn(self.name)
        self.times: dict[str, list[float]] = {each.name: [] for each in MEASURES}

    def connect(self) -> Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True)

    def cpu(self, work: Callable[[], object]) -> float:
        """Return the CPU seconds of the programs that `work` runs, and of the server's processes that end with it."""
        postmaster = (self.server.data / "postmaster.pid").read_text().splitlines()[0]

        def running() -> set[str]:
            return set(Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())

        def spent() -> float:
            fields = Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
            programs = resource.getrusage(resource.RUSAGE_CHILDREN)
            return (int(fields[13]) + int(fields[14])) / TICK + programs.ru_utime + programs.ru_stime

        others, before = running(), spent()
        work()
        while running() - others:  # who has ended is counted
            time.sleep(0.05)
        return spent() - before

    def build(self) -> None:
        """Create users, courses and enrollments; enroll them twice, and measure that."""
        with psycopg.connect(self.server.dsn("postgres"), autocommit=True) as admin:
            admin.execute(f"create database {self.name}")
        schema.upgrade(self.dsn)
        with self.connect() as conn:
            bench.fill(conn, self.courses, enrolled=False, users=USERS)
            conn.execute("vacuum analyze portal.auth_user, portal.auth_userprofile")
        rows = bench.enrollment_query(self.courses)

        def enroll(end: str) -> None:
            with self.connect() as conn:
                conn.execute("begin")
                conn.execute(f"insert into portal.student_courseenrollment (user_id, course_id) {rows}")
                conn.execute(end)

        for end in ("rollback", "commit"):
            seconds = self.cpu(lambda end=end: enroll(end))  # type: ignore[misc]
            self.times["bulk enrollment in all courses"].append(seconds * 1e6 / (9 * USERS))
        with self.connect() as conn:
            conn.execute("vacuum analyze")

    def measure(self) -> None:
        """Measure everything once."""

        def verify() -> None:
            with self.connect() as conn:
                assert conn.execute("select * from rollbook.verify()").fetchall() == []

        note = {name: each.append for name, each in self.times.items()}
        note["update of a user in 3 courses"](self.update())
        note["rollbook.verify(), all courses"](self.cpu(verify) * 1e6 / (9 * USERS))
        for command in ("replication verify", "status", "course list", "schema check"):
            seconds = self.cpu(lambda command=command: self.run(*command.split()))  # type: ignore[misc]
            note[f"rollbook {command}"](seconds * 1e6 / (9 * USERS) if "verify" in command else seconds)

    def update(self) -> float:
        """Return the milliseconds that a session needs to update a user, when it has written to every course."""
        statement = "update portal.auth_user set last_name = %s where id = %s"
        chosen = random.Random(0)
        with self.connect() as conn:
            for user in range(1, self.courses + 1):
                conn.execute(statement, ["warm", user], prepare=True)
            usage = Path(f"/proc/{conn.info.backend_pid}/schedstat")
            before = int(usage.read_text().split()[0])
            for n in range(UPDATES):
                conn.execute(statement, [f"new{n}", chosen.randint(1, USERS)], prepare=True)
            return (int(usage.read_text().split()[0]) - before) / UPDATES / 1e6

    def run(self, *arguments: str) -> None:
        """Run the program; its answer goes nowhere."""
        command = [PROGRAM, *arguments, "--json", "--timeout", "900", "-d", self.dsn]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())


def report(sites: list[Site]) -> Table:
    """Return the medians by size, the last beside the first."""
    table = Table("measure", "unit", *(f"{site.courses:,}" for site in sites), "ratio", "goal", "")
    for each in MEASURES:
        medians = [statistics.median(site.times[each.name]) for site in sites]
        ratio = medians[-1] / medians[0]
        table.add_row(
            each.name, each.unit, *(f"{median:,.{each.digits}f}" for median in medians), f"{ratio:.2f}",
            f"<= {each.goal:.2f}", "ok" if ratio <= each.goal else "missed",
        )  # fmt: skip
    return table


def main() -> None:
    """Build a database for each size on a private server, measure them in turn, print the table."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as directory:
        Path(directory).chmod(0o755)
        server = PrivateServer(Path(directory) / "pg", settings=SETTINGS)
        server.start()
        try:
            sites = [Site(server, courses) for courses in COURSES]
            for site in sites:
                site.build()
                print(f"{site.courses:,} courses with {USERS:,} users are built", file=sys.stderr, flush=True)
            for _ in range(ROUNDS):
                for site in sites:
                    site.measure()
        finally:
            server.remove()
    Console(width=120).print(report(sites))


if __name__ == "__main__":
    main()
