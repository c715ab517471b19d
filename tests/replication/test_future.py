"""A time in the future, from a clock that was ahead, blinds nothing."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from tests.program import KEEP, damage
from tests.school import Rollbook


def test_a_verdict_of_the_future_neither_counts_nor_bars_a_newer_one(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    assert rollbook("replication", "verify").code == 0
    school.execute("update rollbook.verification set verified_at = now() + '1 year', run_at = now() + '1 year'")
    damage(school)
    assert [row["verdict"] for row in rollbook("replication", "status", KEEP, "--json").data] == [None]
    assert rollbook("replication", "verify").code == 4
    status = rollbook("status", "--json")
    assert (status.code, {row["course"]: row["verdict"] for row in status.data["courses"]}[KEEP]) == (4, "differs")
    query = "select count(*) from rollbook.verification where verified_at > now()"
    assert school.execute(query).fetchall() == [(0,)]
