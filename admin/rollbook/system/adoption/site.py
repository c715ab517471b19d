"""The Django site to adopt, as the catalog has it: our tables, what refers to them and what depends on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import one, typed
from rollbook.core.shell import quoted
from rollbook.system.portal_tables import definitions

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# A schema with Django's table of users, unless that is a course's copy, or Rollbook's own portal: a table that Rollbook
# routes is the site's if its adoption has begun.
SITES = """
select n.nspname::text as schema, to_regclass(format('%I.django_migrations', n.nspname)) is not null as is_django
from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
where c.relname = 'auth_user' and c.relkind in ('r', 'p') and n.nspname !~ '^pg_'
    and 4 = (
        select count(*) from pg_attribute as a
        where a.attrelid = c.oid and a.attname in ('id', 'username', 'email', 'password') and not a.attisdropped
    )
    and not exists (
        select from pg_trigger as t inner join pg_proc as p on p.oid = t.tgfoid
        where t.tgrelid = c.oid and p.pronamespace = to_regnamespace('rollbook')
            and (p.proname = 'guard_copy' or to_regclass('public.rollbook_adoption') is null)
    )
order by is_django desc, schema
"""

TABLES = """
select
    c.relname::text as name, c.oid::bigint as oid, pg_total_relation_size(c.oid) as bytes
from pg_class as c
where c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) and c.relname = any (%(tables)s)
    and c.relkind in ('r', 'p')
order by array_position(%(tables)s, c.relname::text)
"""

COLUMNS = """
select
    c.relname::text as table, a.attname::text as name, a.attnum as position,
    format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as is_required, a.attidentity::text as identity,
    pg_get_expr(d.adbin, d.adrelid) as default,
    pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname) as sequence
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
where c.oid = any (%s)
order by c.relname, a.attnum
"""

KEYS = """
select
    c.relname::text as table, o.conname::text as name, o.contype::text as kind,
    (
        select array_agg(a.attname::text order by k.place) from unnest(o.conkey) with ordinality as k (number, place)
        inner join pg_attribute as a on a.attrelid = o.conrelid and a.attnum = k.number
    ) as columns,
    pg_get_constraintdef(o.oid) as definition, o.convalidated as is_valid
from pg_constraint as o inner join pg_class as c on c.oid = o.conrelid
where o.conrelid = any (%(oids)s) and o.contype in ('p', 'u', 'f', 'c', 'x')
union all
select
    c.relname::text, k.relname::text, 'i',
    (
        select array_agg(pg_get_indexdef(i.indexrelid, g.place, true) order by g.place)
        from generate_series(1, i.indnkeyatts) as g (place)
    ),
    pg_get_indexdef(i.indexrelid), i.indisvalid
from pg_index as i
inner join pg_class as c on c.oid = i.indrelid
inner join pg_class as k on k.oid = i.indexrelid
where i.indrelid = any (%(oids)s) and i.indisunique
    and not exists (select from pg_constraint as o where o.conindid = i.indexrelid and o.contype in ('p', 'u', 'x'))
order by 1, 3, 2
"""

REFERENCES = """
select
    o.conrelid::regclass::text as table, o.conname::text as name,
    (
        select array_agg(a.attname::text order by k.place) from unnest(o.conkey) with ordinality as k (number, place)
        inner join pg_attribute as a on a.attrelid = o.conrelid and a.attnum = k.number
    ) as columns,
    t.relname::text as target, o.conrelid = any (%(oids)s) as is_ours,
    case o.confdeltype
        when 'c' then 'cascade' when 'n' then 'set null' when 'd' then 'set default' when 'r' then 'restrict'
        else 'no action'
    end as on_delete
from pg_constraint as o inner join pg_class as t on t.oid = o.confrelid
where o.contype = 'f' and o.confrelid = any (%(oids)s) and o.conparentid = 0
order by 1, 2
"""

DEPENDENTS = """
select distinct
    v.oid::regclass::text as object, case v.relkind when 'm' then 'materialized view' else 'view' end as kind,
    c.relname::text as table
