"""`rollbook shape`: what new courses get."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.nouns import noun
from rollbook.core.shell import quoted
from rollbook.replication.commands.course import column_names

SHAPE = ("without", "courses", "differing", "outcome")
SHOWN = 10  # courses in the command that a note prints

app = noun("shape")


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
