"""`rollbook course`: which courses hold copies."""

from enum import StrEnum
from typing import Annotated

import typer

from admin import render
from admin.errors import NotConfirmedError, RefusedError
from admin.options import Format, Run, command

app = typer.Typer(name="course", help="Courses: make one, look at one, drop one.", no_args_is_help=True)

CREATED = ("course", "schema_name", "on_leave", "enrolled", "copied_users", "outcome")
DELETED = ("course", "schema_name", "enrolled", "copied_users", "outcome")
COLUMNS = ("course", "schema_name", "state", "on_leave", "enrolled", "copied_users", "since")
Course = Annotated[str, typer.Argument(metavar="COURSE", help="The id that enrollments bear.")]


class OnLeave(StrEnum):
    """What happens to user and profile copies when an enrollment ends."""

    keep = "keep"
    remove = "remove"


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("course list", "course list --match 2012 --json"),
    exits="0 also if there is none or one has drifted, 3 unreachable, 4 not migrated",
    see="rollbook status, rollbook course show",
)  # fmt: skip
def list_(run: Run) -> None:
    """List the courses with their schema, state and how many are enrolled and copied."""
    from admin import queries  # psycopg, which --help must not pay

    with run.connect() as conn:
        found = queries.courses(conn, run.match)
    limit = render.shown_limit(run)
    rows = render.ordered(run, found)[:limit]
    render.rows(run, rows, COLUMNS, empty="no courses yet: rollbook course create COURSE", total=len(found))


@command(
    app, "show", sets=("document",),
    examples=("course show MITx/6.002x/2012_Fall", "course show MITx/6.002x/2012_Fall --json"),
    exits="0 found, 1 unknown course, 3 unreachable, 4 not migrated", see="rollbook replication verify",
)  # fmt: skip
def show(run: Run, course: Course) -> None:
    """Show one course: counts, the last verify, what it added itself, and what is copied to it."""
    from admin import queries

    with run.connect() as conn:
        found = queries.course(conn, course)
        found["replicated"] = {row["table"]: row["columns"] for row in queries.replicated(conn)}
    parts = {"Course": {k: v for k, v in found.items() if k != "replicated"}, "Copied columns": found["replicated"]}
    render.document(run, found, lambda out: render.sections(run, out, parts))


@command(
    app, "create", sets=("data", "writes"), columns=CREATED, long=True,
    examples=("course create MITx/6.002x/2012_Fall", "course create edX/DemoX/2012_Fall --on-leave remove --dry-run"),
    exits="0 made (or there already, with --if-not-exists), 1 refused, 3 unreachable, 4 not migrated",
    see="rollbook enrollment add, rollbook course delete",
)  # fmt: skip
def create(
    run: Run,
    course: Course,
    on_leave: Annotated[
        OnLeave, typer.Option(help="When an enrollment ends: user and profile copies stay, or go.")
    ] = OnLeave.keep,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Be content with one that is there.")] = False,
) -> None:
    """Make a course: its schema and copies, filled with the students already enrolled."""
    from admin import queries

    with run.connect() as conn:
        outcome = "would create" if run.dry_run else "created"
        there = [row for row in queries.courses(conn, course) if row["course"] == course] if if_not_exists else []
        if there:
            outcome = "unchanged"
        else:
            queries.create_course(conn, course, on_leave)
        found = queries.course(conn, course)
        statement = queries.course_sql("rollbook.create_course", [course, str(on_leave)])
    if run.dry_run and not there and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [found | {"outcome": outcome}], CREATED)


@command(
    app, "delete", sets=("data", "writes"), columns=DELETED, long=True,
    examples=("course delete edX/toy/2013_Spring --confirm edX/toy/2013_Spring", "course delete edX/toy -n"),
    exits="0 dropped, 1 unknown course, or it holds data of its own, 3 unreachable, 6 not confirmed",
    see="rollbook course show",
)  # fmt: skip
def delete(
    run: Run,
    course: Course,
    confirm: Annotated[
        str | None, typer.Option(metavar="COURSE", help="The course's id again, as you mean it.")
    ] = None,
    drop_local: Annotated[
        bool, typer.Option("--drop-local", "--drop-data", help="Drop the course's own columns and tables as well.")
    ] = False,
) -> None:
    """Drop a course and its schema. The portal's enrollments stay."""
    from admin import queries

    with run.connect() as conn:
        found = queries.course(conn, course)
        if not run.dry_run and confirm != course:
            goes = f"schema {found['schema_name']} with {found['copied_users']} user copies"
            if confirm is not None:
                raise NotConfirmedError(
                    f"--confirm {confirm} is not the course {course}", fix=f"add --confirm '{course}'"
                )
            raise NotConfirmedError(f"not confirmed: this drops {goes}", fix=f"add --confirm '{course}'")
        if found["local_objects"] and not drop_local:
            raise RefusedError(
                f"course {course} has data of its own: {', '.join(found['local_objects'])}",
                fix=f"save what you need of schema {found['schema_name']}, then add --drop-local",
            )
        queries.drop_course(conn, course, drop_local=drop_local)
        statement = queries.course_sql("rollbook.drop_course", [course, drop_local])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    outcome = "would remove" if run.dry_run else "removed"
    render.rows(run, [found | {"outcome": outcome}], DELETED)
