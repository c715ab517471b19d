"""The classes and enrollments of a OneRoster bundle in pg_temp.roster_*: their faults, and their import.

rollbook.roster_enrollment remembers the rows of students that are neither inactive nor deleted, also those that have
ended or have not begun. A student is in a course while one of the rows, of whatever source, is of today. Each write
collects in pg_temp.roster_settle the users and courses that it concerns; these enrollments, and no others, are made
equal to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.referring import deleting
from rollbook.core.rows import Row, one, typed
from rollbook.replication.queries.courses import create_course

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollbook.core.db import Conn


@dataclass(frozen=True)
class Leaver:
    """An enrollment that ends although no row of the file says so: it is not in the file, or in effect, any more."""

    id: int
    username: str
    course: str


# An enrollment's role is its own, else the user's: in 1.1 of users.csv, in 1.2 of roles.csv, the primary one first.
SEATS = """
create temporary table roster_seat on commit drop as
select
    e.line, e.sourcedid, e.classsourcedid, e.usersourcedid, e.role, e.begin_date, e.end_date,
    c.line as class_line, u.line as user_line, u.username,
    lower(btrim(coalesce(e.role, u.role, r.role))) as played,
    e.is_ended or coalesce(c.is_ended, false) or coalesce(u.is_ended, false) as is_ended,
    case
        when e.is_ended then lower(btrim(e.status))
        when c.is_ended then 'the class is ' || lower(btrim(c.status))
        when u.is_ended then 'the user is ' || lower(btrim(u.status))
        when e.end_date < %(today)s then 'ended ' || e.end_date
        when e.begin_date > %(today)s then 'begins ' || e.begin_date
    end as reason
