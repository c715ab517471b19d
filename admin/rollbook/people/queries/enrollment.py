"""Enrollments, one by one and in bulk: the faults of the rows in pg_temp.staged, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.referring import deleting, with_ids
from rollbook.core.rows import Row, one, typed
from rollbook.people.queries.names import find_hits, unambiguous
from rollbook.people.queries.staged import add_nearest
from rollbook.people.queries.time_axis import UNITS, axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn
    from rollbook.core.since import Period


@dataclass(frozen=True)
class Planned:
    """A user of a roster, or of its course; the outcome is created, removed or unchanged."""

    id: int
    username: str
    email: str
    enrollment_id: int | None
    outcome: str


@dataclass(frozen=True)
class Seat:
    """A user to be moved: the enrollment in the source course if any, and whether the target has one."""

    user_id: int
    username: str
    email: str
    enrollment_id: int | None
    is_there: bool

    @property
    def outcome(self) -> str | None:
        """Return what a move does to the enrollment; None for a user in neither course."""
        if self.enrollment_id is None:
            return "unchanged" if self.is_there else None
        return "removed" if self.is_there else "changed"


ENROLL = """
insert into portal.student_courseenrollment (user_id, course_id)
select id, %(course)s from unnest(%(ids)s::bigint[]) as id order by id
on conflict (user_id, course_id) do nothing
returning user_id, jsonb_build_object('id', id) as enrollment
"""

LEAVE = """
delete from portal.student_courseenrollment where course_id = %(course)s and user_id = any(%(ids)s)
returning user_id, jsonb_build_object('id', id, 'created', created) as enrollment
"""

ENROLLMENTS = """
select course_id as course, username, email, created, replicated
from rollbook.enrollment_status
where (%(course)s::text is null or course_id = %(course)s) and (%(user_id)s::bigint is null or user_id = %(user_id)s)
    and (%(since)s::timestamptz is null or created >= %(since)s)
    and (%(until)s::timestamptz is null or created < %(until)s)
    and (%(match)s::text is null or strpos(lower(username || ' ' || email), lower(%(match)s)) > 0)
order by id
limit %(limit)s
"""

ENROLLMENTS_TOTAL = """
select count(*) as n
from portal.student_courseenrollment as e inner join portal.auth_user as u on u.id = e.user_id
where (%(course)s::text is null or e.course_id = %(course)s) and (%(user_id)s::bigint is null or u.id = %(user_id)s)
    and (%(since)s::timestamptz is null or e.created >= %(since)s)
    and (%(until)s::timestamptz is null or e.created < %(until)s)
    and (%(match)s::text is null or strpos(lower(u.username || ' ' || u.email), lower(%(match)s)) > 0)
"""

COUNT_ENROLLMENTS: dict[str, LiteralString] = {
    "": """
        select count(*) as enrollments from portal.student_courseenrollment
        where (%(course)s::text is null or course_id = %(course)s)
            and (%(since)s::timestamptz is null or created >= %(since)s)
            and (%(until)s::timestamptz is null or created < %(until)s)
        """,
    "course": """
        select course_id as key, count(*) as enrollments from portal.student_courseenrollment
        where (%(course)s::text is null or course_id = %(course)s)
            and (%(since)s::timestamptz is null or created >= %(since)s)
            and (%(until)s::timestamptz is null or created < %(until)s)
        group by 1 order by 2 desc, 1
        """,
}
# Over time: the parts of which `time_axis` makes a query.
ENROLLED_AT = """
select created as at from portal.student_courseenrollment where %(course)s::text is null or course_id = %(course)s
"""


def enroll(conn: Conn, course_id: str, user_ids: list[int]) -> dict[int, Row]:
    """Enroll users; return the new enrollment (id) of each that was not enrolled."""
    return {row["user_id"]: row["enrollment"] for row in conn.execute(ENROLL, {"course": course_id, "ids": user_ids})}


def leave(conn: Conn, course_id: str, user_ids: list[int]) -> dict[int, Row]:
    """End enrollments; return what each was (id, created), by user."""
    seats = sql.SQL("course_id = {} and user_id = any({}::bigint[])").format(course_id, user_ids)
    with deleting(conn, "these enrollments", "student_courseenrollment", seats):
        gone = conn.execute(LEAVE, {"course": course_id, "ids": user_ids}).fetchall()
        return {row["user_id"]: row["enrollment"] for row in gone}


def list_enrollments(
    conn: Conn, *, course: str | None, user_id: int | None, match: str | None, limit: int | None, period: Period
) -> tuple[list[Row], int]:
    """Return enrollments by id, and how many there are without the limit."""
    parameters = {"course": course, "user_id": user_id, "match": match, "limit": limit, **period}
    found = conn.execute(ENROLLMENTS, parameters).fetchall()
    full = limit is not None and len(found) == limit
    return found, one(conn, ENROLLMENTS_TOTAL, parameters)["n"] if full else len(found)  # type: ignore[arg-type]


def count_enrollments(conn: Conn, course: str | None, by: str | None, period: Period) -> list[Row]:
    """Return how many enrollments there are: all, by course, or for each day, week or month (UTC)."""
    if by in UNITS:
        return conn.execute(axis(by, ENROLLED_AT, enrollments="count(*)"), {"course": course, **period}).fetchall()
    return conn.execute(COUNT_ENROLLMENTS[by or ""], {"course": course, **period}).fetchall()


COLUMNS = ("course_id", "user", "status")

COURSES = "select course_id as name from rollbook.course"

# An enrollment in a course that does not exist can be ended, not created.
WRONG_COURSES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select
    s.line, f.name, f.value, f.reason
from pg_temp.staged as s
left join rollbook.course as c on c.course_id = s.course_id
cross join lateral (
    values
    ('course_id', s.course_id, case
        when s.course_id is null or s.course_id = '\N' then 'a course is needed'
        when c.course_id is null and not exists (
            select from portal.student_courseenrollment as e inner join pg_temp.hit as h on h.user_id = e.user_id
            where h.line = s.line and e.course_id = s.course_id
        ) then 'there is no such course'
        when c.closed_at is not null and coalesce(lower(s.status), 'enrolled') = 'enrolled' and not exists (
            select from portal.student_courseenrollment as e inner join pg_temp.hit as h on h.user_id = e.user_id
            where h.line = s.line and e.course_id = s.course_id
        ) then 'the course is closed: it takes no new enrollments'
    end),
    ('status', s.status, case
        when lower(s.status) not in ('enrolled', 'deleted') then 'status is enrolled or deleted; blank is enrolled'
    end)
) as f (name, value, reason)
where f.reason is not null and not exists (
    select from pg_temp.problem as p where p.line = s.line and p.column_name is null
)
"""

