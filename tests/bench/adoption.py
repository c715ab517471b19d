"""Adopt a site of 20,000 users and 60,000 enrollments in 30 courses, with dirty rows, against the statements by hand.

`python -m tests.bench.adoption [in-place|moved]...`. Interleaved, medians, each in a new database. By hand: the same
repairs as UPDATEs, the same changes of the tables and the SQL of `schema sql` in one transaction, which writers wait
for, then a call of create_course for each course, and verify. The program also reads every row for faults, twice,
keeps what a repair changes for the history, builds indexes concurrently, and counts. A writer updates users one after
another meanwhile: its longest wait is what the site's visitors notice.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from rollbook.core.command import Author
from rollbook.core.db import session
from rollbook.core.migrating import placed
from rollbook.system import migration
from rollbook.system.adoption.fixes import apply
from rollbook.system.adoption.run import adopt
from rollbook.system.adoption.site import read_site
from rollbook.system.adoption.structure import places_in, structure
from rollbook.system.demo.server import PrivateServer
from rollbook.system.portal_tables import STAMP, shipped_columns
from tests.bench.bench import PAIRS
from tests.stock_site import fill_site, make_site

USERS = int(os.environ.get("BENCH_ROWS", "20000"))
COURSES = 30
LIMIT = 2.0  # times the statements by hand
LOCK_LIMIT = 2.0  # seconds that a writer waits at most

# One row in fifty is wrong in one of five ways.
DIRTY = """
update auth_user set username = 'John Doe ' || id where id % 250 = 1;
update auth_user as u set email = upper(o.email) from auth_user as o where o.id = u.id - 1 and u.id % 250 = 51;
update auth_userprofile set year_of_birth = 20133 where user_id % 250 = 101;
update auth_userprofile set gender = 'x' where user_id % 250 = 151;
update auth_userprofile set level_of_education = 'a' where user_id % 250 = 201;
"""
FIXES = ("username=underscore", "email=blank-younger", "year=null", "gender=null", "level=other")
BY_HAND = """
update auth_user set username = regexp_replace(username, '[[:space:][:cntrl:]]+', '_', 'g')
where username = '' or username ~ '[[:space:][:cntrl:]]';
update auth_user as u set email = '' where exists (
    select from auth_user as o where lower(o.email) = lower(u.email) and o.id < u.id and o.email <> '');
update auth_userprofile set year_of_birth = null where year_of_birth > 9999;
update auth_userprofile set gender = null where gender not in ('m', 'f', 'o', '');
update auth_userprofile set level_of_education = 'other'
where level_of_education not in ('p_se', 'p_oth', 'm', 'b', 'hs', 'jhs', 'el', 'none', 'other', '');
"""


@dataclass(frozen=True)
class Took:
    """What one adoption took, in seconds."""

    whole: float
    lock: float  # as the program measures it
    waited: float  # of the writer, the longest


@contextmanager
def site(server: PrivateServer, name: str) -> Iterator[str]:
    """Yield the conninfo of a database with the dirty site."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)".encode())
        conn.execute(f"create database {name}".encode())
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:
        make_site(conn)
        fill_site(conn, users=USERS, courses=COURSES, each=3)
        conn.execute(DIRTY.encode())
        conn.execute("vacuum analyze")
    yield server.dsn(name)


class Writer(threading.Thread):
    """A visitor: one UPDATE after the other, the time of each noted."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn, self.longest, self.ended = dsn, 0.0, threading.Event()

    def run(self) -> None:
        """Write until it is told to end."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("set search_path = portal, public")
            number = 1
            while not self.ended.is_set():
                number = number % USERS + 1
                began = time.perf_counter()
                conn.execute("update auth_user set last_login = now() where id = %s", [number])
                self.longest = max(self.longest, time.perf_counter() - began)
                time.sleep(0.005)


def measured(dsn: str, action: Callable[[str], float]) -> Took:
    """Return what an adoption takes while a visitor writes."""
    writer = Writer(dsn)
    writer.start()
    began = time.perf_counter()
    try:
        lock = action(dsn)
    finally:
        whole = time.perf_counter() - began
        writer.ended.set()
        writer.join()
    return Took(whole, lock, writer.longest)


def by_program(in_place: bool) -> Callable[[str], float]:
    """Return the adoption by the program; it returns the longest lock."""

    def run(dsn: str) -> float:
        with session(dsn, name="bench", long=True) as conn:
            found = read_site(conn, "public")
            apply(conn, found, FIXES, Author("bench", None), "bench")
            conn.commit()
            report = adopt(conn, found, in_place=in_place)
        assert (report.findings, len(report.courses)) == (0, COURSES)
        return report.lock_seconds

    return run


def by_hand(in_place: bool) -> Callable[[str], float]:
    """Return the adoption by statements; it returns how long its transaction was."""
    script = re.sub(r"(?m)^(BEGIN|COMMIT);$", "", migration.offline("0001", "head"))

    def run(dsn: str) -> float:
        with session(dsn, name="bench", long=True) as conn:
            conn.execute(b"set search_path = public, pg_catalog;" + BY_HAND.encode())
            conn.commit()
            places = places_in(conn, "public")
            steps = [step.do for step in structure(conn, "public", in_place=in_place, widen=False)]
            began = time.perf_counter()
            moves = [
                f"create view portal.{name} as select {', '.join(shipped_columns()[name])} from {place}"
                if in_place else f"alter table {place} set schema portal" for name, place in places.items()
            ]  # fmt: skip
            for statement in [*steps, "create schema portal", *moves, STAMP]:
                conn.execute(statement.replace(" concurrently ", " ").encode())
            conn.execute(placed(script, places if in_place else {}).encode())
            conn.commit()
            held = time.perf_counter() - began
            for number in range(COURSES):
                conn.execute("select rollbook.create_course(%s)", [f"edX/course{number}/2012"])
                conn.commit()
            assert conn.execute("select from rollbook.verify()").fetchall() == []
        return held

    return run


def compare(server: PrivateServer, in_place: bool) -> bool:
    """Measure both ways in turn; print and return whether the program keeps its limits."""
    took: dict[str, list[Took]] = {"program": [], "hand": []}
    for number in range(PAIRS):
        for name, action in (("program", by_program(in_place)), ("hand", by_hand(in_place))):
            with site(server, f"adopt_{name}_{number % 2}") as dsn:
                took[name].append(measured(dsn, action))

    def middle(name: str, what: str) -> float:
        return statistics.median(float(getattr(each, what)) for each in took[name])

    ratio = statistics.median(p.whole / h.whole for p, h in zip(took["program"], took["hand"], strict=True))
    for name, each in took.items():
        print(
            f"{'in place' if in_place else 'moved':9} {name:8} {middle(name, 'whole'):6.2f} s   longest lock "
            f"{middle(name, 'lock'):5.2f} s   a writer waited {max(one.waited for one in each):5.2f} s at most"
        )
    waited = max(each.waited for each in took["program"])
    print(f"          ratio {ratio:.2f} (limit {LIMIT})")
    return bool(ratio <= LIMIT and waited <= LOCK_LIMIT)


def main(words: list[str]) -> int:
    """Measure what is named, else both; return the exit code."""
    wanted = words or ["in-place", "moved"]
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(Path(folder) / "pg")
        server.start()
        try:
            kept = [compare(server, word == "in-place") for word in wanted]
            return 0 if all(kept) else 1
        finally:
            server.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
