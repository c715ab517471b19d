"""The exams of courses that are sat at a test centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core.rows import Row, as_json, nearest

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.since import Period

LISTED = """
select
    e.course_id as course, e.exam_series_code as exam, e.display_name, e.first_appointment, e.last_appointment,
    e.is_open, e.is_current, e.authorizations, e.registration_start, e.registration_end, e.name
from rollbook.exam_status as e
where (%(course)s::text is null or e.course_id = %(course)s)
    and (%(since)s::timestamptz is null or e.first_appointment >= %(since)s)
    and (%(until)s::timestamptz is null or e.first_appointment < %(until)s)
    and (
        %(match)s::text is null
        or strpos(lower(concat_ws(' ', e.exam_series_code, e.name, e.display_name)), lower(%(match)s)) > 0
    )
order by e.course_id, e.first_appointment, e.exam_series_code
"""

# The course gets exactly the exams of its policy.
REPLACE = """
with wanted as (
    select *
    from jsonb_to_recordset(%(exams)s) as e (
        exam_series_code text, name text, display_name text, first_appointment timestamptz,
        last_appointment timestamptz, registration_start timestamptz, registration_end timestamptz
    )
),
before as (
    select * from rollbook.exam as e where e.course_id = %(course)s order by e.exam_series_code for update
),
removed as (
    delete from rollbook.exam as e
    where e.course_id = %(course)s and e.exam_series_code not in (select w.exam_series_code from wanted as w)
),
written as (
    insert into rollbook.exam (
        course_id, exam_series_code, name, display_name, first_appointment, last_appointment, registration_start,
        registration_end
    )
    select
        %(course)s, w.exam_series_code, w.name, w.display_name, w.first_appointment, w.last_appointment,
        w.registration_start, w.registration_end
    from wanted as w
    on conflict (course_id, exam_series_code) do update
    set name = excluded.name, display_name = excluded.display_name, first_appointment = excluded.first_appointment,
        last_appointment = excluded.last_appointment, registration_start = excluded.registration_start,
        registration_end = excluded.registration_end
)
select
    coalesce(w.exam_series_code, b.exam_series_code) as exam, coalesce(w.display_name, b.display_name) as display_name,
    coalesce(w.first_appointment, b.first_appointment) as first_appointment,
    coalesce(w.last_appointment, b.last_appointment) as last_appointment,
    case
        when b.exam_series_code is null then 'created'
        when w.exam_series_code is null then 'removed'
        when row(w.name, w.display_name, w.first_appointment, w.last_appointment, w.registration_start,
                w.registration_end)
            is distinct from row(b.name, b.display_name, b.first_appointment, b.last_appointment, b.registration_start,
                b.registration_end) then 'changed'
        else 'unchanged'
    end as outcome
from wanted as w full join before as b on b.exam_series_code = w.exam_series_code
order by first_appointment, exam
"""


def listed(conn: Conn, *, course: str | None, match: str | None, period: Period) -> list[Row]:
    """Return the exams of a course, or of all, by first appointment in a period. Source: exam_status."""
    return conn.execute(LISTED, {"course": course, "match": match, **period}).fetchall()


def undefined(conn: Conn, course: str, exam: str) -> str | None:
    """Return a hint on an exam that the course does not have: whose it is, or the nearest exam or course."""
    rows = conn.execute("select course_id, exam_series_code as code from rollbook.exam order by 1, 2").fetchall()
    if elsewhere := [row["course_id"] for row in rows if row["code"] == exam]:
        return f"{exam} is an exam of {', '.join(elsewhere[:3])}" + (" and others" if len(elsewhere) > 3 else "")
    if codes := [row["code"] for row in rows if row["course_id"] == course]:
        return nearest(exam, codes) or f"its exams are {', '.join(codes[:5])}"
    return unknown_course(conn, course) or f"{course} has no exams"


def unknown_course(conn: Conn, course: str) -> str | None:
    """Return that there is no such course, and the nearest; None if it is one, or has exams."""
    known = {
        row["course_id"]
        for row in conn.execute("select course_id from rollbook.course union select course_id from rollbook.exam")
    }
    if course in known:
        return None
    near = nearest(course, known)
    return f"there is no course {course}" + (f"; {near}" if near else "")


def replace(conn: Conn, course: str, exams: list[Row]) -> list[Row]:
    """Replace the exams of a course.

    Return exam display_name first_appointment last_appointment outcome, for removed ones too.
    """
    return conn.execute(REPLACE, {"course": course, "exams": as_json(exams)}).fetchall()
