"""`rollbook shape`: which tables, columns and rows are copied, and how that changes while everybody works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import remains, render
from rollbook.core.command import Run, command
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.nouns import noun
from rollbook.core.shell import quoted
from rollbook.replication.commands.course import column_names

if TYPE_CHECKING:
    from rollbook.replication.columns import Outcome
    from rollbook.replication.session import Progress

SHAPE = ("without", "courses", "differing", "outcome")
SHOWN = 10  # courses in the command that a note prints
TABLES = ("role", "table", "key", "person", "course", "condition", "columns", "due")
PLAN = ("change", "object", "was", "becomes", "outcome")
CHANGED = ("change", "table", "column", "becomes", "courses", "rows", "failed", "outcome")
JOBS = 4  # servers at once

app = noun("shape")
column_app = typer.Typer(name="shape column", no_args_is_help=True)
app.add_typer(column_app, name="column", help="Columns that are copied: add, drop, rename, widen.")

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A copied table, without its schema.")]
ColumnName = Annotated[str, typer.Argument(metavar="COLUMN", help="A column of it.")]
Jobs = Annotated[
    int, typer.Option("-j", "--jobs", metavar="N", min=1, help="How many servers are worked on at once.")
]  # fmt: skip
EXITS = (
    "0 done, or it was so before, 1 refused, 3 the portal does not answer, or a server that a rename needs, "
    "4 not migrated, "
    "5 some courses could not be changed: run it again, 6 not confirmed"
)


@command(
    app, "without", sets=("data", "writes"), columns=SHAPE,
    examples=("shape without", "shape without last_login,password", "shape without '' --dry-run"),
    exits="0 shown or set, also if courses differ, 1 unknown column, 3 unreachable, 4 not migrated",
    see="rollbook course update, rollbook course list",
)  # fmt: skip
def without(
    run: Run,
    columns: Annotated[
        str | None,
        typer.Argument(metavar="[LIST]", help="Columns with commas; '' for none. Default: show.", show_default=False),
    ] = None,
) -> None:
    """Show or set the columns that do not travel to new courses. Courses that exist stay as they are."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import default_without, left_out, list_courses, set_default_without

    listed = column_names(columns)
    with run.connect() as conn:
        before = default_without(conn)
        now = before if listed is None else left_out(conn, listed)
        if now != before:
            set_default_without(conn, now)
            history.record(conn, run, "shape", "updated", before={"without": before}, after={"without": now})
        courses = list_courses(conn)
    differing = [course.course for course in courses if course.without != now]
    outcome = "shown" if listed is None else "unchanged" if now == before else "updated"
    render.rows(run, [{"without": now, "courses": len(courses), "differing": differing, "outcome": outcome}], SHAPE)
    if differing:
        are_all = len(differing) == len(courses)
        names = "--all" if are_all or len(differing) > SHOWN else " ".join(quoted(name) for name in differing)
        verb = "differs" if len(differing) == 1 else "differ"
        which = f"{render.plural(len(differing), 'course')} of {len(courses)} {verb}"
        render.note(run, f"{which}; to bring along: rollbook course update {names} --without {quoted(','.join(now))}")


@command(
    app, "show", sets=("data",), columns=TABLES,
    examples=("shape show", "shape show --toml > shape.toml", "shape show --json"),
    exits="0 shown, 3 unreachable, 4 not migrated", see="rollbook shape apply, rollbook course show",
)  # fmt: skip
def show(
    run: Run, toml: Annotated[bool, typer.Option("--toml", help="As the file that `shape apply` takes.")] = False
) -> None:
    """Show which tables, columns and rows are copied, and how many courses a change of it has not reached yet."""
    from rollbook.core import shape
    from rollbook.replication.queries.shape import count_due, unfinished

    with run.connect() as conn:
        declared = shape.with_courses(conn)
        due = count_due(conn)
        changes = unfinished(conn)
    if toml:
        render.text(run, shape.toml(declared))
        return
    render.rows(run, [
        {"role": table.role, "table": table.relation, "key": table.key, "person": table.person, "course": table.course,
         "condition": table.condition, "columns": list(table.columns), "due": due.get(table.name, 0)}
        for table in declared.tables
    ], TABLES)  # fmt: skip
    for each in changes:
        render.note(run, f"{each.name}: {each.words}; to go on: {each.fix}")
    if any(due.values()) and not changes:
        render.note(run, "a command is changing the shape")


