"""`rollbook authorization`: permissions of candidates to sit exams at a test centre, with dates and accommodations."""

from enum import StrEnum
from typing import IO, Annotated, Any

import typer

from rollbook.core import exporting, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import Course, ImportFile, OfCourse, User
from rollbook.core.clear_option import Clear, cleared
from rollbook.core.command import OnError, Run, command
from rollbook.core.errors import PartialError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.sheet import Sheet
from rollbook.core.unknown_names import note_unknown
from rollbook.core.users import expanded, find_users
from rollbook.testcentre import authorizations
from rollbook.testcentre.commands.record_fields import Codes, First, Last, Request
from rollbook.testcentre.queries import authorization

app = noun("authorization")

COLUMNS = (
    "client_authorization_id", "username", "course", "exam", "first", "last", "accommodation", "state", "sent_at",
    "confirmed_at", "error",
)  # fmt: skip
CREATED = ("client_authorization_id", "username", "course", "exam", "first", "last", "accommodation_code", "outcome")
UPDATED = ("field", "before", "after")
CANCELLED = ("client_authorization_id", "username", "course", "exam", "outcome", "detail")
IMPORTED = ("line", "user", "course", "exam_series_code", "outcome", "detail")
FIRST, LAST = "eligibility_appointment_date_first", "eligibility_appointment_date_last"
EXPORTED = ("user", "course_id", "exam_series_code", FIRST, LAST, "accommodation_code", "accommodation_request")
CLEARABLE = ("accommodation_code", "accommodation_request")


class State(StrEnum):
    """The state of an authorization: to be exported, unanswered, accepted, rejected or cancelled."""

    due = "due"
    sent = "sent"
    accepted = "accepted"
    rejected = "rejected"
    cancelled = "cancelled"


class Accommodation(StrEnum):
    """The decision on an accommodation request; skipped: none was requested."""

    skipped = "skipped"
    pending = "pending"
    accepted = "accepted"
    rejected = "rejected"


Key = Annotated[
    str, typer.Argument(metavar="ID", help="An id such as edXexam000000000001; rollbook authorization list shows it.")
]
Keys = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids; - reads them from stdin, @FILE from a file.")]
Exam = Annotated[str | None, typer.Option("--exam", "--exam-series-code", metavar="CODE", help="Only this exam.")]


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="sent_at",
    examples=("authorization list --accommodation pending", "authorization list --exam DEMO1 --state rejected --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated",
    see="rollbook authorization show, rollbook pearson report",
)  # fmt: skip
def list_(
    run: Run,
    course: OfCourse = None,
    exam: Exam = None,
    state: Annotated[State | None, typer.Option(help="Only authorizations in this state.")] = None,
    accommodation: Annotated[
        Accommodation | None, typer.Option(help="Filter by decision; skipped: none requested.")
    ] = None,
) -> None:
    """List authorizations: candidate, exam, dates, accommodation, and the test centre's answer."""
    filters = {"course": course, "exam": exam, "state": state, "accommodation": accommodation, "match": run.match}
    with run.connect() as conn:
        found, total = authorization.listed(conn, render.fetch_limit(run), {**filters, **run.period})
        if not found:
            note_unknown(conn, run, course=course, exam=exam)
    render.listing(run, found, COLUMNS, empty="no authorizations", total=total)


