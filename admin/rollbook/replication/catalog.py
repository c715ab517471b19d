"""What the catalogs of the portal and of a server say exists of a stream. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from rollbook.core.db import Conn
from rollbook.core.errors import UsageError
from rollbook.core.rows import nearest, one, typed
from rollbook.core.shipped import as_query
from rollbook.replication.link import Server


@dataclass(frozen=True)
class Table:
    """A table that is copied, as rollbook.copied_tables() has it."""

    name: str  # of the copies
    role: str  # person, profile or membership
    key: str  # the primary key
    user_column: str  # holds the user's key
    index_column: str | None  # what a copy is indexed by, the key apart
    columns: list[str]  # that travel, unless the course leaves them out


@dataclass(frozen=True)
class Copied:
    """What this installation copies: its tables, parents first, and the columns that some courses leave out."""

    tables: Sequence[Table]
    left_out: Mapping[str, list[str]]  # by schema, where there are any

    @property
    def names(self) -> list[str]:
        """Return the names of the copies of a course."""
        return [table.name for table in self.tables]

    def table(self, name: str) -> Table:
        """Return a table by the name of its copies."""
        return next(table for table in self.tables if table.name == name)

    def of(self, schema_name: str, table: str) -> list[str]:
        """Return the columns of a table that travel to a course."""
        without = self.without(schema_name)
        columns = self.table(table).columns
        return [name for name in columns if name not in without and f"{table}.{name}" not in without]

    def without(self, schema_name: str) -> list[str]:
        """Return the columns that do not travel to a course: by name, or as TABLE.COLUMN where two tables have it."""
        return self.left_out.get(schema_name, [])


SUBSCRIPTION = """
select
    s.oid::bigint as oid, s.subenabled as enabled, s.subslotname::text as slot, s.subdisableonerr as stops_on_error,
    w.pid as worker,
    exists (
        select from pg_subscription_rel as r where r.srsubid = s.oid and r.srrelid = to_regclass('rollbook.heartbeat')
    ) as has_heartbeat,
    coalesce(t.apply_error_count, 0) as apply_errors, coalesce(t.sync_error_count, 0) as sync_errors,
    coalesce(to_jsonb(t) - array['subid', 'subname', 'apply_error_count', 'sync_error_count', 'stats_reset'], '{}')
        as conflicts
from pg_subscription as s
left join pg_stat_subscription_stats as t on t.subid = s.oid
left join lateral (
    select max(p.pid) as pid from pg_stat_subscription as p
    where p.subid = s.oid and p.relid is null and (to_jsonb(p) ->> 'leader_pid') is null
) as w on true
where s.subname = %s and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
"""

COPIES = """
select
    n.nspname::text as schema_name, t.value ->> 'name' as table, c.oid is not null as is_there,
    pg_get_userbyid(n.nspowner)::text as owner, r.srsubstate::text as sync,
    r.srsublsn::text as sync_lsn,
    (
        select count(*) from pg_trigger as g
        where g.tgrelid = c.oid and g.tgenabled = 'O'
            and g.tgname in ('rollbook_guard_copy', 'rollbook_guard_copy_update')
    ) = 2 as guarded,
    array(
        select w.name from jsonb_array_elements_text(t.value -> 'columns') with ordinality as w (name, position)
        where not coalesce(
            %(left_out)s -> n.nspname::text ?| array[w.name, t.value ->> 'name' || '.' || w.name], false
        ) and not exists (
            select from pg_attribute as a where a.attrelid = c.oid and a.attname = w.name and not a.attisdropped
        )
        order by w.position
    ) as lacking,
    case
        when c.oid is null or identity.key = t.value ->> 'key' then null
        when c.relreplident = 'i' then format('alter table %%I.%%I replica identity default', n.nspname, c.relname)
        else format('alter table %%I.%%I add primary key (%%I)', n.nspname, c.relname, t.value ->> 'key')
    end as identity_fix
