"""`rollbook course`: which courses hold copies, and where."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses, Course
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import NotConfirmedError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.shell import course_word

if TYPE_CHECKING:
    from rollbook.replication.team import Team

app = noun("course")

CREATED = ("course", "schema_name", "on_leave", "without", "enrolled", "copied_users", "outcome")
UPDATED = ("course", "on_leave", "on_fault", "without", "rows", "outcome")
PAUSED = ("course", "state", "paused_at", "paused_by", "pause_reason", "outcome")
RESUMED = ("course", "table", "inserted", "updated", "deleted", "outcome")
DELETED = ("course", "schema_name", "enrolled", "copied_users", "outcome")
TEAM = ("course", "role", "schema_name", "server", "outcome")
COLUMNS = (
    "course", "schema_name", "state", "on_leave", "enrolled", "copied_users", "server", "since", "on_fault",
    "paused_at", "pause_reason", "moving_to", "without", "closed_at",
)  # fmt: skip


Role = Annotated[str, typer.Argument(metavar="ROLE", help="The database role of the course's team.")]


Without = Annotated[
    str | None,
    typer.Option(
        "--without", metavar="LIST",
        help="The columns that do not travel to the course, with commas; '' for none.", show_default=False,
    ),
]  # fmt: skip


class OnLeave(StrEnum):
    """What happens to user and profile copies when an enrollment ends."""

    keep = "keep"
    remove = "remove"


class OnFault(StrEnum):
    """What happens when a copy cannot be written."""

    refuse = "refuse"
    pause = "pause"


def column_names(without: str | None) -> list[str] | None:
    """Return the columns of a list with commas; None for none given."""
    return None if without is None else [name.strip() for name in without.split(",") if name.strip()]


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="since",
    examples=("course list", "course list --match 2012 --json"),
    exits="0 even if there is no course, or one has drifted, 3 unreachable, 4 not migrated",
    see="rollbook status, rollbook course show",
)  # fmt: skip
def list_(run: Run) -> None:
    """List the courses with schema, state, and the numbers of enrolled and copied users.

    Copies are counted where PostgreSQL's statistics contradict the portal; `course show` always counts.
    """
    from rollbook.replication.queries.courses import list_courses

    with run.connect() as conn:
        found = list_courses(conn, run.match, run.period)
    rows = [vars(course) for course in found]
    render.listing(run, rows, COLUMNS, empty="no courses yet: rollbook course create COURSE")
    closed = sum(course.closed_at is not None for course in found)
    if closed and render.chosen_format(run) is Format.table:
        render.note(run, f"{closed} of {render.plural(len(found), 'course')} closed: no new enrollments")


@command(
    app, "show", sets=("document",),
    examples=("course show MITx/6.002x/2012_Fall", "course show MITx/6.002x/2012_Fall --json"),
    exits="0 found, 1 unknown course, 3 unreachable, 4 not migrated", see="rollbook replication verify",
)  # fmt: skip
def show(run: Run, course: Course) -> None:
    """Show one course: counts, the last verify, the objects that it added, and the columns copied to it."""
    from rollbook.replication.catalog import copied
    from rollbook.replication.queries.courses import find_course

    with run.connect() as conn:
        found = vars(find_course(conn, course))
        known = copied(conn)
        columns = {name: known.of(str(found["schema_name"]), name) for name in known.names}
    parts = {"Course": found, "Copied columns": columns}
    render.document(run, {**found, "replicated": columns}, lambda out: render.sections(run, out, parts))


@command(
    app, "create", sets=("data", "writes"), columns=CREATED, long=True,
    examples=(
        "course create MITx/8.02x/2013_Spring",
        "course create edX/DemoX/2013_Fall --on-leave remove --without last_login,password --dry-run",
    ),
    exits="0 created (or it exists, with --if-not-exists), 1 refused, 3 unreachable, 4 not migrated",
    see="rollbook enrollment add, rollbook course delete",
)  # fmt: skip
def create(
    run: Run,
    course: Course,
    on_leave: Annotated[
        OnLeave, typer.Option(help="Keep or remove a user's copies when the enrollment ends.")
    ] = OnLeave.keep,
    on_fault: Annotated[
        OnFault, typer.Option(help="When a copy cannot be written: refuse the portal's statement, or pause the course.")
    ] = OnFault.refuse,
    without: Without = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Succeed without change if it already exists.")
    ] = False,
) -> None:
    """Create a course: its schema and copies, filled with the students already enrolled.

    Columns left out with --without are the course's own: Rollbook never writes them. Default: rollbook shape without.
    """
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, create_course, find_course, list_courses, set_on_fault

    with run.connect() as conn:
        exists = if_not_exists and any(row.course == course for row in list_courses(conn, course))
        if not exists:
            create_course(conn, course, on_leave, column_names(without))
            if on_fault is not OnFault.refuse:
                set_on_fault(conn, course, on_fault)
            made = {"on_leave": str(on_leave), "on_fault": str(on_fault), "without": find_course(conn, course).without}
            history.record(conn, run, course, "created", after=made, course_id=course)
        found = find_course(conn, course)
        statement = course_sql("rollbook.create_course", [course, str(on_leave), found.without])
    if run.dry_run and not exists and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [{**vars(found), "outcome": "unchanged" if exists else "created"}], CREATED)


@command(
    app, "update", sets=("data", "writes", "yes"), columns=UPDATED, long=True,
    examples=(
        "course update edX/toy/2013_Spring --on-fault pause",
        "course update edX/toy/2013_Spring --without last_login,password",
        "course update edX/toy/2013_Spring --without '' --dry-run",
        "course update edX/toy/2013_Spring --on-leave remove -n",
        "course update --all --without last_login -n",
    ),
    exits="0 updated, or it was so already, 1 unknown course or column, 3 its server does not answer, 4 not migrated, "
    "or rows on its server differ yet, 5 only some, 6 not confirmed",
    see="rollbook shape without, rollbook course pause",
)  # fmt: skip
def update(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    on_leave: Annotated[
        OnLeave | None, typer.Option(help="Keep or remove a user's copies when the enrollment ends.")
    ] = None,
    on_fault: Annotated[
        OnFault | None,
        typer.Option(help="When a copy cannot be written: refuse the portal's statement, or pause the course."),
    ] = None,
    without: Without = None,
    all_: Annotated[bool, typer.Option("--all", help="All courses.")] = False,
) -> int:
    """Change what happens in courses when an enrollment ends or a copy fails, or which columns do not travel.

    --on-leave remove also removes the copies of users who left before (-n counts the rows); keep brings none back. A
    column that is left out keeps its values and is the course's own. One that travels again gets the portal's values.
    A course's server is changed too; a command that was interrupted is run again.
    """
    from rollbook.core.errors import AdminError
    from rollbook.replication.commands.comparison import reporting
    from rollbook.replication.commands.users import show_failures
    from rollbook.replication.queries.courses import count_leavers, known_courses, left_out
    from rollbook.replication.repair import Failure
    from rollbook.replication.shape import Options
    from rollbook.replication.shape import update as update_shape

    if on_leave is None and on_fault is None and without is None:
        raise UsageError("nothing to update", fix="add --on-leave WORD, --on-fault WORD or --without LIST")
    if bool(course) == all_:
        raise UsageError("which courses?", fix="name courses, or add --all")
    listed = column_names(without)
    options = Options(on_leave, on_fault, listed)
    with run.connect() as conn:
        asked = known_courses(conn, list(dict.fromkeys(course)))
        if listed is not None:
            left_out(conn, listed)
        leavers = count_leavers(conn, asked) if on_leave is OnLeave.remove else {}
    if leavers:
        render.confirm(run, removal(leavers))
    done, failures = [], []
    with reporting(run, "update", len(asked)) as progress:
        for name in asked:
            try:
                done.append(update_shape(run, name, options, progress))
            except AdminError as exc:
                failures.append(Failure(name, exc))
            progress.advance(1)
    render.rows(run, [vars(row) for row in done], UPDATED)
    show_failures(run, failures)
    if failures:
        return 5 if done else failures[0].error.exit_code
    return 0


def removal(leavers: dict[str, int]) -> str:
    """Return what a change to --on-leave remove removes, for the operator to confirm."""
    users = render.plural(sum(leavers.values()), "user")
    what = f"remove the copies of {users} who left, and what is in own columns of theirs, from "
    return what + (next(iter(leavers)) if len(leavers) == 1 else render.plural(len(leavers), "course"))


@command(
    app, "pause", sets=("data", "writes"), columns=PAUSED,
    examples=("course pause edX/toy/2013_Spring --reason 'schema dropped'", "course pause edX/toy/2013_Spring -n"),
    exits="0 paused, also if it was before, 1 unknown course, or a lock was not free in time, 3 unreachable, "
    "4 not migrated",
    see="rollbook course resume, rollbook status",
)  # fmt: skip
def pause(run: Run, course: Course) -> None:
    """Pause a course: its copies are no longer written, and the portal continues without it, even if they are gone.

    Who is enrolled goes on being recorded; `course resume` brings the copies up to date. On a course server the
    replication of the other courses continues.
    """
    from rollbook.core import history
    from rollbook.replication.queries.courses import find_course, pause_course

    with run.connect() as conn:
        before = find_course(conn, course)
        pause_course(conn, course, run.reason)
        found = find_course(conn, course)
        history.record(conn, run, course, "paused", after={"pause_reason": found.pause_reason}, course_id=course)
    outcome = "unchanged" if before.paused_at else "paused"
    render.rows(run, [{**vars(found), "outcome": outcome}], PAUSED)


@command(
    app, "resume", sets=("data", "writes"), columns=RESUMED, long=True,
    examples=("course resume MITx/6.002x/2012_Fall", "course resume MITx/6.002x/2012_Fall --dry-run"),
    exits="0 resumed and equal to the portal, 1 unknown course, or a copy still cannot be written, 3 the portal or the "
    "course's server does not answer, 4 not migrated, or rows on its server differ yet",
    see="rollbook course pause, rollbook replication repair",
)  # fmt: skip
def resume(run: Run, course: Course) -> None:
    """End the pause of a course: recreate what is gone of its copies, repair and verify them, then on its server.

    If a copy in the portal's database still cannot be written, the course stays paused. If its server does not answer,
    the course is resumed all the same: run the command again when it does. -n counts the rows without the server's.
    """
    from rollbook.replication.commands.comparison import reporting
    from rollbook.replication.queries.copies import Written
    from rollbook.replication.shape import resume as resume_course

    with reporting(run, "resume", None) as progress:
        written = resume_course(run, course, progress)
    rows = [vars(row) for row in written] or [vars(Written("")) | {"table": None}]
    render.rows(run, [{"course": course, **row, "outcome": "resumed"} for row in rows], RESUMED)


@command(
    app, "delete", sets=("data", "writes"), columns=DELETED, long=True,
    examples=(
        "course delete edX/toy/2013_Spring --dry-run",
        "course delete edX/toy/2013_Spring --confirm edX/toy/2013_Spring",
    ),
    exits="0 dropped, 1 unknown course, or it has data of its own, 3 unreachable, 6 not confirmed",
    see="rollbook course show",
)  # fmt: skip
def delete(
    run: Run,
    course: Course,
    confirm: Annotated[str | None, typer.Option(metavar="COURSE", help="Repeat the course ID to confirm.")] = None,
    drop_local: Annotated[
        bool, typer.Option("--drop-local", "--drop-data", help="Drop the course's own columns and tables as well.")
    ] = False,
) -> None:
    """Drop a course and its schema. The portal's enrollments stay."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, drop_course, find_course
    from rollbook.replication.queries.remains import of_course

    with run.connect() as conn:
        found = find_course(conn, course)
        left = of_course(conn, course)
        added = found.local_objects
        if not run.dry_run and confirm != course:
            what = f"schema {found.schema_name} with {', '.join([f'{found.copied_users} user copies', *added])}"
            message = f"not confirmed: this drops {what}"
            if confirm is not None:
                message = f"--confirm {confirm} is not the course {course}"
            if not render.wants_json(run):
                render.remains(run, left)
            raise NotConfirmedError(
                message, fix=f"add --confirm {course_word(course)}", remains=[each.public for each in left]
            )
        drop_course(conn, course, drop_local=drop_local)
        before = {name: vars(found)[name] for name in ("schema_name", "on_leave", "copied_users", "local_objects")}
        history.record(conn, run, course, "removed", before=before, course_id=course)
        statement = course_sql("rollbook.drop_course", [course, drop_local])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.removed(run, [{**vars(found), "outcome": "removed", "remains": left}], DELETED)
    if added:
        render.note(run, f"what the course added {'goes' if run.dry_run else 'went'} with it: {', '.join(added)}")


