"""`rollbook user merge`: two accounts of one person."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import NotConfirmedError, RefusedError
from rollbook.core.users import User as Named
from rollbook.core.users import find_user
from rollbook.people import merging
from rollbook.people.commands.user import app
from rollbook.people.commands.wait_option import Wait, awaited

__all__ = ["app"]

MERGED = ("what", "name", "outcome", "detail")


@command(
    app, "merge", sets=("data", "writes", "yes"), columns=MERGED, long=True,
    examples=("user merge bob ada -n", "user merge bob ada --yes --reason 'two accounts'"),
    exits="0 merged, 1 refused (rights, two candidates, rows of other tables), nothing changed, 3 unreachable, "
    "4 not at the server in time, 6 not confirmed",
    see="rollbook user show, rollbook history list --user",
)  # fmt: skip
def merge(
    run: Run,
    user: Annotated[str, typer.Argument(metavar="FROM", help="The account that goes: username, address or id:N.")],
    into: Annotated[str, typer.Argument(metavar="INTO", help="The account that stays.")],
    move_references: Annotated[
        bool, typer.Option("--move-references", help="Rows of other tables that refer to FROM refer to INTO instead.")
    ] = False,
    wait: Wait = None,
) -> int:
    """Make two accounts of one person one: INTO gets what FROM has, FROM is deleted. It cannot be undone.

    Enrollments, groups, the candidate, allowed courses and the history go to INTO; its own password, rights, name,
    address and profile stay. The plan is printed first, and must be confirmed.
    """
    with run.connect() as conn:
        source, target = find_user(conn, user), find_user(conn, into)
        if source["id"] == target["id"]:
            raise RefusedError(f"{user} and {into} are the same account, id:{source['id']}", fix="name another one")
        if not (run.yes or run.dry_run):
            confirm(run, conn, source, target, move_references=move_references)
        parts = merging.merge(conn, run, source, target, move_references=move_references)
    render.removed(run, map(vars, parts), MERGED)
    courses = [part.name for part in parts if part.what == "enrollment" and part.outcome != "removed"]
    return awaited(run, courses, wait)


def confirm(run: Run, conn: Conn, source: Named, target: Named, *, move_references: bool) -> None:
    """Show what a merge would do, which is done and rolled back, and ask. Raises NotConfirmedError, with the plan."""
    with conn.transaction(force_rollback=True):
        plan = merging.merge(conn, run, source, target, move_references=move_references)
    for part in plan:
        detail = f" ({part.detail})" if part.detail else ""
        render.note(run, f"{part.outcome}: {part.what} {part.name}{detail}")
        render.remains(run, part.remains)
    try:
        render.confirm(
            run, f"merge {source['username']} (id:{source['id']}) into {target['username']} (id:{target['id']}), "
            "which cannot be undone?"
        )  # fmt: skip
    except NotConfirmedError as exc:
        exc.details["plan"] = [{name: vars(part)[name] for name in MERGED} for part in plan]
        raise