from pg_temp.roster_enrollment as e
left join pg_temp.roster_class as c on c.sourcedid = e.classsourcedid
left join pg_temp.roster_user as u on u.sourcedid = e.usersourcedid
left join (
    select distinct on (usersourcedid) usersourcedid, role from pg_temp.roster_role
    where not is_ended and coalesce(begin_date, %(today)s) <= %(today)s and coalesce(end_date, %(today)s) >= %(today)s
    order by usersourcedid, lower(btrim(roletype)) = 'primary' desc nulls last, line
) as r on r.usersourcedid = e.usersourcedid
"""

WRONG = """
with every (file, line, sourcedid, status) as (
    select 'users.csv', line, sourcedid, status from pg_temp.roster_user
    union all
    select 'courses.csv', line, sourcedid, status from pg_temp.roster_course
    union all
    select 'classes.csv', line, sourcedid, status from pg_temp.roster_class
    union all
    select 'enrollments.csv', line, sourcedid, status from pg_temp.roster_enrollment
),
period (file, line, begindate, enddate, begin_date, end_date) as (
    select 'enrollments.csv', line, begindate, enddate, begin_date, end_date from pg_temp.roster_enrollment
    union all
    select 'roles.csv', line, begindate, enddate, begin_date, end_date from pg_temp.roster_role
),
part (file, line, role) as (
    select 'enrollments.csv', line, coalesce(played, '') from pg_temp.roster_seat
    union all
    select 'users.csv', line, role from pg_temp.roster_user where role is not null
    union all
    select 'roles.csv', line, coalesce(role, '') from pg_temp.roster_role
),
wrong (file, line, column_name, value, reason) as (
    select
        file, line, 'sourcedId', left(sourcedid, 20),
        case
            when sourcedid is null then 'a sourcedId is needed'
            else format('a sourcedId has at most 255 characters, this one has %%s', length(sourcedid))
        end
    from every where coalesce(length(sourcedid), 256) > 255
    union all
    select d.file, d.line, 'sourcedId', d.sourcedid, format('the same as on line %%s', d.first)
    from (
        select e.*, min(e.line) over (partition by e.file, e.sourcedid) as first from every as e
        where e.sourcedid is not null
    ) as d
    where d.line > d.first
    union all
    select file, line, 'status', status, 'status is active, inactive or tobedeleted; blank is active'
    from (
        select file, line, status from every
        union all
        select 'roles.csv', line, status from pg_temp.roster_role
    ) as s
    where lower(btrim(status)) not in ('active', 'inactive', 'tobedeleted', '')
    union all
    select
        p.file, p.line, d.name, d.text,
        case when d.day is null then 'this is not a date, such as 2026-09-01' else 'before beginDate' end
    from period as p
    cross join lateral (
        values ('beginDate', p.begindate, p.begin_date), ('endDate', p.enddate, p.end_date)
    ) as d (name, text, day)
    where d.text is not null and (d.day is null or d.name = 'endDate' and p.end_date < p.begin_date)
    union all
    select 'classes.csv', c.line, 'sourcedId', c.sourcedid,
        case
            when c.sourcedid = 'default' then 'this id means the portal and cannot be a course'
            else 'a course id is not blank'
        end
    from pg_temp.roster_class as c
    where c.sourcedid = 'default' or c.sourcedid !~ '[^[:space:]]'
    union all
    select 'classes.csv', c.line, 'courseSourcedId', c.coursesourcedid, 'courses.csv has no such sourcedId'
    from pg_temp.roster_class as c
    where %(courses_bulk)s and not exists (
            select from pg_temp.roster_course as k where k.sourcedid = c.coursesourcedid
        )
    union all
    select 'enrollments.csv', e.line, 'classSourcedId', e.classsourcedid,
        case
            when %(classes_bulk)s then 'classes.csv has no such sourcedId'
            else 'neither classes.csv nor a course has this sourcedId'
        end
    from pg_temp.roster_enrollment as e
    where not exists (select from pg_temp.roster_class as c where c.sourcedid = e.classsourcedid)
        and (%(classes_bulk)s or not exists (select from rollbook.course as k where k.course_id = e.classsourcedid))
    union all
    select 'enrollments.csv', e.line, 'userSourcedId', e.usersourcedid,
        case
            when %(users_bulk)s then 'users.csv has no such sourcedId'
            else 'neither users.csv nor an earlier bundle of this source has this sourcedId'
        end
    from pg_temp.roster_enrollment as e
    where not exists (select from pg_temp.roster_user as u where u.sourcedid = e.usersourcedid)
        and (%(users_bulk)s or not exists (
            select from rollbook.roster_person as p where p.source = %(source)s and p.sourced_id = e.usersourcedid
        ))
    union all
    select file, line, 'role', nullif(role, ''), 'the role is student, teacher or another of OneRoster''s'
    from part
    where lower(btrim(role)) not in (
            'student', 'teacher', 'administrator', 'proctor', 'aide', 'guardian', 'parent', 'relative', 'counselor',
            'principal', 'siteadministrator', 'districtadministrator', 'systemadministrator'
        ) and lower(btrim(role)) not like 'ext:%%'
)
insert into pg_temp.problem (file, line, column_name, value, reason)
select distinct w.file, w.line, w.column_name, w.value, w.reason
from wrong as w
where not exists (select from pg_temp.problem as p where p.file = w.file and p.line = w.line and p.column_name is null)
"""

# Rows that refer to a wrong row are wrong too; so are those that would enroll somebody in a course that is closed.
FOLLOWING = """
insert into pg_temp.problem (file, line, column_name, value, reason)
select distinct 'enrollments.csv', s.line, 'classSourcedId', s.classsourcedid,
    format('classes.csv is wrong on line %s', s.class_line)
from pg_temp.roster_seat as s
inner join pg_temp.problem as p on p.file = 'classes.csv' and p.line = s.class_line
union
select distinct 'enrollments.csv', s.line, 'userSourcedId', s.usersourcedid,
    format('users.csv is wrong on line %s', s.user_line)
from pg_temp.roster_seat as s
inner join pg_temp.problem as p on p.file = 'users.csv' and p.line = s.user_line
union
select distinct 'enrollments.csv', s.line, 'classSourcedId', s.classsourcedid,
    'the course is closed: it takes no new enrollments'
from pg_temp.roster_seat as s
inner join rollbook.course as c on c.course_id = s.classsourcedid
left join pg_temp.roster_person_of as p on p.sourcedid = s.usersourcedid
where c.closed_at is not null and s.played = 'student' and not s.is_ended and s.reason is null
    and not exists (
        select from portal.student_courseenrollment as e where e.user_id = p.user_id and e.course_id = c.course_id
    )
