"""Addresses that may enroll in a course: the rows of pg_temp.staged, and the stored ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core.rows import Row
from rollbook.people.queries.staged import add_nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn

COLUMNS = ("course_id", "email", "auto_enroll")
COURSES = "select course_id as name from rollbook.course"

STAGED = """
create temporary table staged on commit drop as
select row_number() over () as line, %(course)s::text as course_id, e.email, %(auto_enroll)s::text as auto_enroll
from unnest(%(emails)s::text[]) as e (email)
"""

WRONG = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select s.line, f.name, f.value, f.reason
from pg_temp.staged as s
left join rollbook.course as c on c.course_id = s.course_id
cross join lateral (
    values
    ('course_id', s.course_id, case
        when s.course_id is null or s.course_id = '\N' then 'a course is needed'
        when c.course_id is null then 'there is no such course'
    end),
    ('email', s.email, case
        when s.email is null or s.email = '\N' then 'an e-mail address is needed'
        when octet_length(s.email) > length(s.email) or length(s.email) > 254 then rollbook.email_fault(s.email)
    end),
    ('auto_enroll', s.auto_enroll, case
        when lower(s.auto_enroll) not in ('true', 'false', 't', 'f', 'yes', 'no', '1', '0') then 'true or false'
    end)
) as f (name, value, reason)
where f.reason is not null and not exists (
    select from pg_temp.problem as p where p.line = s.line and (p.column_name is null or p.column_name = f.name)
)
"""

DOUBLES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'email', d.email, format('the same as on line %s (case-insensitive)', d.first)
from (
    select s.line, s.email, min(s.line) over (partition by s.course_id, lower(coalesce(n.email, s.email))) as first
    from pg_temp.staged as s left join pg_temp.normal as n on n.line = s.line
    where s.email <> '\N' and s.course_id is not null
) as d
where d.line > d.first
"""

# Each address once (case-insensitive). A blank flag is false for a new address and keeps that of an old one. An active
# account needs no activation: auto_enroll enrolls it now, but in a course that is closed.
APPLY = """
with wanted as (
    select s.line, s.course_id, s.email, s.auto_enroll::boolean as auto_enroll from pg_temp.staged as s
),
there as (
    select w.line, bool_or(a.auto_enroll) as auto_enroll
    from wanted as w
    inner join portal.student_courseenrollmentallowed as a
        on a.course_id = w.course_id and lower(a.email) = lower(w.email)
    group by w.line
),
account as (
    select w.line, u.id as user_id, u.is_active, e.id is not null as enrolled
    from wanted as w
    inner join portal.auth_user as u on lower(u.email) = lower(w.email) and u.email <> ''
    left join portal.student_courseenrollment as e on e.user_id = u.id and e.course_id = w.course_id
),
added as (
    insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll)
    select w.email, w.course_id, coalesce(w.auto_enroll, false)
    from wanted as w where not exists (select from there as t where t.line = w.line) order by w.line
    returning id, email, course_id, auto_enroll
),
turned as (
    update portal.student_courseenrollmentallowed as a
    set auto_enroll = w.auto_enroll
    from wanted as w
    where a.course_id = w.course_id and lower(a.email) = lower(w.email) and a.auto_enroll <> w.auto_enroll
    returning w.line, a.id, a.email, a.course_id, a.auto_enroll
),
enrolled as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select distinct a.user_id, w.course_id
    from wanted as w
    inner join account as a on a.line = w.line
    left join there as t on t.line = w.line
    where a.is_active and not a.enrolled and coalesce(w.auto_enroll, t.auto_enroll, false)
        and not exists (select from rollbook.course as c where c.course_id = w.course_id and c.closed_at is not null)
    order by a.user_id, w.course_id
    on conflict (user_id, course_id) do nothing
    returning id, user_id, course_id
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after)
    select
        'allowed', a.email, 'created', null::bigint, a.course_id, null::jsonb,
        jsonb_build_object('id', a.id, 'auto_enroll', a.auto_enroll)
    from added as a
    union all
    select
        'allowed', c.email, 'changed', null, c.course_id, jsonb_build_object('auto_enroll', not c.auto_enroll),
        jsonb_build_object('id', c.id, 'auto_enroll', c.auto_enroll)
    from turned as c
    union all
    select 'enrollment', u.username, 'created', n.user_id, n.course_id, null, jsonb_build_object('id', n.id)
    from enrolled as n inner join portal.auth_user as u on u.id = n.user_id
)
insert into pg_temp.outcome (line, outcome, detail)
select
    w.line,
    case when t.line is null then 'created' when c.line is not null then 'changed' else 'unchanged' end,
    case
        when a.enrolled then 'already enrolled'
        when n.user_id is not null then 'added'
        else concat(
            case when a.user_id is null then 'user does not exist' else 'user exists' end,
            case when t.line is null then ', enrollment allowed' else ', enrollment already allowed' end,
            case when k.closed_at is not null then ', the course is closed' end,
            case when a.is_active then '' else ', pending with auto enrollment ' || case
                when coalesce(w.auto_enroll, t.auto_enroll, false) then 'on' else 'off' end end
        )
    end
