"""What a deleted course leaves in the portal, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from psycopg import errors

from rollbook.core.remains import Remain, find

if TYPE_CHECKING:
    from rollbook.core.db import Conn

OF_COURSE: LiteralString = """
select f.place, f.what, f.count, f.fix, null as several, null as row
from (
    select
        1 as position, 'enrollments' as place, 'they are copied again if the course is created again' as what,
        count(*) as count,
        (select format('delete from %%s where %%I = %%L', t.relation, t.course_column, %(course)s::text)
         from rollbook.copied_tables() as t where t.role = 'membership') as fix
    from rollbook.memberships_of(%(course)s)
    union all
    select 2, 'allowed list', 'e-mail addresses that may enroll in the course', count(*),
        format('delete from portal.student_courseenrollmentallowed where course_id = %%L', %(course)s::text)
    from portal.student_courseenrollmentallowed as a where a.course_id = %(course)s
    union all
    select 3, 'test centre', 'authorizations for exams of the course', count(*),
        case when count(*) <= 20 then 'rollbook authorization cancel '
            || string_agg(rollbook.shell_quote(a.client_authorization_id), ' ' order by a.id) end
    from portal.student_testcenterregistration as a
    where a.course_id = %(course)s and a.cancelled_at is null
    union all
    select 4, 'exams', 'definitions of the course''s exams', count(*),
        format('delete from rollbook.exam where course_id = %%L', %(course)s::text)
    from rollbook.exam as e where e.course_id = %(course)s
    union all
    select 5, 'history', 'entries about the course', count(*),
        format('delete from rollbook.history where course_id = %%L', %(course)s::text)
    from rollbook.history as h where h.course_id = %(course)s
) as f
where f.count > 0
order by f.position
"""


def of_course(conn: Conn, course: str) -> list[Remain]:
    """Return what remains when a course is deleted; nothing where this role may not read it."""
    try:
        with conn.transaction():
            return find(conn, OF_COURSE, {"course": course})
    except errors.InsufficientPrivilege:
        return []