"""

NEW_COURSES = """
select c.sourcedid as course_id
from pg_temp.roster_class as c
where not c.is_ended
    and not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
    and not exists (select from rollbook.course as k where k.course_id = c.sourcedid)
order by c.line
"""

# --- the memory -------------------------------------------------------------------------------------------------------

SETTLE = """
create temporary table roster_settle (user_id bigint, course_id text, is_named boolean) on commit drop
"""

# The rows that are right. One that is kept is remembered; the others end what is there.
ROWS = """
create temporary table roster_row on commit drop as
select
    s.line, s.sourcedid, s.classsourcedid as course_id, p.user_id, s.username, s.begin_date, s.end_date, s.reason,
    s.played = 'student' as is_student, s.played = 'student' and not s.is_ended and p.user_id is not null as is_kept
from pg_temp.roster_seat as s
left join pg_temp.roster_person_of as p on p.sourcedid = s.usersourcedid
where not exists (select from pg_temp.problem as p where p.file = 'enrollments.csv' and p.line = s.line)
"""

# Named: the file says so. In a bulk file a row that is not there is gone; a wrong row is there.
FORGET = """
with gone as (
    delete from rollbook.roster_enrollment as m
    using (
        select k.sourced_id, r.line is not null or c.line is not null or u.user_id is not null as is_named
        from rollbook.roster_enrollment as k
        left join pg_temp.roster_row as r on r.sourcedid = k.sourced_id
        left join pg_temp.roster_class as c on c.sourcedid = k.course_id and c.is_ended
            and not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
        left join (
            select o.user_id
            from pg_temp.roster_user as d inner join pg_temp.roster_person_of as o on o.sourcedid = d.sourcedid
            where d.is_ended
                and not exists (select from pg_temp.problem as p where p.file = 'users.csv' and p.line = d.line)
                and not exists (  -- another row of the same person
                    select from pg_temp.roster_user as a
                    inner join pg_temp.roster_person_of as b on b.sourcedid = a.sourcedid
                    where not a.is_ended and b.user_id = o.user_id
                )
        ) as u on u.user_id = k.user_id
        left join pg_temp.roster_enrollment as f on f.sourcedid = k.sourced_id
        where k.source = %(source)s and (
                r.line is not null and not r.is_kept
                or f.line is null and (%(enrollments_bulk)s or c.line is not null or u.user_id is not null)
            )
    ) as g
    where m.source = %(source)s and m.sourced_id = g.sourced_id
    returning m.user_id, m.course_id, g.is_named
)
insert into pg_temp.roster_settle select * from gone
"""

NEW_ROWS = """
create temporary table roster_new on commit drop as
select r.sourcedid, r.user_id, r.course_id, r.begin_date, r.end_date, r.reason is null as in_effect
from pg_temp.roster_row as r
left join rollbook.roster_enrollment as m on m.source = %(source)s and m.sourced_id = r.sourcedid
where r.is_kept and (m.user_id, m.course_id, m.begin_date, m.end_date, m.in_effect)
    is distinct from (r.user_id, r.course_id, r.begin_date, r.end_date, r.reason is null)
"""

# Users who were deleted meanwhile are left out; the others stay until the end. Locked in the order of ids, as always.
THERE = sql.SQL("""
with there as materialized (
    select u.id from portal.auth_user as u where u.id in (select n.user_id from pg_temp.{table} as n)
    order by u.id for key share
)
delete from pg_temp.{table} as n where n.user_id not in (select t.id from there as t)
""")

# The pair that a row was of before.
OLD_PAIRS = """
insert into pg_temp.roster_settle
select m.user_id, m.course_id, true
from rollbook.roster_enrollment as m inner join pg_temp.roster_new as n on n.sourcedid = m.sourced_id
where m.source = %(source)s
"""

REMEMBER = """
insert into rollbook.roster_enrollment as m (source, sourced_id, user_id, course_id, begin_date, end_date, in_effect)
select %(source)s, n.sourcedid, n.user_id, n.course_id, n.begin_date, n.end_date, n.in_effect
from pg_temp.roster_new as n
on conflict (source, sourced_id) do update
set user_id = excluded.user_id, course_id = excluded.course_id, begin_date = excluded.begin_date,
    end_date = excluded.end_date, in_effect = excluded.in_effect