from pg_namespace as n
cross join jsonb_array_elements(%(tables)s) with ordinality as t (value, position)
left join pg_class as c on c.relnamespace = n.oid and c.relname = t.value ->> 'name' and c.relkind = 'r'
left join pg_subscription_rel as r on r.srrelid = c.oid and r.srsubid = %(subscription)s
left join lateral (
    select string_agg(a.attname, ',') as key
    from pg_index as i inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (i.indkey)
    where i.indrelid = c.oid and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end
) as identity on true
where n.nspname = any (%(schemas)s)
order by n.nspname, t.position
"""

LISTED = """
select p.schemaname::text as schema_name, p.tablename::text as table_name, p.attnames::text[] as columns
from pg_publication_tables as p where p.pubname = %s and p.schemaname = any (%s)
"""

COPIED = """
select
    t.table_name as name, t.role, t.key_column as key, t.user_column, t.index_column,
    rollbook.replicated_columns(t.table_name) as columns
from rollbook.copied_tables() as t order by t.ordinal
"""

PLACEMENTS = """
select c.course_id as course, c.schema_name::text as schema_name, c.state, c.server, c.moving_to
from rollbook.course as c where c.server = %s order by c.course_id
"""

# A relay receives the courses of all servers behind it, each once.
FED = """
with own as (
    select s.name from rollbook.server as s
    where %(server)s in (s.name, s.through) or (%(server)s = s.moving_through and not s.moving_direct)
)
select
    c.course_id as course, c.schema_name::text as schema_name, c.server, c.moving_to,
    case when c.server in (select o.name from own as o) then c.state else 'moving' end as state
from rollbook.course as c
where c.server in (select o.name from own as o) or c.moving_to in (select o.name from own as o)
order by c.course_id
"""

SLOT = """
select
    slot_name::text as slot_name, database::text as database, plugin::text as plugin, wal_status,
    database = current_database() as is_here, active as is_read
from pg_replication_slots where slot_name = %s
"""

ADD_COLUMNS = """
select string_agg(
    format('alter table %%I.%%I add column %%I %%s', %(schema)s::text, l.table_name, a.attname,
           format_type(a.atttypid, a.atttypmod)), '; ' order by l.position
) as words
from unnest(%(tables)s::text[], %(names)s::text[]) with ordinality as l (table_name, column_name, position)
inner join pg_attribute as a on a.attrelid = rollbook.portal_table(l.table_name) and a.attname = l.column_name
"""

# What in other schemas would be dropped with the schema: views, foreign keys, columns of its types, functions.
DEPENDENTS: LiteralString = """
select distinct
    d.classid::regclass as class, d.objid as object, coalesce(r.ev_class, k.conrelid)::regclass as relation,
    case when r.oid is null then i.type || ' ' || i.identity
        else (select case v.relkind when 'm' then 'materialized view ' else 'view ' end from pg_class as v
              where v.oid = r.ev_class) || r.ev_class::regclass end as name
from (
    select 'pg_class'::regclass, c.oid, c.relnamespace from pg_class as c
    union all
    select 'pg_type'::regclass, y.oid, y.typnamespace from pg_type as y
    union all
    select 'pg_proc'::regclass, p.oid, p.pronamespace from pg_proc as p
) as s (class, oid, namespace)
inner join pg_depend as d on d.refclassid = s.class and d.refobjid = s.oid and d.deptype in ('n', 'a')
left join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
left join pg_constraint as k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
left join pg_attrdef as f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid
left join pg_trigger as g on d.classid = 'pg_trigger'::regclass and g.oid = d.objid
left join pg_policy as o on d.classid = 'pg_policy'::regclass and o.oid = d.objid
left join pg_proc as p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
left join pg_type as y on d.classid = 'pg_type'::regclass and y.oid = d.objid
left join pg_class as c on c.oid = case when d.classid = 'pg_class'::regclass then d.objid
    else coalesce(r.ev_class, nullif(k.conrelid, 0), f.adrelid, g.tgrelid, o.polrelid) end
cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) as i
where s.namespace = to_regnamespace(quote_ident(%(schema)s))
    and coalesce(c.relnamespace, p.pronamespace, y.typnamespace, k.connamespace) <> s.namespace