# A repeated row is harmless; one with the opposite status is a mistake.
CONTRADICTIONS = """
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'status', d.status, format('line %s has the other status for the same user and course', d.first)
from (
    select
        s.line, s.status, coalesce(lower(s.status), 'enrolled') as wanted,
        min(s.line) over w as first, first_value(coalesce(lower(s.status), 'enrolled')) over w as wanted_first
    from pg_temp.staged as s inner join pg_temp.hit as h on h.line = s.line
    window w as (partition by h.user_id, s.course_id order by s.line)
) as d
where d.wanted <> d.wanted_first
    and not exists (select from pg_temp.problem as p where p.line = d.line)
"""

APPLY = """
with wanted as (
    select s.line, h.user_id, s.course_id, coalesce(lower(s.status), 'enrolled') as status,
        row_number() over (partition by h.user_id, s.course_id order by s.line) as turn
    from pg_temp.staged as s inner join pg_temp.hit as h on h.line = s.line
),
added as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select w.user_id, w.course_id from wanted as w where w.turn = 1 and w.status = 'enrolled'
    order by w.user_id, w.course_id
    on conflict (user_id, course_id) do nothing
    returning id, user_id, course_id
),
removed as (
    delete from portal.student_courseenrollment as e
    using wanted as w
    where w.turn = 1 and w.status = 'deleted' and e.user_id = w.user_id and e.course_id = w.course_id
    returning e.id, e.user_id, e.course_id, e.created
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after)
    select 'enrollment', u.username, c.outcome, c.user_id, c.course_id, c.before, c.after
    from (
        select a.user_id, a.course_id, 'created' as outcome, null as before, jsonb_build_object('id', a.id) as after
        from added as a
        union all
        select r.user_id, r.course_id, 'removed', jsonb_build_object('id', r.id, 'created', r.created), null
        from removed as r
    ) as c
    inner join portal.auth_user as u on u.id = c.user_id  -- by its index: the planner takes these for few rows
)
insert into pg_temp.outcome (line, outcome)
select
    w.line,
    case when w.turn > 1 then 'unchanged' when a.user_id is not null then 'created'
        when r.user_id is not null then 'removed' else 'unchanged' end
from wanted as w
left join added as a on a.user_id = w.user_id and a.course_id = w.course_id
left join removed as r on r.user_id = w.user_id and r.course_id = w.course_id
"""

TOUCHED = """
select distinct s.course_id
from pg_temp.staged as s inner join pg_temp.outcome as o on o.line = s.line
where o.outcome <> 'unchanged'
"""

EXPORT = """
select e.course_id, u.username as "user", 'enrolled' as status
from portal.student_courseenrollment as e inner join portal.auth_user as u on u.id = e.user_id
where (%(course)s::text is null or e.course_id = %(course)s)
    and (%(match)s::text is null or strpos(lower(u.username || ' ' || u.email), lower(%(match)s)) > 0)
order by e.course_id, u.username
limit %(limit)s
"""