"""

IN_EFFECT = sql.SQL("(coalesce(m.begin_date, %(today)s) <= %(today)s and coalesce(m.end_date, %(today)s) >= %(today)s)")

MOVE_DATES = sql.SQL("""
with moved as (
    update rollbook.roster_enrollment as m set in_effect = not m.in_effect
    where (%(source)s::text is null or m.source = %(source)s) and m.in_effect <> {in_effect}
    returning m.user_id, m.course_id
)
insert into pg_temp.roster_settle select moved.*, true from moved
""").format(in_effect=IN_EFFECT)

NAMED = """
insert into pg_temp.roster_settle
select r.user_id, r.course_id, true from pg_temp.roster_row as r where r.is_student and r.user_id is not null
"""

# The whole truth: everybody in a class that the bundle lists.
LISTED = """
insert into pg_temp.roster_settle
select e.user_id, e.course_id, false from portal.student_courseenrollment as e
where e.course_id in (
        select c.sourcedid from pg_temp.roster_class as c
        where not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
        union
        select r.course_id from pg_temp.roster_row as r
    )
"""

# --- the enrollments --------------------------------------------------------------------------------------------------

SETTLED = sql.SQL("""exists (
        select from rollbook.roster_enrollment as m
        where m.user_id = s.user_id and m.course_id = s.course_id and {in_effect}
    )""").format(in_effect=IN_EFFECT)

# Whom no row names, but a date or the memory, waits until a closed course is opened.
JOINERS = sql.SQL("""
create temporary table roster_joiner on commit drop as
select distinct s.user_id, s.course_id
from pg_temp.roster_settle as s inner join rollbook.course as c on c.course_id = s.course_id
where {settled} and c.closed_at is null and not exists (
        select from portal.student_courseenrollment as e where e.user_id = s.user_id and e.course_id = s.course_id
    )
""").format(settled=SETTLED)

LEAVERS = sql.SQL("""
create temporary table roster_leaver on commit drop as
select e.id, s.user_id, s.course_id, bool_or(s.is_named) as is_named
from pg_temp.roster_settle as s
inner join portal.student_courseenrollment as e on e.user_id = s.user_id and e.course_id = s.course_id
where not {settled}
group by e.id, s.user_id, s.course_id
""").format(settled=SETTLED)

# Whom the file does not name stays as staff, with another role in the class, or where a wrong row may mean the user: in
# `meant`, a blank course is any, and user 0 is anybody.
SPARED = """
with wrong as materialized (
    select
        lower(btrim(coalesce(s.classsourcedid, ''))) as course, lower(btrim(coalesce(s.usersourcedid, ''))) as person,
        s.username
    from pg_temp.roster_seat as s
    where exists (select from pg_temp.problem as p where p.file = 'enrollments.csv' and p.line = s.line)
),
meant as materialized (
    select w.course, k.user_id
    from wrong as w inner join pg_temp.roster_person_of as k on lower(btrim(k.sourcedid)) = w.person
    where k.user_id is not null
    union
    select w.course, a.id from wrong as w inner join portal.auth_user as a on a.username = w.username
    union
    select w.course, 0 from wrong as w where w.person = ''
)
delete from pg_temp.roster_leaver as l
where not l.is_named and (
    exists (select from portal.auth_user as u where u.id = l.user_id and (u.is_staff or u.is_superuser))
    or exists (
        select from pg_temp.roster_row as r
        where r.user_id = l.user_id and r.course_id = l.course_id and not r.is_student and r.reason is null
    )
    or (lower(btrim(l.course_id)), l.user_id) in (select m.course, m.user_id from meant as m)
    or (lower(btrim(l.course_id)), 0) in (select m.course, m.user_id from meant as m)
    or l.user_id in (select m.user_id from meant as m where m.course = '')
    or exists (select from meant as m where m.course = '' and m.user_id = 0)
)
"""

GONE = """
select l.id, u.username, l.course_id as course
from pg_temp.roster_leaver as l inner join portal.auth_user as u on u.id = l.user_id
where l.is_named = %s order by u.username, l.course_id
"""

PRESENT = """
select count(*) as n from portal.student_courseenrollment as e
where e.course_id in (
        select s.course_id from pg_temp.roster_settle as s where not s.is_named
        union select l.course_id from pg_temp.roster_leaver as l
    )