"""

KEPT_SCHEMAS = """
select n.nspname::text as nspname from pg_namespace as n
where pg_get_userbyid(n.nspowner) = 'rollbook_owner' and n.nspname <> 'rollbook' and n.nspname <> all (%s)
order by 1
"""


# Of all databases: a new slot waits for whatever writes in its cluster.
OLDEST_TRANSACTION = """
select t.usename, t.pid, t.gid, round(extract(epoch from clock_timestamp() - t.since)) as age
from (
    select a.usename, a.pid, null as gid, a.xact_start as since from pg_stat_activity as a
    where a.backend_xid is not null and a.pid <> pg_backend_pid()
    union all
    select p.owner, null, format('%L', p.gid), p.prepared from pg_prepared_xacts as p
) as t
order by t.since limit 1
"""
RELAYED = ", for the servers behind this relay."  # the end of the comment on a schema that a relay has for them alone
RELAYED_SCHEMAS = """
select n.nspname::text as nspname from pg_namespace as n
where pg_get_userbyid(n.nspowner) = 'rollbook_owner' and obj_description(n.oid, 'pg_namespace') like '%%' || %s
order by 1
"""


@dataclass(frozen=True)
class Subscription:
    """A server's subscription to the portal."""

    oid: int
    enabled: bool
    slot: str | None
    stops_on_error: bool  # as servers had it that were added before streams went on by themselves
    worker: int | None  # process id; None: no worker applies changes now
    has_heartbeat: bool  # whether it feeds the heartbeat table: a restored one may feed nothing
    apply_errors: int
    sync_errors: int
    conflicts: dict[str, int]  # by kind; PostgreSQL 18 and later

    @property
    def errors(self) -> int:
        """Return how many errors and conflicts it has met since its statistics began."""
        return self.apply_errors + self.sync_errors + sum(self.conflicts.values())

    def is_failing(self, before: Subscription | None) -> bool:
        """Return whether it has met apply errors, and no worker has been at work since `before`, a moment ago."""
        if not self.enabled or not self.apply_errors:
            return False
        steady = before is not None and (before.worker, before.apply_errors) == (self.worker, self.apply_errors)
        return self.worker is None or not steady


@dataclass(frozen=True)
class Copy:
    """One copy of a course, on a server."""

    schema_name: str
    table: str
    is_there: bool
    owner: str
    sync: str | None  # pg_subscription_rel.srsubstate; None: the subscription does not feed it
    sync_lsn: str | None  # from where on changes are applied to it, while `sync` is s
    guarded: bool
    lacking: list[str]  # replicated columns that it does not have
    identity_fix: str | None  # SQL for the server; None: rows are found by their id, as a worker needs it

    @property
    def is_due(self) -> bool:
        """Return whether its first copy is still to come, or under way."""
        return self.sync is not None and self.sync in "id"


@dataclass(frozen=True)
class Placement:
    """A course on a server; `state` is the recorded one, of rollbook.course, or `moving` on the way to that server."""

    course: str
    schema_name: str
    state: str
    server: str | None  # the one it is on
    moving_to: str | None = None


@dataclass(frozen=True)
class Slot:
    """A replication slot, perhaps of another database in the cluster."""

    slot_name: str
    database: str | None  # None: a physical one
    plugin: str | None
    wal_status: str | None
    is_here: bool | None
    is_read: bool


def subscription(conn: Conn, server: Server) -> Subscription | None:
    """Return the subscription on the server, None if it does not exist."""
    return next(iter(typed(Subscription, conn, SUBSCRIPTION, [server.stream])), None)


def copied(portal: Conn) -> Copied:
    """Return what the installation copies."""
    left_out = one(portal, "select rollbook.left_out_columns() as known")["known"]
    return Copied(typed(Table, portal, COPIED), left_out)


def require_tables(portal: Conn, names: Collection[str]) -> None:
    """Raise UsageError for a name that no copied table has."""
    known = copied(portal).names if names else []
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no copied table {name}", why=nearest(name, known), fix=f"name {', '.join(known)}"
            )


def copies(conn: Conn, known: Copied, schemas: Sequence[str], found: Subscription | None) -> list[Copy]:
    """Return the copies in these schemas of a server: all of a schema that exists, those that are gone too."""
    return typed(Copy, conn, COPIES, {
        "tables": Jsonb([vars(table) for table in known.tables]), "left_out": Jsonb(dict(known.left_out)),
        "schemas": list(schemas), "subscription": found.oid if found else None,
    })  # fmt: skip


