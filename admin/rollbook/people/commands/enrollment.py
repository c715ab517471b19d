"""`rollbook enrollment`: the users of each course."""

from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import exporting, history, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import Course, OfCourse, OfUser, Users
from rollbook.core.command import OnError, Run, command
from rollbook.core.completion import courses
from rollbook.core.db import Conn
from rollbook.core.errors import NotConfirmedError, PartialError, RefusedError, UnreachableError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet, check_rejects, line_count, shown
from rollbook.people.commands import named_users as people
from rollbook.people.queries import enrollment
from rollbook.people.queries.enrollment import count_enrollments, enroll, leave, list_enrollments
from rollbook.people.queries.names import find_hits, find_users
from rollbook.replication.arrivals import wait_for_courses
from rollbook.replication.queries.courses import known_courses

app = noun("enrollment")

LINKED = ("course", "username", "email", "outcome")
IMPORTED = ("line", "course", "user", "outcome", "detail")
EXPORTED = ("course_id", "user", "status")
COUNTED = ("key", "enrollments")
COLUMNS = ("course", "username", "email", "created", "replicated")
TURN = "rollbook enrollment import"
NAMED = 10  # users whom a question names
File = Annotated[str | None, typer.Argument(metavar="FILE", help="A CSV file with a header; - is stdin.")]
Wait = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0.001, help="Wait up to SECONDS for the server to receive it; otherwise exit 4."
    ),
]


class By(StrEnum):
    """What enrollments are counted by."""

    course = "course"
    day = "day"


def link(run: Run, course: str, users: list[str], wait: float | None, *, join: bool) -> int:
    """Enroll users or end their enrollments, all or nothing, and report each. Return the exit code."""
    outcome = "created" if join else "removed"
    with run.connect() as conn:
        known_courses(conn, [course])
        found, code = people.chosen(conn, run, users)
        touched = (enroll if join else leave)(conn, course, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": outcome, "user_id": row["id"], "course_id": course}
            for row in found if row["id"] in touched
        ])  # fmt: skip
    rows = [{"course": course, **row, "outcome": outcome if row["id"] in touched else "unchanged"} for row in found]
    render.rows(run, rows, LINKED)
    late = awaited(run, [course], wait)
    return code or late


def awaited(run: Run, courses: list[str], seconds: float | None) -> int:
    """Wait until the servers of these courses have all that is committed by now; return 0, or 4 if one has not.

    A course on no server had it when the transaction ended.
    """
    if seconds is None or run.dry_run:
        return 0
    with run.connect() as portal:
        portal.autocommit = True
        answers = wait_for_courses(portal, courses, run.caller(seconds), seconds)
    late = False
    for name, answer in answers.items():
        if isinstance(answer, UnreachableError):
            render.error(run, answer)
        elif not answer:
            render.note(
                run, f"server {name} has not confirmed the change within {seconds:g} s; see rollbook replication status"
            )
        late = late or answer is not True
    return 4 if late else 0


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
    """End enrollments, all or nothing. What becomes of the copies is the course's on_leave."""
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
        str, typer.Option("--from", metavar="COURSE", help="The course that they leave.", autocompletion=courses)
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="COURSE", help="The course that they enter.", autocompletion=courses)
    ],
    wait: Wait = None,
) -> int:
    """Move enrollments to another course, atomically. Users already enrolled in the target only leave the source."""
    if source == target:
        raise UsageError("--from and --to are the same course")
    with run.connect() as conn:
        known_courses(conn, [target])
        if not enrollment.waits_for(conn, source):
            known_courses(conn, [source])
        found, code = people.chosen(conn, run, user)
        seats = enrollment.seats(conn, source, target, [row["id"] for row in found])
        for row in seats:
            here, there = row["enrollment_id"] is not None, row["is_there"]
            row["outcome"] = ("removed" if here else "unchanged") if there else "changed" if here else None
        code = strangers(run, seats, source) or code
        seats = [row for row in seats if row["outcome"]]
        enrollment.move(
            conn, target, [row["enrollment_id"] for row in seats if row["outcome"] == "changed"],
            [row["enrollment_id"] for row in seats if row["outcome"] == "removed"],
        )  # fmt: skip
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": "moved", "user_id": row["user_id"], "course_id": target,
             "before": {"course": source}, "after": {"course": target}}
            for row in seats if row["outcome"] != "unchanged"
        ])  # fmt: skip
    rows = [{**row, "course": source if row["outcome"] == "removed" else target} for row in seats]
    render.rows(run, rows, LINKED)
    late = awaited(run, [source, target], wait)
    return code or late


