"""The courses, and what is copied to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, nearest, one, typed
from rollbook.core.since import ALWAYS, Period
from rollbook.replication.queries.shape import unfinished

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COURSES = """
select
    course_id as course, schema_name::text as schema_name, state, on_leave, enrolled, copied_users, server,
    created_at as since, on_fault, paused_at, pause_reason, moving_to, without, closed_at
from rollbook.course_status
where (%(match)s::text is null or strpos(lower(course_id), lower(%(match)s)) > 0)
    and (%(since)s::timestamptz is null or created_at >= %(since)s)
    and (%(until)s::timestamptz is null or created_at < %(until)s)
order by course_id
"""

COURSE = """
select
    s.course_id as course, s.schema_name::text as schema_name, s.state, s.on_leave, s.server, s.enrolled,
    counted.copied_users, counted.copied_profiles, counted.copied_enrollments, s.created_at, s.verified_at, s.verdict,
    s.differing_rows,
    s.on_fault, s.paused_at, s.paused_by, s.pause_reason, s.moving_to, s.leaving, s.without,
    s.closed_at, s.closed_by,
    array(select rollbook.local_objects(s.schema_name)) as local_objects
from rollbook.course_status as s
cross join lateral (
    select
        max(rollbook.count_rows(s.schema_name, t.table_name)) filter (where t.role = 'person') as copied_users,
        max(rollbook.count_rows(s.schema_name, t.table_name)) filter (where t.role = 'profile') as copied_profiles,
        max(rollbook.count_rows(s.schema_name, t.table_name)) filter (where t.role = 'membership') as copied_enrollments
    from rollbook.copied_tables() as t
) as counted
where s.course_id = %s
"""

STATES = """
select
    s.course_id as course, s.schema_name::text as schema_name, s.state, c.state as recorded, s.server, s.verified_at,
    s.verdict, s.differing_rows, now() as observed_at, s.paused_at, s.pause_reason, s.moving_to, s.leaving, s.closed_at,
    case when s.state = 'broken' then (
        select rollbook.copy_fault(s.schema_name, t.table_name)
        from rollbook.copied_tables() as t
        where rollbook.copy_fault(s.schema_name, t.table_name) is not null
        order by t.ordinal
        limit 1
    ) end as fault
from rollbook.course_status as s
inner join rollbook.course as c on c.course_id = s.course_id
where %(ids)s::text[] is null or s.course_id = any(%(ids)s)
order by s.course_id
"""

LEAVERS = """
select (r.course).course_id, l.leavers
from rollbook.routed_courses(%s) as r
cross join lateral (select cardinality(rollbook.leaver_ids(r.course, r.routed_ids)) as leavers) as l
where l.leavers > 0
"""

FAULTS = """
select course_id as course, object, kind, difference, fix from rollbook.routing_fault()
union all
select null, object, kind, difference, fix from rollbook.sequences_behind(only_taken => true)
"""


@dataclass(frozen=True)
class Fault:
    """Why writes to the portal are not routed, or why the copies of a course are not safe."""

    course: str | None  # None: it concerns the portal, so all courses
    object: str
    kind: str
    difference: str
    fix: str  # a line for psql, or one that begins with `rollbook`, for a shell

    @property
    def is_routing(self) -> bool:
        """Return whether writes are not routed, or fail: then changes may be missing in the copies."""
        return self.kind not in ("sequence", "shape")

    @property
    def words(self) -> str:
        """Return what is wrong, in words."""
        return f"{self.kind} {self.object}: {self.difference}"


@dataclass(frozen=True)
class CourseLine:
    """A course in a list; the fields are the columns of `course list`."""

    course: str
    schema_name: str
    state: str
    on_leave: str
    enrolled: int
    copied_users: int | None
    server: str | None
    since: datetime
    on_fault: str
    paused_at: datetime | None
    pause_reason: str | None
    moving_to: str | None
    without: list[str]
    closed_at: datetime | None  # since when it takes no new enrollments


@dataclass(frozen=True)
class Course:
    """One course, with counts and what it added itself."""

    course: str
    schema_name: str
    state: str
    on_leave: str
    server: str | None
    enrolled: int
    copied_users: int | None
    copied_profiles: int | None
    copied_enrollments: int | None
    created_at: datetime
    verified_at: datetime | None
    verdict: str | None
    differing_rows: int | None
    on_fault: str
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    moving_to: str | None  # the server that receives it too, until `course move` lets go of the other
    leaving: str | None  # the server from which it was moved, and which may still have its copies
    without: list[str]  # the columns that do not travel to it
    closed_at: datetime | None  # since when it takes no new enrollments
    closed_by: str | None
    local_objects: list[str]


@dataclass(frozen=True)
class CourseState:
    """What the portal alone knows of a course's state."""

    course: str
    schema_name: str
    state: str  # of rollbook.course_status
    recorded: str  # of rollbook.course: attach, detach and resync record their progress there
    server: str | None
    verified_at: datetime | None
    verdict: str | None
    differing_rows: int | None
    observed_at: datetime
    paused_at: datetime | None
    pause_reason: str | None
    moving_to: str | None
    leaving: str | None
    closed_at: datetime | None
    fault: str | None  # why a copy in the portal's database is broken

    @property
    def compared_at(self) -> datetime | None:
        """Return when its copies were last compared; None where the last verify could not."""
        return self.verified_at if self.verdict in ("match", "differs") else None


