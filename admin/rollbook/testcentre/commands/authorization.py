"""`rollbook authorization`: who may sit which exam at a test centre, when, and with what help."""

from datetime import datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import Course, OfCourse, User
from rollbook.core.command import OnError, Run, command
from rollbook.core.errors import PartialError, RefusedError, UsageError
from rollbook.people.commands.named_users import expanded

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.render import Row

app = typer.Typer(name="authorization", help="Who may sit which exam at a test centre.", no_args_is_help=True)

COLUMNS = (
    "client_authorization_id", "username", "course", "exam", "first", "last", "accommodation", "state", "sent_at",
    "confirmed_at", "error",
)  # fmt: skip
CREATED = ("client_authorization_id", "username", "course", "exam", "first", "last", "accommodation_code", "outcome")
UPDATED = ("field", "before", "after")
CANCELLED = ("client_authorization_id", "username", "course", "exam", "outcome", "detail")
IMPORTED = ("line", "user", "course", "exam_series_code", "outcome", "detail")
EXPORTED = (
    "user", "course_id", "exam_series_code", "eligibility_appointment_date_first", "eligibility_appointment_date_last",
    "accommodation_code", "accommodation_request",
)  # fmt: skip
CLEARABLE = ("accommodation_code", "accommodation_request")
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]


class State(StrEnum):
    """Where an authorization stands between here and the test centre."""

    due = "due"
    sent = "sent"
    accepted = "accepted"
    rejected = "rejected"
    cancelled = "cancelled"


class Accommodation(StrEnum):
    """What was decided on a request."""

    skipped = "skipped"
    pending = "pending"
    accepted = "accepted"
    rejected = "rejected"


Key = Annotated[str, typer.Argument(metavar="ID", help="Such as edXexam000000000001, see rollbook authorization list.")]
Keys = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids; - reads them from stdin, @FILE from a file.")]
First = Annotated[
    datetime | None,
    typer.Option(
        "--first", "--eligibility-appointment-date-first", metavar="DATE", formats=DATES,
        help="First day, YYYY-MM-DD.",
    ),
]  # fmt: skip
Last = Annotated[
    datetime | None,
    typer.Option(
        "--last", "--eligibility-appointment-date-last", metavar="DATE", formats=DATES, help="Last day, YYYY-MM-DD."
    ),
]  # fmt: skip
Codes = Annotated[
    list[str],
    typer.Option(
        "--accommodation", "--accommodation-code", metavar="CODE",
        help="What is granted, such as ET30MN; NONE refuses all. Can be repeated, or joined by *.",
    ),
]  # fmt: skip
Request = Annotated[
    str | None,
    typer.Option("--request", "--accommodation-request", metavar="TEXT", help="What the student asks for."),
]
Exam = Annotated[str | None, typer.Option("--exam", "--exam-series-code", metavar="CODE", help="Only this exam.")]


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("authorization list --accommodation pending", "authorization list --exam DEMO1 --state rejected --json"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated",
    see="rollbook authorization show, rollbook pearson report",
)  # fmt: skip
def list_(
    run: Run,
    course: OfCourse = None,
    exam: Exam = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    accommodation: Annotated[
        Accommodation | None, typer.Option(help="Only those that ask for none, wait for a word, or have one.")
    ] = None,
) -> None:
    """List authorizations: who may sit which exam from when to when, and what the test centre says."""
    from rollbook.testcentre.queries import authorization

    filters = {"course": course, "exam": exam, "state": state, "accommodation": accommodation, "match": run.match}
    with run.connect() as conn:
        found, total = authorization.listed(conn, render.fetch_limit(run), filters)
    render.listing(run, found, COLUMNS, empty="no authorization", total=total)