@command(
    app, "show", sets=("document",),
    examples=("authorization show edXexam000000000001", "authorization show edXexam000000000001 --json"),
    exits="0 found, 1 unknown, 3 unreachable", see="rollbook candidate show, rollbook pearson show",
)  # fmt: skip
def show(run: Run, key: Key) -> None:
    """Show an authorization: its fields, its states, and the files that sent or answered it."""
    with run.connect() as conn:
        report = authorization.report(conn, key)

    def draw(out: IO[str]) -> None:
        render.sections(run, out, report)

    render.document(run, report, draw)


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "authorization create ada edX/DemoX/2012_Fall",
        "authorization create ada edX/DemoX/2012_Fall --exam Final --first 2013-01-25 --last 2013-01-26 "
        "--accommodation ET30MN",
    ),
    exits="0 created, 1 refused, all faults listed (not a candidate, exists already, no dates, invalid codes), 2 "
    "invalid date, 3 unreachable",
    see="rollbook candidate create, rollbook exam list",
)  # fmt: skip
def create(
    run: Run,
    user: User,
    course: Course,
    exam: Annotated[
        str | None,
        typer.Option(
            "--exam", "--exam-series-code", metavar="CODE", help="The exam. Default: the course's only current one."
        ),
    ] = None,
    first: First = None,
    last: Last = None,
    accommodation: Codes = [],  # noqa: B006 (Typer's way)
    request: Request = None,
) -> None:
    """Authorize a candidate for an exam. Dates default to the exam's; required if the exam is not defined."""
    given = {
        "course_id": course, "exam_series_code": exam, FIRST: first and first.date(), LAST: last and last.date(),
        "accommodation_code": "*".join(accommodation), "accommodation_request": request or "",
    }  # fmt: skip
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        created, remarks = authorizations.create(conn, run, found, given)
    for remark in remarks:
        render.note(run, f"note: {remark}")
    render.rows(run, [created | {"username": found["username"], "outcome": "created"}], CREATED)


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=(
        "authorization update edXexam000000000001 --accommodation ET30MN --accommodation SEPRMM",
        "authorization update edXexam000000000001 --last 2013-01-27 --reason 'was ill'",
    ),
    exits="0 changed, or nothing to change, 1 refused, all faults listed, or cancelled, 2 no field named, or invalid "
    "invalid date, 3 unreachable",
    see="rollbook authorization list --accommodation pending, rollbook pearson export",
)  # fmt: skip
def update(
    run: Run,
    key: Key,
    first: First = None,
    last: Last = None,
    accommodation: Codes = [],  # noqa: B006
    request: Request = None,
    clear: Clear = [],  # noqa: B006
) -> None:
    """Change an authorization and mark it for the next export. To change the exam, cancel it and create a new one."""
    given: dict[str, Any] = {
        FIRST: first and first.date(), LAST: last and last.date(),
        "accommodation_code": "*".join(accommodation) or None, "accommodation_request": request,
    }  # fmt: skip
    wanted = {name: value for name, value in given.items() if value is not None}
    wanted |= cleared(clear, dict.fromkeys(CLEARABLE, ""), wanted)
    if not wanted:
        raise UsageError("nothing to change", fix="name at least one field, such as --last or --accommodation")
    with run.connect() as conn:
        changes = authorizations.update(conn, run, key, wanted)
    render.rows(run, changes, UPDATED, empty="nothing to change")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "cancel", sets=("data", "writes", "several"), columns=CANCELLED,
    examples=("authorization cancel edXexam000000000001", "authorization cancel @ids.txt --reason 'exam is off' -n"),
    exits="0 cancelled, now or before, 1 unknown; nothing done, 3 unreachable, 5 some skipped",
    see="rollbook pearson export, rollbook authorization list --state cancelled",
)  # fmt: skip
def cancel(run: Run, key: Keys) -> int:
    """Cancel authorizations. Those already sent are exported as Delete; others are not exported."""
    keys = expanded(key, "ids")
    with run.connect() as conn:
        found, unknown = authorizations.cancel(conn, run, keys, skip_unknown=run.on_error is OnError.skip)
    for error in unknown:
        render.error(run, error)
    render.removed(run, map(vars, found), CANCELLED)
    return PartialError.exit_code if unknown else 0


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("authorization import seats.csv --dry-run", "authorization import seats.csv --on-error skip"),
    exits="0 done, 1 invalid rows or file; nothing changed, 2 invalid header, 3 unreachable, 5 some rows skipped",
    see="rollbook authorization export, rollbook candidate import",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
) -> int:
    r"""Authorize the candidates of a file: user, course_id, exam_series_code; dates default to the exam's.

    A blank field keeps a value, \N empties it. An existing authorization for the exam is changed.
    """
    keys = authorization.COLUMNS[:3]
    kind = bulk.Import(
        sheet=Sheet(authorization.COLUMNS, keys, keys), turn="rollbook authorization import",
        check=lambda conn, _: authorization.find_wrong(conn), apply=lambda conn, _: authorization.apply(conn),
        columns=IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("authorization export -o seats.csv", "authorization export --course edX/DemoX/2012_Fall"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook authorization import",
)  # fmt: skip
def export(run: Run, course: OfCourse = None, exam: Exam = None) -> None:
    """Write authorizations that are not cancelled, as `authorization import` reads them. The default format is CSV."""
    exporting.export(
        run, EXPORTED,
        lambda conn, limit: authorization.export(conn, course=course, exam=exam, match=run.match, limit=limit),
        what="authorizations", course=course, exam=exam,
    )  # fmt: skip
