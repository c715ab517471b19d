"""A new profile column under write load, on many courses and two servers: how long it takes, how long a writer waits.

`python -m tests.bench.shape`; BENCH_COURSES (1000), BENCH_USERS (20000), BENCH_CLIENTS (2). The yardstick is the same
load without a change of the shape. At the end all copies are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from rollbook.system import migration
from rollbook.system.demo.server import PrivateServer
from tests.bench.replication import drop_subscription, rollbook, until
from tests.replication.many import attach_empty, enroll_all, load, make_courses

COURSES = int(os.environ.get("BENCH_COURSES", "1000"))
USERS = int(os.environ.get("BENCH_USERS", "20000"))
CLIENTS = int(os.environ.get("BENCH_CLIENTS", "2"))
IDLE_SECONDS = 20
PAUSE = 0.005  # between two statements of a client
SETTINGS = {
    "fsync": "off", "max_connections": "100", "max_locks_per_transaction": "1000", "shared_buffers": "256MB",
    "max_replication_slots": "20", "max_logical_replication_workers": "12", "max_worker_processes": "20",
}  # fmt: skip
PROGRAM = Path(sys.executable).with_name("rollbook")


@contextmanager
def site() -> Iterator[str]:
    """Yield the conninfo of a portal whose courses are on two servers, but for a fifth of them."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-bench-"))
        Path(folder).chmod(0o755)
        os.environ["ROLLBOOK_LOG_FILE"] = str(Path(folder) / "rollbook.log")
        here, there = (PrivateServer(Path(folder) / name, settings=SETTINGS) for name in ("portal", "courses"))
        for server in (here, there):
            server.start()
            stack.callback(server.remove)
        with psycopg.connect(here.dsn(), autocommit=True) as conn:
            conn.execute("create database portal")
        where = here.dsn("portal")
        migration.upgrade(where)
        portal = stack.enter_context(psycopg.connect(where, autocommit=True))
        names = make_courses(portal, COURSES, USERS)
        part = len(names) * 2 // 5
        for number, name in enumerate(("east", "west")):
            with psycopg.connect(there.dsn(), autocommit=True) as conn:
                conn.execute(f"create database {name}".encode())
            rollbook(where, "server", "add", name, "--admin-dsn", there.dsn(name), "--subscription-dsn", where)
            attach_empty(where, name, names[number * part : (number + 1) * part])
        enroll_all(portal, COURSES)
        portal.execute("alter table portal.auth_userprofile add column pronouns varchar(20) not null default ''")
        portal.execute("update portal.auth_userprofile set pronouns = 'she' where user_id % 3 = 0")
        rollbook(where, "replication", "wait", "--timeout", "300")
        portal.execute("vacuum analyze")
        yield where
        for name in ("east", "west"):
            with psycopg.connect(there.dsn(name), autocommit=True) as conn:
                drop_subscription(conn)
        until(lambda: portal.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                                     "where not active") is not None)  # fmt: skip


def program(where: str, *arguments: str) -> dict[str, object]:
    """Run the program as a process of its own; return its row."""
    done = subprocess.run(
        [PROGRAM, *arguments, "--json", "-d", where], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout)[0])


def timed(where: str, *arguments: str) -> float:
    """Return the best wall time of three runs of the program, in seconds."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([PROGRAM, *arguments, "-d", where], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Measure and print."""
    began = time.perf_counter()
    with site() as where:
        print(f"{COURSES} courses, {USERS:,} users, 2 servers, {CLIENTS} clients (made in "
              f"{time.perf_counter() - began:.0f} s)", flush=True)  # fmt: skip
        with load(where, CLIENTS, PAUSE) as alone:
            time.sleep(IDLE_SECONDS)
        print(f"no change: longest wait {alone.longest * 1000:.0f} ms, "
              f"{alone.written / IDLE_SECONDS:.0f} statements/s", flush=True)  # fmt: skip
        for words in (
            ("column", "add", "auth_userprofile", "pronouns"),
            ("column", "widen", "auth_userprofile", "pronouns", "varchar(100)"),
            ("column", "rename", "auth_userprofile", "pronouns", "pronoun"),
            ("where", "id > 0"),
            ("column", "drop", "auth_userprofile", "pronoun", "--yes"),
        ):
            with load(where, CLIENTS, PAUSE) as writers:
                started = time.perf_counter()
                row = program(where, "shape", *words)
                took = time.perf_counter() - started
            verified = subprocess.run(
                [PROGRAM, "replication", "verify", "--timeout", "60", "-d", where], capture_output=True, check=False
            ).returncode  # fmt: skip
            print(
                f"shape {' '.join(words[:2])}: {took:.1f} s ({took / COURSES * 1000:.0f} ms a course), "
                f"{row['rows']} rows, longest wait of a writer {writers.longest * 1000:.0f} ms, "
                f"{writers.written / took:.0f} statements/s, "
                f"failed: {len(writers.broken)} writers, {row['failed']} courses; "
                f"{'no difference' if verified == 0 else f'verify: exit {verified}'}", flush=True,
            )  # fmt: skip
        file = Path(tempfile.mkdtemp()) / "shape.toml"
        file.write_bytes(
            subprocess.run([PROGRAM, "shape", "show", "--toml", "-d", where], capture_output=True, check=True).stdout
        )
        usual = timed(where, "version", "--json")
        for nothing in (["shape", "apply", str(file)], ["schema", "upgrade"]):
            idle = timed(where, *nothing)
            print(f"{nothing[0]} {nothing[1]} with nothing to do: {idle * 1000:.0f} ms / {usual * 1000:.0f} ms "
                  f"= {idle / usual:.2f} (<= 1.5)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
