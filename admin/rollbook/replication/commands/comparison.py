"""`rollbook replication verify`, `repair`, `resync`: compare the copies with the portal, and make them equal."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses, Courses, OfCourses, OfUsers
from rollbook.core.command import Format, Run, command
from rollbook.core.completion import copied_tables
from rollbook.core.errors import UsageError
from rollbook.core.nouns import noun
from rollbook.core.shell import course_word
from rollbook.replication.commands import users
from rollbook.replication.commands.users import show_failures

if TYPE_CHECKING:
    from rollbook.replication.repair import Failure, Plan, Repaired
    from rollbook.replication.session import Progress
    from rollbook.replication.verify import Report

app = noun("replication")

SHOWN_PLAN = 5  # courses that the question names
SHOWN = 20  # differing rows that a terminal shows without --rows
SCREEN = ("course", "table", "portal_rows", "course_rows", "missing", "changed", "extra", "verdict")
COLUMNS = (*SCREEN, "server", "in_flight")
REPAIRED = ("course", "table", "inserted", "updated", "deleted", "verdict_after")
FINDINGS = ("course", "table", "finding", "row_id", "columns", "server")
RESYNCED = ("course", "server", "table", "inserted", "updated", "deleted", "verdict_after")


@command(
    app, "verify", sets=("data", "page"), columns=tuple(dict.fromkeys((*COLUMNS, *FINDINGS, "user"))), long=True,
    examples=(
        "replication verify", "replication verify edX/DemoX/2012_Fall --rows --json", "replication verify --user ada",
        "replication verify --html verify.html",
    ),
    exits="0 all equal, 1 unknown course, 3 a course could not be compared, 4 differences",
    see="rollbook replication repair",
)  # fmt: skip
def verify(
    run: Run,
    course: AnyCourses = [],  # noqa: B006 (Typer's way)
    table: Annotated[
        list[str],
        typer.Option(metavar="TABLE", help="Only this table; can be repeated.", autocompletion=copied_tables),
    ] = [],  # noqa: B006
    rows: Annotated[
        bool, typer.Option("--rows", help="List every differing row instead of one row per table.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what the last run already compared.")] = False,
    user: OfUsers = [],  # noqa: B006
    only: OfCourses = [],  # noqa: B006
) -> int:
    """Compare every copy with the portal, row by row, here and on the course servers. Changes no copy.

    Copies here are compared in one snapshot. A server is compared after it has received what the portal committed; rows
    that differ are read again after a second wait, so that changes in transit are not reported.
    """
    from rollbook.replication.verify import UNCOMPARED, start
    from rollbook.replication.verify import verify as verify_copies

    course = [*course, *only]
    if user and (resume or run.html):
        raise UsageError(f"--user and {'--resume' if resume else '--html'} exclude each other")
    if user:
        return users.verify_users(run, user, course, table, list_rows=rows)
    terminal = render.chosen_format(run) is Format.table
    report = start(run, course, table, resume=resume)
    try:
        with reporting(run, "verify", len(report.asked)) as progress:
            verify_copies(run, report, progress, with_findings=bool(rows or terminal or run.html))
    except KeyboardInterrupt:
        if report.courses:
            render.note(
                run, "", f"{len(report.courses)} of {render.plural(len(report.asked), 'course')} compared; "
                "to continue: rollbook replication verify --resume",
            )  # fmt: skip
        raise
    if run.html:
        write_page(run, report, list_rows=rows)
    else:
        write_report(run, report, list_rows=rows)
    for name, verdict in report.earlier.items():
        render.note(run, f"{name}: {verdict}, as the earlier part of this run found")
    verdicts = {row.verdict for row in report.rows} | set(report.earlier.values())
    return 3 if verdicts & set(UNCOMPARED) else 4 if "differs" in verdicts else 0


def write_report(run: Run, report: "Report", *, list_rows: bool) -> None:
    """Write what a verify has found: a row a table, or every differing row; a terminal gets some of them anyway."""
    terminal = render.chosen_format(run) is Format.table
    columns = COLUMNS if run.fields or not terminal else SCREEN
    found = report.findings if list_rows else report.rows
    render.rows(
        run, [vars(row) for row in found], FINDINGS if list_rows else columns,
        empty="no differences" if report.asked else "no courses",
    )  # fmt: skip
    if terminal:
        if report.findings and not list_rows:
            render.text(run, "\n")
            shown = FINDINGS if any(row.server for row in report.findings) else FINDINGS[:-1]
            render.rows(run, [vars(row) for row in report.findings[:SHOWN]], shown)
        write_end(run, report)


def write_end(run: Run, report: "Report") -> None:
    """Write the last line of a verify, wrapped on a terminal, and the next command."""
    first, rest = summary(report).split("\n", 1)
    wrapped = textwrap.fill(first, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    render.text(run, f"\n{wrapped if render.is_drawn(run) else first}\n{rest}")


def write_page(run: Run, report: "Report", *, list_rows: bool) -> None:
    """Write the same as a page for a browser, with charts."""
    from rollbook.replication.commands.pages import verify_page
    from rollbook.replication.queries.copies import count_portal

    with run.connect() as portal:
        whole = count_portal(portal)
    shown = len(report.findings) if list_rows else SHOWN
    render.page(run, verify_page(run, whole, report, summary(report), whole["observed_at"], shown))


def summary(report: "Report") -> str:
    """Return the last line of a verify: a sentence, and the next command."""
    from rollbook.replication.verify import UNCOMPARED

    differing, uncompared = report.courses_with("differs"), report.courses_with(*UNCOMPARED)
    text = f"{render.plural(len(report.asked), 'course')} compared; "
    if uncompared:
        text += f"{len(uncompared)} could not be compared ({', '.join(sorted(uncompared))}); "
    if differing:
        rows = render.plural(sum(row.differing for row in report.rows), "row")
        text += f"{len(differing)} {'differs' if len(differing) == 1 else 'differ'} in {rows}.\n"
        return text + "  rollbook replication repair    shows what it would do and asks\n"
    if uncompared:
        return text + ("the others are equal.\n" if len(report.asked) > len(uncompared) else "nothing is known.\n")
    return text + "all copies are equal to the portal.\n"


@command(
    app, "repair", sets=("data", "writes", "yes"), columns=REPAIRED, long=True,
    examples=("replication repair", "replication repair edX/DemoX/2012_Fall --yes", "replication repair --user ada -n"),
    exits="0 repaired, or nothing to do, 1 refused, 3 not comparable, 4 still unequal, 5 only some, 6 not confirmed",
    see="rollbook replication verify, rollbook replication resync",
)  # fmt: skip
def repair(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    user: OfUsers = [],  # noqa: B006
    only: OfCourses = [],  # noqa: B006
) -> int:
    """Make the copies equal to the portal. Writes only rows that differ, never a course's own data. Asks first.

    If conflicting rows on a server have stopped its subscription, they are deleted and the subscription is re-enabled.
    """
    from rollbook.replication.queries.courses import course_sql, known_courses
    from rollbook.replication.repair import plan_repair, repair_all

    course = [*course, *only]
    if user:
        result, failures = users.repair_users(run, user, course)
        render.rows(run, [vars(row) for row in result], REPAIRED, empty="nothing to repair")
        show_failures(run, failures)
        return repaired_code(result, failures)
    with run.connect() as portal:
        asked = known_courses(portal, list(dict.fromkeys(course)))
        portal.rollback()
        with reporting(run, "verify", len(asked)) as progress:
            plan = plan_repair(run, portal, asked, progress)
    if plan.written and not run.dry_run:
        render.confirm(run, question(plan))
    with reporting(run, "repair", len(plan.written)) as progress:
        result, failures = repair_all(run, plan, progress)
    if run.dry_run and render.chosen_format(run) is Format.table:
        for name in plan.written:
            render.text(run, course_sql("rollbook.repair", [name]))
    idle = "nothing was repaired" if failures or plan.not_comparable else "nothing to repair"
    render.rows(run, [vars(row) for row in result], REPAIRED, empty=idle)
    show_failures(run, failures)
    for name in plan.not_comparable:
        render.note(run, f"{name}: not comparable, not repaired; see rollbook replication verify {course_word(name)}")
    if plan.not_comparable and not failures:
        return 5 if result else 3
    return repaired_code(result, failures)


def repaired_code(result: "Sequence[Repaired]", failures: "Sequence[Failure]") -> int:
    """Return the exit code of a repair."""
    if failures:
        return 5 if result else failures[0].error.exit_code
    return 4 if any(row.verdict_after not in ("match", "would match") for row in result) else 0


def question(plan: "Plan") -> str:
    """Return what a repair asks before it writes."""
    rows = plan.rows()
    shown = ", ".join(f"{name} ({count})" for name, count in list(rows.items())[:SHOWN_PLAN])
    more = ", ..." if len(rows) > SHOWN_PLAN else ""
    total = f"{render.plural(sum(rows.values()), 'row')} in {render.plural(len(rows), 'course')}"
    gone = [f"; restore the copies of {name}: {fault}" for name, fault in plan.faults.items()]
    return f"repair {total}: {shown}{more}{''.join(gone[:SHOWN_PLAN])}"


@command(
    app, "resync", sets=("data", "writes", "yes"), columns=RESYNCED, long=True,
    examples=("replication resync MITx/6.002x/2012_Fall --yes", "replication resync MITx/6.002x/2012_Fall -n"),
    exits="0 equal again, 1 unknown, or not on a server, 3 unreachable, 4 still unequal, 5 only some, 6 not confirmed",
    see="rollbook replication repair",
)  # fmt: skip
def resync(run: Run, course: Courses) -> int:
    """Restore replication of courses on a server after a lost slot, a restored server or a restored portal.

    Rebuilds replication if it is gone, then writes the rows that differ, in batches: readers there never see an
    empty table. Other courses of the server are not touched; if replication was rebuilt they are `unknown` until they
    are resynced too.
    """
    from rollbook.replication.repair import Repaired
    from rollbook.replication.resync import resync_all, servers_of

    servers = servers_of(run, course)
    if run.dry_run:
        planned = [Repaired(name, None, None, None, None, "would match", server) for name, server in servers.items()]
        render.rows(run, [vars(row) for row in planned], RESYNCED)
        return 0
    render.confirm(run, "resync " + ", ".join(f"{name} on {server}" for name, server in servers.items()))
    with reporting(run, "resync", len(servers)) as progress:
        result, failures = resync_all(run, servers, progress)
    render.rows(run, [vars(row) for row in result], resynced_columns(run), empty="nothing was resynced")
    show_failures(run, failures)
    if failures:
        return 5 if result else failures[0].error.exit_code
    return 4 if any(row.verdict_after != "match" for row in result) else 0


def resynced_columns(run: Run) -> tuple[str, ...]:
    """Return the columns of a resync: the question has named the servers, and without them 80 columns are enough."""
    return REPAIRED if render.is_drawn(run) and not (run.wide or run.fields) else RESYNCED


@contextmanager
def reporting(run: Run, label: str, total: int | None) -> "Iterator[Progress]":
    """Yield how work below the commands reports: a bar with rows/s and the end, and notes on stderr."""
    from rollbook.core.progress import progress
    from rollbook.replication.session import Progress

    with progress(run, label, total) as reporter:
        yield Progress(reporter, lambda text: render.note(run, text), reporter.rows, reporter.expect, reporter.more)