def unsent(source: Conn, stream: str, known: Copied, schemas: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return, by schema and table, the columns that travel and that a publication does not list, where there are any.

    A table that it does not list at all is left out.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row in source.execute(LISTED, [stream, list(schemas)]):
        schema, table = row["schema_name"], row["table_name"]
        due = known.of(schema, table) if table in known.names else ()
        if missing := [name for name in due if name not in row["columns"]]:
            found.setdefault(schema, {})[table] = missing
    return found


def placements(portal: Conn, server: Server) -> list[Placement]:
    """Return the courses that are on a server, by id; a relay has none of its own."""
    return typed(Placement, portal, PLACEMENTS, [server.name])


def fed(portal: Conn, server: Server) -> list[Placement]:
    """Return the courses whose copies a server receives: its own and, with the state `moving`, those on their way.

    A relay receives those of the servers behind it.
    """
    return typed(Placement, portal, FED, {"server": server.name})


def slot(source: Conn, server: Server) -> Slot | None:
    """Return the server's slot at its source, None if it does not exist."""
    return next(iter(typed(Slot, source, SLOT, [server.stream])), None)


def course_of(portal: Conn, schema_name: str) -> str | None:
    """Return the course of a schema, None for Rollbook's own."""
    row = portal.execute("select course_id from rollbook.course where schema_name = %s", [schema_name]).fetchone()
    return str(row["course_id"]) if row else None


def local_objects(conn: Conn, schema_name: str, *, on_copies: bool) -> list[str]:
    """Return in words what a course has added to its schema on the server; `on_copies`: what holds no data, too."""
    asked = {"schema": schema_name, "on_copies": on_copies}
    query = as_query("checks/local_objects", "schema", "on_copies")
    return [name for row in conn.execute(query, asked) for name in row.values()]


def dependents(conn: Conn, schema_name: str) -> list[str]:
    """Return in words what in other schemas of the server would be dropped with this one."""
    return sorted(row["name"] for row in conn.execute(DEPENDENTS, {"schema": schema_name}))


def kept_schemas(conn: Conn, attached_schemas: Sequence[str]) -> list[str]:
    """Return the course schemas on the server that no stream feeds: kept when their courses were detached."""
    return [row["nspname"] for row in conn.execute(KEPT_SCHEMAS, [list(attached_schemas)])]


def list_relayed(conn: Conn) -> list[str]:
    """Return the course schemas that a relay has for the servers behind it."""
    return [row["nspname"] for row in conn.execute(RELAYED_SCHEMAS, [RELAYED])]


def is_complete(conn: Conn, known: Copied, schema_name: str) -> bool:
    """Return whether all copies of a course exist on the server."""
    query = (
        "select count(*) as n from pg_class as c where c.relnamespace = to_regnamespace(quote_ident(%s)) "
        "and c.relname = any(%s) and c.relkind = 'r'"
    )
    return bool(one(conn, query, [schema_name, known.names])["n"] == len(known.tables))


def count_rows(conn: Conn, known: Copied, schema_name: str) -> dict[str, int]:
    """Return how many rows each of a course's copies has on the server."""
    count = sql.SQL("select count(*) as n from {}")
    return {name: int(one(conn, count.format(sql.Identifier(schema_name, name)))["n"]) for name in known.names}


def add_columns(portal: Conn, schema_name: str, found: Sequence[Copy]) -> str:
    """Return the SQL that adds to copies the columns that they lack."""
    lacking = [(copy.table, name) for copy in found for name in copy.lacking]
    asked = {"schema": schema_name, "tables": [table for table, _ in lacking], "names": [name for _, name in lacking]}
    return str(one(portal, ADD_COLUMNS, asked)["words"])  # type: ignore[arg-type]


def version(conn: Conn) -> int:
    """Return a server's version, as 180006."""
    return conn.info.server_version


def oldest_transaction(source: Conn, where: str) -> str:
    """Return in words which transaction has written longest at a source: a new slot or first copy waits for it.

    `where`: the source in words. A prepared transaction counts from when it was prepared.
    """
    row = source.execute(OLDEST_TRANSACTION).fetchone()
    if row is None:
        return f"no transaction on {where} delays it"
    if row["gid"] is not None:
        return f"transaction {row['gid']} of {row['usename']} on {where} has been prepared for {row['age']} s"
    return f"a transaction of {row['usename']} (pid {row['pid']}) on {where} has been open for {row['age']} s"
