"""`rollbook course close`, `open`, `archive`, `restore`, `rename`: the life of a course; course.py has the others."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rollbook.core import render
from rollbook.core.arguments import Course
from rollbook.core.command import Format, Run, command
from rollbook.replication.commands.course import app

if TYPE_CHECKING:
    from rollbook.core.db import Conn

__all__ = ["app"]

CLOSED = ("course", "state", "enrolled", "closed_at", "closed_by", "outcome")


@command(
    app, "close", sets=("data", "writes"), columns=CLOSED,
    examples=("course close MITx/6.002x/2012_Fall", "course close MITx/6.002x/2012_Fall --reason 'term is over' -n"),
    exits="0 closed, also if it was before, 1 unknown course, or a lock was not free in time, 3 unreachable, "
    "4 not migrated",
    see="rollbook course open, rollbook course archive",
)  # fmt: skip
def close(run: Run, course: Course) -> None:
    """Close a course: new enrollments are refused, whoever writes them. Copies stay current, and users can leave.

    It waits for enrollments that are under way. Addresses on the allowed list stay there and enroll nobody.
    """
    from rollbook.replication.queries.courses import close_course

    change(run, course, close_course, "closed")


@command(
    app, "open", sets=("data", "writes"), columns=CLOSED,
    examples=("course open MITx/6.002x/2012_Fall", "course open MITx/6.002x/2012_Fall --dry-run"),
    exits="0 opened, or it was open, 1 unknown course, or a lock was not free in time, 3 unreachable, 4 not migrated",
    see="rollbook course close",
)  # fmt: skip
def open_(run: Run, course: Course) -> None:
    """Open a course that was closed: it takes new enrollments again."""
    from rollbook.replication.queries.courses import open_course

    change(run, course, open_course, "opened")


def change(run: Run, course: str, write: "Callable[[Conn, str], bool]", outcome: str) -> None:
    """Close or open a course, record it and write its row."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, find_course

    with run.connect() as conn:
        before = find_course(conn, course)
        is_new = write(conn, course)
        found = find_course(conn, course)
        if is_new:
            sides = ({"closed_at": row.closed_at} for row in (before, found))
            history.record(conn, run, course, outcome, before=next(sides), after=next(sides), course_id=course)
        statement = course_sql("rollbook.close_course" if outcome == "closed" else "rollbook.open_course", [course])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [{**vars(found), "outcome": outcome if is_new else "unchanged"}], CLOSED)