from pg_depend as d
inner join pg_rewrite as r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
inner join pg_class as v on v.oid = r.ev_class
inner join pg_class as c on c.oid = d.refobjid and d.refclassid = 'pg_class'::regclass
where d.refobjid = any (%(oids)s) and v.oid <> c.oid
union all
select t.tgname::text, 'trigger', c.relname::text
from pg_trigger as t inner join pg_class as c on c.oid = t.tgrelid
where t.tgrelid = any (%(oids)s) and not t.tgisinternal
union all
select r.rulename::text, 'rule', c.relname::text
from pg_rewrite as r inner join pg_class as c on c.oid = r.ev_class
where r.ev_class = any (%(oids)s)
union all
select p.polname::text, 'policy', c.relname::text
from pg_policy as p inner join pg_class as c on c.oid = p.polrelid
where p.polrelid = any (%(oids)s)
union all
select p.pubname::text, 'publication', c.relname::text
from pg_publication_rel as r
inner join pg_publication as p on p.oid = r.prpubid
inner join pg_class as c on c.oid = r.prrelid
where r.prrelid = any (%(oids)s)
union all
select i.inhrelid::regclass::text, 'child table', c.relname::text
from pg_inherits as i inner join pg_class as c on c.oid = i.inhparent
where i.inhparent = any (%(oids)s)
order by 3, 2, 1
"""


@dataclass(frozen=True)
class Column:
    """A column of the site."""

    table: str
    name: str
    position: int
    type: str
    is_required: bool
    identity: str  # of pg_attribute.attidentity; empty: none
    default: str | None
    sequence: str | None  # that gives its numbers, serial or identity


@dataclass(frozen=True)
class Key:
    """A constraint of one of our tables, or a unique index that belongs to none."""

    table: str
    name: str
    kind: str  # of pg_constraint.contype: p u f c x; i: an index
    columns: list[str] | None  # of an index the expressions, as PostgreSQL prints them
    definition: str
    is_valid: bool


@dataclass(frozen=True)
class Reference:
    """A foreign key that points at one of our tables."""

    table: str  # that refers, with its schema
    name: str
    columns: list[str]
    target: str
    is_ours: bool  # the referring table is one of ours
    on_delete: str


@dataclass(frozen=True)
class Dependent:
    """An object that depends on one of our tables, or is attached to it."""

    object: str
    kind: str  # view, materialized view, trigger, rule, policy, publication, child table
    table: str


@dataclass(frozen=True)
class Sequence:
    """The sequence of a column against the numbers that are in use."""

    table: str
    column: str
    name: str
    next: int  # the number that it gives next
    largest: int  # of the column; 0: no rows
    last: int  # the largest number that it can give

    @property
    def is_used_up(self) -> bool:
        """Return whether it can give no number any more."""
        return max(self.next - 1, self.largest) >= self.last

    @property
    def is_behind(self) -> bool:
        """Return whether it will give a number that is taken."""
        return self.next <= self.largest


@dataclass(frozen=True)
class Table:
    """One of our tables as the site has it."""

    name: str
    oid: int
    bytes: int  # with its indexes
    columns: dict[str, Column]
    keys: list[Key]


@dataclass(frozen=True)
class Site:
    """A Django site's part that Rollbook replicates: those of our tables that are there, in our order."""

    schema: str
    tables: dict[str, Table]
    references: list[Reference]
    dependents: list[Dependent]
    sequences: list[Sequence]

    def name(self, table: str) -> sql.Identifier:
        """Return the name of one of its tables for a statement."""
        return sql.Identifier(self.schema, table)


def our_tables() -> list[str]:
    """Return the names of the portal's tables, referred ones first, as revision 0001 makes them."""
    return [re.findall(r"create table portal\.(\w+)", text)[0] for text in definitions()]


def find_site(conn: Conn, schema: str | None) -> str:
    """Return the schema of the site: the one named, or the only one that has Django's users.

    Raises UsageError where several have, RefusedError where none has.
    """
    found = conn.execute(SITES).fetchall()
    names = [str(row["schema"]) for row in found]
    if schema is not None and schema in names:
        return schema
    if schema is not None:
        why = f"the schemas with such a table: {', '.join(names)}" if names else None
        raise RefusedError(f"schema {schema} has no Django table auth_user", why=why, fix="name the site with --from")
    migrated = [str(row["schema"]) for row in found if row["is_django"]]
    candidates = migrated or names
    if not candidates:
        raise RefusedError(
            "there is no Django site in this database", why="no schema has a table auth_user with Django's columns",
            fix="python manage.py migrate, or rollbook schema upgrade for a portal without Django",
        )  # fmt: skip
    if len(candidates) > 1:
        raise UsageError(
            f"several schemas have a Django site: {', '.join(candidates)}",
            fix=f"name one, such as: --from {quoted(candidates[0])}",
        )
    return candidates[0]


def read_site(conn: Conn, schema: str) -> Site:
    """Return what the catalog has of the site in a schema. Takes ACCESS SHARE for the largest id of each table."""
    tables = conn.execute(TABLES, {"schema": schema, "tables": our_tables()}).fetchall()
    oids = [row["oid"] for row in tables]
    columns = typed(Column, conn, COLUMNS, [oids])
    keys = typed(Key, conn, KEYS, {"oids": oids})
    return Site(
        schema,
        {
            row["name"]: Table(
                **row,
                columns={each.name: each for each in columns if each.table == row["name"]},
                keys=[each for each in keys if each.table == row["name"]],
            )
            for row in tables
        },
        typed(Reference, conn, REFERENCES, {"oids": oids}),
        typed(Dependent, conn, DEPENDENTS, {"oids": oids}),
        [read_sequence(conn, schema, column, column.sequence) for column in columns if column.sequence],
    )


def read_sequence(conn: Conn, schema: str, column: Column, name: str) -> Sequence:
    """Return a sequence, and the largest number that is in use."""
    parts = one(conn, "select parse_ident(%s) as parts", [name])["parts"]
    query = sql.SQL("""
        select
            s.last_value + case when s.is_called then 1 else 0 end as next,
            coalesce((select max({column}) from {table}), 0) as largest,
            (select q.seqmax from pg_sequence as q where q.seqrelid = to_regclass({name})) as last
        from {sequence} as s""")
    row = one(
        conn,
        query.format(
            column=sql.Identifier(column.name),
            table=sql.Identifier(schema, column.table),
            sequence=sql.Identifier(*parts),
            name=name,
        ),
    )
    return Sequence(column.table, column.name, name, row["next"], row["largest"], row["last"])
