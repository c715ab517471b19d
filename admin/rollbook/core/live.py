"""The screen of `--watch`: an answer that is redrawn in place on a terminal, and stays on it when that ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from rollbook.core.output import Page, console

if TYPE_CHECKING:
    from rich.segment import Segments

    from rollbook.core.command import Run

TERMINATED = 128 + signal.SIGTERM


class LiveScreen:
    """The alternate screen of a terminal. Remarks on stderr appear on it, below the answer."""

    def __init__(self, run: Run) -> None:
        from rich.live import Live

        self.console = console(run, sys.stdout)
        self.live = Live(
            console=self.console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self.remarks = io.StringIO()
        self.draw: Callable[[], None] = lambda: None
        self.is_drawing = False
        self.waiting: list[Callable[[], None]] = []  # actions of signals that came while it was drawing
        self.shown: Segments | None = None
        self.stack = ExitStack()

    @property
    def width(self) -> int:
        """Return the columns that the terminal has now."""
        return self.console.width

    def __enter__(self) -> LiveScreen:
        self.live.start()
        self.stack.callback(self.leave)
        for number, action in (
            (signal.SIGWINCH, self.redraw), (signal.SIGTSTP, self.suspend), (signal.SIGINT, interrupt),
            (signal.SIGTERM, terminate),
        ):  # fmt: skip
            self.stack.callback(signal.signal, number, signal.signal(number, self.once_drawn(action)))
        self.stack.enter_context(redirect_stderr(self.remarks))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def leave(self) -> None:
        """Give the terminal back, with the last answer on it."""
        self.live.stop()
        if self.shown is not None:
            self.console.print(self.shown)

    def show(self, draw: Callable[[], None]) -> None:
        """Show what `draw` writes, now and again when the size of the terminal changes."""
        self.draw = draw
        self.redraw()
        self.remarks.seek(0)
        self.remarks.truncate()

    def redraw(self) -> None:
        """Write the answer for the width that the terminal has, and cut it to its height."""
        self.is_drawing = True
        try:
            page = Page()
            with redirect_stdout(page), redirect_stderr(page):
                self.draw()
            self.shown = self.cut(page.getvalue() + self.remarks.getvalue())
            self.live.update(self.shown, refresh=True)
        finally:
            self.is_drawing = False
        while self.waiting:
            self.waiting.pop(0)()

    def cut(self, content: str) -> Segments:
        """Return the lines that the terminal has room for; the last one says how many are missing."""
        from rich.segment import Segment, Segments
        from rich.text import Text

        width, height = self.console.size
        options = self.console.options.update(width=width, height=None)
        lines = self.console.render_lines(Text.from_ansi(content), options, pad=False)
        if len(lines) > height:
            missing = f"{len(lines) - height + 1} more lines: the terminal is too small"
            lines = [*lines[: height - 1], [Segment(missing[:width])]]
        between = [Segment.line()] * len(lines)
        return Segments([piece for line, end in zip(lines, between, strict=True) for piece in (*line, end)][:-1])

    def once_drawn(self, action: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        """Return a signal handler that acts at once, or when the drawing under way is done."""

        def handler(number: int, frame: FrameType | None) -> None:
            del number, frame
            if self.is_drawing:
                self.waiting.append(action)
            else:
                action()

        return handler

    def suspend(self) -> None:
        """Give the terminal back to the shell until the program continues (Ctrl-Z, fg)."""
        self.live.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.live.start()
        self.redraw()


@contextmanager
def textual_streams() -> Iterator[None]:
    """Give Textual a stream to draw on: it takes those that Python started with, which cli.main has replaced."""
    names = ("__stdout__", "__stderr__")
    before = {name: getattr(sys, name) for name in names}
    for name in names:
        setattr(sys, name, sys.stdout)
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)


def interrupt() -> None:
    """End the program as Ctrl-C does."""
    raise KeyboardInterrupt


def terminate() -> None:
    """End the program, and so give the terminal back."""
    raise SystemExit(TERMINATED)
