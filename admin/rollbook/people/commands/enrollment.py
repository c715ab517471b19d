"""`rollbook enrollment`: the users of each course."""

from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import exporting, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import Course, ImportFile, OfCourse, OfUser, Users
from rollbook.core.command import OnError, Run, command
from rollbook.core.completion import courses
from rollbook.core.db import Conn
from rollbook.core.errors import NotConfirmedError, PartialError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.core.unknown_names import note_unknown
from rollbook.core.users import find_users
from rollbook.people import enrollments, oneroster
from rollbook.people.commands.named_users import chosen
from rollbook.people.commands.removals_option import MaxRemovals
from rollbook.people.commands.wait_option import Wait, awaited
from rollbook.people.queries import enrollment as queries
from rollbook.people.queries.remains import of_enrollments
from rollbook.people.removals import parsed_limit, with_consent
from rollbook.replication.queries.courses import known_courses

app = noun("enrollment")

LINKED = ("course", "username", "email", "outcome")
IMPORTED = ("line", "course", "user", "outcome", "detail")
EXPORTED = ("course_id", "user", "status")
COUNTED = ("key", "enrollments")
COLUMNS = ("course", "username", "email", "created", "replicated")


class By(StrEnum):
    """How enrollments are counted."""

    course = "course"
    day = "day"
    week = "week"
    month = "month"


def link(run: Run, course: str, users: list[str], wait: float | None, *, join: bool) -> int:
    """Enroll users or end their enrollments, all or nothing, and report each. Return the exit code."""
    with run.connect() as conn:
        known_courses(conn, [course])
        found, code = chosen(conn, run, users)
        linked = enrollments.link(conn, run, course, found, join=join)
    (render.rows if join else render.removed)(run, map(vars, linked), LINKED)
    late = awaited(run, [course], wait)
    return code or late


@command(
    app, "add", sets=("data", "writes", "several"), columns=LINKED,
    examples=(
        "enrollment add edX/DemoX/2012_Fall ada bob@example.org",
        "enrollment add edX/DemoX/2012_Fall - --wait 5 < users.txt",
    ),
    exits="0 done (users already enrolled are skipped), 1 unknown user or course, nothing changed, 3 unreachable, "
    "4 not at the server in time, 5 some skipped",
    see="rollbook enrollment remove, rollbook user show",
)  # fmt: skip
def add(run: Run, course: Course, user: Users, wait: Wait = None) -> int:
    """Enroll users in a course, all or nothing. The course has their copies when the command ends."""
    return link(run, course, user, wait, join=True)


@command(
    app, "remove", sets=("data", "writes", "several"), columns=LINKED,
    examples=("enrollment remove edX/DemoX/2012_Fall ada", "enrollment remove edX/DemoX/2012_Fall @leavers.txt -n"),
    exits="0 done (users not enrolled are skipped), 1 unknown user or course, nothing changed, 3 unreachable, "
    "4 not at the server in time, 5 some skipped",
    see="rollbook enrollment add, rollbook course show (on_leave)",
)  # fmt: skip
def remove(run: Run, course: Course, user: Users, wait: Wait = None) -> int:
    """End enrollments, all or nothing. The course's on_leave decides what happens to the copies."""
    return link(run, course, user, wait, join=False)


