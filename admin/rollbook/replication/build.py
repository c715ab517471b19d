"""Building a server's stream: publication, slot, subscription, and the schemas of its courses there.

Each step first looks at what exists and creates what is missing, so an interrupted command can be run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from typing import LiteralString

from psycopg import errors, sql
from psycopg.types.json import Jsonb

from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.migrating import SQL
from rollbook.core.rows import one
from rollbook.core.shape import of, shaped
from rollbook.replication import catalog, feeding, link, subscription
from rollbook.replication.catalog import Copy
from rollbook.replication.link import Server, identity
from rollbook.replication.queries.servers import record_subscription
from rollbook.replication.readable import READER
from rollbook.replication.requirements import unroutable
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps

SCHEMA_STATEMENTS = """
select s.words
from unnest(%(tables)s::text[]) with ordinality as t (name, position)
cross join lateral (
    select 1, rollbook.copy_statements(%(schema)s, t.name)
    union all
    select 2, rollbook.guard_statements(%(schema)s, t.name)
) as s (part, words)
order by t.position, s.part
"""

# What a server gets, in this order.
SHIPPED = (
    SQL / "server" / "course_server.sql", SQL / "triggers" / "guard_copy.sql",
    SQL / "functions" / "shape" / "copied_tables.sql", SQL / "functions" / "shape" / "replicated_columns.sql",
    SQL / "functions" / "copies" / "column_list.sql", SQL / "functions" / "copies" / "course_columns.sql",
    SQL / "functions" / "servers" / "publish.sql",
    *sorted((SQL / "functions" / "digests").glob("*.sql")),
    SQL / "server" / "server_grants.sql",
)  # fmt: skip

# The version, unless something of it is gone: a function, a table, or a role that this one can create.
PREPARED = """
select obj_description(to_regnamespace('rollbook'), 'pg_namespace') as comment
where to_regclass('rollbook.heartbeat') is not null and to_regclass('rollbook.portal') is not null
    and not exists (
        select from unnest(%(functions)s::text[]) as f (name)
        where not exists (
            select from pg_proc as p where p.pronamespace = to_regnamespace('rollbook') and p.proname = f.name
        )
    )
    and not exists (
        select from unnest('{rollbook_monitor,rollbook_subscriber}'::text[]) as r (name), pg_roles as me
        where me.rolname = current_user and (me.rolsuper or me.rolcreaterole) and to_regrole(r.name) is null
    )
