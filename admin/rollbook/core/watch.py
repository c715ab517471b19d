"""`--watch`: a look, repeated. A terminal shows the newest one in place; a pipe or a file gets a line for each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rollbook.core import render
from rollbook.core.chart import LEAST_TOP, chart
from rollbook.core.command import Run
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row

LOOKS = 300  # of which the lag is kept: more than a terminal has columns
SERVERS = 5  # whose lag is drawn
GAP = "x"  # a look that saw no lag


@dataclass(frozen=True)
class Look:
    """What a command has seen at one time."""

    code: int  # the exit code
    write: Callable[[], None]  # writes all of it, in the format asked for
    line: Row  # the same in one line
    lags: Mapping[str, float | None] = field(default_factory=dict)  # seconds by server; None: not known


def repeated(run: Run, look: Callable[[], Look]) -> int:
    """Look once, or with --watch every N seconds, --count times or until Ctrl-C. Return the last exit code.

    The first look must succeed. Later ones report a database that does not answer, and go on.
    """
    found = look()
    if run.watch is None:
        found.write()
        return found.code
    return on_terminal(run, look, found) if render.is_live(run) else in_lines(run, look, found)


def next_look(run: Run, look: Callable[[], Look], seconds: float) -> Look:
    """Wait, look, and return what is seen; if there is no answer, that."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))  # Ctrl-C just before a sleep takes effect after it
    try:
        return look()
    except UnreachableError as exc:
        error = exc
    return Look(error.exit_code, lambda: render.error(run, error), {})


def in_lines(run: Run, look: Callable[[], Look], found: Look) -> int:
    """Write a line for each look: a JSON document, or time, counts and the worst lag."""
    assert run.watch is not None  # noqa: S101 (only called with --watch)
    run.wide = True
    turn = 1
    while True:
        if run.fields or render.wants_json(run) or not found.line:
            found.write()
        else:
            line = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **found.line}
            render.rows(run, [line], tuple(line))
        run.no_header = run.no_header or bool(found.line)
        if turn == run.count:
            return found.code
        turn += 1
        found = next_look(run, look, run.watch)


def on_terminal(run: Run, look: Callable[[], Look], found: Look) -> int:
    """Redraw the answer in place, below its time and the lag of each server in the last looks."""
    from rollbook.core.live import LiveScreen

    assert run.watch is not None  # noqa: S101 (only called with --watch)
    history: dict[str, deque[float | None]] = {}
    turn = 1
    with LiveScreen(run) as screen:
        while True:
            for server in history.keys() | found.lags.keys():
                history.setdefault(server, deque([None] * (turn - 1), LOOKS)).append(found.lags.get(server))
            head = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  every {run.watch:g} s; Ctrl-C ends"

            def draw(found: Look = found, head: str = head) -> None:
                render.text(run, f"{head}\n{sparklines(history, screen.width)}\n")
                found.write()

            screen.show(draw)
            if turn == run.count:
                return found.code
            turn += 1
            found = next_look(run, look, run.watch)


def sparklines(history: Mapping[str, deque[float | None]], width: int) -> str:
    """Return a line for each of the servers that lag most now: its lag in the last looks, now, and at most.

    All have one scale.
    """
    if not history:
        return ""
    worst = sorted(history, key=lambda name: (history[name][-1] is not None, -(history[name][-1] or 0), name))[:SERVERS]
    pad = max(map(len, worst))
    room = max(8, min(width, 80) - pad - len("lag   now 12345.678 s, at most 12345.678 s"))
    shown = {name: list(history[name])[-room:] for name in worst}
    top = max(LEAST_TOP, *(lag or 0 for lags in shown.values() for lag in lags))
    lines = []
    for name, lags in shown.items():
        (drawn,) = chart(lags, top)
        known = [lag for lag in lags if lag is not None]
        now = "not known" if lags[-1] is None else f"{lags[-1]:g} s"
        most = f", at most {max(known):g} s" if known else ""
        line = f"{drawn:<{len(lags)}}".replace(" ", GAP)
        lines.append(f"lag {name:<{pad}} {line} now {now}{most}")
    if len(history) > SERVERS:
        more = len(history) - SERVERS
        lines.append(f"{more} more server{'s lag' if more > 1 else ' lags'} less")
    return "\n".join(lines) + "\n"
