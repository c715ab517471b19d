"""What a terminal of 80 columns shows: no two rows look the same, and no number is hidden that is the only one."""

from __future__ import annotations

from typing import Any

import pytest

from rollbook.core import render
from rollbook.core.command import Run, When
from rollbook.core.output import Page
from rollbook.core.table import table
from rollbook.replication.commands import comparison
from rollbook.replication.commands.replication import CONFLICTS, SLOTS
from rollbook.replication.verify import Report
from rollbook.system.commands.check import in_words
from rollbook.system.judging import Judgement
from tests.program import KEEP

COPY = "pg_16524_sync_16541_7345678901234567890"  # the slot of a first copy; its neighbour differs in the middle


def screen(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], width: int = 80) -> list[str]:
    """The lines of a table."""
    page = Page()
    monkeypatch.setenv("COLUMNS", str(width))
    table(Run(color=When.never), page, rows, list(rows[0]))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_check_has_whole_names_and_sizes_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "max_slot_wal_keep_size is -1: a server that is down fills the disk of server hub"
    found = [
        Judgement(f"slot rollbook_{name} on hub", "warning", 17_000_000, "B", None, 10_000_000_000, words)
        for name in ("east", "west")
    ]
    rows = [in_words(vars(each)) for each in found]
    lines = screen(monkeypatch, [{name: row[name] for name in row if name != "unit"} for row in rows])
    for name in ("east", "west"):
        assert any(line.startswith(f"slot rollbook_{name} on hub  ") for line in lines), lines
    assert any("16 MB" in line for line in lines), lines
    lag = vars(Judgement("lag east", "ok", 0.25, "s", 10.0, None, "0.25 s"))
    assert [in_words(lag)[name] for name in ("value", "warning", "critical")] == ["0.25 s", "10 s", None]


@pytest.mark.parametrize("width", [80, 60])
def test_the_slots_of_first_copies_are_told_apart(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    rows = [
        {**dict.fromkeys(SLOTS), "slot": slot, "where": "portal", "active": True, "wal_status": "reserved",
         "held_bytes": 10**7, "alarm": "foreign"}
        for slot in (COPY, COPY.replace("16541", "16547"))
    ]  # fmt: skip
    lines = screen(monkeypatch, rows, width)
    assert not [line for line in lines if "…" in line], lines


def test_a_column_without_values_is_hidden_before_one_with(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {
        **dict.fromkeys(CONFLICTS),
        "server": "east",
        "kind": "counted",
        "message": "first copy errors",
        "count": 348,
    }
    lines = screen(monkeypatch, [counted])
    assert "COUNT" in lines[0]
    assert "348" in lines[1]
    assert "hidden: sqlstate; " in lines[-1]


def test_resync_fits_as_repair_does(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**dict.fromkeys(comparison.REPAIRED, 0), "course": KEEP, "table": "student_courseenrollment",
           "verdict_after": "match"}  # fmt: skip
    assert screen(monkeypatch, [row])[0].startswith("COURSE  ")
    monkeypatch.setattr(render, "is_drawn", lambda _: True)
    assert comparison.resynced_columns(Run()) == comparison.REPAIRED
    assert comparison.resynced_columns(Run(wide=True)) == comparison.RESYNCED


def test_the_last_line_of_verify_wraps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "12 courses compared; 3 could not be compared (a/b/c, d/e/f, g/h/i); 2 differ in 14 rows.\n  next\n"
    monkeypatch.setattr(comparison, "summary", lambda _: words)
    report = Report.__new__(Report)
    for is_drawn, lengths in ((True, (80, 4)), (False, (90, 3))):
        monkeypatch.setattr(render, "is_drawn", lambda _, drawn=is_drawn: drawn)
        comparison.write_end(Run(), report)
        lines = capsys.readouterr().out.splitlines()
        assert (max(map(len, lines)) <= lengths[0], len(lines)) == (True, lengths[1]), lines
        assert lines[-1] == "  next"