def strangers(run: Run, seats: list[Row], source: str) -> int:
    """Report those who are in neither course, and return 5 if they may be skipped. Raises RefusedError if not."""
    missing = [row["username"] for row in seats if row["outcome"] is None]
    if not missing:
        return 0
    failures = [RefusedError(f"{name} is not enrolled in {source}", fix="rollbook user show") for name in missing]
    if run.on_error is not OnError.skip or len(missing) == len(seats):
        raise failures[0]
    for failure in failures:
        render.error(run, failure)
    return PartialError.exit_code


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=(
        "enrollment import seats.csv --dry-run",
        "enrollment import seats.csv --on-error skip --rejects wrong.csv --wait 10",
    ),
    exits="0 done, 1 rows or the file are wrong, nothing changed, 2 the header is wrong, 3 unreachable, "
    "4 not at the server in time, 5 some rows skipped",
    see="rollbook enrollment export, rollbook enrollment roster",
)  # fmt: skip
def import_(run: Run, file: File = None, wait: Wait = None) -> int:
    """Enroll and leave as a file says: course_id, user, and status, blank or enrolled to enroll, deleted to leave."""
    touched: set[str] = set()

    def apply(conn: Conn, _: bulk.Staged) -> None:
        enrollment.apply(conn)
        touched.update(enrollment.touched(conn))

    kind = bulk.Import(
        sheet=Sheet(enrollment.COLUMNS, ("course_id", "user"), ("course_id", "user")),
        turn=TURN, check=lambda conn, _: enrollment.find_wrong(conn), apply=apply,
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
    exits="0 done, 1 unknown course or users, or too many would leave, nothing changed, 2 the header is wrong, "
    "3 unreachable, 4 not at the server in time, 5 some rows skipped, 6 not confirmed",
    see="rollbook enrollment import, rollbook enrollment export",
)  # fmt: skip
def roster(
    run: Run,
    course: Course,
    file: File = None,
    max_removals: Annotated[
        str, typer.Option(metavar="N|P%", help="Refuse if more than N users, or P % of the course, would be removed.")
    ] = "10%",
    wait: Wait = None,
) -> int:
    """Make the enrollment match a file with the header `user`: add missing users, remove all others.

    The plan is shown first, and asked about.
    """
    sheet = Sheet(("user",), ("user",), ("user",))
    share = checked_share(max_removals)
    if run.template:
        render.text(run, "user\n")
        return 0
    if file is None:
        raise UsageError("no file named", fix="name a file, or - for stdin; --template prints its header")
    check_rejects(run, file)
    with run.connect() as conn:
        known_courses(conn, [course])
        bulk.begin(conn)
        with progress(run, run.verb, line_count(file)) as advance:
            staged = bulk.stage(conn, run, sheet, file, advance)
        find_hits(conn)
        rejected = bulk.judged(conn, run, staged)
        planned = enrollment.plan(conn, course)
        counts = check_plan(run, course, planned, share)
        if counts["created"] or counts["removed"]:
            bulk.take_turn(conn, run, TURN)  # not before: nobody waits for an answer on somebody's terminal
            enrollment.follow(conn, course, planned)
            history.record(conn, run, f"{course}: {shown(file)}", "imported", after=counts, course_id=course)
    rows = [{"course": course, **row} for row in planned]
    render.rows(run, rows, LINKED, empty="nobody is in the course, and nobody comes")
    late = awaited(run, [course], wait)
    return PartialError.exit_code if rejected else late


