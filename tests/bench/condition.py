"""Flips of a condition against DELETE and INSERT of the same rows: what a membership by condition costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row

from rollbook.core import declaring, shape

if TYPE_CHECKING:
    from tests.bench.bench import Bench

FLAG = "alter table portal.student_courseenrollment add is_active boolean not null default true"
SOME = "id % 3 = 0"  # 20,000 of the 60,000 enrollments
SINGLE = 200  # a time


def flips(bench: Bench) -> None:
    """Leave and come back, one row and 20,000: a condition that flips, against DELETE and INSERT without one."""
    with bench.databases(50, enrolled=True) as (flagged, usual):
        usual.execute("alter table portal.auth_user enable trigger user")
        for table in ("auth_userprofile", "student_courseenrollment"):
            usual.execute(f"alter table portal.{table} enable trigger user")
        for conn in (flagged, usual):
            conn.execute(FLAG)
            conn.execute("update rollbook.course set on_leave = 'remove'")
        declare(bench, "routed")
        usual.execute("create table public.chosen as select * from portal.student_courseenrollment where " + SOME)
        for conn in (flagged, usual):
            conn.execute("vacuum analyze")

        def flip() -> None:
            for value in ("false", "true"):
                flagged.execute(f"update portal.student_courseenrollment set is_active = {value} where {SOME}")

        def rewrite() -> None:
            usual.execute("delete from portal.student_courseenrollment where " + SOME)
            usual.execute(
                "insert into portal.student_courseenrollment overriding system value select * from public.chosen"
            )

        def flip_one() -> None:
            for number in range(3, 3 * SINGLE + 3, 3):
                for value in (False, True):
                    flagged.execute(
                        "update portal.student_courseenrollment set is_active = %s where id = %s", [value, number],
                        prepare=True,
                    )  # fmt: skip

        def rewrite_one() -> None:
            for number in range(3, 3 * SINGLE + 3, 3):
                usual.execute("delete from portal.student_courseenrollment where id = %s", [number], prepare=True)
                usual.execute(
                    "insert into portal.student_courseenrollment overriding system value "
                    "select * from public.chosen where id = %s", [number], prepare=True,
                )  # fmt: skip

        usual.execute("create unique index on public.chosen (id)")
        compare(bench, "flip off and on, one row", (flagged, flip_one), (usual, rewrite_one), SINGLE)
        compare(bench, "flip off and on, 20,000 rows", (flagged, flip), (usual, rewrite), 1)


def declare(bench: Bench, dbname: str) -> None:
    """Let enrollments count while is_active."""
    with psycopg.connect(bench.server.dsn(dbname), row_factory=dict_row) as conn:
        declared = shape.of(conn)
        table = declared.table("membership")
        assert table is not None
        declaring.declare(conn, declaring.check(conn, declared.changed(replace(table, condition="is_active"))))


def compare(
    bench: Bench, name: str, ours: tuple[Connection[Any], Callable[[], None]],
    yardstick: tuple[Connection[Any], Callable[[], None]], calls: int,
) -> None:  # fmt: skip
    """Note the medians of the servers' CPU, interleaved."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(bench.pairs + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            conn, run = (ours, yardstick)[side]
            conn.execute("vacuum portal.student_courseenrollment, rollbook.route")
            before = cpu(conn)
            run()
            if turn:
                times[side].append((cpu(conn) - before) / calls)
    flipped, rewritten = (statistics.median(side) for side in times)
    bench.note(f"{name}, server CPU", flipped, rewritten, 1.2)


def cpu(conn: Connection[Any]) -> float:
    """Return the CPU seconds of a session's backend."""
    return int(Path(f"/proc/{conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


MEASURES = {"flips": flips}
