"""The program: the command tree, and the one place where an error becomes a message and an exit code."""

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from admin import options, render
from admin.commands import course, demo, enrollment, replication, schema, status, user, version
from admin.errors import AdminError, UsageError

app = typer.Typer(
    name="rollbook",
    help="Each student of a learning platform in exactly the course schemas they are enrolled in.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(status.app)
app.add_typer(course.app, rich_help_panel="Courses and replication")
app.add_typer(replication.app, rich_help_panel="Courses and replication")
app.add_typer(user.app, rich_help_panel="People")
app.add_typer(enrollment.app, rich_help_panel="People")
app.add_typer(schema.app, rich_help_panel="System")
app.add_typer(demo.app, rich_help_panel="System")
app.add_typer(version.app)

BUG = 70
INTERRUPTED = 130


@app.callback()
def root(
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and stop.")] = False,
) -> None:
    """Register the options of the bare program."""
    if show_version:
        from importlib.metadata import version as installed

        render.text(options.current, f"rollbook {installed('rollbook')}\n")
        raise typer.Exit


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code; every error has been reported."""
    options.current = options.Run(json="--json" in arguments or "--format=json" in arguments)
    try:
        code: Any = app(arguments, standalone_mode=False, prog_name="rollbook")
    except AdminError as exc:
        render.error(options.current, exc)
        if options.current.debug:
            traceback.print_exc()
        return exc.exit_code
    except TyperException as exc:
        if not exc.message or exc.__class__.__name__ == "NoArgsIsHelpError":
            return UsageError.exit_code  # the help has been printed
        fix = f"{exc.ctx.command_path} --help" if getattr(exc, "ctx", None) else "rollbook --help"  # type: ignore[attr-defined]
        render.error(options.current, UsageError(exc.format_message().rstrip("."), fix=fix))
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return interrupted()
    except Exception as exc:  # a bug of ours: the last resort
        path = render.log_bug(options.current, traceback.format_exc())
        if options.current.debug:
            traceback.print_exc()
        bug = AdminError(f"a bug in rollbook: {type(exc).__name__}: {exc}", fix=f"report it with {path}")
        bug.exit_code = BUG  # type: ignore[misc]
        render.error(options.current, bug)
        return BUG
    if code == INTERRUPTED:
        return interrupted()
    return code if isinstance(code, int) else 0


def interrupted() -> int:
    """Say what Ctrl-C left: the transaction under way is rolled back."""
    render.note(options.current, "\ninterrupted; what was not reported as done is rolled back")
    return INTERRUPTED


def main() -> None:
    """Run as a program."""
    if not os.environ.get("PYTHONUTF8") and hasattr(sys.stdout, "reconfigure"):
        for stream in (sys.stdout, sys.stderr):  # names in several scripts, also where LANG=C
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = render.PIPE_CLOSED
    sys.exit(code)
