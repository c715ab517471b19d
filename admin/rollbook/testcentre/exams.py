"""The exams of a course, replaced by those of its policy, each change recorded in the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, nearest
from rollbook.replication.queries.courses import list_courses
from rollbook.testcentre import policy
from rollbook.testcentre.queries import exam

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollbook.core.command import Run


def replace(run: Run, course: str, file: str, *, remark: Callable[[str], None]) -> list[Row]:
    """Replace a course's exams with those in a policy file; return the exams of before and after with their outcomes.

    `remark` gets what may be a mistake. Raises UsageError for an unreadable file, RefusedError with all invalid exams.
    """
    exams, faults, remarks = policy.exams(policy.text_of(file))
    for text in remarks:
        remark(text)
    if faults:
        raise RefusedError(
            f"{len(faults)} of {len(faults) + len(exams)} exams {'is' if len(faults) == 1 else 'are'} invalid; "
            "nothing was changed",
            why="\n".join(f"{row['exam']}: {row['problem']}" for row in faults), fix="correct the policy",
            problems=faults,
        )  # fmt: skip
    with run.connect() as conn:
        found: list[Row] = [{"course": course, **row} for row in exam.replace(conn, course, exams)]
        history.record_many(conn, run, [
            {"object": row["exam"], "outcome": row["outcome"], "course_id": course}
            for row in found if row["outcome"] != "unchanged"
        ])  # fmt: skip
        known = [row.course for row in list_courses(conn)]
    if course not in known:  # the learning platform may have it, and Rollbook not
        near = nearest(course, known)
        remark(f"note: there is no course {course} here" + (f"; {near}" if near else ""))
    return found
