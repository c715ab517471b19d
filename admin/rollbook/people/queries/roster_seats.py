"""Classes and enrollments of a OneRoster bundle in pg_temp.roster_*, columns in lower case: faults, and import.

Who a row's person is: pg_temp.roster_person_of (roster_people.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.replication.queries.courses import create_course

if TYPE_CHECKING:
    from rollbook.core.db import Conn

NO_ROLES = """
create temporary table roster_role (status text, usersourcedid text, roletype text, role text) on commit drop
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
wrong (file, line, column_name, value, reason) as (
    select file, line, 'sourcedId', null, 'a sourcedId is needed' from every where sourcedid is null
    union all
    select d.file, d.line, 'sourcedId', d.sourcedid, format('the same as on line %s', d.first)
    from (
        select e.*, min(e.line) over (partition by e.file, e.sourcedid) as first from every as e
        where e.sourcedid is not null
    ) as d
    where d.line > d.first
    union all
    select file, line, 'status', status, 'status is active or tobedeleted, or blank'
    from every where lower(status) not in ('active', 'inactive', 'tobedeleted')
    union all
    select 'classes.csv', c.line, 'sourcedId', c.sourcedid,
        case
            when c.sourcedid = 'default' then 'this id means the portal and cannot be a course'
            when c.sourcedid !~ '[^[:space:]]' then 'a course id is not blank'
            else format('a course id has at most 255 characters, this one has %s', length(c.sourcedid))
        end
    from pg_temp.roster_class as c
    where c.sourcedid = 'default' or length(c.sourcedid) > 255 or c.sourcedid !~ '[^[:space:]]'
    union all
    select 'classes.csv', c.line, 'courseSourcedId', c.coursesourcedid, 'courses.csv has no such sourcedId'
    from pg_temp.roster_class as c
    where not exists (select from pg_temp.roster_course as k where k.sourcedid = c.coursesourcedid)
    union all
    select 'enrollments.csv', e.line, 'classSourcedId', e.classsourcedid, 'classes.csv has no such sourcedId'
    from pg_temp.roster_enrollment as e
    where not exists (select from pg_temp.roster_class as c where c.sourcedid = e.classsourcedid)
    union all
    select 'enrollments.csv', e.line, 'userSourcedId', e.usersourcedid, 'users.csv has no such sourcedId'
    from pg_temp.roster_enrollment as e
    where not exists (select from pg_temp.roster_user as u where u.sourcedid = e.usersourcedid)
    union all
    select 'enrollments.csv', e.line, 'role', e.role, 'the role is student, teacher or another of OneRoster''s'
    from pg_temp.roster_seat as e
    where e.played is null or lower(e.played) not in (
            'student', 'teacher', 'administrator', 'proctor', 'aide', 'guardian', 'parent', 'relative'
        ) and lower(e.played) not like 'ext:%'
)
insert into pg_temp.problem (file, line, column_name, value, reason)
select w.file, w.line, w.column_name, w.value, w.reason
from wrong as w
where not exists (select from pg_temp.problem as p where p.file = w.file and p.line = w.line and p.column_name is null)
"""

# An enrollment with its class and user, and the role: its own, else the user's.
SEATS = """
create temporary table roster_seat on commit drop as
select
    e.line, e.sourcedid, e.classsourcedid, e.usersourcedid, e.role, lower(coalesce(e.status, '')) as status,
    c.line as class_line, u.line as user_line, u.username, lower(coalesce(c.status, '')) as class_status,
    lower(coalesce(u.status, '')) as user_status,
    coalesce(e.role, u.role, (
        select r.role from pg_temp.roster_role as r
        where r.usersourcedid = e.usersourcedid and lower(coalesce(r.status, '')) <> 'tobedeleted'
        order by lower(r.roletype) = 'primary' desc nulls last limit 1
    )) as played
