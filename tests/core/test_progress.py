"""Rate and end of long work: nothing before there is a rate, and a line each so many seconds where no bar is drawn."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from rollbook.core import progress as module
from rollbook.core.command import Run
from rollbook.core.progress import Pace, Reporter, progress
from rollbook.replication.session import Progress


def test_a_pace_is_silent_until_there_is_a_rate() -> None:
    pace = Pace(total=4, began=100.0, expected=1000)
    assert pace.words(200.0) == []  # nothing is done
    pace.rows, pace.reached, pace.items = 300, 250, 1
    assert pace.words(100.5) == []  # too early
    assert (pace.rate(110.0), pace.left(110.0)) == (30.0, 30.0)  # a quarter in ten seconds
    assert (pace.rate(120.0), pace.left(120.0)) == (15.0, 60.0)  # nothing moves: the end moves away
    (rate, end) = pace.words(110.0)
    assert (rate, re.sub(r"\d\d:\d\d:\d\d$", "T", end)) == ("30 rows/s", "0:00:30 left, ends T")
    pace.reached = 1000
    assert pace.left(150.0) == 0


def test_where_no_rows_are_expected_the_items_give_the_end() -> None:
    pace = Pace(total=4, began=100.0)
    pace.items = 1
    assert (pace.rate(110.0), pace.left(110.0)) == (None, 30.0)
    assert Pace(total=None, began=100.0, items=7).words(110.0) == []


def test_a_part_counts_what_was_announced_however_many_rows_it_has() -> None:
    rows: list[tuple[int, int]] = []
    items: list[int] = []
    whole = Progress(advance=items.append, rows=lambda count, reached: rows.append((count, reached)))
    with whole.part(10) as part:
        part.rows(8, 8)
        part.rows(8, 8)
    with pytest.raises(KeyError), whole.part(5) as part:
        raise KeyError
    assert (rows, items) == ([(8, 8), (8, 2), (0, 0), (0, 5)], [1, 1])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_is_one_line_however_much_it_has_to_say(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "console", lambda *_: screen)
    pace = Pace(total=1000, began=time.monotonic() - 100, items=400, rows=4_000_000, reached=400, expected=1000)
    drawn = module.bar(Run(), "verify", pace)
    with screen.capture() as found:
        screen.print(drawn.get_renderable())
    (line,) = found.get().splitlines()
    assert re.fullmatch(r"verify  ?400/1000 ━*.* [\d,]+ rows/s  0:02:\d\d left, ends \d\d:\d\d:\d\d *", line), line


def test_items_that_are_announced_on_the_way_are_part_of_the_total() -> None:
    reporter = Reporter(Pace(total=None))
    reporter.more(3)
    reporter(3)
    reporter.more(3)
    assert (reporter.pace.items, reporter.pace.total) == (3, 6)


@contextmanager
def lines(capsys: pytest.CaptureFixture[str], wanted: int) -> Iterator[list[str]]:
    """Wait until so many lines are on stderr."""
    found: list[str] = []
    yield found
    end = time.monotonic() + 20
    while len(found) < wanted and time.monotonic() < end:
        found += capsys.readouterr().err.splitlines()
        time.sleep(0.01)


def test_a_pipe_gets_lines_also_while_nothing_moves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.02)
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    with progress(Run(), "verify", 3) as reporter:
        with lines(capsys, 2) as found:
            reporter.expect(100)
        assert set(found) == {"verify: 0 of 3"}
        with lines(capsys, 2) as found:
            reporter.rows(5000, 50)
            reporter(1)
        assert re.fullmatch(r"verify: 1 of 3, [\d,]+ rows/s, \d:\d\d:\d\d left, ends \d\d:\d\d:\d\d", found[-1]), found
    with progress(Run(quiet=True), "verify", 3) as reporter:
        reporter(1)
    time.sleep(0.1)
    assert len(capsys.readouterr().err.splitlines()) <= 1  # what was written before the end
