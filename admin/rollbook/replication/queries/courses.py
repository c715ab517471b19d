"""The courses, and what is copied to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, nearest, one

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COURSES = """
select course_id as course, schema_name, state, on_leave, enrolled, copied_users, server, created_at as since
from rollbook.course_status
where %(match)s::text is null or strpos(lower(course_id), lower(%(match)s)) > 0
order by course_id
"""


COURSE = """
select
    s.course_id as course, s.schema_name, s.state, s.on_leave, s.server, s.enrolled, s.copied_users, s.copied_profiles,
    s.copied_enrollments, s.created_at, s.verified_at, s.verdict, s.differing_rows,
    array(select rollbook.local_objects(s.schema_name)) as local_objects
from rollbook.course_status as s
where s.course_id = %s
"""


REPLICATED = """
select t.name as table, rollbook.replicated_columns(t.name) as columns
from unnest(array['auth_user', 'auth_userprofile', 'student_courseenrollment']) as t (name)
"""


def list_courses(conn: Conn, match: str | None = None) -> list[Row]:
    """Return the courses: course schema_name state on_leave enrolled copied_users since. Source: course_status."""
    return conn.execute(COURSES, {"match": match}).fetchall()


def find_course(conn: Conn, course_id: str) -> Row:
    """Return one course with counts and what it added itself. Raises RefusedError for an unknown one."""
    known_courses(conn, [course_id])
    return one(conn, COURSE, [course_id])


def list_replicated(conn: Conn) -> list[Row]:
    """Return the whitelist: table, columns."""
    return conn.execute(REPLICATED).fetchall()


def known_courses(conn: Conn, course_ids: Sequence[str]) -> list[str]:
    """Return the ids as given, or all courses for none. Raises RefusedError naming the unknown and the nearest."""
    known = [row["course_id"] for row in conn.execute("select course_id from rollbook.course order by 1")]
    for course_id in course_ids:
        if course_id not in known:
            raise RefusedError(
                f"there is no course {course_id}", why=nearest(course_id, known), fix="rollbook course list"
            )
    return list(course_ids) or known


def create_course(conn: Conn, course_id: str, on_leave: str) -> str:
    """Make a course and return its schema. Raises RefusedError (RB003, RB005)."""
    return str(one(conn, "select rollbook.create_course(%s, %s) as name", [course_id, on_leave])["name"])


def drop_course(conn: Conn, course_id: str, *, drop_local: bool) -> None:
    """Drop a course. Raises RefusedError (RB006, RB007)."""
    conn.execute("select rollbook.drop_course(%s, %s)", [course_id, drop_local])


def course_sql(call: LiteralString, arguments: Sequence[Any]) -> str:
    """Return `select CALL` with the arguments as literals: what a dry run prints."""
    literals = [sql.Literal(argument) for argument in arguments]
    return sql.SQL("select * from {}({});\n").format(sql.SQL(call), sql.SQL(", ").join(literals)).as_string()
