"""`rollbook config`: the configuration files and what they say."""

from typing import Annotated

import typer

from rollbook.core import config as configuration
from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.nouns import noun

app = noun("config")

SHOWN = ("key", "value", "source")
FILES = ("path", "kind", "state")
PROBLEMS = ("file", "line", "key", "problem", "why", "fix")


@command(
    app, "init", configured=False,
    examples=("config init", "config init --config portal.toml --profile production -d service=portal"),
    exits="0 written, 1 the file exists already, 3 it could not be written", see="rollbook config check",
)  # fmt: skip
def init(
    run: Run,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Print the file, write nothing.")] = False,
) -> None:
    """Write a configuration file with every key as a comment, readable by you alone; --config names another place.

    The values of -d, --timeout, --color and --no-input become its values; with --profile they are the profile's.
    """
    text = configuration.template(run.given, run.profile)
    if dry_run:
        render.text(run, text)
        return
    path = configuration.new_path(run.config)
    configuration.write_new(path, text)
    render.note(run, f"written: {path}; next: edit it, then rollbook config check")


@command(
    app, "show", sets=("data",), columns=SHOWN, configured=False,
    examples=("config show", "config show --json", "config show --timeout 5"),
    exits="0 shown, 2 a file or a variable has a wrong key or value, or there is no such profile",
    see="rollbook config path",
)  # fmt: skip
def show(run: Run) -> None:
    """Show each setting and where it is from: an option, a variable, a file and its profile, or the default.

    Passwords are masked.
    """
    found = configuration.settings(run.config, run.profile, run.given)
    run.configure(lists=True)
    rows = [
        {"key": each.key, "value": configuration.shown(each.value), "source": each.source} for each in found.values()
    ]
    render.rows(run, rows, SHOWN)


@command(
    app, "path", sets=("data",), columns=FILES, configured=False,
    examples=("config path", "config path --json"), exits="0 always", see="rollbook config check",
)  # fmt: skip
def path(run: Run) -> None:
    """List the files that are looked for, the one that wins first: of --config, the user's, the system's."""
    found = configuration.files(run.config)
    render.rows(run, [{"path": str(each.path), "kind": each.kind, "state": each.state} for each in found], FILES)


@command(
    app, "check", sets=("data",), columns=PROBLEMS, configured=False,
    examples=("config check", "config check --config config.toml --json"),
    exits="0 all is well, 1 a file has a problem", see="rollbook config show",
)  # fmt: skip
def check(run: Run) -> int:
    """List everything that is wrong with the files: keys, values, rights, a profile that no file has."""
    found = configuration.files(run.config)
    problems = [vars(problem) for file in found for problem in configuration.all_problems(file)]
    if not problems:
        try:
            configuration.settings(run.config, run.profile, run.given)
        except UsageError as exc:
            row = {"file": None, "line": None, "key": None, "problem": exc.message, "why": exc.why, "fix": exc.fix}
            problems = [row]
    read = [str(file.path) for file in found if file.state == "read"]
    empty = f"no problem in {' and '.join(read)}" if read else "there is no file; rollbook config init writes one"
    render.rows(run, problems, PROBLEMS, empty=empty)
    return RefusedError.exit_code if problems else 0