def list_courses(conn: Conn, match: str | None = None, period: Period = ALWAYS) -> list[CourseLine]:
    """Return the courses whose ids contain `match`, all for None, and that were created in a period."""
    return typed(CourseLine, conn, COURSES, {"match": match, **period})


def find_course(conn: Conn, course_id: str) -> Course:
    """Return one course. Raises RefusedError for an unknown one."""
    known_courses(conn, [course_id])
    return typed(Course, conn, COURSE, [course_id])[0]


def course_states(conn: Conn, course_ids: Sequence[str] | None) -> list[CourseState]:
    """Return the state of these courses, all for None, as the portal alone knows it."""
    return typed(CourseState, conn, STATES, {"ids": None if course_ids is None else list(course_ids)})


def routing_faults(conn: Conn) -> list[Fault]:
    """Return what is wrong with routing, which inserts fail, and which changes of the shape are not finished. Cheap."""
    changes = [Fault(None, each.name, "shape", each.words, each.fix) for each in unfinished(conn)]
    return [*typed(Fault, conn, FAULTS), *changes]


def known_courses(conn: Conn, course_ids: Sequence[str]) -> list[str]:
    """Return the ids as given, or all courses for none. Raises RefusedError naming the unknown and the nearest."""
    known = [row["course_id"] for row in conn.execute("select course_id from rollbook.course order by 1")]
    for course_id in course_ids:
        if course_id not in known:
            raise RefusedError(
                f"there is no course {course_id}", why=nearest(course_id, known), fix="rollbook course list"
            )
    return list(course_ids) or known


def create_course(conn: Conn, course_id: str, on_leave: str, without: Sequence[str] | None = None) -> str:
    """Create a course and return its schema; without None: the installation's default.

    Raises RefusedError (RB003, RB005, RB028).
    """
    listed = None if without is None else list(without)
    query = "select rollbook.create_course(%s, %s, %s::text[]) as name"
    return str(one(conn, query, [course_id, on_leave, listed])["name"])


def update_course(conn: Conn, course_id: str, without: Sequence[str]) -> list[Row]:
    """Change the columns that do not travel to a course; return the rows written: table inserted updated deleted.

    Raises RefusedError (RB006, RB009, RB019, RB020, RB022, RB028).
    """
    query = "select table_name as table, inserted, updated, deleted from rollbook.update_course(%s, %s::text[])"
    return conn.execute(query, [course_id, list(without)]).fetchall()


def set_on_leave(conn: Conn, course_id: str, on_leave: str) -> list[Row]:
    """Set what happens to copies when an enrollment ends; return the rows written: table inserted updated deleted.

    Raises RefusedError (RB006, RB009, RB019, RB020, RB022, 23R04).
    """
    query = "select table_name as table, inserted, updated, deleted from rollbook.set_on_leave(%s, %s)"
    return conn.execute(query, [course_id, on_leave]).fetchall()


