"""`rollbook history`: what the command line wrote."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import OfCourse, OfUser
from rollbook.core.command import OnError, Run, command
from rollbook.core.errors import NotConfirmedError, PartialError
from rollbook.core.nouns import noun

if TYPE_CHECKING:
    from rollbook.core.history_erase import Erased

app = noun("history")

ERASED = ("outcome", "entries", "batches", "oldest", "newest")
UNDONE = ("id", "object", "course", "outcome", "detail")
COLUMNS = ("id", "at", "actor", "role", "command", "object", "outcome", "reason", "on_behalf_of")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="at",
    examples=("history list --user ada", "history list --command 'user update' --since -7d --json"),
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
    batch: Annotated[
        int | None, typer.Option(metavar="ID", help="Only this import and its rows, see rollbook import list.")
    ] = None,
) -> None:
    """List the recorded changes, newest first."""
    from rollbook.core.history import list_history
    from rollbook.core.unknown_names import note_unknown
    from rollbook.core.users import find_recorded

    with run.connect() as conn:
        found = list_history(
            conn, user_id=find_recorded(conn, [user])[0]["id"] if user else None, course=course, actor=actor,
            command=command, batch=batch, match=run.match, limit=render.fetch_limit(run), **run.period,
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


@command(
    app, "undo", sets=("data", "writes", "yes"), columns=UNDONE, long=True, needs="rollbook_operator",
    examples=("history undo 1 -n", "history undo 1 --on-error skip --yes --reason 'the wrong file'"),
    exits="0 undone, 1 refused (changed since, undone already, cannot be undone), nothing changed, 3 unreachable, "
    "5 some skipped, 6 not confirmed",
    see="rollbook import list, rollbook history list",
)  # fmt: skip
def undo(
    run: Run,
    number: Annotated[
        list[int], typer.Argument(metavar="ID...", help="Entries, or batches: see rollbook import list.")
    ],
    on_error: Annotated[
        OnError,
        typer.Option(
            "--on-error", help="When an entry cannot be undone: undo nothing, or skip it and undo the others (exit 5)."
        ),
    ] = OnError.abort,
) -> int:
    """Undo what entries of the history changed, where nobody changed it since: the values of before return.

    The plan is printed first, and must be confirmed. An undo is recorded, and can be undone itself.
    """
    from rollbook.core.undoing import undo as undo_entries
    from rollbook.people.undo import STEPS as PEOPLE
    from rollbook.testcentre.undo import STEPS as TEST_CENTRE

    run.on_error, run.is_of_people = on_error, True
    steps = (*TEST_CENTRE, *PEOPLE)
    with run.connect() as conn:
        if not (run.yes or run.dry_run):
            with conn.transaction(force_rollback=True):
                confirm(run, [vars(each) for each in undo_entries(conn, run, number, steps)])
        done = [vars(each) for each in undo_entries(conn, run, number, steps)]
    render.rows(run, done, UNDONE)
    skipped = sum(row["outcome"] == "skipped" for row in done)
    words = f"{len(done) - skipped} undone" + (f", {skipped} skipped" if skipped else "")
    render.note(run, f"{words}; dry run: nothing was changed" if run.dry_run else words)
    return PartialError.exit_code if skipped else 0


def confirm(run: Run, plan: list[render.Row]) -> None:
    """Ask whether to follow the plan. Raises NotConfirmedError, which has the plan."""
    from rollbook.core.undoing import SHOWN

    skipped = [row for row in plan if row["outcome"] == "skipped"]
    for row in skipped[:SHOWN]:
        render.note(run, f"{row['id']} {row['object']}: {row['detail']}")
    if len(skipped) > SHOWN:
        render.note(run, f"and {len(skipped) - SHOWN} more: -n lists them all")
    names = ", ".join(dict.fromkeys(row["object"] for row in plan[:5])) + (" and more" if len(plan) > 5 else "")
    skips = f", {len(skipped)} of them skipped" if skipped else ""
    try:
        render.confirm(run, f"undo {render.plural(len(plan), 'change')}{skips}: {names}. Continue?")
    except NotConfirmedError as exc:
        exc.details["plan"] = plan
        raise


@command(
    app, "erase", sets=("data", "writes", "yes"), columns=ERASED, long=True, needs="rollbook_owner",
    examples=("history erase --before 2012-09-01 -n", "history erase --before 104w --keep-entries --yes"),
    exits="0 erased, or nothing is that old, 2 invalid time, 3 unreachable, or the role may not, 6 not confirmed",
    see="rollbook user erase, rollbook history list",
)  # fmt: skip
def erase(
    run: Run,
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="Entries before this time (UTC), or older than 52w or 30d.")
    ],
    keep_entries: Annotated[
        bool, typer.Option("--keep-entries", help="Keep who did what when; erase names, values and reasons.")
    ] = False,
) -> None:
    """Erase old entries of the history; they cannot be undone any more. Entries of erasures stay, without names.

    Only the role that migrates may. The number of entries is printed first, and must be confirmed.
    """
    from datetime import UTC

    from rollbook.core import history
    from rollbook.core.errors import UsageError
    from rollbook.core.history_erase import erase_older
    from rollbook.core.rights import require_migrator
    from rollbook.core.since import since

    given, now = since("--before", before), datetime.now(UTC)
    until = given if isinstance(given, datetime) else now - given
    if until > now:
        raise UsageError(f"--before {before} is in the future", fix="name a time that has passed")
    with run.connect() as conn:
        require_migrator(conn, "erase the history")
        if not (run.yes or run.dry_run):
            with conn.transaction(force_rollback=True):
                plan = erase_older(conn, until, keep_entries=keep_entries)
            conn.rollback()  # nothing is locked while somebody thinks
            confirm_erasure(run, until, plan)
        done = erase_older(conn, until, keep_entries=keep_entries)
        if done:
            for row in done:
                after = {"before": f"{until:%Y-%m-%d %H:%M} UTC", **vars(row)}
                history.record(conn, run, "history", "erased", after=after)
    render.rows(run, map(vars, done), ERASED, empty="nothing is that old")


def confirm_erasure(run: Run, until: datetime, plan: list["Erased"]) -> None:
    """Ask whether to erase so many entries. Raises NotConfirmedError."""
    count, batches = (sum(getattr(row, name) for row in plan) for name in ("entries", "batches"))
    if count:
        entries = "1 entry" if count == 1 else f"{count} entries"
        lost = f"; imports and undos among them, which cannot be undone any more: {batches}" if batches else ""
        render.confirm(run, f"erase {entries} of the history before {until:%Y-%m-%d %H:%M} UTC{lost}. Continue?")
