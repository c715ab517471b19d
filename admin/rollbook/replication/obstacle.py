"""What refuses a row on a course server, where an error leads to it, and the lines that fix a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import psycopg
from psycopg import errors

from rollbook.core.db import Conn
from rollbook.core.shell import course_word
from rollbook.core.shipped import as_query
from rollbook.replication import answered
from rollbook.replication.link import Server

# Which triggers fire (pg_trigger.tgenabled): for a worker that applies changes, and for a command that writes.
Firing = Literal["RA", "OA"]
PARAMETERS = ("schema_name", "table_name", "state", "place", "constraint_name", "column_name", "firing")

# The index may have any name.
KEY = """
select from pg_index as i
inner join pg_class as x on x.oid = i.indexrelid and x.relname = %(index)s
inner join pg_class as c on c.oid = i.indrelid and c.relname = %(table)s
inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = %(schema)s
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum::text = i.indkey::text and a.attname = %(key)s
"""


# Triggers that a command fires when it deletes a row: they can keep it, or put it back.
KEEPERS = """
select string_agg(format('alter table %%I.%%I disable trigger %%I', n.nspname, c.relname, t.tgname), '; ') as statement
from pg_trigger as t
inner join pg_class as c on c.oid = t.tgrelid and c.relname = %s
inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = %s
where not t.tgisinternal and t.tgname not in ('rollbook_guard_copy', 'rollbook_guard_copy_update')
    and t.tgtype & 8 <> 0 and t.tgenabled in ('O', 'A')
"""


def statement(conn: Conn, schema_name: str, table: str, exc: psycopg.Error, firing: Firing) -> str | None:
    """Return the SQL that removes what refused a row of a copy, None if the error does not lead to it.

    None too where the server's answer is not one of our statements, or has a name that is not fit for one.
    """
    found = conn.execute(as_query("checks/obstacle_fix", *PARAMETERS), {
        "schema_name": schema_name, "table_name": table, "state": exc.sqlstate, "place": exc.diag.context,
        "constraint_name": exc.diag.constraint_name, "column_name": exc.diag.column_name, "firing": list(firing),
    }).fetchone()  # fmt: skip
    return None if found is None else answered.statement(next(iter(found.values())))


def is_key_taken(conn: Conn, schema_name: str, table: str, key: str, exc: psycopg.Error) -> bool:
    """Return whether a row with the same key is in the way, not one that a unique index of the course's own forbids."""
    if exc.sqlstate != errors.UniqueViolation.sqlstate or exc.diag.table_name != table:
        return False
    asked = {"index": exc.diag.constraint_name, "schema": schema_name, "table": table, "key": key}
    return conn.execute(KEY, asked).fetchone() is not None


def keepers(conn: Conn, schema_name: str, table: str) -> str | None:
    """Return the SQL that disables the triggers which may keep a row that is deleted; None if there are none."""
    found = conn.execute(KEEPERS, [table, schema_name]).fetchone()
    return answered.statement(found["statement"]) if found else None


def fix_lines(
    server: Server, course: str | None, sql_there: str | None, commands: Sequence[str], *, moving_to: str | None = None
) -> str:
    """Return what fixes a fault, as it is to be executed: SQL for the server, then commands for the course.

    Without a course (heartbeats are nobody's) the one command is `resume`; on the way to a server it is `move`.
    """
    lines = [f"on server {server.name}: {sql_there}"] if sql_there else []
    if moving_to is not None and course is not None:
        return "; then: ".join([*lines, f"rollbook course move {course_word(course)} --to {moving_to}"])
    target = f"--server {server.name}" if course is None else course_word(course)
    return "; then: ".join([*lines, *(f"rollbook replication {command} {target}" for command in commands)])