@command(
    app, "show", sets=("document",),
    examples=("authorization show edXexam000000000001", "authorization show edXexam000000000001 --json"),
    exits="0 found, 1 unknown, 3 unreachable", see="rollbook candidate show, rollbook pearson show",
)  # fmt: skip
def show(run: Run, key: Key) -> None:
    """Show an authorization: what it says, its states, and each file that it went out with or was answered in."""
    from rollbook.testcentre.queries import authorization

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
    exits="0 made, 1 refused (no candidate, no such exam and no dates, one is there, bad codes), 2 a bad date, "
    "3 unreachable",
    see="rollbook candidate create, rollbook exam list",
)  # fmt: skip
def create(
    run: Run,
    user: User,
    course: Course,
    exam: Annotated[
        str | None,
        typer.Option(
            "--exam", "--exam-series-code", metavar="CODE", help="Which exam; unsaid: the course's only current one."
        ),
    ] = None,
    first: First = None,
    last: Last = None,
    accommodation: Codes = [],  # noqa: B006 (Typer's way)
    request: Request = None,
) -> None:
    """Let a candidate sit an exam. Dates are the exam's, unless they are given; without a definition they must be."""
    from rollbook.core import history
    from rollbook.people.queries.names import find_users
    from rollbook.testcentre.queries import authorization

    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        record = {
            "course_id": course, "exam_series_code": exam or authorization.current_exam(conn, course),
            authorization.FIRST: first and first.date(), authorization.LAST: last and last.date(),
            "accommodation_code": "*".join(accommodation), "accommodation_request": request or "",
        }  # fmt: skip
        made, remarks = authorization.create(conn, found, record)
        told = {name: value for name, value in record.items() if value} | {"first": made["first"], "last": made["last"]}
        history.record(
            conn, run, made["client_authorization_id"], "created", after=told, user_id=found["id"], course_id=course
        )
    for remark in remarks:
        render.note(run, f"note: {remark}")
    render.rows(run, [made | {"username": found["username"], "outcome": "created"}], CREATED)


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=(
        "authorization update edXexam000000000001 --accommodation ET30MN --accommodation SEPRMM",
        "authorization update edXexam000000000001 --last 2013-01-27 --reason 'was ill'",
    ),
    exits="0 changed, or nothing to change, 1 refused with all that is wrong, or cancelled, 2 nothing named, a bad "
    "date, 3 unreachable",
    see="rollbook authorization list --accommodation pending, rollbook pearson export",
)  # fmt: skip
def update(
    run: Run,
    key: Key,
    first: First = None,
    last: Last = None,
    accommodation: Codes = [],  # noqa: B006
    request: Request = None,
    clear: Annotated[list[str], typer.Option(metavar="FIELD", help="Empty this field; can be repeated.")] = [],  # noqa: B006
) -> None:
    """Change an authorization, which is due then. Its exam cannot be changed: cancel it and make another one."""
    from rollbook.core import history
    from rollbook.testcentre.queries import authorization

    given: dict[str, Any] = {
        authorization.FIRST: first and first.date(), authorization.LAST: last and last.date(),
        "accommodation_code": "*".join(accommodation) or None, "accommodation_request": request,
    }  # fmt: skip
    wanted = {name: value for name, value in given.items() if value is not None}
    for field in clear:
        column = field.replace("-", "_")
        if column not in CLEARABLE:
            raise UsageError(f"--clear {field}: no such field", fix=f"fields: {', '.join(CLEARABLE)}")
        if column in wanted:
            raise UsageError(f"--{field} and --clear {field} exclude each other")
        wanted[column] = ""
    if not wanted:
        raise UsageError("nothing to change", fix="name at least one field, such as --last or --accommodation")
    with run.connect() as conn:
        (found,) = authorization.find(conn, [key])
        changes = authorization.update(conn, found, wanted)
        if changes:
            history.record(
                conn, run, key, "changed", before=history.changed(changes, "before"),
                after=history.changed(changes, "after"), user_id=found["user_id"], course_id=found["course"],
            )  # fmt: skip
    render.rows(run, changes, UPDATED, empty="nothing to change: it is so already")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "cancel", sets=("data", "writes", "several"), columns=CANCELLED,
    examples=("authorization cancel edXexam000000000001", "authorization cancel @ids.txt --reason 'exam is off' -n"),
    exits="0 cancelled (which was already stays so), 1 unknown, nothing done, 3 unreachable, 5 some skipped",
    see="rollbook pearson export, rollbook authorization list --state cancelled",
)  # fmt: skip
def cancel(run: Run, key: Keys) -> int:
    """Cancel authorizations. What the test centre was sent goes out as Delete; what it was not, not at all."""
    from rollbook.core import history
    from rollbook.testcentre.queries import authorization

    with run.connect() as conn:
        found, code = chosen(conn, run, expanded(key, "ids"))
        gone = authorization.cancel(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"object": row["client_authorization_id"], "outcome": "cancelled", "user_id": row["user_id"],
             "course_id": row["course"]}
            for row in found if row["id"] in gone
        ])  # fmt: skip
    rows = [
        row | {
            "outcome": "cancelled" if row["id"] in gone else "unchanged",
            "detail": "was cancelled already" if row["id"] not in gone
            else "the next export deletes it at the test centre" if row["uploaded_at"] else "was never sent",
        }
        for row in found
    ]  # fmt: skip
    render.rows(run, rows, CANCELLED)
    return code


def chosen(conn: "Conn", run: Run, keys: list[str]) -> "tuple[list[Row], int]":
    """Return the authorizations named, each once, and the exit code: 0, or 5 where some were skipped."""
    from rollbook.testcentre.queries import authorization

    try:
        return authorization.find(conn, keys), 0
    except RefusedError:
        if run.on_error is not OnError.skip:
            raise
    found: list[Row] = []
    for key in dict.fromkeys(keys):
        try:
            found += authorization.find(conn, [key])
        except RefusedError as exc:
            render.error(run, exc)
    if not found:
        raise RefusedError("none of them is there", fix="rollbook authorization list --match TEXT")
    return found, PartialError.exit_code


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("authorization import seats.csv --dry-run", "authorization import seats.csv --on-error skip"),
    exits="0 done, 1 rows or the file are wrong, nothing changed, 2 the header is wrong, 3 unreachable, "
    "5 some rows skipped",
    see="rollbook authorization export, rollbook candidate import",
)  # fmt: skip
def import_(
    run: Run,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A CSV file with a header; - is stdin.")] = None,
) -> int:
    r"""Let the candidates of a file sit exams: user, course_id, exam_series_code, and dates where none is defined.

    A blank leaves a value alone, or to the exam; \N empties it. Who is authorized for the exam already is changed.
    """
    from rollbook.core import importing as bulk
    from rollbook.core.sheet import Sheet
    from rollbook.testcentre.queries import authorization

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
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook authorization import",
)  # fmt: skip
def export(run: Run, course: OfCourse = None, exam: Exam = None) -> None:
    """Write authorizations that stand as `authorization import` reads them: CSV, unless another format is asked for."""
    from rollbook.core import exporting
    from rollbook.testcentre.queries import authorization

    exporting.export(
        run, EXPORTED,
        lambda conn, limit: authorization.export(conn, course=course, exam=exam, match=run.match, limit=limit),
        what="authorizations", course=course,
    )  # fmt: skip