@contextmanager
def reporting(run: Run) -> "Iterator[Progress]":
    """Yield how work on all courses reports: a bar with the time left, and notes on stderr."""
    from rollbook.core.progress import progress
    from rollbook.replication.session import Progress

    with progress(run, run.verb, None) as reporter:  # one change goes to all courses once, or more often
        yield Progress(reporter, lambda text: render.note(run, text), more=reporter.more)


def changed(
    run: Run, change: str, table: str, column: str | None, becomes: str | None, work: "Callable[[Progress], Outcome]",
    left: "list[remains.Remain] | None" = None,
) -> int:  # fmt: skip
    """Do a change, write its row and what failed, and return the exit code."""
    from rollbook.replication.commands.users import show_failures
    from rollbook.replication.queries.shape import command as words
    from rollbook.replication.switch import changing

    again = words(change.removeprefix("column "), table, column, becomes)
    try:
        with changing(run), reporting(run) as progress:
            done = work(progress)
    except AdminError as exc:
        raise followed(exc, again) from exc
    write = render.rows if left is None else render.removed
    write(run, [{
        "change": change, "table": table, "column": column, "becomes": becomes, "courses": done.courses,
        "rows": done.rows, "failed": len(done.failures),
        "outcome": "would update" if run.dry_run and done.word == "updated" else done.word, "remains": left,
    }], CHANGED)  # fmt: skip
    show_failures(run, [replace(failure, error=followed(failure.error, again)) for failure in done.failures])
    return 5 if done.failures else 0


def followed(error: AdminError, again: str) -> AdminError:
    """Return an error whose fix names the command that goes on, where a server did not answer."""
    if isinstance(error, UnreachableError) and error.fix and again not in error.fix:
        error.fix = f"{error.fix}; then: {again}"
    return error


@command(
    column_app, "add", sets=("data", "writes"), columns=CHANGED, long=True,
    examples=("shape column add auth_userprofile goals", "shape column add auth_userprofile goals --dry-run"),
    exits=EXITS, see="rollbook shape show, rollbook course update",
)  # fmt: skip
def column_add(run: Run, table: TableName, column: ColumnName, jobs: Jobs = JOBS) -> int:
    """Let a column of the portal's table travel to all courses, one after the other, while everybody works.

    A course can leave it out afterwards: rollbook course update COURSE --without COLUMN.
    """
    from rollbook.replication.columns import add
    from rollbook.replication.queries.shape import Column

    return changed(run, "column add", table, column, None, lambda progress: add(
        run, [Column(table, column)], jobs, progress
    ))  # fmt: skip


@command(
    column_app, "drop", sets=("data", "writes", "yes"), columns=CHANGED, long=True,
    examples=("shape column drop auth_userprofile goals --dry-run", "shape column drop auth_userprofile goals --yes"),
    exits=EXITS, see="rollbook shape show, rollbook shape without",
)  # fmt: skip
def column_drop(run: Run, table: TableName, column: ColumnName, jobs: Jobs = JOBS) -> int:
    """Let a column travel to no course, and drop it with its values from all copies. The portal's table keeps it."""
    from rollbook.replication.columns import drop
    from rollbook.replication.queries.shape import Column

    render.confirm(run, f"drop {table}.{column} with its values from the copies of all courses?")
    left = remains.Remain("the portal", f"the column {table}.{column} with its values")
    return changed(run, "column drop", table, column, None, lambda progress: drop(
        run, [Column(table, column)], jobs, progress
    ), [left])  # fmt: skip


@command(
    column_app, "rename", sets=("data", "writes"), columns=CHANGED, long=True,
    examples=(
        "shape column rename auth_userprofile pronouns pronoun",
        "shape column rename auth_userprofile pronouns pronoun --dry-run",
    ),
    exits=EXITS, see="rollbook shape show",
)  # fmt: skip
def column_rename(
    run: Run, table: TableName, column: ColumnName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")], jobs: Jobs = JOBS,
) -> int:  # fmt: skip
    """Rename a column in the portal's table and in all copies. Until a course has the new name, it misses changes."""
    from rollbook.replication.columns import rename
    from rollbook.replication.queries.shape import Column

    return changed(run, "column rename", table, column, name, lambda progress: rename(
        run, Column(table, column), name, jobs, progress
    ))  # fmt: skip


