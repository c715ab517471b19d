"""The program: the command tree, and the one place where an error becomes a message and an exit code."""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from rollbook.core import command as options
from rollbook.core import render
from rollbook.core.errors import INTERRUPTED, PIPE_CLOSED, AdminError, BugError, UsageError
from rollbook.people.commands import (
    allowed,
    discussion,
    email_change,
    enrollment,
    group,
    name_change,
    registration,
    user_file,
)
from rollbook.replication.commands import course, replication, server, status
from rollbook.system.commands import demo, history, schema, version
from rollbook.testcentre.commands import authorization, candidate, exam, pearson

app = typer.Typer(
    name="rollbook",
    help="Each student of a learning platform in exactly the course schemas they are enrolled in.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(status.app)
app.add_typer(course.app, rich_help_panel="Courses and replication")
app.add_typer(replication.app, rich_help_panel="Courses and replication")
app.add_typer(server.app, rich_help_panel="Courses and replication")
app.add_typer(user_file.app, rich_help_panel="People")
app.add_typer(registration.app, rich_help_panel="People")
app.add_typer(group.app, rich_help_panel="People")
app.add_typer(name_change.app, rich_help_panel="People")
app.add_typer(email_change.app, rich_help_panel="People")
app.add_typer(enrollment.app, rich_help_panel="People")
app.add_typer(allowed.app, rich_help_panel="People")
app.add_typer(discussion.app, rich_help_panel="People")
app.add_typer(candidate.app, rich_help_panel="Test centre")
app.add_typer(exam.app, rich_help_panel="Test centre")
app.add_typer(authorization.app, rich_help_panel="Test centre")
app.add_typer(pearson.app, rich_help_panel="Test centre")
app.add_typer(history.app, rich_help_panel="Look")
app.add_typer(schema.app, rich_help_panel="System")
app.add_typer(demo.app, rich_help_panel="System")
app.add_typer(version.app)


@app.callback()
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and stop.")] = False,
) -> None:
    """Register the options of the bare program."""
    if show_version:
        from importlib.metadata import version as installed

        render.text(options.current, f"rollbook {installed('rollbook')}\n")
    elif context.invoked_subcommand is None:
        render.text(options.current, context.get_help() + "\n")
        raise typer.Exit(UsageError.exit_code)


@functools.cache
def commands() -> Callable[..., Any]:
    """Build the command tree, once in a process: it takes 0.06 s."""
    return typer.main.get_command(app)


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code; every error has been reported."""
    options.current = options.Run(json=asks_for_json(arguments), debug="--debug" in arguments)
    try:
        code: Any = commands()(arguments, standalone_mode=False, prog_name="rollbook")
    except AdminError as exc:
        return failed(exc)
    except TyperException as exc:
        if type(exc).__name__ == "NoArgsIsHelpError":  # Typer keeps the class to itself
            return UsageError.exit_code  # the help has been printed
        context = getattr(exc, "ctx", None)
        fix = f"{context.command_path} --help" if context else "rollbook --help"
        return failed(UsageError(" ".join(exc.format_message().split()).rstrip("."), fix=fix))
    except UnicodeEncodeError:
        return failed(UsageError("an argument is not valid UTF-8", fix="write it in the encoding of the terminal"))
    except (KeyboardInterrupt, typer.Abort):
        return interrupted()
    except Exception as exc:  # a bug of ours: the last resort
        path = render.log_bug(options.current, masked_trace())
        where = f"report it with {path}" if path else "run it again with --debug and report what it prints"
        return failed(BugError(f"a bug in rollbook: {type(exc).__name__}: {exc}", fix=where))
    if code == INTERRUPTED:
        return interrupted()
    return code if isinstance(code, int) else 0


def failed(exc: AdminError) -> int:
    """Report an error, with its traceback if --debug asks for it, and return its exit code."""
    render.error(options.current, exc)
    if options.current.debug:
        render.trace(masked_trace())
    return exc.exit_code


def masked_trace() -> str:
    """Return the traceback of the error under way, without passwords."""
    from rollbook.core.db import masked

    return masked(traceback.format_exc())


def asks_for_json(arguments: list[str]) -> bool:
    """Say whether JSON is asked for, before the options have been parsed: an error in them must be JSON too."""
    after = dict(pairwise(arguments)).get("--format", "")
    joined = [word.removeprefix("--format=") for word in arguments if word.startswith("--format=")]
    return "--json" in arguments or any(word in ("json", "jsonl") for word in [after, *joined])


def interrupted() -> int:
    """Say what Ctrl-C left: the transaction under way is rolled back."""
    render.note(options.current, "\ninterrupted; what was not reported as done is rolled back")
    return INTERRUPTED


def fill_streams() -> None:
    """Open what the caller has closed (`<&-`): else the next file or socket would take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def main() -> None:
    """Run as a program."""
    fill_streams()
    if not os.environ.get("PYTHONUTF8") and hasattr(sys.stdout, "reconfigure"):
        for stream in (sys.stdout, sys.stderr):  # names in several scripts, also where LANG=C
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PIPE_CLOSED
    sys.exit(code)
