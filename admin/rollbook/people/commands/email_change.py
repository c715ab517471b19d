"""`rollbook email-change`: new e-mail addresses that users request and confirm with a key."""

from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import ImportFile, User, Users
from rollbook.core.command import Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.sheet import Sheet
from rollbook.core.users import find_users
from rollbook.people import secret
from rollbook.people.commands.named_users import chosen
from rollbook.people.queries import change
from rollbook.people.validation import checked_email

app = noun("email-change")

COLUMNS = ("id", "username", "old_email", "new_email", "requested_at", "expires_at", "conflict")
CREATED = ("id", "username", "old_email", "new_email", "requested_at", "expires_at", "outcome")
KEYED = (*CREATED, "activation_key")
CONFIRMED = ("username", "old_email", "new_email", "outcome")
CANCELLED = ("username", "new_email", "outcome")
IMPORTED = ("line", "user", "email", "outcome", "detail")


@command(
    app, "create", sets=("data", "writes"), columns=KEYED,
    examples=(
        "email-change create ada ada@example.com",
        "email-change create ada ada@example.com --show-key --csv --fields activation_key --no-header",
    ),
    exits="0 requested, 1 refused (unknown user, invalid, taken or unchanged address), 3 unreachable, "
    "4 not migrated",
    see="rollbook email-change confirm, rollbook user update --email (at once)",
)  # fmt: skip
def create(
    run: Run,
    user: User,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The new address.")],
    show_key: Annotated[bool, typer.Option("--show-key", help="Print the key, a secret for the new address.")] = False,
) -> None:
    """Request a new e-mail address for a user, who confirms it with a key. Rollbook sends no e-mail.

    A user has one request at a time: a new request replaces it, and the previous key stops working.
    """
    columns = KEYED if show_key else CREATED
    render.picked(run, columns)
    address = checked_address(email)
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        before = change.pending_email_change(conn, found["id"])
        made = change.request_email_change(conn, found["id"], address)
        outcome = "changed" if before else "created"
        history.record(
            conn, run, found["username"], outcome, before=before and {"new_email": before["new_email"]},
            after={"new_email": made["new_email"]}, user_id=found["id"],
        )  # fmt: skip
    if run.dry_run:
        made["activation_key"] = None
    render.rows(run, [made | {"outcome": outcome}], columns)


def checked_address(email: str) -> str:
    """Return the address, normalised. Raises RefusedError with the reason."""
    try:
        return checked_email(email)
    except RefusedError as exc:
        raise RefusedError("Valid e-mail address required.", why=f"{exc.message}: {exc.why}", fix=exc.fix) from exc


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="requested_at",
    examples=("email-change list", "email-change list --sort expires_at --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated",
    see="rollbook email-change confirm, rollbook email-change cancel",
)  # fmt: skip
def list_(run: Run) -> None:
    """List pending changes of e-mail address. `conflict`: another user has taken the address since."""
    with run.connect() as conn:
        found, total = change.email_changes(conn, run.match, render.fetch_limit(run), run.period)
    render.listing(run, found, COLUMNS, empty="no pending changes of e-mail address", total=total)


@command(
    app, "confirm", sets=("data", "writes"), columns=CONFIRMED,
    examples=("email-change confirm ada", "email-change confirm --key-stdin < key.txt"),
    exits="0 changed, 1 refused (unknown or expired key, no request, address taken since), 3 unreachable, "
    "4 not migrated",
    see="rollbook email-change list",
)  # fmt: skip
def confirm(
    run: Run,
    user: Annotated[
        str | None, typer.Argument(metavar="[USER]", help="Confirm for this user, without the key.")
    ] = None,
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the key from standard input.")] = False,
) -> None:
    """Confirm a change of e-mail address. The profile's meta keeps the old address, under old_emails."""
    if (user is None) is not key_stdin:
        raise UsageError("name either a user, or a key with --key-stdin")
    key = secret.from_stdin("key").strip() if key_stdin else ""
    if key_stdin and not key:
        raise UsageError("there is no key on standard input", fix="pipe it in, on one line")
    with run.connect() as conn:
        if user is not None:
            found = find_users(conn, [user])[0]
            key = change.key_of(conn, found["id"], found["username"])
        done = change.confirm_email_change(conn, key)
        history.record(
            conn, run, done["username"], "changed", before={"email": done["old_email"]},
            after={"email": done["new_email"]}, user_id=done["id"], kind="user",
        )  # fmt: skip
    render.rows(run, [done | {"outcome": "changed"}], CONFIRMED)


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("email-change import addresses.csv --dry-run", "email-change import addresses.csv --on-error skip"),
    exits="0 requested, 1 invalid rows or file; nothing changed, 2 invalid header, 3 unreachable, "
    "5 some rows skipped",
    see="rollbook email-change list, rollbook user import --mode update (at once)",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
) -> int:
    """Request new e-mail addresses for the users of a file: user, email. Rollbook sends no e-mail.

    A new request replaces the user's pending one. A request for the same address keeps its key.
    """

    def check(conn: Conn, _: bulk.Staged) -> None:
        bulk.check_emails(conn)
        change.find_wrong_addresses(conn)

    kind = bulk.Import(
        sheet=Sheet(change.IMPORTED, change.IMPORTED, change.IMPORTED), turn="rollbook email-change import",
        check=check, apply=lambda conn, _: change.request_email_changes(conn), columns=IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "cancel", sets=("data", "writes", "several"), columns=CANCELLED,
    examples=("email-change cancel ada", "email-change cancel ada bob@example.org --reason 'asked to'"),
    exits="0 done (users without a request are skipped), 1 unknown user, nothing changed, 3 unreachable, "
    "4 not migrated, 5 some skipped",
    see="rollbook email-change list",
)  # fmt: skip
def cancel(run: Run, user: Users) -> int:
    """Cancel pending e-mail changes, all or nothing. Their keys stop working; the e-mail addresses stay."""
    with run.connect() as conn:
        found, code = chosen(conn, run, user)
        gone = change.cancel_email_changes(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": "cancelled", "before": {"new_email": gone[row["id"]]},
             "user_id": row["id"]}
            for row in found if row["id"] in gone
        ])  # fmt: skip
    rows = [
        {"username": row["username"], "new_email": gone.get(row["id"]),
         "outcome": "cancelled" if row["id"] in gone else "unchanged"}
        for row in found
    ]  # fmt: skip
    render.rows(run, rows, CANCELLED)
    return code
