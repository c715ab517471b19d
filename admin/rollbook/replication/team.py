"""The rights of a course's team on its copies, in the portal's database and on the course's server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core import history
from rollbook.replication import catalog
from rollbook.replication.queries.courses import course_sql, find_course, grant_course, revoke_course

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

GRANT: LiteralString = "grant usage on schema {0} to {1}; grant select on {2} to {1};"
REVOKE: LiteralString = "revoke all on {2} from {1}; revoke all on schema {0} from {1};"


@dataclass(frozen=True)
class Team:
    """The row of `course grant` and `course revoke`; the fields are its columns, but for the SQL."""

    course: str
    role: str
    schema_name: str
    server: str | None
    outcome: str
    statement: str  # what was run here
    on_server: str | None  # what a DBA runs on the server: its roles are its own
    moving_to: str | None  # and on the server to which the course moves


def grant(run: Run, course: str, role: str, *, local_columns: bool) -> Team:
    """Let a role read the copies of a course. Raises RefusedError for an unknown course or role."""
    with run.connect() as conn:
        found = find_course(conn, course)
        outcome = "granted" if grant_course(conn, course, role, local_columns=local_columns) else "unchanged"
        if outcome == "granted":
            after = {"role": role, "local_columns": local_columns}
            history.record(conn, run, course, outcome, after=after, course_id=course)
        there = on_server(conn, GRANT, found.schema_name, role) if found.server else None
    statement = course_sql("rollbook.grant_course", [course, role, local_columns])
    return Team(course, role, found.schema_name, found.server, outcome, statement, there, found.moving_to)


def revoke(run: Run, course: str, role: str) -> Team:
    """Take a role's rights on a course. Raises RefusedError for an unknown course or role."""
    with run.connect() as conn:
        found = find_course(conn, course)
        outcome = "revoked" if revoke_course(conn, course, role) else "unchanged"
        if outcome == "revoked":
            history.record(conn, run, course, outcome, before={"role": role}, course_id=course)
        there = on_server(conn, REVOKE, found.schema_name, role) if found.server else None
    statement = course_sql("rollbook.revoke_course", [course, role])
    return Team(course, role, found.schema_name, found.server, outcome, statement, there, found.moving_to)


def on_server(conn: Conn, words: LiteralString, schema_name: str, role: str) -> str:
    """Return the statements for the server."""
    tables = sql.SQL(", ").join(sql.Identifier(schema_name, name) for name in catalog.copied(conn).names)
    return sql.SQL(words).format(sql.Identifier(schema_name), sql.Identifier(role), tables).as_string()