@command(
    app, "move", sets=("data", "writes", "several"), columns=LINKED,
    examples=(
        "enrollment move --from edX/DemoX/2012_Fall --to MITx/6.002x/2012_Fall ada bob",
        "enrollment move --from edX/DemoX/2012_Fall --to MITx/6.002x/2012_Fall @late.txt --dry-run",
    ),
    exits="0 done, 1 unknown user or course, or not enrolled there, nothing changed, 3 unreachable, "
    "4 not at the server in time, 5 some skipped",
    see="rollbook enrollment add, rollbook enrollment remove",
)  # fmt: skip
def move(
    run: Run,
    user: Users,
    source: Annotated[
        str, typer.Option("--from", metavar="COURSE", help="The course to leave.", autocompletion=courses)
    ],
    target: Annotated[str, typer.Option("--to", metavar="COURSE", help="The course to enter.", autocompletion=courses)],
    wait: Wait = None,
) -> int:
    """Move enrollments to another course, atomically. Users already enrolled in the target only leave the source."""
    if source == target:
        raise UsageError("--from and --to are the same course")
    with run.connect() as conn:
        enrollments.check_courses(conn, source, target)
        found, code = chosen(conn, run, user)
        skip = run.on_error is OnError.skip
        moved, strangers = enrollments.move(conn, run, source, target, found, skip_strangers=skip)
    for error in strangers:
        render.error(run, error)
    render.removed(run, map(vars, moved), LINKED)
    late = awaited(run, [source, target], wait)
    return PartialError.exit_code if strangers else code or late


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=(
        "enrollment import seats.csv --dry-run",
        "enrollment import seats.csv --on-error skip --rejects wrong.csv --wait 10",
    ),
    exits="0 done, 1 invalid rows or file; nothing changed, 2 invalid header, 3 unreachable, "
    "4 not at the server in time, 5 some rows skipped",
    see="rollbook enrollment export, rollbook enrollment roster",
)  # fmt: skip
def import_(run: Run, file: ImportFile = None, wait: Wait = None) -> int:
    """Enroll users, or end enrollments, from a file: course_id, user, status (enrolled, the default, or deleted)."""
    touched: set[str] = set()

    def apply(conn: Conn, _: bulk.Staged) -> None:
        queries.apply(conn)
        touched.update(queries.touched(conn))

    kind = bulk.Import(
        sheet=Sheet(queries.COLUMNS, ("course_id", "user"), ("course_id", "user")),
        turn=enrollments.TURN, check=lambda conn, _: queries.find_wrong(conn), apply=apply,
        columns=IMPORTED,
    )  # fmt: skip
    code = bulk.imported(run, kind, file)
    late = awaited(run, sorted(touched), wait)
    return code or late


@command(
    app, "roster", sets=("data", "writes", "yes", "bulk"), columns=LINKED, long=True,
    examples=(
        "enrollment roster edX/DemoX/2012_Fall class.csv --dry-run",
        "enrollment roster edX/DemoX/2012_Fall class.csv --max-removals 25% --yes",
    ),
    exits="0 done, 1 unknown course or users, or too many removals, nothing changed, 2 invalid header, "
    "3 unreachable, 4 not at the server in time, 5 some rows skipped, 6 not confirmed",
    see="rollbook enrollment import, rollbook enrollment export",
)  # fmt: skip
def roster(
    run: Run,
    course: Course,
    file: ImportFile = None,
    max_removals: MaxRemovals = "10%",
    wait: Wait = None,
) -> int:
    """Make the enrollment match a file with the header `user`: add missing users, remove all others.

    The plan is printed first, and must be confirmed.
    """
    limit = parsed_limit(max_removals)
    name = bulk.requested(run, enrollments.ROSTER, file)
    if name is None:
        return 0
    batch = None
    with run.connect() as conn:
        plan, rejected = enrollments.read_roster(conn, run, course, name, limit)
        render.note(run, f"plan for {plan}{'; ' + plan.missing if plan.removed else ''}")
        if not plan.is_empty:
            confirm(run, plan)
            batch = enrollments.follow(conn, run, plan, name)
        left = of_enrollments(conn, course, [row.id for row in plan.rows if row.outcome == "removed"])
    rows = [
        {"course": course, **vars(row), "batch": None if run.dry_run else batch, "remains": left.get(str(row.id), [])}
        for row in plan.rows
    ]
    columns = (*LINKED, "batch") if render.wants_json(run) else LINKED
    render.removed(run, rows, columns, empty="the course stays empty")
    bulk.note_batch(run, batch)
    late = awaited(run, [course], wait)
    return PartialError.exit_code if rejected else late


