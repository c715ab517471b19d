"""`rollbook allowed`: e-mail addresses that may enroll in a course, with or without an account."""

from typing import Annotated

import typer

from rollbook.core import exporting, history, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import Course, ImportFile, OfCourse
from rollbook.core.command import OnError, Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import PartialError, RefusedError
from rollbook.core.nouns import noun
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.core.since import ALWAYS
from rollbook.core.unknown_names import note_unknown
from rollbook.core.users import expanded
from rollbook.people.queries import allowed
from rollbook.people.queries.remains import of_addresses
from rollbook.people.validation import checked_email
from rollbook.replication.queries.courses import known_courses

app = noun("allowed")

ADDED = ("course", "email", "outcome", "detail")
IMPORTED = ("line", "course", "email", "outcome", "detail")
EXPORTED = ("course_id", "email", "auto_enroll")
COLUMNS = ("course", "email", "auto_enroll", "user_exists", "enrolled", "created")
TURN = "rollbook allowed import"
Emails = Annotated[
    list[str],
    typer.Argument(metavar="EMAIL...", help="Addresses; - reads them from standard input, @FILE from a file."),
]
AutoEnroll = Annotated[
    bool | None,
    typer.Option(
        "--auto-enroll/--no-auto-enroll",
        help="Enroll on activation, or now if the account is active. Default: unchanged; off for new entries.",
    ),
]


def judged(run: Run, emails: list[str]) -> tuple[list[str], list[Row]]:
    """Return the valid addresses, normalised, each once; and the invalid ones as rows with the outcome rejected.

    Raises RefusedError for the first invalid one, unless --on-error is skip.
    """
    good: dict[str, str] = {}
    bad: list[Row] = []
    for email in expanded(emails, "addresses"):
        try:
            address = checked_email(email)
            good.setdefault(address.lower(), address)
        except RefusedError as exc:
            if run.on_error is not OnError.skip:
                raise
            render.error(run, exc)
            bad.append({"email": email, "outcome": "rejected", "detail": exc.why})
    return list(good.values()), bad


@command(
    app, "add", sets=("data", "writes", "several"), columns=ADDED,
    examples=(
        "allowed add edX/DemoX/2012_Fall new@example.org --auto-enroll",
        "allowed add edX/DemoX/2012_Fall - < addresses.txt",
    ),
    exits="0 done, 1 unknown course or invalid address, nothing changed, 3 unreachable, 5 some skipped",
    see="rollbook allowed list, rollbook registration activate",
)  # fmt: skip
def add(run: Run, course: Course, email: Emails, auto_enroll: AutoEnroll = None) -> int:
    """Allow e-mail addresses (case-insensitive) to enroll. With --auto-enroll, active accounts are enrolled at once."""
    good, bad = judged(run, email)
    with run.connect() as conn:
        known_courses(conn, [course])
        bulk.begin(conn)
        bulk.take_turn(conn, run, TURN)
        allowed.stage(conn, course, good, auto_enroll=auto_enroll)
        allowed.apply(conn)
        found = allowed.outcomes(conn)
        history.record_written(conn, run)
    render.rows(run, found + [{"course": course, **row} for row in bad], ADDED)
    return PartialError.exit_code if bad else 0


@command(
    app, "remove", sets=("data", "writes", "several"), columns=ADDED,
    examples=("allowed remove edX/DemoX/2012_Fall new@example.org", "allowed remove edX/DemoX/2012_Fall @gone.txt -n"),
    exits="0 done (addresses not on the list are skipped), 1 unknown course, or invalid address, 3 unreachable, "
    "5 some skipped",
    see="rollbook allowed list, rollbook enrollment remove",
)  # fmt: skip
def remove(run: Run, course: Course, email: Emails) -> int:
    """Remove e-mail addresses from the allowed list. Existing enrollments stay."""
    good, bad = judged(run, email)
    with run.connect() as conn:
        if not allowed.listed(conn, 1, {"course": course, "match": None, "user_exists": None, **ALWAYS})[0]:
            known_courses(conn, [course])
        history.begin(conn)
        found = allowed.remove(conn, course, good)
        history.record_written(conn, run)
        left = of_addresses(conn, course, [row["email"] for row in found if row["outcome"] == "removed"])
    detail = {"removed": "removed from pending enrollment list"}
    rows = [
        {**row, "detail": detail.get(row["outcome"], "was not allowed"), "remains": left.get(row["email"].lower(), [])}
        for row in found
    ]
    render.removed(run, rows + [{"course": course, **row, "remains": []} for row in bad], ADDED)
    return PartialError.exit_code if bad else 0


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="created",
    examples=("allowed list --course edX/DemoX/2012_Fall", "allowed list --without-account --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook allowed add",
)  # fmt: skip
def list_(
    run: Run,
    course: OfCourse = None,
    user_exists: Annotated[
        bool | None,
        typer.Option("--with-account/--without-account", help="Only addresses with, or without, an account."),
    ] = None,
) -> None:
    """List the addresses that may enroll, whether a user has the address, and whether that user is enrolled."""
    with run.connect() as conn:
        filters = {"course": course, "match": run.match, "user_exists": user_exists, **run.period}
        found, total = allowed.listed(conn, render.fetch_limit(run), filters)
        if not found:
            note_unknown(conn, run, course=course)
    render.listing(run, found, COLUMNS, empty="no addresses; rollbook allowed add COURSE EMAIL...", total=total)


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("allowed import addresses.csv", "allowed import addresses.csv --on-error skip --rejects wrong.csv"),
    exits="0 done, 1 invalid rows or file; nothing changed, 2 invalid header, 3 unreachable, "
    "5 some rows skipped",
    see="rollbook allowed export, rollbook allowed add",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
) -> int:
    """Allow the e-mail addresses of a file to enroll: course_id, email, auto_enroll (blank keeps the present flag)."""

    def check(conn: Conn, _: bulk.Staged) -> None:
        bulk.check_emails(conn)
        allowed.find_wrong(conn)

    kind = bulk.Import(
        sheet=Sheet(allowed.COLUMNS, ("course_id", "email"), ("course_id", "email")), turn=TURN, check=check,
        apply=lambda conn, _: allowed.apply(conn), columns=IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("allowed export -o addresses.csv", "allowed export --course edX/DemoX/2012_Fall"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook allowed import",
)  # fmt: skip
def export(run: Run, course: OfCourse = None) -> None:
    """Write the addresses that may enroll as `allowed import` reads them. The default format is CSV."""
    exporting.export(
        run, EXPORTED, lambda conn, limit: allowed.export(conn, course=course, match=run.match, limit=limit),
        what=f"course {course}" if course else "allowed", course=course,
    )  # fmt: skip
