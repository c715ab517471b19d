"""`rollbook user activate`, `deactivate`, `grant` and `revoke`."""

from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core.arguments import Users
from rollbook.core.command import Run, command
from rollbook.core.errors import UsageError
from rollbook.core.users import User
from rollbook.people.commands.named_users import chosen
from rollbook.people.commands.user import app
from rollbook.people.commands.user_write import note_enrolled
from rollbook.people.queries import user as accounts

__all__ = ["app"]

DONE = ("username", "outcome")


@command(
    app, "activate", sets=("data", "writes", "several"), columns=DONE,
    examples=("user activate ada", "user activate - --reason 'e-mail lost' < users.txt"),
    exits="0 done (active accounts are skipped), 1 unknown user, nothing done, 3 unreachable, 5 some skipped",
    see="rollbook registration list, rollbook allowed list",
)  # fmt: skip
def activate(run: Run, user: Users) -> int:
    """Activate accounts without a key; their keys are invalidated and auto-enrollments applied."""
    return activated(run, user)


def activated(run: Run, users: list[str], columns: tuple[str, ...] = DONE) -> int:
    """Activate accounts, record and report it; return the exit code."""
    with run.connect() as conn:
        found, code = chosen(conn, run, users)
        history.begin(conn)
        active, enrolled = accounts.activate(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"kind": "user", "object": row["username"], "outcome": "activated", "user_id": row["id"],
             "before": {"is_active": False}, "after": {"is_active": True, "enrolled": enrolled[row["id"]]}}
            for row in found if row["id"] in active
        ])  # fmt: skip
        history.record_written(conn, run)
    for row in found:
        note_enrolled(run, row["username"], enrolled.get(row["id"], 0))
    report(run, found, active, "activated", columns)
    return code


def report(run: Run, found: list[User], touched: set[int], word: str, columns: tuple[str, ...] = DONE) -> None:
    """Write a row for each user: what was done, or unchanged."""
    render.rows(
        run, [{**row, "outcome": word if row["id"] in touched else "unchanged"} for row in found], columns
    )  # fmt: skip


@command(
    app, "deactivate", sets=("data", "writes", "several"), columns=DONE,
    examples=("user deactivate ada --reason 'asked for it'", "user deactivate ada bob@example.org -n"),
    exits="0 done (blocked accounts are skipped), 1 unknown user, nothing done, 3 unreachable, 5 some skipped",
    see="rollbook user activate, rollbook user delete",
)  # fmt: skip
def deactivate(run: Run, user: Users) -> int:
    """Block accounts: sign-in is refused, enrollments stay. Unused activation keys expire."""
    with run.connect() as conn:
        found, code = chosen(conn, run, user)
        blocked = accounts.deactivate(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"kind": "user", "object": row["username"], "outcome": "deactivated", "user_id": row["id"],
             "before": {"is_active": True}, "after": {"is_active": False}}
            for row in found if row["id"] in blocked
        ])  # fmt: skip
    report(run, found, blocked, "deactivated")
    return code


Staff = Annotated[bool, typer.Option("--staff", help="Access to the staff pages.")]
Superuser = Annotated[bool, typer.Option("--superuser", help="Every permission.")]


@command(
    app, "grant", sets=("data", "writes", "yes", "several"), columns=DONE,
    examples=("user grant ada --staff", "user grant ada bob --staff --superuser --yes"),
    exits="0 done (users with the right are skipped), 1 unknown user, nothing done, 3 unreachable, 5 some skipped, "
    "6 not confirmed",
    see="rollbook user revoke, rollbook user list --staff",
)  # fmt: skip
def grant(run: Run, user: Users, staff: Staff = False, superuser: Superuser = False) -> int:
    """Make users staff or superusers. Asks for confirmation when several users are named."""
    return flag(run, user, staff=staff, superuser=superuser, value=True)


@command(
    app, "revoke", sets=("data", "writes", "yes", "several"), columns=DONE,
    examples=("user revoke ada --superuser", "user revoke - --staff --yes < leavers.txt"),
    exits="0 done (users without the right are skipped), 1 unknown user, nothing done, 3 unreachable, "
    "5 some skipped, 6 not confirmed",
    see="rollbook user grant, rollbook user list --staff",
)  # fmt: skip
def revoke(run: Run, user: Users, staff: Staff = False, superuser: Superuser = False) -> int:
    """Remove the rights of staff or superusers. Asks for confirmation when several users are named."""
    return flag(run, user, staff=staff, superuser=superuser, value=False)


def flag(run: Run, users: list[str], *, staff: bool, superuser: bool, value: bool) -> int:
    """Set or clear the flags, record and report it; return the exit code."""
    flags = {name: value for name, asked in (("is_staff", staff), ("is_superuser", superuser)) if asked}
    if not flags:
        raise UsageError("no right is named", fix="add --staff or --superuser, or both")
    verb, done = ("grant", "granted") if value else ("revoke", "revoked")
    with run.connect() as conn:
        found, code = chosen(conn, run, users)
        if len(found) > 1:
            names = ", ".join(row["username"] for row in found[:5]) + (" and more" if len(found) > 5 else "")
            rights = " and ".join(name.removeprefix("is_") for name in flags)
            render.confirm(run, f"{verb} {rights}: {len(found)} users, {names}")
        changes = accounts.set_flags(conn, [row["id"] for row in found], flags)
        history.record_many(conn, run, [
            {"kind": "user", "object": row["username"], "outcome": done, "user_id": row["id"],
             "before": history.changed(changes[row["id"]], "before"),
             "after": history.changed(changes[row["id"]], "after")}
            for row in found if changes[row["id"]]
        ])  # fmt: skip
    touched = {user_id for user_id, changed in changes.items() if changed}
    report(run, found, touched, done)
    return code
