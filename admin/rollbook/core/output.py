"""Where an answer goes: stdout, a file, or a pager on a terminal."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from rollbook.core.command import Run, When
from rollbook.core.errors import PIPE_CLOSED
from rollbook.core.values import visible

if TYPE_CHECKING:
    from rich.console import Console

PAGER = "less -FIRX"


class Page(io.StringIO):
    """An answer for a terminal, kept until its length is known."""

    def isatty(self) -> bool:
        """Return True: what is written here appears on a terminal."""
        return True


@contextmanager
def sink(run: Run, *, drawn: bool = False) -> Iterator[IO[str]]:
    """Yield the stream of the answer. On a terminal, nothing in it steers the terminal.

    `drawn`: it is for a reader, with colours; a long one goes to a pager. A file is readable by the user alone. A
    closed pipe ends the program silently with 141.
    """
    if run.output != "-":
        from rollbook.core.files import written  # --help needs no files

        with written(run.output, "-o", append=run.begun) as file:
            yield file
        run.begun = True
        return
    try:
        if sys.stdout.isatty():
            page = Page()
            yield page
            content = visible(page.getvalue(), tabs=True, colours=drawn)
            if not (drawn and may_page(run) and shown_by_pager(content, run.pager)):
                sys.stdout.write(content)
        else:
            yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None


def may_page(run: Run) -> bool:
    """Return whether a pager has a terminal to read from and write to, and nobody declined it."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return terminal and not run.no_pager and run.watch is None


def shown_by_pager(content: str, configured: str | None) -> bool:
    """Show a text in the pager, configured or $PAGER, if it is longer than the screen; return whether that happened.

    The pager may quit before it has read everything. Ctrl-C belongs to the pager while it runs.
    """
    words = shlex.split(os.environ.get("PAGER", PAGER) if configured is None else configured)
    if not words or content.count("\n") < shutil.get_terminal_size().lines:
        return False
    sys.stdout.flush()
    # Before the pager starts, which may be quicker than we are; a pager would start deaf to Ctrl-C with SIG_IGN.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        pager = subprocess.Popen(
            words, stdin=subprocess.PIPE, encoding="utf-8", errors="backslashreplace",
            env={"LESS": "FIRX", **os.environ},
        )  # fmt: skip
        pager.communicate(content)
    except OSError:  # there is no such program
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def console(run: Run, stream: IO[str]) -> Console:
    """Return a Rich console on a stream. The stream alone decides about colour; only a terminal has a width."""
    from rich.console import Console  # 0.06 s

    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    color = terminal or bool(os.environ.get("FORCE_COLOR"))
    if run.color in (When.always, When.never):
        color = run.color is When.always
    elif os.environ.get("NO_COLOR"):
        color = False
    columns = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else int(columns) if columns.isdecimal() and int(columns) else 10_000
    return Console(
        file=stream, force_terminal=terminal or color, force_interactive=stream.isatty(), no_color=not color,
        color_system="standard" if color else None, width=width, highlight=False, soft_wrap=False, legacy_windows=False,
    )  # fmt: skip