"""

COURSES_WRITTEN = """
insert into pg_temp.written (kind, object, outcome, course_id, after)
select 'course', c.name, 'created', c.name, '{"on_leave": "keep"}' from unnest(%s::text[]) as c (name)
"""

# What is there by the time of the write counts: others enroll and remove meanwhile.
JOIN = """
with added as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select j.user_id, j.course_id from pg_temp.roster_joiner as j order by j.user_id, j.course_id
    on conflict (user_id, course_id) do nothing
    returning id, user_id, course_id
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, after)
    select 'enrollment', u.username, 'created', a.user_id, a.course_id, jsonb_build_object('id', a.id)
    from added as a inner join portal.auth_user as u on u.id = a.user_id
)
delete from pg_temp.roster_joiner as j
where not exists (select from added as a where a.user_id = j.user_id and a.course_id = j.course_id)
"""

LEAVE = """
with removed as (
    delete from portal.student_courseenrollment as e
    using pg_temp.roster_leaver as l
    where e.id = l.id and e.user_id = l.user_id and e.course_id = l.course_id
    returning e.id, e.user_id, e.course_id, e.created
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, before)
    select
        'enrollment', u.username, 'removed', r.user_id, r.course_id,
        jsonb_build_object('id', r.id, 'created', r.created)
    from removed as r inner join portal.auth_user as u on u.id = r.user_id
)
delete from pg_temp.roster_leaver as l where not exists (select from removed as r where r.id = l.id)
"""

# --- outcomes ---------------------------------------------------------------------------------------------------------

CLASSES_DONE = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    c.line, case when c.sourcedid = any(%(made)s) then 'created' else 'unchanged' end,
    'course ' || c.sourcedid || case when c.is_ended then ', which stays here' else '' end,
    'classes.csv'
from pg_temp.roster_class as c
where not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
union all
select distinct
    null::integer, 'unchanged', format('course %%s, which stays here: its class is not in the file', s.course_id),
    'classes.csv'
from pg_temp.roster_settle as s
where %(classes_bulk)s and not s.is_named
    and not exists (select from pg_temp.roster_class as c where c.sourcedid = s.course_id)
"""

ENROLLMENTS_DONE = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    r.line,
    case when j.user_id is not null and r.reason is null then 'created' when l.id is not null then 'removed'
        else 'unchanged' end,
    case
        when not r.is_student then format('%s in %s: not a student, not enrolled', n.name, r.course_id)
        when r.reason is null then format('enrollment of %s in %s', n.name, r.course_id)
        when l.id is not null then format('enrollment of %s in %s: %s', n.name, r.course_id, r.reason)
        when o.course_id is not null
            then format('%s in %s: %s; another row counts', n.name, r.course_id, r.reason)
        else format('%s in %s: not enrolled: %s', n.name, r.course_id, r.reason)
    end,
    'enrollments.csv'
from pg_temp.roster_row as r
left join portal.auth_user as u on u.id = r.user_id
cross join lateral (select coalesce(u.username, r.username) as name) as n
left join pg_temp.roster_joiner as j on r.is_student and j.user_id = r.user_id and j.course_id = r.course_id
left join pg_temp.roster_leaver as l on r.is_student and l.user_id = r.user_id and l.course_id = r.course_id
left join (
    select distinct user_id, course_id from pg_temp.roster_row where is_kept and reason is null
) as o on r.reason is not null and o.user_id = r.user_id and o.course_id = r.course_id
union all
select
    null, d.outcome, format('enrollment of %s in %s%s', u.username, d.course_id, d.reason), 'enrollments.csv'
from (
    select user_id, course_id, 'created' as outcome, '' as reason from pg_temp.roster_joiner
    union all
    select user_id, course_id, 'removed', case when is_named then ': ended' else ': not in the file' end
    from pg_temp.roster_leaver
) as d
inner join portal.auth_user as u on u.id = d.user_id
where not exists (
        select from pg_temp.roster_row as r
        where r.user_id = d.user_id and r.course_id = d.course_id and r.is_student
    )