@command(
    app, "grant", sets=("data", "writes"), columns=TEAM,
    examples=(
        "course grant edX/DemoX/2012_Fall demo_team",
        "course grant edX/DemoX/2012_Fall demo_team --local-columns",
    ),
    exits="0 granted, or nothing was missing, 1 unknown course or role, 3 unreachable, 4 not migrated",
    see="rollbook course revoke",
)  # fmt: skip
def grant(
    run: Run,
    course: Course,
    role: Role,
    local_columns: Annotated[
        bool, typer.Option("--local-columns", help="Also let it update the columns that the course has added so far.")
    ] = False,
) -> None:
    """Grant the role of a course's team read access to the course's copies in the portal's database.

    A role that may update a column may also lock the rows, and hold up the portal's changes of these students. For a
    course on a server, the SQL to run there is printed.
    """
    from rollbook.replication import team

    show_team(run, team.grant(run, course, role, local_columns=local_columns))


@command(
    app, "revoke", sets=("data", "writes"), columns=TEAM,
    examples=("course revoke edX/DemoX/2012_Fall demo_team", "course revoke edX/DemoX/2012_Fall demo_team --dry-run"),
    exits="0 revoked, or there was nothing to revoke, 1 unknown course or role, 3 unreachable, 4 not migrated",
    see="rollbook course grant",
)  # fmt: skip
def revoke(run: Run, course: Course, role: Role) -> None:
    """Revoke all rights of a role on a course's schema and copies in the portal's database.

    For a course on a server, the SQL to run there is printed.
    """
    from rollbook.replication import team

    show_team(run, team.revoke(run, course, role))


def show_team(run: Run, done: "Team") -> None:
    """Write the row, the statement of a dry run, and what is left to do on the course's server."""
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, done.statement)
    render.rows(run, [vars(done)], TEAM)
    if done.on_server:
        names = [name for name in (done.server, done.moving_to) if name]
        have = "has its" if len(names) == 1 else "have their"
        render.note(
            run, f"{' and '.join(f'server {name}' for name in names)} {have} own roles; run there: {done.on_server}"
        )
