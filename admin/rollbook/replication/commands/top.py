"""`rollbook top`: what `rollbook status` shows, full screen and alive."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.errors import UnreachableError, UsageError

app = typer.Typer()


@command(
    app, "top", examples=("top", "top --interval 10"),
    exits="0 ended with q, 2 no terminal, 3 unreachable, or Textual is not installed, 4 the database is not migrated",
    see="rollbook status --watch",
)  # fmt: skip
def top(
    run: Run,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="Look again after SECONDS.")] = 2.0,
) -> int:
    """Show the portal and every course full screen, the worst first, with lag and rows/s of the last looks.

    Above them, where there is a relay, or a server without courses, the tree of the servers, as status shows it.
    Keys: space pause, s sort, / filter, t servers, enter details, v verify, c canary, ? help, q quit. None changes a
    copy.
    """
    instead = f"rollbook status --watch {interval:g}"
    if not render.has_screen():
        raise UsageError("rollbook top needs a terminal", why="it draws on the whole screen", fix=instead)
    if run.verbose:
        raise UsageError("--verbose writes where rollbook top draws", fix="rollbook status --verbose")
    try:
        import textual  # noqa: F401 (0.4 s)
    except ImportError:
        raise UnreachableError(
            "rollbook top needs the Python package textual, which is not installed",
            fix=f"install it where rollbook is: pip install 'rollbook[top]'; or: {instead}",
        ) from None
    from rollbook.replication.commands.top_screen import Top, look

    return Top(run, interval, look(run)).shown()
