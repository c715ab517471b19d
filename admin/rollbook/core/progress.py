"""The progress of long work, on stderr: how much is done, how fast, and when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from rollbook.core.output import console

if TYPE_CHECKING:
    from rollbook.core.command import Run

REPORT_SECONDS = 30.0
FIRST_SECONDS = 1.0  # before which there is no rate: the first rows say little


@dataclass
class Pace:
    """What was done since the beginning: items (of `total`), rows, and how much of the expected rows that was.

    Where nothing is expected, the end is known by the items alone.
    """

    total: int | None
    began: float = field(default_factory=time.monotonic)
    items: int = 0
    rows: int = 0
    reached: int = 0
    expected: int = 0

    def rate(self, now: float) -> float | None:
        """Return rows a second, None before there are any."""
        seconds = now - self.began
        return self.rows / seconds if self.rows and seconds >= FIRST_SECONDS else None

    def left(self, now: float) -> float | None:
        """Return the seconds that are left if the rest is as fast as what was done; None before there is a rate."""
        done, whole = (self.reached, self.expected) if self.expected else (self.items, self.total or 0)
        seconds = now - self.began
        if not whole or done <= 0 or seconds < FIRST_SECONDS:
            return None
        return max(0.0, seconds / done * (whole - done))

    def words(self, now: float) -> list[str]:
        """Return what is known of rate and end, in words: `41,210 rows/s`, `0:00:09 left, ends 12:31:05`."""
        rate, left = self.rate(now), self.left(now)
        speed = [] if rate is None else [f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.2g} rows/s"]
        if left is None:
            return speed
        end = datetime.now().astimezone() + timedelta(seconds=left)
        clock = f"{end:%H:%M:%S}" if left < 12 * 3600 else f"{end:%Y-%m-%d %H:%M}"
        return [*speed, f"{timedelta(seconds=round(left))} left, ends {clock}"]


class Reporter:
    """What work reports to: a call with how many more items are done, and rows where it counts them."""

    def __init__(self, pace: Pace) -> None:
        """Report to a pace."""
        self.pace = pace

    def __call__(self, items: int) -> None:
        """Count items."""
        self.pace.items += items

    def more(self, items: int) -> None:
        """Announce more items, where the total is not known from the beginning."""
        self.pace.total = (self.pace.total or 0) + items

    def rows(self, count: int, reached: int) -> None:
        """Count rows, and how many of the expected ones that was."""
        self.pace.rows += count
        self.pace.reached += reached

    def expect(self, rows: int) -> None:
        """Expect more rows."""
        self.pace.expected += rows


@contextmanager
def progress(run: Run, label: str, total: int | None) -> Iterator[Reporter]:
    """Yield what takes how much more is done: a bar on a terminal, else a line each 30 s; nothing with --quiet.

    `total` None: the amount is not known.
    """
    pace = Pace(total)
    reporter = Reporter(pace)
    if run.quiet:
        yield reporter
    elif sys.stderr.isatty():
        with bar(run, label, pace):
            yield reporter
    else:
        over = Event()
        lines = Thread(target=report, args=(label, pace, over), daemon=True)
        lines.start()
        try:
            yield reporter
        finally:
            over.set()
            lines.join()


def report(label: str, pace: Pace, over: Event) -> None:
    """Write a line each 30 s until the work is over."""
    while not over.wait(REPORT_SECONDS):
        of = "" if pace.total is None else f" of {pace.total}"
        print(", ".join([f"{label}: {pace.items}{of}", *pace.words(time.monotonic())]), file=sys.stderr, flush=True)


def bar(run: Run, label: str, pace: Pace) -> Any:  # noqa: ANN401 (Rich is imported here only)
    """Return a bar that draws itself while it is open."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Items(MofNCompleteColumn):
        def render(self, task: Any) -> Text:  # noqa: ANN401
            task.completed, task.total = pace.items, pace.total
            return super().render(task)

    class End(ProgressColumn):
        def render(self, task: Any) -> Text:  # noqa: ANN401, ARG002
            return Text("  ".join(pace.words(time.monotonic())) or "-:--:--")

    whole = (Column(no_wrap=True) for _ in range(2))  # in a narrow terminal the bar gives way
    columns = (
        TextColumn("{task.description}"), Items(table_column=next(whole)), BarColumn(bar_width=None),
        End(table_column=next(whole)),
    )  # fmt: skip
    drawn = Progress(*columns, console=console(run, sys.stderr), transient=True, expand=True)
    drawn.add_task(label, total=pace.total)
    return drawn