from pg_temp.roster_enrollment as e
left join pg_temp.roster_class as c on c.sourcedid = e.classsourcedid
left join pg_temp.roster_user as u on u.sourcedid = e.usersourcedid
"""

# Rows that refer to a wrong row are wrong too.
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
"""

NEW_COURSES = """
select c.sourcedid as course_id
from pg_temp.roster_class as c
where lower(coalesce(c.status, '')) <> 'tobedeleted'
    and not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
    and not exists (select from rollbook.course as k where k.course_id = c.sourcedid)
order by c.line
"""

CLASSES_DONE = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    c.line, case when c.sourcedid = any(%s) then 'created' else 'unchanged' end,
    'course ' || c.sourcedid || case when lower(c.status) = 'tobedeleted' then ', which stays here' else '' end,
    'classes.csv'
from pg_temp.roster_class as c
where not exists (select from pg_temp.problem as p where p.file = 'classes.csv' and p.line = c.line)
"""

# Only students; a student with two rows for a class stays in it if one of them is active.
MEMBERS = """
create temporary table roster_member on commit drop as
select
    s.line, s.classsourcedid as course_id, a.id as user_id, s.username, lower(s.played) = 'student' as is_student,
    s.status <> 'tobedeleted' and s.class_status <> 'tobedeleted' and s.user_status <> 'tobedeleted' as stays
from pg_temp.roster_seat as s
left join portal.auth_user as a on a.username = s.username
where not exists (select from pg_temp.problem as p where p.file = 'enrollments.csv' and p.line = s.line)
"""

ENROLL = """
with added as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select distinct m.user_id, m.course_id
    from pg_temp.roster_member as m
    where m.is_student and m.stays and m.user_id is not null
    order by m.user_id, m.course_id
    on conflict (user_id, course_id) do nothing
    returning user_id, course_id
),
removed as (
    delete from portal.student_courseenrollment as e
    using (
        select m.user_id, m.course_id from pg_temp.roster_member as m where m.is_student
        group by m.user_id, m.course_id having not bool_or(m.stays)
    ) as gone
    where e.user_id = gone.user_id and e.course_id = gone.course_id
    returning e.user_id, e.course_id
)
insert into pg_temp.outcome (line, outcome, detail, file)
select
    m.line,
    case when a.user_id is not null then 'created' when r.user_id is not null then 'removed' else 'unchanged' end,
    case
        when m.is_student then format('enrollment of %s in %s', m.username, m.course_id)
        else format('%s in %s: not a student, not enrolled', m.username, m.course_id)
    end,
    'enrollments.csv'
from pg_temp.roster_member as m
left join added as a on m.is_student and m.stays and a.user_id = m.user_id and a.course_id = m.course_id
left join removed as r on m.is_student and r.user_id = m.user_id and r.course_id = m.course_id
"""


def manifest(conn: Conn) -> dict[str, str]:
    """Return the properties of the manifest: name, value, in lower case."""
    rows = conn.execute("select lower(propertyname) as name, lower(value) as value from pg_temp.roster_manifest")
    return {row["name"]: row["value"] for row in rows}


def no_roles(conn: Conn) -> None:
    """Create the table of a file that the bundle lacks."""
    conn.execute(NO_ROLES)


def find_wrong(conn: Conn) -> None:
    """Record the faults of classes, courses and enrollments, after the check of users."""
    conn.execute(SEATS)
    conn.execute(WRONG)
    conn.execute(FOLLOWING)


def make_courses(conn: Conn) -> list[str]:
    """Create the missing courses, and return them."""
    made = [str(row["course_id"]) for row in conn.execute(NEW_COURSES).fetchall()]
    for course_id in made:
        create_course(conn, course_id, "keep")
    return made


def enroll(conn: Conn, made: list[str]) -> None:
    """Enroll the students, end enrollments, and record the outcomes; `made` are the new courses."""
    conn.execute(CLASSES_DONE, [made])
    conn.execute(MEMBERS)
    conn.execute("analyze pg_temp.roster_member")
    conn.execute(ENROLL)
