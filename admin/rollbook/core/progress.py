"""The progress of long work, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rollbook.core.output import console

if TYPE_CHECKING:
    from rollbook.core.command import Run

REPORT_SECONDS = 30


@contextmanager
def progress(run: Run, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how much more is done: a bar on a terminal, else a line each 30 s.

    `total` None: the amount is not known.
    """
    if run.quiet:
        yield lambda _: None
        return
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(run, sys.stderr), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)
        return
    state = {"done": 0, "reported": time.monotonic()}

    def report(done: int) -> None:
        state["done"] += done
        if time.monotonic() - state["reported"] >= REPORT_SECONDS:
            state["reported"] = time.monotonic()
            of = "" if total is None else f" of {total}"
            print(f"{label}: {state['done']}{of}", file=sys.stderr, flush=True)

    yield report
