"""`rollbook replication`: do the copies equal the portal, and if not, make them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from admin import render
from admin.commands import status as whole
from admin.errors import AdminError
from admin.options import Format, Run, command

if TYPE_CHECKING:
    from admin.render import Row

app = typer.Typer(name="replication", help="Copies against the portal: look, compare, repair.", no_args_is_help=True)

Courses = Annotated[list[str], typer.Argument(metavar="[COURSE...]", help="Default: all courses.", show_default=False)]
BATCH = 25  # courses in one call: one pass over the routes for all of them, and a bar that moves
SHOWN_PLAN = 5  # courses that the question names
SHOWN = 20  # differing rows that a terminal is shown without being asked


class Table(StrEnum):
    """The copied tables."""

    auth_user = "auth_user"
    auth_userprofile = "auth_userprofile"
    student_courseenrollment = "student_courseenrollment"


COLUMNS = ("course", "table", "portal_rows", "course_rows", "missing", "changed", "extra", "verdict")
REPAIRED = ("course", "table", "inserted", "updated", "deleted", "verdict_after")
FINDINGS = ("course", "table", "finding", "row_id", "columns")


@command(
    app, "verify", sets=("data",), columns=tuple(dict.fromkeys((*COLUMNS, *FINDINGS))), long=True,
    examples=("replication verify", "replication verify edX/DemoX/2012_Fall --rows --json"),
    exits="0 all equal, 1 unknown course, 3 a course could not be compared, 4 differences",
    see="rollbook replication repair",
)  # fmt: skip
def verify(
    run: Run,
    course: Courses = [],  # noqa: B006 (Typer's way)
    table: Annotated[list[Table], typer.Option(help="Only this table; can be repeated.")] = [],  # noqa: B006
    rows: Annotated[bool, typer.Option("--rows", help="List every differing row instead of a row a table.")] = False,
) -> int:
    """Compare every copy with the portal, row by row, column by column, in one snapshot. Writes no copy."""
    from psycopg import IsolationLevel

    from admin import queries

    report: list[Row] = []
    differing: list[Row] = []
    with run.connect() as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        asked = queries.known_courses(conn, list(dict.fromkeys(course)))
        at = queries.portal(conn)["observed_at"]
        with render.progress(run, "verify", len(asked)) as advance:
            for start in range(0, len(asked), BATCH):
                batch = queries.compare(conn, asked[start : start + BATCH])
                report += [row for row in batch if not table or row["table"] in table]
                advance(len(asked[start : start + BATCH]))
        bad = list(dict.fromkeys(row["course"] for row in report if row["verdict"] == "differs"))
        lame = {row["course"] for row in report if row["verdict"] == "not_comparable"}
        terminal = render.chosen_format(run) is Format.table
        for course_id in bad if rows or terminal else []:
            if course_id not in lame and (rows or len(differing) < SHOWN):
                found = queries.findings(conn, course_id)
                differing += [row for row in found if not table or row["table"] in table]
        conn.rollback()
        conn.isolation_level = None
        if not table:
            whole.note_verdicts(conn, report, at)
    render.rows(
        run,
        differing if rows else report,
        FINDINGS if rows else COLUMNS,
        empty="no differences" if asked else "no courses",
    )
    if terminal:
        if differing and not rows:
            render.text(run, "\n")
            render.rows(run, differing[:SHOWN], FINDINGS)
        count = sum(row["missing"] + row["changed"] + row["extra"] for row in report if row["missing"] is not None)
        render.text(run, "\n" + whole.verdict(len(asked), len(bad), count, sorted(lame)))
    return 3 if lame else 4 if bad else 0


@command(
    app, "repair", sets=("data", "writes", "yes"), columns=REPAIRED, long=True,
    examples=("replication repair", "replication repair edX/DemoX/2012_Fall --yes", "replication repair --dry-run"),
    exits="0 repaired, or nothing to do, 1 refused, 3 not comparable, 5 some courses only, 6 not confirmed",
    see="rollbook replication verify",
)  # fmt: skip
def repair(run: Run, course: Courses = []) -> int:  # noqa: B006
    """Make the copies equal to the portal: writes what differs, never what a course added itself. Asks first."""
    from admin import queries

    result: list[Row] = []
    failures: list[tuple[str, AdminError]] = []
    with run.connect() as conn:
        asked = queries.known_courses(conn, list(dict.fromkeys(course)))
        plan: dict[str, int] = {}
        lame: list[str] = []
        with render.progress(run, "compare", len(asked)) as advance:
            for start in range(0, len(asked), BATCH):
                for row in queries.compare(conn, asked[start : start + BATCH]):
                    if row["verdict"] == "differs":
                        found = row["missing"] + row["changed"] + row["extra"]
                        plan[row["course"]] = plan.get(row["course"], 0) + found
                    elif row["verdict"] == "not_comparable" and row["course"] not in lame:
                        lame.append(row["course"])
                advance(len(asked[start : start + BATCH]))
        conn.rollback()
        plan = {name: found for name, found in plan.items() if name not in lame}
        if plan and not run.dry_run:
            shown = ", ".join(f"{name} ({found})" for name, found in list(plan.items())[:SHOWN_PLAN])
            more = ", ..." if len(plan) > SHOWN_PLAN else ""
            total = f"{render.plural(sum(plan.values()), 'row')} in {render.plural(len(plan), 'course')}"
            render.confirm(run, f"repair {total}: {shown}{more}")
        with render.progress(run, "repair", len(plan)) as advance:
            for name in plan:
                result += mend(run, name, failures)
                advance(1)
    if run.dry_run and render.chosen_format(run) is Format.table:
        for name in plan:
            render.text(run, queries.course_sql("rollbook.repair", [name]))
    render.rows(run, result, REPAIRED, empty="nothing to repair" if not (failures or lame) else "nothing was repaired")
    for name, exc in failures:
        render.error(run, type(exc)(f"{name}: {exc.message}", why=exc.why, fix=exc.fix))
    for name in lame:
        render.note(run, f"{name}: not comparable, not repaired; see rollbook replication verify {name}")
    unequal = any(row["verdict_after"] not in ("match", "would match") for row in result)
    if failures:
        return 5 if result else failures[0][1].exit_code
    return 3 if lame and not result else 5 if lame else 4 if unequal else 0


def mend(run: Run, course_id: str, failures: "list[tuple[str, AdminError]]") -> "list[Row]":
    """Repair one course in a transaction of its own and verify it; note a failure and go on."""
    from admin import queries

    try:
        with run.connect() as conn:
            written = queries.repair(conn, course_id)
            report = queries.compare(conn, [course_id])
            after = {row["table"]: row["verdict"] for row in report}
            if not run.dry_run:
                whole.note_verdicts(conn, report, queries.portal(conn)["observed_at"])
        would = "would " if run.dry_run and set(after.values()) == {"match"} else ""
        if not written:  # only the routes were mended
            written = [{"course": course_id, "table": "route", "inserted": 0, "updated": 0, "deleted": 0}]
        return [row | {"verdict_after": would + after.get(row["table"], "match")} for row in written]
    except AdminError as exc:
        failures.append((course_id, exc))
        return []


@command(
    app, "status", sets=("data", "watch"), columns=whole.COLUMNS,
    examples=("replication status", "replication status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention",
    see="rollbook status, rollbook replication verify",
)  # fmt: skip
def status(run: Run, course: Courses = []) -> int:  # noqa: B006
    """Show the state of each course, the worst first."""
    return whole.repeated(run, lambda: whole.courses_once(run, course))
