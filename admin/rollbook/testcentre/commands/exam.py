"""`rollbook exam`: the exams of courses that are sat at a test centre."""

from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Course, OfCourse
from rollbook.core.command import Run, command
from rollbook.core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from rollbook.core.render import Row

app = typer.Typer(name="exam", help="Exams of courses at a test centre.", no_args_is_help=True)

COLUMNS = (
    "course", "exam", "display_name", "first_appointment", "last_appointment", "is_open", "is_current",
    "authorizations", "registration_start", "registration_end", "name",
)  # fmt: skip
IMPORTED = ("course", "exam", "display_name", "first_appointment", "last_appointment", "outcome")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("exam list", "exam list --course edX/DemoX/2012_Fall --json"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook exam import",
)  # fmt: skip
def list_(run: Run, course: OfCourse = None) -> None:
    """List exams: when they can be sat, when students may register, and how many are to sit them."""
    from rollbook.testcentre.queries import exam

    with run.connect() as conn:
        found = exam.listed(conn, course=course, match=run.match)
    render.listing(run, found, COLUMNS, empty="no exam; rollbook exam import COURSE FILE")


@command(
    app, "import", sets=("data", "writes"), columns=IMPORTED,
    examples=("exam import edX/DemoX/2012_Fall policy.json -n", "exam import edX/DemoX/2012_Fall - < policy.json"),
    exits="0 done, 1 an exam is wrong (all that are wrong are told), nothing changed, "
    "2 the file cannot be read, 3 unreachable",
    see="rollbook exam list, rollbook authorization create",
)  # fmt: skip
def import_(
    run: Run,
    course: Course,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A course policy with testcenter_info; - is stdin.")],
) -> None:
    """Let a course have the exams of its policy, and no others. Authorizations stay as they are."""
    from rollbook.core import history
    from rollbook.core.rows import nearest
    from rollbook.replication.queries.courses import list_courses
    from rollbook.testcentre import policy
    from rollbook.testcentre.queries import exam

    if not course.strip():
        raise UsageError("no course named", fix="rollbook exam import COURSE FILE")
    good, faults, remarks = policy.exams(policy.text_of(file))
    for remark in remarks:
        render.note(run, remark)
    if faults:
        raise RefusedError(
            f"{render.plural(len(faults), 'exam')} of {len(faults) + len(good)} cannot be; nothing was changed",
            why="\n".join(f"{row['exam']}: {row['problem']}" for row in faults), fix="correct the policy",
            problems=faults,
        )  # fmt: skip
    with run.connect() as conn:
        found: list[Row] = [{"course": course, **row} for row in exam.replace(conn, course, good)]
        history.record_many(conn, run, [
            {"object": row["exam"], "outcome": row["outcome"], "course_id": course}
            for row in found if row["outcome"] != "unchanged"
        ])  # fmt: skip
        known = [row["course"] for row in list_courses(conn)]
    if course not in known:  # it may be one that the learning platform has and Rollbook has not
        near = nearest(course, known)
        render.note(run, f"note: there is no course {course} here" + (f"; {near}" if near else ""))
    render.rows(run, found, IMPORTED, empty="the policy has no exams, nor had the course")