def confirm(run: Run, plan: enrollments.Plan) -> None:
    """Ask whether to follow the plan. Raises NotConfirmedError, which has the plan."""
    try:
        render.confirm(run, f"{plan}. Continue?")
    except NotConfirmedError as exc:
        exc.details["plan"] = {"course": plan.course, **plan.counts, "leaving": plan.removed}
        raise


@command(
    app, "sync-dates", sets=("data", "writes", "yes"), columns=LINKED, long=True,
    examples=("enrollment sync-dates --dry-run", "enrollment sync-dates --source sis --yes"),
    exits="0 done, or nothing to do, 1 unknown source, or too many removals, nothing changed, 3 unreachable, "
    "4 not at the server in time, 6 not confirmed",
    see="rollbook user import --oneroster",
)  # fmt: skip
def sync_dates(
    run: Run,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only bundles of this source. Default: all.")
    ] = None,
    max_removals: MaxRemovals = "100%",
    wait: Wait = None,
) -> int:
    """Start and end the enrollments of OneRoster bundles by beginDate and endDate, as of today.

    Run it each night. Today is the date in the time zone of the database.
    """
    limit = parsed_limit(max_removals)

    def act(agreed: frozenset[int]) -> list[Row]:
        with run.connect() as conn:
            return oneroster.sync_dates(conn, run, source, limit, agreed)

    moved = with_consent(run, act)
    render.rows(run, moved, LINKED, empty="no enrollment begins or ends today")
    return awaited(run, sorted({row["course"] for row in moved}), wait)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("enrollment export -o seats.csv", "enrollment export --course edX/DemoX/2012_Fall --match example.org"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook enrollment import",
)  # fmt: skip
def export(
    run: Run,
    course: OfCourse = None,
) -> None:
    """Write enrollments as `enrollment import` reads them. The default format is CSV."""
    exporting.export(
        run, EXPORTED, lambda conn, limit: queries.export(conn, course=course, match=run.match, limit=limit),
        what=f"course {course}" if course else "enrollments", course=course,
    )  # fmt: skip


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="created",
    examples=("enrollment list --course edX/DemoX/2012_Fall", "enrollment list --user ada --json"),
    exits="0 even if there is none, 1 unknown user, 3 unreachable, 4 not migrated",
    see="rollbook enrollment count",
)  # fmt: skip
def list_(
    run: Run,
    course: OfCourse = None,
    user: OfUser = None,
) -> None:
    """List enrollments; `replicated` shows whether the course has the copy (empty: the course does not exist)."""
    with run.connect() as conn:
        user_id = find_users(conn, [user])[0]["id"] if user is not None else None
        found, total = queries.list_enrollments(
            conn, course=course, user_id=user_id, match=run.match, limit=render.fetch_limit(run), period=run.period
        )
        if not found:
            note_unknown(conn, run, course=course)
    render.listing(run, found, COLUMNS, empty="no enrollments; rollbook enrollment add COURSE USER...", total=total)


@command(
    app, "count", sets=("data",), columns=COUNTED, times="created",
    examples=(
        "enrollment count", "enrollment count --by day --course edX/DemoX/2012_Fall",
        "enrollment count --by week --since -90d",
    ),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook enrollment list",
)  # fmt: skip
def count(
    run: Run,
    by: Annotated[By | None, typer.Option(help="One row for each value.")] = None,
    course: OfCourse = None,
) -> None:
    """Count enrollments: all, by course, or over time; on a terminal with bars.

    Over time each day, ISO week (from Monday) or month of UTC has a row, also an empty one.
    """
    with run.connect() as conn:
        found = queries.count_enrollments(conn, course, by, run.period)
        if not any(row["enrollments"] for row in found):
            note_unknown(conn, run, course=course)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="no enrollments", bar="enrollments" if by else None)