def count_leavers(conn: Conn, course_ids: Sequence[str]) -> dict[str, int]:
    """Return by course how many users left it and are kept there; without courses that keep nobody."""
    return {row["course_id"]: row["leavers"] for row in conn.execute(LEAVERS, [list(course_ids)])}


def close_course(conn: Conn, course_id: str) -> bool:
    """Close a course; return whether that is new. Raises RefusedError (RB006, RB019, RB022)."""
    return bool(one(conn, "select rollbook.close_course(%s) as new", [course_id])["new"])


def open_course(conn: Conn, course_id: str) -> bool:
    """Open a course that was closed; return whether that is new. Raises RefusedError (RB006, RB019, RB022)."""
    return bool(one(conn, "select rollbook.open_course(%s) as new", [course_id])["new"])


def rename_course(conn: Conn, course_id: str, new_id: str) -> None:
    """Give a course another ID. Raises RefusedError (RB003, RB005, RB006, RB009, RB019, RB022, 23R55)."""
    conn.execute("select rollbook.rename_course(%s, %s)", [course_id, new_id])


def left_out(conn: Conn, without: Sequence[str]) -> list[str]:
    """Return a list of columns that do not travel, checked and sorted. Raises RefusedError (RB028)."""
    return list(one(conn, "select rollbook.left_out(%s::text[]) as columns", [list(without)])["columns"])


def default_without(conn: Conn) -> list[str]:
    """Return the columns that do not travel to new courses."""
    return list(one(conn, "select without from rollbook.shape")["without"])


def set_default_without(conn: Conn, without: Sequence[str]) -> None:
    """Set the columns that do not travel to new courses."""
    conn.execute("update rollbook.shape set without = %s::text[]", [list(without)])


def drop_course(conn: Conn, course_id: str, *, drop_local: bool) -> None:
    """Drop a course. Raises RefusedError (RB006, RB007, RB011)."""
    conn.execute("select rollbook.drop_course(%s, %s)", [course_id, drop_local])


def grant_course(conn: Conn, course_id: str, role: str, *, local_columns: bool) -> bool:
    """Let a role read a course; return whether that is new. Raises RefusedError (RB006, RB019, RB023)."""
    granted = one(conn, "select rollbook.grant_course(%s, %s, %s) as new", [course_id, role, local_columns])
    return bool(granted["new"])


def revoke_course(conn: Conn, course_id: str, role: str) -> bool:
    """Take a role's rights on a course; return whether it had any. Raises RefusedError (RB006, RB019, RB023)."""
    return bool(one(conn, "select rollbook.revoke_course(%s, %s) as had", [course_id, role])["had"])


def pause_course(conn: Conn, course_id: str, reason: str | None) -> None:
    """Pause a course. Raises RefusedError (RB006, RB019, RB022)."""
    conn.execute("select rollbook.pause_course(%s, %s)", [course_id, reason])


def resume_course(conn: Conn, course_id: str) -> list[Row]:
    """Resume a course; return the rows written: table inserted updated deleted.

    Raises RefusedError (RB006, RB009, RB019, RB020, RB022).
    """
    query = "select table_name as table, inserted, updated, deleted from rollbook.resume_course(%s)"
    return conn.execute(query, [course_id]).fetchall()


def list_paused(conn: Conn) -> list[str]:
    """Return the ids of the courses that are paused."""
    found = conn.execute("select course_id from rollbook.course where paused_at is not null order by course_id")
    return [row["course_id"] for row in found]


def set_on_fault(conn: Conn, course_id: str, on_fault: str) -> None:
    """Set what happens when a copy of the course cannot be written: refuse or pause."""
    conn.execute("update rollbook.course set on_fault = %s where course_id = %s", [on_fault, course_id])


def require_running(conn: Conn, course_id: str) -> None:
    """Raise RefusedError (RB021) if the course is paused."""
    conn.execute("select rollbook.require_running(%s)", [course_id])


def course_sql(call: LiteralString, arguments: Sequence[Any]) -> str:
    """Return `select CALL` with the arguments as literals: what a dry run prints."""
    literals = [sql.Literal(argument) for argument in arguments]
    return sql.SQL("select * from {}({});\n").format(sql.SQL(call), sql.SQL(", ").join(literals)).as_string()
