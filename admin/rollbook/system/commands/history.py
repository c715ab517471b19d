"""`rollbook history`: what the command line wrote."""

from datetime import datetime
from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import OfCourse, OfUser
from rollbook.core.command import Run, command
from rollbook.core.nouns import noun

app = noun("history")

COLUMNS = ("id", "at", "actor", "role", "command", "object", "outcome", "reason", "on_behalf_of")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("history list --user ada", "history list --command 'user update' --since 2012-09-01 --json"),
    exits="0 even if there is none, 1 unknown user, 2 invalid time, 3 unreachable", see="rollbook history show",
)  # fmt: skip
def list_(
    run: Run,
    user: OfUser = None,
    course: OfCourse = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Only entries by this role or person.")] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Only this command: `user update`, or `user` for all of its verbs."),
    ] = None,
    since: Annotated[datetime | None, typer.Option(metavar="TIME", help="Only from this time on (UTC).")] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="ID", help="Only this import and its rows, see rollbook import list.")
    ] = None,
) -> None:
    """List the recorded changes, newest first."""
    from datetime import UTC

    from rollbook.core.history import list_history
    from rollbook.core.unknown_names import note_unknown
    from rollbook.core.users import find_recorded

    with run.connect() as conn:
        found = list_history(
            conn, user_id=find_recorded(conn, [user])[0]["id"] if user else None, course=course, actor=actor,
            command=command, since=since and since.replace(tzinfo=UTC), batch=batch, match=run.match,
            limit=render.fetch_limit(run),
        )  # fmt: skip
        if not found:
            note_unknown(conn, run, course=course)
    render.listing(run, found, COLUMNS, empty="no changes are recorded")


@command(
    app, "show", sets=("document",),
    examples=("history show 1", "history show 1 --json"),
    exits="0 found, 1 no such entry, 3 unreachable", see="rollbook history list",
)  # fmt: skip
def show(run: Run, number: Annotated[int, typer.Argument(metavar="ID", help="The entry's id.")]) -> None:
    """Show one entry, with the values before and after."""
    from rollbook.core.history import find_history_entry

    with run.connect() as conn:
        found = find_history_entry(conn, number)
    parts = {"Entry": {key: value for key, value in found.items() if key not in ("before", "after")}}
    parts |= {key.capitalize(): found[key] or {} for key in ("before", "after")}
    render.document(run, found, lambda out: render.sections(run, out, {k: v or [] for k, v in parts.items()}))
