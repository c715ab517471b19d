"""`rollbook registration`: the keys that activate new accounts."""

from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core.arguments import User
from rollbook.core.command import Run, command
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.shell import quoted
from rollbook.core.users import find_users
from rollbook.people import secret
from rollbook.people.commands.user_access import activated
from rollbook.people.commands.user_write import note_enrolled
from rollbook.people.queries import registration

app = noun("registration")

COLUMNS = ("username", "email", "created", "expires", "state")
ACTIVATED = ("username", "email", "outcome")
RENEWED = (*COLUMNS, "outcome", "activation_key")


class State(StrEnum):
    """The state of a key."""

    pending = "pending"
    activated = "activated"
    expired = "expired"


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="created",
    examples=("registration list --state pending", "registration list --state expired --sort created --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook registration renew",
)  # fmt: skip
def list_(run: Run, state: Annotated[State | None, typer.Option(help="Only keys in this state.")] = None) -> None:
    """List the users with an activation key, and its state. The key itself is never shown."""
    with run.connect() as conn:
        found, total = registration.registrations(
            conn, state=state, match=run.match, limit=render.fetch_limit(run), period=run.period
        )
    render.listing(run, found, COLUMNS, empty="no keys; rollbook user create makes one with the account", total=total)


@command(
    app, "show", sets=("document",),
    examples=("registration show bob", "registration show bob@example.org --json"),
    exits="0 found, 1 unknown user, or no registration, 3 unreachable, 4 not migrated",
    see="rollbook registration renew, rollbook user show",
)  # fmt: skip
def show(run: Run, user: User) -> None:
    """Show a user's registration: creation, expiry and use of the key. The key itself is never shown."""
    with run.connect() as conn:
        who = find_users(conn, [user])[0]
        found = registration.registration(conn, who["id"])
    if found is None:
        name = who["username"]
        raise RefusedError(f"{name} has no registration", fix=f"rollbook registration renew {quoted(name)}")
    render.document(run, found, lambda out: render.sections(run, out, {"registration": found}))


@command(
    app, "activate", sets=("data", "writes"), columns=ACTIVATED,
    examples=("registration activate bob", "registration activate --key-stdin < key.txt"),
    exits="0 active, 1 unknown user, or an unknown, used or expired key, 2 usage, 3 unreachable, 4 not migrated",
    see="rollbook user activate",
)  # fmt: skip
def activate(
    run: Run,
    user: Annotated[str | None, typer.Argument(metavar="[USER]", help="Activate this account without its key.")] = None,
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the key from standard input.")] = False,
) -> int:
    """Make an account active, by its key or by name. The key is used up; auto-enrollments are applied."""
    if (user is None) != key_stdin:
        raise UsageError("name a user, or give the key with --key-stdin")
    if user is not None:
        return activated(run, [user], ACTIVATED)
    key = secret.from_stdin("key").strip()
    with run.connect() as conn:
        found = registration.activate(conn, key)
        history.record(
            conn, run, found["username"], "activated", user_id=found["id"],
            after={"is_active": True, "activation_key": key, "enrolled": found["enrolled"]},
        )  # fmt: skip
    note_enrolled(run, found["username"], found["enrolled"])
    render.rows(run, [found | {"outcome": "activated"}], ACTIVATED)
    return 0


@command(
    app, "renew", sets=("data", "writes"), columns=RENEWED,
    examples=("registration renew bob", "registration renew bob --show-key --days 30"),
    exits="0 renewed, 1 unknown user, 3 unreachable, 4 not migrated", see="rollbook registration activate",
)  # fmt: skip
def renew(
    run: Run,
    user: User,
    show_key: Annotated[bool, typer.Option("--show-key", help="Print the new key, a secret.")] = False,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="Days until it expires.")] = 14,
) -> None:
    """Issue a new key for an account; the old one stops working. Creates the registration if there is none."""
    with run.connect() as conn:
        who = find_users(conn, [user])[0]
        before = registration.registration(conn, who["id"])
        key = registration.renew(conn, who["id"], days)
        found = registration.registration(conn, who["id"])
        assert found is not None  # noqa: S101 (it has just been made)
        history.record(
            conn, run, who["username"], "changed" if before else "created", user_id=who["id"],
            before=before and {"expires": before["expires"], "activated": before["activated"]},
            after={"activation_key": key, "expires": found["expires"]},
        )  # fmt: skip
    outcome = "changed" if before else "created"
    row = found | {"outcome": outcome, "activation_key": None if run.dry_run else key}
    render.rows(run, [row], RENEWED if show_key else RENEWED[:-1])
