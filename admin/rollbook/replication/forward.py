"""What a relay sends on of courses whose columns change: at no moment less than the portal sends it.

A column that joins is sent on before the portal sends it; one that leaves until all of it has gone through, and then
the relay keeps no value of it. Who changes the publication of a relay locks the copies, so that no row is half-way
between two lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from psycopg import sql
from psycopg.types.json import Jsonb

from rollbook.core.db import Conn
from rollbook.core.rows import Row, one
from rollbook.replication.catalog import LISTED
from rollbook.replication.fence import fence
from rollbook.replication.link import Server
from rollbook.replication.locked import run_locked
from rollbook.replication.readable import READER
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

# Columns of a copy on a relay as they are set to what a new row has, and the rows where they are not.
EMPTY = """
select
    format('%%I.%%I', n.nspname, c.relname) as place,
    string_agg(format('%%I = default', a.attname), ', ') as sets,
    format(
        'row(%%s)::text is distinct from row(%%s)::text',
        string_agg(quote_ident(a.attname), ', ' order by a.attnum),
        string_agg(coalesce(pg_get_expr(d.adbin, d.adrelid), 'null'), ', ' order by a.attnum)
    ) as differs
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
where n.nspname = %s and c.relname = %s and a.attname = any (%s)
group by 1
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


def empty(session: Session, schema: str, without: Sequence[str]) -> None:
    """Empty, on the relay of a server, the columns that a course leaves out: all servers behind it could read them.

    So could they the samples in pg_stats, which ANALYZE replaces.
    What the server itself holds in them is the course's own. Raises RefusedError if a copy there stays locked.
    """
    if session.upstream is None:
        return
    conn = session.upstream.conn
    for table in session.copied.tables:
        names = [name for name in table.columns if name in without or f"{table.name}.{name}" in without]
        for row in conn.execute(EMPTY, [schema, table.name, names]).fetchall() if names else ():
            place, sets, differs = row["place"], row["sets"], row["differs"]
            is_filled = f"select from {place} where {differs} limit 1"
            if conn.execute(is_filled.encode()).fetchone() is not None:
                lock = f"lock table {place} in share row exclusive mode"  # the worker waits, not in the middle of it
                run_locked(conn, [
                    "set local role rollbook_owner", lock, f"update {place} set {sets} where {differs}",  # noqa: S608 (as above)
                    f"analyze {place}",
                ])  # fmt: skip


def unlike(session: Session, schemas: list[str]) -> set[str]:
    """Return which of these schemas the relay of a server sends on with other columns than the portal sends."""
    sent = session.portal.execute(SENT, [session.server.name, schemas])
    return {schema for schema, _ in differing(sent, session.source, session.server.stream, schemas)}


def differing(
    sent: Iterable[Row], relay: Conn, stream: str, schemas: list[str]
) -> dict[tuple[str, str], tuple[frozenset[str] | None, frozenset[str] | None]]:
    """Return, by schema and table, what the portal sends and what a relay lists, where that is not the same.

    `sent`: rows of rollbook.published_copies in these schemas. None: the table is not sent, or not listed.
    """
    ours, theirs = (
        {(row["schema_name"], row["table_name"]): frozenset(row["columns"]) for row in rows}
        for rows in (sent, relay.execute(LISTED, [stream, schemas]))
    )
    copies = sorted({copy for copy, _ in ours.items() ^ theirs.items()})
    return {copy: (ours.get(copy), theirs.get(copy)) for copy in copies}