def checked_share(given: str) -> tuple[float, bool]:
    """Return N, and whether it is percent. Raises UsageError."""
    number = given.strip().removesuffix("%")
    if not number.replace(".", "", 1).isdecimal() or ("." in number and not given.endswith("%")):
        raise UsageError(f"--max-removals {given} is not a number", fix="write 5 for five, or 10% of the course")
    return float(number), given.strip().endswith("%")


def check_plan(run: Run, course: str, planned: list[Row], share: tuple[float, bool]) -> dict[str, int]:
    """Show what is planned and ask. Return the counts by outcome.

    Raises RefusedError if more would leave than may, NotConfirmedError.
    """
    counts = {word: sum(row["outcome"] == word for row in planned) for word in ("created", "removed", "unchanged")}
    leavers = [row["username"] for row in planned if row["outcome"] == "removed"]
    named = ", ".join(leavers[:NAMED]) + (f" and {len(leavers) - NAMED} more" if len(leavers) > NAMED else "")
    text = f"{course}: {counts['created']} come, {counts['removed']} leave, {counts['unchanged']} stay"
    present = counts["removed"] + counts["unchanged"]
    most = int(present * share[0] / 100) if share[1] else int(share[0])
    if len(leavers) > most:
        raise RefusedError(
            f"{len(leavers)} of {present} would leave {course}, {most} may", why=f"not in the file: {named}",
            fix=f"see that the file is whole; if it is, add --max-removals {len(leavers)}",
        )  # fmt: skip
    render.note(run, f"plan for {text}{'; not in the file: ' + named if leavers else ''}")
    if counts["created"] or counts["removed"]:
        try:
            render.confirm(run, f"{text}. Go on?")
        except NotConfirmedError as exc:
            exc.details["plan"] = {"course": course, **counts, "leaving": leavers}
            raise
    return counts


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("enrollment export -o seats.csv", "enrollment export --course edX/DemoX/2012_Fall --match example.org"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook enrollment import",
)  # fmt: skip
def export(
    run: Run,
    course: OfCourse = None,
) -> None:
    """Write enrollments as `enrollment import` reads them: CSV, unless another format is asked for."""
    exporting.export(
        run, EXPORTED, lambda conn, limit: enrollment.export(conn, course=course, match=run.match, limit=limit),
        what=f"course {course}" if course else "enrollments", course=course,
    )  # fmt: skip


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("enrollment list --course edX/DemoX/2012_Fall", "enrollment list --user ada --json"),
    exits="0 also if there is none, 1 unknown user, 3 unreachable, 4 not migrated",
    see="rollbook enrollment count",
)  # fmt: skip
def list_(
    run: Run,
    course: OfCourse = None,
    user: OfUser = None,
) -> None:
    """List enrollments; `replicated` says whether the course has the copy (empty: the course does not exist)."""
    with run.connect() as conn:
        user_id = find_users(conn, [user])[0]["id"] if user is not None else None
        found, total = list_enrollments(
            conn, course=course, user_id=user_id, match=run.match, limit=render.fetch_limit(run)
        )
    render.listing(run, found, COLUMNS, empty="no enrollments; rollbook enrollment add COURSE USER...", total=total)


@command(
    app, "count", sets=("data",), columns=COUNTED,
    examples=("enrollment count", "enrollment count --by day --course edX/DemoX/2012_Fall"),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook enrollment list",
)  # fmt: skip
def count(
    run: Run,
    by: Annotated[By | None, typer.Option(help="One row for each.")] = None,
    course: OfCourse = None,
) -> None:
    """Count enrollments: all, by course, or by day; on a terminal with bars."""
    with run.connect() as conn:
        found = count_enrollments(conn, course, by)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="no enrollments", bar="enrollments" if by else None)