# What a roster would change. It keeps users whom a wrong row names: the row may have meant them.
PLAN = """
select u.id, u.username, u.email, e.id as enrollment_id,
    case when e.id is null then 'created' when m.user_id is null then 'removed' else 'unchanged' end as outcome
from (
    select distinct h.user_id from pg_temp.hit as h
    where not exists (select from pg_temp.problem as p where p.line = h.line)
        or exists (
            select from portal.student_courseenrollment as e where e.user_id = h.user_id and e.course_id = %(course)s
        )
) as m
full join (
    select e.id, e.user_id from portal.student_courseenrollment as e where e.course_id = %(course)s
) as e on e.user_id = m.user_id
inner join portal.auth_user as u on u.id = coalesce(m.user_id, e.user_id)
order by u.username
"""

ADD = """
with added as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select id, %(course)s from unnest(%(ids)s::bigint[]) as id order by id
    on conflict (user_id, course_id) do nothing
    returning id, user_id, course_id
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, after)
select 'enrollment', u.username, 'created', a.user_id, a.course_id, jsonb_build_object('id', a.id)
from added as a inner join portal.auth_user as u on u.id = a.user_id
"""

REMOVE = """
with removed as (
    delete from portal.student_courseenrollment where id = any(%s) returning id, user_id, course_id, created
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, before)
select
    'enrollment', u.username, 'removed', r.user_id, r.course_id, jsonb_build_object('id', r.id, 'created', r.created)
from removed as r inner join portal.auth_user as u on u.id = r.user_id
"""

# The enrollments in both courses, of the users to be moved.
SEATS = """
select
    u.id as user_id, u.username, u.email, f.id as enrollment_id, t.id is not null as is_there
from portal.auth_user as u
left join portal.student_courseenrollment as f on f.user_id = u.id and f.course_id = %(source)s
left join portal.student_courseenrollment as t on t.user_id = u.id and t.course_id = %(target)s
where u.id = any(%(ids)s)
order by array_position(%(ids)s, u.id)
"""

MOVE = """
with moved as (
    update portal.student_courseenrollment set course_id = %(target)s where id = any(%(ids)s)
    returning id, user_id, course_id
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after)
select
    'enrollment', u.username, 'moved', m.user_id, m.course_id,
    jsonb_build_object('id', m.id, 'course', %(source)s::text),
    jsonb_build_object('id', m.id, 'course', %(target)s::text)
from moved as m inner join portal.auth_user as u on u.id = m.user_id
"""


def find_wrong(conn: Conn) -> None:
    """Record in pg_temp.problem the faults of the staged enrollments."""
    find_hits(conn)
    conn.execute(WRONG_COURSES)
    conn.execute(CONTRADICTIONS)
    add_nearest(conn, "course_id", "there is no such course", COURSES)


def apply(conn: Conn) -> None:
    """Create and end the staged enrollments; record the outcome of each in pg_temp.outcome."""
    conn.execute(APPLY)


def touched(conn: Conn) -> list[str]:
    """Return the courses in which the staged rows changed something."""
    return [row["course_id"] for row in conn.execute(TOUCHED)]


def export(conn: Conn, *, course: str | None, match: str | None, limit: int | None) -> list[Row]:
    """Return enrollments as an import reads them."""
    found = conn.execute(EXPORT, {"course": course, "match": match, "limit": limit}).fetchall()
    for row, name in zip(found, unambiguous(conn, [row["user"] for row in found]), strict=True):
        row["user"] = name
    return found


def plan(conn: Conn, course: str) -> list[Planned]:
    """Return what a roster would do to each user, by username."""
    return typed(Planned, conn, PLAN, {"course": course})


def follow(conn: Conn, course: str, planned: Sequence[Planned]) -> None:
    """Add and remove the planned users, and no others; record each in pg_temp.written."""
    conn.execute(ADD, {"course": course, "ids": [row.id for row in planned if row.outcome == "created"]})
    remove(conn, [row.enrollment_id for row in planned if row.outcome == "removed"])


def remove(conn: Conn, ids: Sequence[int | None]) -> None:
    """Delete enrollments; record each in pg_temp.written. Raises RefusedError if other tables refer to them."""
    with deleting(conn, "these enrollments", "student_courseenrollment", with_ids(ids)):
        conn.execute(REMOVE, [list(ids)])


def seats(conn: Conn, source: str, target: str, user_ids: Sequence[int]) -> list[Seat]:
    """Return the enrollments of these users in two courses, in the given order."""
    return typed(Seat, conn, SEATS, {"source": source, "target": target, "ids": list(user_ids)})


def move(conn: Conn, source: str, target: str, moving: Sequence[int | None], leaving: Sequence[int | None]) -> None:
    """Move enrollments to another course, with their id and time; end those of users that it has already.

    Each is recorded in pg_temp.written.
    """
    conn.execute(MOVE, {"source": source, "target": target, "ids": moving})
    remove(conn, leaving)


def has_enrollments(conn: Conn, course: str) -> bool:
    """Return whether anybody is enrolled under this id; the course may not exist yet."""
    call = "select exists (select from portal.student_courseenrollment where course_id = %s) as yes"
    return bool(one(conn, call, [course])["yes"])