@command(
    column_app, "widen", sets=("data", "writes"), columns=CHANGED, long=True,
    examples=(
        "shape column widen auth_user email 'varchar(300)' --dry-run",
        "shape column widen auth_user email 'varchar(300)'",
    ),
    exits=EXITS, see="rollbook schema check",
)  # fmt: skip
def column_widen(
    run: Run, table: TableName, column: ColumnName,
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="A type that holds all values of the old one.")],
) -> int:  # fmt: skip
    """Give a column a wider type: on the servers first, then in the copies here, then in the portal's table.

    Where the portal's column has that type already, the copies follow.
    """
    from rollbook.replication.queries.shape import Column
    from rollbook.replication.widening import widen

    return changed(run, "column widen", table, column, kind, lambda progress: widen(
        run, Column(table, column), kind, progress
    ))  # fmt: skip


@command(
    app, "where", sets=("data", "writes"), columns=CHANGED, long=True,
    examples=("shape where \"created > '2012-01-01'\" --dry-run", "shape where ''"),
    exits=EXITS, see="rollbook shape show, rollbook enrollment list",
)  # fmt: skip
def where(
    run: Run,
    condition: Annotated[str, typer.Argument(metavar="CONDITION", help="SQL over the table's columns; '' for none.")],
    jobs: Jobs = JOBS,
) -> int:
    """Let only rows of the membership table count for which a condition is true, such as is_active.

    Rows for which it is false leave at once, as on_leave says; courses follow one after the other.
    """
    from rollbook.core import shape
    from rollbook.replication.condition import where as change_condition

    wanted = condition.strip() or None
    with run.connect() as conn:
        membership = shape.of(conn).tables[-1].name
    return changed(run, "where", membership, None, wanted, lambda progress: change_condition(
        run, wanted, jobs, progress
    ))  # fmt: skip


@command(
    app, "apply", sets=("data", "writes", "yes"), columns=PLAN, long=True,
    examples=("shape apply shape.toml --dry-run", "shape apply shape.toml --yes"),
    exits=EXITS, see="rollbook shape show",
)  # fmt: skip
def apply(
    run: Run, file: Annotated[str, typer.Argument(metavar="FILE", help="As shape show --toml prints it.")],
    jobs: Jobs = JOBS,
) -> int:  # fmt: skip
    """Make the shape equal to a file: show the plan, ask, and do it, one course after the other.

    A column that is gone and another that is new are never taken for a rename. Also ends a change that is under way.
    """
    from rollbook.core import shape
    from rollbook.replication import shape_file
    from rollbook.replication.queries.shape import require_right

    wanted = shape.load(Path(file))
    with run.connect() as conn:
        require_right(conn)
        steps = shape_file.plan(conn, wanted)
    if not steps or run.dry_run:
        render.rows(run, [vars(step) for step in steps], PLAN, empty="nothing to do")
    hints = shape_file.rename_hints(steps)
    if hints:
        render.note(run, f"if that is a rename: {'; '.join(hints)}")
    if not steps or run.dry_run:
        return 0
    for step in steps:
        render.note(run, f"{step.change} {step.object}: {step.was or 'none'} -> {step.becomes or 'none'}")
    render.confirm(run, "change the shape?")

    from rollbook.replication.commands.users import show_failures
    from rollbook.replication.switch import changing

    again = f"rollbook shape apply {quoted(file)}"
    try:
        with changing(run), reporting(run) as progress:
            done, outcomes = shape_file.apply(run, wanted, steps, jobs, progress)
    except AdminError as exc:
        raise followed(exc, again) from exc
    render.rows(run, [vars(step) for step in done], PLAN)
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    show_failures(run, [replace(failure, error=followed(failure.error, again)) for failure in failures])
    return 5 if failures else 0
