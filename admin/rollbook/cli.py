"""The program: the command tree, and the one place where an error becomes a message and an exit code."""

import os
import signal
import sys
import traceback
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from rollbook.core import command as options
from rollbook.core.errors import COMMITTING, INTERRUPTED, AdminError, BugError, UnreachableError, UsageError
from rollbook.core.log import log_bug
from rollbook.core.standard_output import StandardError, StandardOutput
from rollbook.tree import Root

# What a superuser runs, or a role with the rights that docs/dba.md and docs/servers.md list.
SUPERUSER = ("rollbook schema upgrade", "rollbook schema downgrade", "rollbook server add")

app = typer.Typer(
    name="rollbook",
    cls=Root,
    help="Each student of a learning platform in exactly the course schemas they are enrolled in.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and stop.")] = False,
) -> None:
    """Register the options of the bare program."""
    if show_version:
        from importlib.metadata import version as installed

        from rollbook.core import render

        render.text(options.current, f"rollbook {installed('rollbook')}\n")
    elif context.invoked_subcommand is None:
        from rollbook.core import render

        render.text(options.current, context.get_help() + "\n")
        raise typer.Exit(UsageError.exit_code)


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code; every error has been reported."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    options.current = options.Run(json=asks_for_json(arguments), debug="--debug" in arguments)
    try:
        code: Any = typer.main.get_command(app)(arguments, standalone_mode=False, prog_name="rollbook")
    except typer.Abort:
        return interrupted()
    except (KeyboardInterrupt, Exception) as exc:
        return interrupted(key) if (key := ctrl_c(exc)) else reported(exc, arguments)
    if code == INTERRUPTED:
        return interrupted()
    if options.current.by_superuser and options.current.name not in SUPERUSER:
        note_superuser(options.current)
    return code if isinstance(code, int) else 0


def ctrl_c(exc: BaseException | None) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that an error came after: what it broke off, such as a statement, makes errors of its own."""
    while exc is not None and not isinstance(exc, KeyboardInterrupt):
        exc = exc.__context__
    return exc


def reported(exc: BaseException, arguments: list[str]) -> int:
    """Report the error that ended a command, and return its exit code."""
    if isinstance(exc, AdminError):
        return failed(exc)
    if isinstance(exc, TyperException):
        if type(exc).__name__ == "NoArgsIsHelpError":  # Typer keeps the class to itself
            return UsageError.exit_code  # the help has been printed
        message = " ".join(exc.format_message().split()).rstrip(".")
        context = getattr(exc, "ctx", None)
        if context is None or isinstance(context.command, TyperGroup):
            from rollbook.hints import explained

            return failed(explained(arguments, message))
        return failed(UsageError(message, fix=f"{context.command_path} --help"))
    if isinstance(exc, UnicodeEncodeError):
        return failed(UsageError("an argument is not valid UTF-8", fix="write it in the encoding of the terminal"))
    if isinstance(exc, OSError):
        what = f"cannot read or write {exc.filename}" if exc.filename else "a file or a connection cannot be used"
        return failed(UnreachableError(what, why=exc.strerror or str(exc), fix="--debug shows where"))
    path = log_bug(options.current, masked_trace())  # a bug of ours: the last resort
    where = f"report it with {path}" if path else "run it again with --debug and report what it prints"
    return failed(BugError(f"a bug in rollbook: {type(exc).__name__}: {exc}", fix=where))


def note_superuser(run: options.Run) -> None:
    """Tell a person at a terminal that a superuser has run what a role of Rollbook's may run."""
    from rollbook.core import render

    if render.has_terminal():
        render.note(run, "connected as a superuser;", f"{run.needs} would do")


def failed(exc: AdminError) -> int:
    """Report an error, with its traceback if --debug asks for it, and return its exit code."""
    from rollbook.core import render

    render.error(options.current, exc)
    if options.current.debug:
        render.trace(masked_trace())
    return exc.exit_code


def masked_trace() -> str:
    """Return the traceback of the error under way, without passwords."""
    from rollbook.core.conninfo import masked

    return masked(traceback.format_exc())


def asks_for_json(arguments: list[str]) -> bool:
    """Say whether JSON is asked for, before the options have been parsed: an error in them must be JSON too."""
    after = dict(pairwise(arguments)).get("--format", "")
    joined = [word.removeprefix("--format=") for word in arguments if word.startswith("--format=")]
    return "--json" in arguments or any(word in ("json", "jsonl") for word in [after, *joined])


def interrupted(key: KeyboardInterrupt | None = None) -> int:
    """Report Ctrl-C, and what it left where something was being written. It is not disturbed by another one."""
    run = options.current
    undone = "; the open transaction was rolled back" if run.writes and not run.dry_run else ""
    if COMMITTING in getattr(key, "__notes__", ()):
        undone = " at the commit; rollbook history list shows whether it was done"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from rollbook.core import render

        render.note(run, "", f"interrupted{undone}")
    finally:
        signal.signal(signal.SIGINT, before)
    return INTERRUPTED


def fill_streams() -> None:
    """Open what the caller has closed (`<&-`): else the next file or socket would take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def main() -> None:
    """Run as a program."""
    fill_streams()
    # UTF-8 also where LANG=C: names are in several scripts.
    is_terminal = sys.stdout.isatty()
    sys.stdout = StandardOutput(
        sys.stdout.detach(),  # type: ignore[union-attr]
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=is_terminal,
    )
    sys.stderr = StandardError(
        sys.stderr.detach(),  # type: ignore[union-attr]
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except AdminError as exc:
        code = failed(exc)
    except KeyboardInterrupt:
        code = interrupted()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: the interpreter ends in peace
    sys.exit(code)
