"""core/states.py is the one list of states; the check constraint, the view and the manual have the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from psycopg import Connection

from rollbook.core.states import SEVERITY, STATES

ROOT = Path(__file__).parents[2]
NAMES = [state.name for state in STATES]


def definition(db: Connection[Any], query: bytes) -> str:
    row = db.execute(query).fetchone()
    assert row is not None
    return str(row[0])


def test_the_database_accepts_these_states_and_no_others(db: Connection[Any]) -> None:
    check = definition(db, b"select pg_get_constraintdef(oid) from pg_constraint where conname = 'course_state_word'")
    assert set(re.findall(r"'(\w+)'", check)) == set(NAMES)


def test_the_view_reports_only_these_states(db: Connection[Any]) -> None:
    view = definition(db, b"select pg_get_viewdef('rollbook.course_status'::regclass)")
    reported = set(re.findall(r"THEN '(\w+)'", view))
    assert reported == {"broken", "drifted", "moving", "paused", "unknown"}
    assert reported <= set(NAMES)


def test_the_manual_has_each_state_with_its_meaning_the_worst_first() -> None:
    manual = (ROOT / "docs" / "servers.md").read_text()
    table = re.search(r"^\| state \|.*\n\| ---.*\n((?:\|.*\n)+)", manual, re.MULTILINE)
    assert table is not None
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table[1].splitlines()]
    assert rows == [(state.name, state.meaning) for state in STATES]


def test_the_worst_state_comes_first() -> None:
    assert sorted(NAMES, key=SEVERITY.__getitem__) == NAMES
    assert (NAMES[0], NAMES[-1]) == ("broken", "ok")