"""

# The guard alone, for a table that exists without it.
GUARD_STATEMENTS = """
select s.words
from unnest(%(tables)s::text[]) as t (name)
cross join lateral (
    select 1, format('drop trigger if exists %%I on %%I.%%I', g.name, %(schema)s::text, t.name)
    from unnest('{rollbook_guard_copy,rollbook_guard_copy_update}'::text[]) as g (name)
    union all
    select case when g.words ~ '^comment' then 3 else 2 end, g.words
    from rollbook.guard_statements(%(schema)s, t.name) as g (words)
    where g.words ~ 'rollbook_guard_copy'
) as s (part, words)
order by t.name, s.part
"""


PUBLISHED = """
select coalesce(jsonb_agg(p), '[]') as wanted from rollbook.published_copies(%s) as p
where p.schema_name is distinct from %s
"""


def publish(
    portal: Conn, server: Server, steps: Steps | None = None, *, without: str | None = None
) -> sql.Composed:  # fmt: skip
    """Return the statement for the source of a server that makes its publication list the courses that it receives.

    `steps`: of a dry run, as it would be after these. `without`: a schema that is left out for now.
    """
    if server.through is None and without is None:
        return sql.SQL("select rollbook.publish_courses({})").format(server.name)
    with (steps or Steps()).recorded(portal):
        wanted = Jsonb(one(portal, PUBLISHED, [server.name, without])["wanted"])
    reader = None if server.through is None else READER
    return sql.SQL("select rollbook.publish({}, {}, reader => {})").format(server.stream, wanted, reader)


@contextmanager
def withheld(session: Session, schema_name: str) -> Iterator[None]:
    """Let the relay send nothing of a course to this server meanwhile; its own copies are compared afterwards."""
    portal, server, source = session.portal, session.server, session.source
    source.execute(publish(portal, server, without=schema_name))
    try:
        yield
    finally:
        if not source.closed:  # else the next repair makes it equal to the portal's
            source.execute(publish(portal, server))


def build(session: Session, steps: Steps, *, copy: bool = True) -> None:
    """Create what the stream lacks: publication, slot, what the server needs, subscription."""
    server, source = session.server, session.source
    steps.on_source(source, server, publish(session.portal, server, steps))
    if catalog.slot(source, server) is None:
        create_slot(session, steps)
    prepare(session, steps)
    found = session.subscription()
    if found is not None:
        if found.stops_on_error and not steps.dry:
            subscription.go_on(session)
        return
    try:
        # Heartbeats of an earlier stream would stop the first copy of this one.
        steps.on_server(session, sql.SQL("delete from rollbook.heartbeat"))
        steps.on_server(session, create_subscription(session, sql.Literal(server.stream), copy=copy))
    except errors.ConnectionFailure as exc:
        raise unroutable(server, exc) from exc
    if not steps.dry:
        found = session.subscription()
        assert found is not None  # noqa: S101 (created above)
        record_subscription(session.portal, server.name, found.oid)


def create_subscription(session: Session, slot: sql.Composable, *, copy: bool, enabled: bool = True) -> sql.Composed:
    """Return the statement for the server that creates its subscription; `slot`: a literal, or NONE."""
    server, name = session.server, sql.Identifier(session.server.stream)
    options: list[sql.Composable] = [
        sql.SQL("create_slot = false"),
        sql.SQL("slot_name = {}").format(slot),
        sql.SQL("enabled = {}").format(sql.Literal(enabled)),
        sql.SQL("copy_data = {}").format(sql.Literal(copy)),
        sql.SQL("streaming = on"),
        # Without it a change is lost that was applied just before the connection broke and the server crashed: the
        # next worker confirms it, flushed or not.
        sql.SQL("synchronous_commit = local"),
    ]
    if min(catalog.version(session.source), catalog.version(session.conn)) >= 170000:
        options.append(sql.SQL("failover = true"))
    return sql.SQL("create subscription {} connection {} publication {} with ({})").format(
        name, sql.Literal(server.subscription_dsn), name, sql.SQL(", ").join(options)
    )


def create_slot(session: Session, steps: Steps) -> None:
    """Create the slot, by function: CREATE SUBSCRIPTION would hang where both databases are in one cluster."""
    server, source = session.server, session.source
    failover = sql.SQL(", failover => true" if catalog.version(source) >= 170000 else "")
    create = sql.SQL("select pg_create_logical_replication_slot({}, 'pgoutput'{})").format(server.stream, failover)
    try:
        steps.on_source(source, server, create)
    except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
        raise UnreachableError(
            f"the slot {server.stream} cannot be created yet",
            why=catalog.oldest_transaction(source, session.source_name),
            fix="wait until that transaction has ended, then run the command again",
        ) from exc  # fmt: skip


def shipped_texts(portal: Conn) -> list[str]:
    """Return the SQL that a server of this portal gets."""
    declared = of(portal)
    return [shaped(path.read_text(), declared) for path in SHIPPED]


def version_comment(shipped: Sequence[str]) -> str:
    """Return the comment on the schema of a server that has this SQL."""
    version = md5("".join(shipped).encode(), usedforsecurity=False).hexdigest()[:8]
    return f"Rollbook: what a course server needs to receive copies from the portal, version {version}."


def prepare(session: Session, steps: Steps) -> None:
    """Create on the server what every course there needs, or replace what another version of the program made.

    These are roles, heartbeat table, guard and digests. The comment on the schema has their version.
    """
    shipped = shipped_texts(session.portal)
    comment = version_comment(shipped)
    functions = [path.stem for path in SHIPPED if path.parent.name != "server"]
    found = session.conn.execute(PREPARED, {"functions": functions}).fetchone()
    if found is None or found["comment"] != comment:
        statements = [sql.SQL(text) for text in shipped]  # pyright: ignore[reportArgumentType] (ships with the program)
        steps.on_server(session, *statements, sql.SQL("comment on schema rollbook is {}").format(comment))
        if not steps.dry:
            feeding.record(session.conn, identity(session.portal))


def create_schemas(session: Session, wanted: Sequence[tuple[str, str]], steps: Steps) -> list[str]:
    """Create what is missing of courses (id, schema) on the server, each in one transaction; return the new schemas."""
    new: list[str] = []
    copies = catalog.copies(session.conn, session.copied, [schema for _, schema in wanted], None)
    is_relay = bool(link.list_behind(session.portal, session.server))
    on_relay = catalog.list_relayed(session.conn) if is_relay else []
    for course, schema in wanted:
        found = [copy for copy in copies if copy.schema_name == schema]
        present = {copy.table for copy in found if copy.is_there}
        absent = [name for name in session.copied.names if name not in present]
        guard(session, found, steps)
        comment = comment_on(schema, course, is_relay=is_relay)
        if found and is_relay and schema not in on_relay:
            steps.on_server(session, comment)
        if not absent:
            continue
        create = sql.SQL("create schema {} authorization rollbook_owner").format(sql.Identifier(schema))
        schema_statements = [] if found else [create, comment]
        owners = [
            sql.SQL("alter table {} owner to rollbook_owner").format(sql.Identifier(schema, name)) for name in absent
        ]
        tables = generated(session.portal, SCHEMA_STATEMENTS, schema, absent)
        steps.on_server(session, *schema_statements, *tables, *owners)
        new += [] if found else [schema]
    return new


def comment_on(schema: str, course: str, *, is_relay: bool) -> sql.Composed:
    """Return the statement that writes the comment on a course's schema; a relay drops those of its own."""
    words = f"Rollbook: copies for course {course}{catalog.RELAYED if is_relay else '.'}"
    return sql.SQL("comment on schema {} is {}").format(sql.Identifier(schema), sql.Literal(words))


def guard(session: Session, copies: Sequence[Copy], steps: Steps) -> None:
    """Create the guards that copies on the server lack: a column that is dropped with CASCADE takes them along."""
    for copy in copies:
        if copy.is_there and not copy.guarded:
            steps.on_server(session, *generated(session.portal, GUARD_STATEMENTS, copy.schema_name, [copy.table]))


def generated(portal: Conn, query: LiteralString, schema: str, tables: Sequence[str]) -> list[sql.SQL]:
    """Return the statements that the portal generates for these tables of a schema."""
    rows = portal.execute(query, {"tables": list(tables), "schema": schema})
    return [sql.SQL(row["words"]) for row in rows]
