"""`rollbook candidate`: users who sit exams at a test centre, and the records that it is sent."""

from enum import StrEnum
from typing import IO, Annotated

import typer

from rollbook.core import exporting, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import ImportFile, User
from rollbook.core.clear_option import Clear, cleared
from rollbook.core.command import Run, command
from rollbook.core.errors import AttentionError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.sheet import Sheet
from rollbook.core.users import find_users
from rollbook.testcentre import candidates
from rollbook.testcentre.commands.record_fields import with_fields
from rollbook.testcentre.exchange_file import FIELD_NAMES
from rollbook.testcentre.queries import candidate
from rollbook.testcentre.queries.candidate import Created

app = noun("candidate")

CREATED = ("client_candidate_id", "username", "name", "country", "outcome")
UPDATED = ("field", "before", "after")
COLUMNS = ("client_candidate_id", "username", "name", "country", "state", "sent_at", "confirmed_at", "error")
# An id is our key at the test centre; the default makes a new one. Field -> the statement.
NEW_IDS = {
    "client_candidate_id": "psql: update portal.student_testcenteruser set client_candidate_id = default "
    "where rollbook.exchange_id_fault(client_candidate_id, 50) is not null",
    "client_authorization_id": "psql: update portal.student_testcenterregistration set client_authorization_id = "
    "default where rollbook.exchange_id_fault(client_authorization_id, 20) is not null",
}
FAULTS = ("candidate", "username", "authorization", "field", "problem")
IMPORTED = ("line", "user", "outcome", "detail")
EXPORTED = ("user", *FIELD_NAMES)


class State(StrEnum):
    """The state of a record: to be exported, unanswered, accepted or rejected."""

    due = "due"
    sent = "sent"
    accepted = "accepted"
    rejected = "rejected"


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="sent_at",
    examples=("candidate list --state rejected", "candidate list --match ada --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated",
    see="rollbook candidate show, rollbook pearson report",
)  # fmt: skip
def list_(
    run: Run,
    state: Annotated[
        State | None, typer.Option(help="Only candidates in this state: to be sent, unanswered, accepted or rejected.")
    ] = None,
) -> None:
    """List candidates with the state of their record, and the reason of a rejection."""
    with run.connect() as conn:
        filters = {"state": state, "match": run.match, **run.period}
        found, total = candidate.listed(conn, render.fetch_limit(run), filters)
    render.listing(run, found, COLUMNS, empty="no candidates", total=total)


@command(
    app, "show", sets=("document",),
    examples=("candidate show ada", "candidate show ada@example.org --json"),
    exits="0 found, 1 unknown user, or not a candidate, 3 unreachable",
    see="rollbook authorization list, rollbook pearson show",
)  # fmt: skip
def show(run: Run, user: User) -> None:
    """Show a candidate: the record, its state, the authorizations, and the files that sent or answered it."""
    with run.connect() as conn:
        report = candidate.report(conn, find_users(conn, [user])[0])

    def draw(out: IO[str]) -> None:
        render.sections(run, out, report)

    render.document(run, report, draw)


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "candidate create bob --address-1 '1 Main St' --city London --country GBR --phone '20 7946 0000' "
        "--phone-country-code 44",
        "candidate create bob --address-1 '1 Main St' --city Boston --state MA --postal-code 02139 --country USA "
        "--phone '617 555 0100' --phone-country-code 1 -n",
    ),
    exits="0 created, 1 refused, all faults listed, or already a candidate, 3 unreachable",
    see="rollbook candidate update, rollbook authorization create",
)  # fmt: skip
@with_fields
def create(run: Run, user: User, given: dict[str, str]) -> None:
    """Make a user a candidate. Names and address default to the account's, if they fit."""
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        created = candidates.create(conn, run, found, given)
    note_account(run, created)
    record = created.record
    render.rows(run, [{
        "client_candidate_id": created.client_candidate_id, "username": found["username"],
        "name": f"{record['first_name']} {record['last_name']}", "country": record["country"], "outcome": "created",
    }], CREATED)  # fmt: skip


def note_account(run: Run, created: Created) -> None:
    """Report the fields that came from the account."""
    if created.from_account:
        fields = ", ".join(f"{name} {created.record[name]!r}" for name in created.from_account)
        render.note(run, f"from the account: {fields}")


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=("candidate update ada --phone '617 555 0102'", "candidate update ada --clear fax --reason 'has none'"),
    exits="0 changed or created, or nothing to change, 1 refused, all faults listed, 2 no field named, 3 unreachable",
    see="rollbook candidate show, rollbook pearson export",
)  # fmt: skip
@with_fields
def update(
    run: Run,
    user: User,
    given: dict[str, str],
    clear: Clear = [],  # noqa: B006 (Typer's way)
) -> None:
    """Change a candidate's record and mark it for the next export; the candidate is created if missing."""
    given |= cleared(clear, dict.fromkeys(FIELD_NAMES, ""), given)
    if not given:
        raise UsageError("nothing to change", fix="name at least one field, such as --phone or --clear fax")
    with run.connect() as conn:
        changes, created = candidates.update(conn, run, find_users(conn, [user])[0], given)
    if created:
        note_account(run, created)
    render.rows(run, changes, UPDATED, empty="nothing to change")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "check", sets=("data",), columns=FAULTS, long=True,
    examples=("candidate check", "candidate check --csv -o faults.csv"),
    exits="0 all records are valid, 3 unreachable, 4 faults found",
    see="rollbook candidate update, rollbook user update",
)  # fmt: skip
def check(run: Run) -> int:
    """Check all stored records, e-mail addresses and authorizations, also those that predate or bypassed the rules."""
    with run.connect() as conn:
        found = candidate.faults(conn)
    render.rows(run, found, FAULTS, empty="all records are valid")
    if not found:
        return 0
    count = len({(row["candidate"], row["authorization"]) for row in found})
    fields = {row["field"] for row in found}
    fixes = [NEW_IDS[field] for field in NEW_IDS if field in fields]
    if fields - set(NEW_IDS):
        fixes.insert(0, "correct them with rollbook candidate update, authorization update or user update")
    error = AttentionError(
        f"{render.plural(count, 'record')} {'breaks' if count == 1 else 'break'} the rules", fix="; ".join(fixes)
    )
    render.error(run, error)
    return error.exit_code


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("candidate import people.csv --dry-run", "candidate import people.csv --on-error skip"),
    exits="0 done, 1 invalid rows or file; nothing changed, 2 invalid header, 3 unreachable, 5 some rows skipped",
    see="rollbook candidate export, rollbook candidate check",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
) -> int:
    r"""Create or change candidates from a file: user, and any fields. A blank field keeps a value, \N empties it."""
    kind = bulk.Import(
        sheet=Sheet(candidate.COLUMNS, ("user",), ("user",)), turn="rollbook candidate import",
        check=lambda conn, _: candidate.find_wrong(conn), apply=lambda conn, _: candidate.apply(conn), columns=IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("candidate export -o candidates.csv", "candidate export --state rejected > wrong.csv"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook candidate import",
)  # fmt: skip
def export(
    run: Run, state: Annotated[State | None, typer.Option(help="Only candidates in this state.")] = None
) -> None:
    """Write candidates as `candidate import` reads them, by id. The default format is CSV."""
    exporting.export(
        run, EXPORTED, lambda conn, limit: candidate.export(conn, state=state, match=run.match, limit=limit),
        what="candidates",
    )  # fmt: skip
