"""`rollbook exam`: the exams of courses, sat at a test centre."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Course, OfCourse
from rollbook.core.command import Run, command
from rollbook.core.errors import UsageError
from rollbook.core.nouns import noun
from rollbook.core.unknown_names import note_unknown
from rollbook.testcentre import exams
from rollbook.testcentre.queries import exam

app = noun("exam")

COLUMNS = (
    "course", "exam", "display_name", "first_appointment", "last_appointment", "is_open", "is_current",
    "authorizations", "registration_start", "registration_end", "name",
)  # fmt: skip
IMPORTED = ("course", "exam", "display_name", "first_appointment", "last_appointment", "outcome")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS, times="first_appointment",
    examples=("exam list", "exam list --course edX/DemoX/2012_Fall --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook exam import",
)  # fmt: skip
def list_(run: Run, course: OfCourse = None) -> None:
    """List exams: appointment dates, registration period and number of authorizations."""
    with run.connect() as conn:
        found = exam.listed(conn, course=course, match=run.match, period=run.period)
        if not found:
            note_unknown(conn, run, course=course)
    render.listing(run, found, COLUMNS, empty="no exams; rollbook exam import COURSE FILE")


@command(
    app, "import", sets=("data", "writes"), columns=IMPORTED,
    examples=("exam import edX/DemoX/2012_Fall policy.json -n", "exam import edX/DemoX/2012_Fall - < policy.json"),
    exits="0 done, 1 invalid exams (all are reported); nothing changed, 2 the file cannot be read, 3 unreachable",
    see="rollbook exam list, rollbook authorization create",
)  # fmt: skip
def import_(
    run: Run,
    course: Course,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A course policy with testcenter_info; - is stdin.")],
) -> None:
    """Replace the course's exams with those in its policy file. Authorizations are unchanged."""
    if not course.strip():
        raise UsageError("no course named", fix="rollbook exam import COURSE FILE")
    found = exams.replace(run, course, file, remark=lambda text: render.note(run, text))
    render.rows(run, found, IMPORTED, empty="no exams before or after")