"""

SOURCES = "select distinct m.source from rollbook.roster_enrollment as m order by 1"

MOVED = """
select d.course_id as course, u.username, u.email, d.outcome
from (
    select user_id, course_id, 'created' as outcome from pg_temp.roster_joiner
    union all
    select user_id, course_id, 'removed' from pg_temp.roster_leaver
) as d
inner join portal.auth_user as u on u.id = d.user_id
order by d.course_id, u.username
"""


def find_wrong(conn: Conn, parameters: Mapping[str, object]) -> None:
    """Record the faults of classes, courses and enrollments, after the check of users.

    `parameters`: today, source, courses_bulk, classes_bulk, users_bulk, enrollments_bulk.
    """
    conn.execute(SEATS, parameters)
    conn.execute(WRONG, parameters)
    conn.execute(FOLLOWING)
    conn.execute("analyze pg_temp.roster_seat (line, classsourcedid, usersourcedid)")


def make_courses(conn: Conn) -> list[str]:
    """Create the missing courses, and return them; pg_temp.written has them."""
    made = [str(row["course_id"]) for row in conn.execute(NEW_COURSES).fetchall()]
    for course_id in made:
        create_course(conn, course_id, "keep")
    conn.execute(COURSES_WRITTEN, [made])
    return made


def merge(conn: Conn, parameters: Mapping[str, object]) -> None:
    """Remember the rows of the file, and forget those that are gone; collect who joins and who leaves."""
    conn.execute(SETTLE)
    conn.execute(ROWS)
    conn.execute("analyze pg_temp.roster_row (sourcedid, user_id, course_id)")
    conn.execute(FORGET, parameters)
    conn.execute(NEW_ROWS, parameters)
    conn.execute(THERE.format(table=sql.Identifier("roster_new")))
    conn.execute(OLD_PAIRS, parameters)
    conn.execute(REMEMBER, parameters)
    conn.execute(MOVE_DATES, parameters)
    conn.execute(NAMED)
    if parameters["enrollments_bulk"]:
        conn.execute(LISTED)
    collect(conn, parameters)
    conn.execute(SPARED)


def known_source(conn: Conn, source: str | None) -> None:
    """Raise RefusedError for a source that no bundle came from. None is every source."""
    if source is None:
        return
    known = [str(row["source"]) for row in conn.execute(SOURCES)]
    if source not in known:
        listed = ", ".join(known) if known else "none"
        raise RefusedError(
            f"no enrollment came from a source {source}",
            why=f"sources: {listed}",
            fix="name one of them, or leave --source out for all",
        )


def move_dates(conn: Conn, parameters: Mapping[str, object]) -> None:
    """Collect who joins and who leaves because of the date. `parameters`: today, and source, None for every source."""
    conn.execute(SETTLE)
    conn.execute(MOVE_DATES, parameters)
    collect(conn, parameters)


def collect(conn: Conn, parameters: Mapping[str, object]) -> None:
    """Compare the collected users and courses with the rows that are remembered."""
    conn.execute("analyze pg_temp.roster_settle")
    conn.execute(JOINERS, parameters)
    conn.execute(LEAVERS, parameters)


def leavers(conn: Conn, *, named: bool) -> tuple[list[Leaver], int]:
    """Return the enrollments that end, by username: those that a row names, or the others; and how many there are."""
    return typed(Leaver, conn, GONE, [named]), one(conn, PRESENT)["n"]


def settle(conn: Conn) -> None:
    """Enroll who joins and end the enrollments of who leaves. Raises RefusedError if other tables refer to them."""
    conn.execute(THERE.format(table=sql.Identifier("roster_joiner")))
    conn.execute(JOIN)
    with deleting(
        conn, "these enrollments", "student_courseenrollment",
        sql.SQL("id in (select l.id from {} as l)").format(sql.Identifier("pg_temp", "roster_leaver")),
    ):  # fmt: skip
        conn.execute(LEAVE)


def record(conn: Conn, parameters: Mapping[str, object], made: list[str]) -> None:
    """Record the outcome of each row, and of each enrollment that has none; `made` are the new courses."""
    conn.execute(CLASSES_DONE, {**parameters, "made": made})
    conn.execute(ENROLLMENTS_DONE)


def moved(conn: Conn) -> list[Row]:
    """Return what was done to enrollments: course username email outcome."""
    return conn.execute(MOVED).fetchall()
