"""What a start costs: CPU seconds of the program beside a bare Python program with the same libraries, as ratios.

`make bench` runs it; `python -m tests.bench.startup` alone takes half a minute. Interleaved pairs, medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.program import PROGRAM, environment

PAIRS = int(os.environ.get("BENCH_PAIRS", "15"))


def cpu_seconds(*command: str) -> float:
    """Run a program and return the CPU seconds, user and system, that it took."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command} exits {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def compare(name: str, limit: float, ours: tuple[str, ...], yardstick: str) -> None:
    """Print the ratio of the medians of ours and of a piece of Python."""
    sides: tuple[list[float], list[float]] = ([], [])
    for turn in range(PAIRS + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            seconds = cpu_seconds(*(ours if side == 0 else (sys.executable, "-c", yardstick)))
            if turn:  # the first pair warms the file cache
                sides[side].append(seconds)
    mine, bare = map(statistics.median, sides)
    verdict = "ok" if mine / bare <= limit else "missed"
    print(f"{name}: {mine:.3f} s / {bare:.3f} s = {mine / bare:.2f} (<= {limit}) {verdict}", flush=True)


def main() -> None:
    """Compare the help, and a read of one row."""
    compare("rollbook --help", 1.9, (PROGRAM, "--help"), "import typer, rich.console")
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as directory:
        Path(directory).chmod(0o755)
        server = PrivateServer(Path(directory) / "pg")
        server.start()
        try:
            dsn = server.dsn("postgres")
            schema.upgrade(dsn)
            with psycopg.connect(dsn) as conn:
                conn.execute("insert into portal.auth_user (username, email) values ('ada', 'ada@example.org')")
            bare = f"import typer, rich.console, psycopg; psycopg.connect({dsn!r}).execute('select 1').fetchone()"
            compare("rollbook user show ada", 1.4, (PROGRAM, "user", "show", "ada", "-d", dsn), bare)
        finally:
            server.remove()


if __name__ == "__main__":
    main()