from wanted as w
left join there as t on t.line = w.line
left join (select distinct line from turned) as c on c.line = w.line
left join account as a on a.line = w.line
left join enrolled as n on n.user_id = a.user_id and n.course_id = w.course_id
left join rollbook.course as k on k.course_id = w.course_id
"""

OUTCOMES = """
select s.course_id as course, s.email, o.outcome, o.detail
from pg_temp.staged as s inner join pg_temp.outcome as o on o.line = s.line order by s.line
"""

REMOVE = """
with removed as (
    delete from portal.student_courseenrollmentallowed as a
    where a.course_id = %(course)s and lower(a.email) = any(array(select lower(e) from unnest(%(emails)s::text[]) as e))
    returning a.id, a.email as spelling, lower(a.email) as email, a.auto_enroll, a.created
),
written as (
    insert into pg_temp.written (kind, object, outcome, course_id, before)
    select
        'allowed', r.spelling, 'removed', %(course)s,
        jsonb_build_object('id', r.id, 'auto_enroll', r.auto_enroll, 'created', r.created)
    from removed as r
)
select
    %(course)s as course, w.email,
    case when w.email_folded in (select r.email from removed as r) then 'removed' else 'unchanged' end as outcome
from (
    select e.email, e.place, lower(e.email) as email_folded
    from unnest(%(emails)s::text[]) with ordinality as e (email, place)
) as w
order by w.place
"""

LISTED = """
select s.course_id as course, s.email, s.auto_enroll, s.user_exists, s.enrolled, s.created
from rollbook.allowed_status as s
where (%(course)s::text is null or s.course_id = %(course)s)
    and (%(match)s::text is null or strpos(lower(s.email), lower(%(match)s)) > 0)
    and (%(user_exists)s::boolean is null or s.user_exists = %(user_exists)s)
    and (%(since)s::timestamptz is null or s.created >= %(since)s)
    and (%(until)s::timestamptz is null or s.created < %(until)s)
order by s.id
limit %(limit)s
"""

TOTAL = """
select count(*) as n
from rollbook.allowed_status as s
where (%(course)s::text is null or s.course_id = %(course)s)
    and (%(match)s::text is null or strpos(lower(s.email), lower(%(match)s)) > 0)
    and (%(user_exists)s::boolean is null or s.user_exists = %(user_exists)s)
    and (%(since)s::timestamptz is null or s.created >= %(since)s)
    and (%(until)s::timestamptz is null or s.created < %(until)s)
"""

EXPORT = """
select a.course_id, a.email, a.auto_enroll
from portal.student_courseenrollmentallowed as a
where (%(course)s::text is null or a.course_id = %(course)s)
    and (%(match)s::text is null or strpos(lower(a.email), lower(%(match)s)) > 0)
order by a.course_id, a.email
limit %(limit)s
"""


def stage(conn: Conn, course: str, emails: Sequence[str], *, auto_enroll: bool | None) -> None:
    """Put addresses into pg_temp.staged, as an import does; None is a blank flag."""
    flag = None if auto_enroll is None else str(auto_enroll).lower()
    conn.execute(STAGED, {"course": course, "emails": list(emails), "auto_enroll": flag})


def find_wrong(conn: Conn) -> None:
    """Record in pg_temp.problem the faults of the staged addresses, except their form."""
    conn.execute(WRONG)
    conn.execute(DOUBLES)
    add_nearest(conn, "course_id", "there is no such course", COURSES)


def apply(conn: Conn) -> None:
    """Allow the staged addresses; record the outcomes in pg_temp.outcome, and what changed in pg_temp.written."""
    conn.execute(APPLY)


def outcomes(conn: Conn) -> list[Row]:
    """Return the outcome of each address: course email outcome detail."""
    return conn.execute(OUTCOMES).fetchall()


def remove(conn: Conn, course: str, emails: Sequence[str]) -> list[Row]:
    """Remove these e-mail addresses, case-insensitively; return course email outcome. pg_temp.written has the rows."""
    return conn.execute(REMOVE, {"course": course, "emails": list(emails)}).fetchall()


def listed(conn: Conn, limit: int | None, filters: Row) -> tuple[list[Row], int]:
    """Return addresses by id, and how many there are without the limit. `filters`: course, match, user_exists."""
    found = conn.execute(LISTED, filters | {"limit": limit}).fetchall()
    if limit is None or len(found) < limit:
        return found, len(found)
    total = conn.execute(TOTAL, filters).fetchone()
    return found, total["n"] if total else len(found)


def export(conn: Conn, *, course: str | None, match: str | None, limit: int | None) -> list[Row]:
    """Return addresses as an import reads them."""
    return conn.execute(EXPORT, {"course": course, "match": match, "limit": limit}).fetchall()
