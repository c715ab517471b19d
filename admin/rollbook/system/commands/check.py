"""`rollbook check`: what is watched, judged, for people and for monitors such as Nagios."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import AdminError, UsageError
from rollbook.core.values import size

app = typer.Typer()

COLUMNS = ("check", "state", "value", "unit", "warning", "critical", "message")
NAMES = ("replication", "schema", "verify", "pearson", "discussion")


@command(
    app, "check", sets=("data",), columns=COLUMNS, configured=False,
    examples=("check replication schema", "check replication --nagios --timeout 10"),
    exits="0 all ok, 2 usage, 3 something is unknown or unreachable, 4 a warning or worse; with --nagios 0 ok, "
    "1 warning, 2 critical, 3 unknown",
    see="rollbook status, rollbook metrics",
)  # fmt: skip
def check(
    run: Run,
    what: Annotated[
        list[str],
        typer.Argument(metavar="[CHECK...]", help=f"Of {', '.join(NAMES)}. Default: all.", show_default=False,
                       autocompletion=lambda incomplete: [name for name in NAMES if name.startswith(incomplete)]),
    ] = [],  # noqa: B006
    warning: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Lag that is a warning. Default: 10.")
    ] = None,
    critical: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Lag that is critical. Default: none.")
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Age of the last verify (2d) and of records to export (3d): 90m, 36h, 7d."),
    ] = None,
    nagios: Annotated[bool, typer.Option("--nagios", help="One line with performance data; exit codes of plugins.")]
    = False,
) -> int:  # fmt: skip
    """Judge courses, servers, slots, schema, last verify and queues: ok, warning, critical or unknown.

    With --nagios the worst decides, in the order critical, unknown, warning: a silent server hides no real fault.
    """
    from rollbook.core.db import Caller
    from rollbook.system import judging
    from rollbook.system.collection import Collected, collect

    try:
        run.configure(lists=True)  # here, as a broken configuration is UNKNOWN, too
        warning = run.check_warning if warning is None else warning
        critical = run.check_critical if critical is None else critical
        for name in what:
            if name not in NAMES:
                raise UsageError(f"there is no check {name}", fix=f"checks: {', '.join(NAMES)}")
        if warning is not None and critical is not None and critical < warning:
            raise UsageError(
                f"--critical {critical:g} is below --warning {warning:g}",
                fix="swap them; rollbook config show prints configured ones",
            )
        if nagios and (run.format or run.json or run.csv or run.output != "-"):
            raise UsageError("--nagios has a format of its own", fix="leave out --format, --json, --csv and -o")
        limits = judging.Limits(warning, critical, age(max_age or run.check_max_age))
        asked = what or list(NAMES)
        found = Collected()
        parts = {part for name in asked for part in judging.CHECKS[name]}
        with run.connect(migrated=False) as conn:
            conn.autocommit = True
            collect(conn, found, Caller(run.name, run.timeout), parts)
    except AdminError as exc:
        if not nagios:
            raise
        render.text(run, f"ROLLBOOK UNKNOWN - {judging.cleaned(': '.join(filter(None, (exc.message, exc.why))))}\n")
        return judging.NAGIOS[judging.UNKNOWN]
    lines = judging.judged(found, asked, limits)
    if nagios:
        render.text(run, judging.nagios(lines) + "\n")
        return judging.NAGIOS[judging.worst(lines)]
    if render.chosen_format(run) is Format.table and not run.fields:
        render.rows(run, [in_words(vars(line)) for line in lines], [name for name in COLUMNS if name != "unit"])
    else:
        render.rows(run, [vars(line) for line in lines], COLUMNS)
    return judging.exit_code(lines)


def in_words(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line for a reader: value and limits with their unit."""
    amounts = {name: line[name] for name in ("value", "warning", "critical") if line[name] is not None}
    is_bytes, unit = line["unit"] == "B", line["unit"] or ""
    return {**line, **{name: size(int(each)) if is_bytes else f"{each:g} {unit}" for name, each in amounts.items()}}


def age(given: str | None) -> timedelta | None:
    """Return an age. Raises UsageError for anything else."""
    from rollbook.core.since import since

    if given is None:
        return None
    found = since("--max-age", given)
    if not isinstance(found, timedelta):
        raise UsageError(f"--max-age {given} is a time, not an age", fix="such as 90m, 36h or 7d")
    return found
