"""What a deleted account, an ended enrollment and a removed address leave, and where. Each looks up by index alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from rollbook.core.remains import Remain, by_row, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn

# Of the schemas only those that hold copies of the user.
OF_USER: LiteralString = """
with held as (
    select c.course_id, c.schema_name, c.paused_at
    from rollbook.route as r
    cross join unnest(r.schemas) as s (schema_name)
    inner join rollbook.course as c on c.schema_name = s.schema_name
    where r.user_id = %(id)s
),
candidate as (
    select c.client_candidate_id, c.created_at, greatest(c.uploaded_at, max(a.uploaded_at)) as uploaded_at
    from portal.student_testcenteruser as c
    left join portal.student_testcenterregistration as a on a.testcenter_user_id = c.id
    where c.user_id = %(id)s group by c.id
)
select f.place, f.what, f.count, f.fix, null as several, null as row
from (
    select
        1 as position, 'allowed list of ' || a.course_id as place,
        'the e-mail address: a new account with it ' || case
            when bool_or(a.auto_enroll) then 'is enrolled when it is activated' else 'may enroll' end as what,
        count(*) as count,
        format('rollbook allowed remove %%s %%s', rollbook.shell_quote(a.course_id), rollbook.shell_quote(min(a.email)))
            as fix
    from portal.auth_user as u
    inner join portal.student_courseenrollmentallowed as a on lower(a.email) = lower(u.email)
    where u.id = %(id)s and u.email <> ''
    group by a.course_id
    union all
    select 2, 'history', 'entries of the account', count(*),
        format('delete from rollbook.history where user_id = %%s', %(id)s::bigint)
    from rollbook.history as h where h.user_id = %(id)s having count(*) > 0
    union all
    select 3, 'test centre', format('candidate %%s, as it was sent', c.client_candidate_id), 1, null
    from candidate as c where c.uploaded_at is not null
    union all
    select 4, 'exchange files', 'sent while the candidate was there: they may have the name', count(*),
        'rollbook pearson list'
    from candidate as c
    inner join rollbook.exchange_file as x on x.direction = 'out' and x.at between c.created_at and c.uploaded_at
    having count(*) > 0
    union all
    select 5, 'discussion service', 'the account, until it has received the deletion', 1, 'rollbook discussion sync'
    from rollbook.discussion as d where d.active
    union all
    select 6, 'course ' || h.course_id, 'copies, as the course is paused', 1,
        'rollbook course resume ' || rollbook.shell_quote(h.course_id)
    from held as h where h.paused_at is not null
    union all
    select 7, 'schema ' || h.schema_name, 'tables of the course''s own, as far as they name the user: '
        || string_agg(c.relname, ', ' order by c.relname), count(*), null
    from held as h
    inner join pg_namespace as n on n.nspname = h.schema_name
    inner join pg_class as c on c.relnamespace = n.oid and c.relkind in ('r', 'p')
    where c.relname <> all (array(select t.table_name from rollbook.copied_tables() as t))
    group by h.schema_name
) as f
order by f.position, f.place
"""

OF_ENROLLMENTS: LiteralString = """
select f.place, f.what, f.count, f.fix, f.several, u.id::text as row
from unnest(%(ids)s::bigint[]) as id
inner join portal.auth_user as u on u.id = id.id
cross join lateral (
    select
        1 as position, 'course ' || c.course_id as place, 'copies of user and profile: on_leave is keep' as what,
        1::bigint as count, null as fix, null as several
    from rollbook.route as r
    inner join rollbook.course as c on c.course_id = %(course)s and c.schema_name = any (r.schemas)
    where r.user_id = u.id and c.on_leave = 'keep'
    union all
    select
        2, 'allowed list of ' || a.course_id, 'e-mail addresses: they may enroll again', count(*),
        format(
            'rollbook allowed remove %%s %%s', rollbook.shell_quote(a.course_id), rollbook.shell_quote(min(a.email))
        ),
        'rollbook allowed list --with-account --course ' || rollbook.shell_quote(a.course_id)
    from portal.student_courseenrollmentallowed as a
    where a.course_id = %(course)s and lower(a.email) = lower(u.email) and u.email <> ''
    group by a.course_id
    union all
    select
        3, 'test centre', 'authorizations for exams of ' || a.course_id, count(*),
        'rollbook authorization cancel ' || string_agg(rollbook.shell_quote(a.client_authorization_id), ' '),
        'rollbook authorization list'
    from portal.student_testcenteruser as t
    inner join portal.student_testcenterregistration as a on a.testcenter_user_id = t.id
    where t.user_id = u.id and a.course_id = %(course)s and a.cancelled_at is null
    group by a.course_id
) as f
order by f.position, u.id
"""

OF_ADDRESSES: LiteralString = """
select
    'course ' || e.course_id as place, 'enrollments of users with the e-mail address' as what, 1::bigint as count,
    format('rollbook enrollment remove %%s %%s', rollbook.shell_quote(e.course_id), rollbook.shell_quote(u.username))
        as fix,
    'rollbook enrollment list --course ' || rollbook.shell_quote(e.course_id) as several,
    lower(u.email) as row
from unnest(%(emails)s::text[]) as a (email)
inner join portal.auth_user as u on lower(u.email) = lower(a.email) and u.email <> ''
inner join portal.student_courseenrollment as e on e.user_id = u.id and e.course_id = %(course)s
order by u.id
"""


def of_user(conn: Conn, user_id: int) -> list[Remain]:
    """Return what remains when a user is deleted, who is still there."""
    return find(conn, OF_USER, {"id": user_id})


def of_enrollments(conn: Conn, course: str, user_ids: Sequence[int]) -> dict[str | None, list[Remain]]:
    """Return what remains of ended enrollments, by the id of the user."""
    return by_row(find(conn, OF_ENROLLMENTS, {"course": course, "ids": list(user_ids)}))


def of_addresses(conn: Conn, course: str, emails: Sequence[str]) -> dict[str | None, list[Remain]]:
    """Return what remains of removed addresses, by address in lower case."""
    return by_row(find(conn, OF_ADDRESSES, {"course": course, "emails": list(emails)}))
