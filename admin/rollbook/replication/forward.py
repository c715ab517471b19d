"""What a relay sends on of courses whose columns change: at no moment less than the portal sends it.

A column that joins is sent on before the portal sends it; one that leaves until all of it has gone through. Who changes
the publication of a relay locks the copies, so that no row is half-way between two lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql
from psycopg.types.json import Jsonb

from rollbook.core.db import Conn
from rollbook.core.rows import one
from rollbook.replication.build import READER
from rollbook.replication.fence import fence
from rollbook.replication.link import Server
from rollbook.replication.locked import run_locked
from rollbook.replication.session import Session

# What the portal sends of a course, and what it will send when the course leaves `without` out; null: as it does.
WANTED = """
select coalesce(jsonb_agg(jsonb_build_object(
    'schema_name', p.schema_name, 'table_name', p.table_name, 'columns', array(
        select distinct w.name
        from unnest(
            p.columns || rollbook.course_columns(p.table_name, coalesce(%(without)s::text[], c.without))
        ) as w (name)
    )
)), '[]') as wanted
from rollbook.course as c
cross join rollbook.published_copies(%(server)s, c.course_id) as p
where c.course_id = %(course)s
"""

SENT = "select p.* from rollbook.published_copies(%s) as p where p.schema_name = any (%s)"

LISTED = """
select p.schemaname::text as schema_name, p.tablename::text as table_name, p.attnames::text[] as columns
from pg_publication_tables as p where p.pubname = %s and p.schemaname = any (%s)
"""

# A copy that is gone on the relay is left to resync.
PUBLISH = """
select rollbook.publish({stream}, (
    select coalesce(jsonb_agg(w.value), '[]') from jsonb_array_elements({wanted}) as w
    where to_regclass(format('%I.%I', w.value ->> 'schema_name', w.value ->> 'table_name')) is not null
), {schema}, {reader})
"""


def statement(portal: Conn, server: Server, course_id: str, schema: str, without: Sequence[str] | None = None) -> str:
    """Return the statement by which the relay of a server sends a course on with the columns that travel.

    `without`: what the course is to leave out from now on; what joins then is sent on as well.
    """
    asked = {"server": server.name, "course": course_id, "without": None if without is None else list(without)}
    wanted = Jsonb(one(portal, WANTED, asked)["wanted"])  # type: ignore[arg-type]
    return sql.SQL(PUBLISH).format(
        stream=sql.Literal(server.stream), wanted=sql.Literal(wanted), schema=sql.Literal(schema),
        reader=sql.Literal(READER),
    ).as_string(portal)  # fmt: skip


def settle(session: Session, courses: Mapping[str, str]) -> bool:
    """Let the relay of a server send these courses (id by schema) on as the portal sends them; return if it did not.

    What was sent with a column that has left goes on with it: the relay has applied it by then. Raises UnreachableError
    if it does not catch up, RefusedError if a copy there stays locked.
    """
    upstream = session.upstream
    if upstream is None or not (late := unlike(session, list(courses))):
        return False
    fence(upstream)
    for schema in sorted(late):
        run_locked(upstream.conn, [statement(session.portal, session.server, courses[schema], schema)])
    return True


def unlike(session: Session, schemas: list[str]) -> set[str]:
    """Return which of these schemas the relay of a server sends on with other columns than the portal sends."""
    sent, listed = (
        {(row["schema_name"], row["table_name"]): frozenset(row["columns"]) for row in rows}
        for rows in (
            session.portal.execute(SENT, [session.server.name, schemas]),
            session.source.execute(LISTED, [session.server.stream, schemas]),
        )
    )
    return {schema for schema, _ in dict(sent.items() ^ listed.items())}
