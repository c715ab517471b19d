"""What the tables of a site lack to be the portal's, as steps that can be undone; and what no step can overcome.

It is what `schema check` would report of them, so that a check after an adoption finds nothing. Steps are computed from
the catalog each time: an adoption that was stopped goes on with what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.db import revision
from rollbook.core.rows import one, typed
from rollbook.system.portal_tables import (
    ADOPTION,
    INTEGERS,
    Change,
    Column,
    Rule,
    Tables,
    bare,
    compare,
    definitions,
    meaning,
    named,
    names,
    read,
    refer,
    width,
)

if TYPE_CHECKING:
    from rollbook.core.db import Conn

SHORT = "ACCESS EXCLUSIVE, short"
REWRITE = "ACCESS EXCLUSIVE while the table is rewritten"
READ = "SHARE UPDATE EXCLUSIVE while the table is read: nobody waits"
BOTH = "SHARE ROW EXCLUSIVE on both tables, short"

# Sequences of a column, owned or not, whose next value is taken.
BEHIND = """
select distinct a.attname::text as column, s.oid::regclass::text as sequence, s.relname::text as name
from pg_attribute as a
left join pg_attrdef as e on e.adrelid = a.attrelid and e.adnum = a.attnum
inner join pg_depend as d
    on d.classid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
    and d.deptype in ('a', 'i')
    or d.classid = 'pg_attrdef'::regclass and d.objid = e.oid and d.refclassid = 'pg_class'::regclass
inner join pg_class as s on s.relkind = 'S' and s.oid in (d.objid, d.refobjid)
where a.attrelid = to_regclass(%s) and a.attnum > 0
"""

TAKEN = """
select c.relname::text as name from pg_class as c where c.relnamespace = to_regnamespace(%(schema)s)
union
select o.conname from pg_constraint as o inner join pg_class as c on c.oid = o.conrelid
where c.relnamespace = to_regnamespace(%(schema)s) and c.relname = any (%(names)s)
"""

# Our tables in a schema, of whatever kind.
KINDS = """
select
    c.oid::regclass::text as place, c.relname::text as name, c.relkind::text as kind,
    c.relowner::regrole::text as owner,
    pg_has_role(c.relowner, 'usage') as is_ours, c.relforcerowsecurity as is_forced,
    exists (select from pg_inherits as i where c.oid in (i.inhparent, i.inhrelid)) as is_inherited,
    (select r.rolsuper from pg_roles as r where r.rolname = current_user) as is_super
from pg_class as c
where c.relnamespace = to_regnamespace(%(schema)s) and c.relname = any (%(names)s) and c.relkind <> 'i'
order by array_position(%(names)s, c.relname::text)
"""

# What SET SCHEMA takes along, or a view needs, against what schema portal holds.
CLASHES = """
with moving as (
    select c.oid, c.relname, c.relkind from pg_class as c
    where c.relnamespace = to_regnamespace(%(schema)s) and c.relname = any (%(names)s) and c.relkind in ('r', 'p')
),
named (name) as (
    select unnest(%(names)s)
    union
    select k.relname::text from moving as m
    inner join pg_index as i on i.indrelid = m.oid inner join pg_class as k on k.oid = i.indexrelid
    where %(moves)s
    union
    select s.relname::text from moving as m
    inner join pg_depend as d on d.refobjid = m.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    inner join pg_class as s on s.oid = d.objid and s.relkind = 'S'
    where %(moves)s
)
select c.oid::regclass::text as place, c.relname::text as name,
    case c.relkind when 'v' then 'view' when 'i' then 'index' when 'S' then 'sequence' else 'table' end as kind
from pg_class as c inner join named as n on n.name = c.relname::text
where c.relnamespace = to_regnamespace('portal') order by 2
"""

VIEWS = """
select string_agg(distinct v.oid::regclass::text, ', ') as names
from pg_depend as d
inner join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
inner join pg_class as v on v.oid = r.ev_class
inner join pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where d.refobjid = to_regclass(%s) and a.attname = %s
"""

RIGHTS = """
select
    pg_backend_pid() as pid, quote_ident(current_user) as role, quote_ident(current_database()) as database,
    has_database_privilege(current_database(), 'create') as may_create,
    to_regnamespace('portal') is null or has_schema_privilege('portal', 'create') as may_portal,
    has_schema_privilege('public', 'create') as may_public,
    r.rolsuper or r.rolcreaterole as may_make_roles,
    array(
        select w from unnest(%s::text[]) as w where not exists (select from pg_roles as e where e.rolname = w)
    ) as missing_roles,
    r.rolsuper or not exists (
        select from pg_roles as e
        where e.rolname in ('rollbook_owner', 'rollbook_writer')
            and not case when current_setting('server_version_num')::integer < 160000
                then r.rolcreaterole or pg_has_role(e.oid, 'member')
                else pg_has_role(e.oid, 'set') or pg_has_role(e.oid, 'member with admin option') end
    ) as may_act,
    to_regnamespace('rollbook') is not null as is_installed,
    to_regclass('public.rollbook_adoption') is not null as has_begun,
    -- The portal of revision 0001 has expiry dates; tables that somebody moved there and stamped have none.
    to_regnamespace('rollbook') is null and to_regclass('public.rollbook_adoption') is null
    and to_regclass('portal.auth_user') is not null and not exists (
        select from pg_attribute as a
        where a.attrelid = to_regclass('portal.auth_registration') and a.attname = 'expires_at' and not a.attisdropped
    ) as is_only_recorded
from pg_roles as r where r.rolname = current_user
"""
ROLES = [
    "rollbook_owner", "rollbook_writer", "rollbook_monitor", "rollbook_operator", "rollbook_application",
    "rollbook_relay",
]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One change of the site's tables."""

    name: str  # in words, unique in an adoption
    table: str  # without schema
    do: str
    undo: str | None  # None: nothing to undo
    lock: str  # the strongest lock that it takes, and how long
    is_online: bool  # done in a transaction of its own, before the move


@dataclass(frozen=True)
class Blocked:
    """What stops an adoption before it begins."""

    object: str
    reason: str
    fix: str | None


@dataclass(frozen=True)
class Kind:
    """A relation of the site that has the name of one of our tables."""

    place: str
    name: str
    kind: str  # of pg_class.relkind
    owner: str
    is_ours: bool
    is_forced: bool
    is_inherited: bool
    is_super: bool


def spelled(conn: Conn, name: str) -> str:
    """Return a name as PostgreSQL prints it."""
    return str(one(conn, "select quote_ident(%s) as name", [name])["name"])


def places_in(conn: Conn, schema: str) -> dict[str, str]:
    """Return where our tables are in a schema, made or not: name -> the table as PostgreSQL prints it."""
    return {name: f"{spelled(conn, schema)}.{name}" for name in names()}


def structure(conn: Conn, schema: str, *, in_place: bool, widen: bool) -> list[Step]:  # noqa: ARG001 (of both kinds)
    """Return what the tables lack, in the order in which it is done."""
    tables = read(conn, places_in(conn, schema))
    changes = compare(tables, by_meaning=True)
    query = {"schema": spelled(conn, schema), "names": names()}
    taken = {str(row["name"]) for row in conn.execute(TAKEN, query)}
    made = {each.table for each in changes if each.aspect == "table"}
    steps = [step for name in names() if name in made for step in [new_table(name, tables)]]
    steps += [
        step for change in changes if change.aspect not in ("table", "rule") for step in column_steps(change, tables)
    ]
    steps += [step for column in tables.columns for step in own_default(conn, column, tables)]
    if widen:
        steps += [step for column in tables.columns for step in widen_steps(column, tables)]
    steps += [step for change in changes if change.rule for step in rule_steps(change, tables, taken)]
    steps += [step for name, place in tables.places.items() if name not in made for step in behind(conn, name, place)]
    return sorted(steps, key=lambda step: not step.is_online)  # stable


def new_table(name: str, tables: Tables) -> Step:
    """Return the step that makes a table that the site never had."""
    (text,) = (text for text in definitions() if text.startswith(f"\ncreate table portal.{name} "))
    place = tables.places[name]
    schema = place.removesuffix(name)
    do = text.strip().rstrip(";").replace("portal.", schema)
    # It is Rollbook's own; with rows that came since it stays.
    undo = f"do $$ begin if not exists (select from {place}) then drop table {place}; end if; end $$"
    return Step(f"table {name}", name, do, undo, BOTH, True)


def column_steps(change: Change, tables: Tables) -> Iterator[Step]:
    """Return the steps for one column."""
    due, there = change.column, change.there
    if due is None or change.fix is None:
        return
    alter = f"alter table {tables.places[due.table]}"
    column = f"{alter} alter column {due.name}"
    label = f"{due.table}.{due.name}"
    if change.aspect == "column":
        lock = REWRITE if "random" in (due.default or "") else SHORT
        yield Step(f"column {label}", due.table, change.fix, f"{alter} drop column if exists {due.name}", lock, True)
    elif change.aspect == "type" and isinstance(there, Column) and can_change(there, due):
        undo = f"{column} type {there.type}"
        yield Step(f"type of {label}", due.table, change.fix, undo, SHORT, True)
    elif change.aspect == "null" and due.is_required:
        check = f"rollbook_{due.name}_given"
        add = f"add constraint {check} check ({due.name} is not null) not valid"
        drop = f"drop constraint if exists {check}"
        yield Step(f"rule that {label} is given", due.table, f"{alter} {drop}, {add}", f"{alter} {drop}", SHORT, True)
        yield Step(f"proof that {label} is given", due.table, f"{alter} validate constraint {check}", None, READ, True)
        do = f"{alter} alter column {due.name} set not null, {drop}"
        yield Step(f"not null of {label}", due.table, do, f"{column} drop not null", SHORT, True)
    elif change.aspect == "null":
        yield Step(f"null in {label}", due.table, change.fix, f"{column} set not null", SHORT, True)
    elif change.aspect == "identity":
        do = f"{change.fix}; {advance(tables.places[due.table], due.name)}"
        yield Step(f"identity of {label}", due.table, do, f"{column} drop identity if exists", SHORT, True)
    elif change.aspect == "default":
        yield Step(f"default of {label}", due.table, change.fix, f"{column} drop default", SHORT, False)


# What a row that Rollbook makes has in a column of the site's own: the value that says least.
EMPTY = {
    "boolean": "false", "text": "''", "integer": "0", "bigint": "0", "smallint": "0", "numeric": "0", "jsonb": "'{}'",
    "double precision": "0", "timestamp with time zone": "now()", "date": "current_date",
}  # fmt: skip
REFERS = """
select exists (
    select from pg_constraint as f inner join pg_attribute as a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
    where f.contype = 'f' and f.conrelid = to_regclass(%s) and a.attname = %s
) as found
"""


def own_default(conn: Conn, column: Column, tables: Tables) -> Iterator[Step]:
    """Return the step that gives a required column of the site's own a default: Django gives its values itself."""
    shipped = {(each.table, each.name) for each in tables.columns if each.is_shipped}
    is_own = not column.is_shipped and (column.table, column.name) not in shipped
    if not is_own or not column.is_required or column.default or column.identity or column.is_generated:
        return
    base = "text" if width(column.type) else column.type.split("(")[0]
    value = "true" if column.name == "is_active" and base == "boolean" else EMPTY.get(base)
    place = tables.places[column.table]
    if value is None or one(conn, REFERS, [place, column.name])["found"]:
        return
    alter = f"alter table {place} alter column {sql.Identifier(column.name).as_string()}"
    name = f"default of {column.table}.{column.name}"
    yield Step(name, column.table, f"{alter} set default {value}", f"{alter} drop default", SHORT, False)


def advance(place: str, column: str, sequence: str | None = None) -> str:
    """Return the statement that lets a sequence give the number after the largest one that is in use."""
    found = f"pg_get_serial_sequence({literal(place)}, {literal(column)})" if sequence is None else literal(sequence)
    return f"select setval({found}, coalesce(max({column}), 1), max({column}) is not null) from {place}"  # noqa: S608


def literal(text: str) -> str:
    """Return a text as SQL."""
    return sql.Literal(text).as_string()


def behind(conn: Conn, name: str, place: str) -> Iterator[Step]:
    """Return the steps for sequences whose next number is taken."""
    for row in conn.execute(BEHIND, [place]).fetchall():
        column = sql.Identifier(row["column"])
        query = sql.SQL("select s.last_value + s.is_called::integer <= (select max({}) from {}) as found from {} as s")
        place_of = sql.SQL(place), sql.SQL(row["sequence"])  # pyright: ignore[reportArgumentType]  # as PostgreSQL prints them
        if one(conn, query.format(column, *place_of))["found"]:
            do = advance(place, row["column"], row["sequence"])
            yield Step(f"next number of {name}.{row['column']}", name, do, None, "none", True)


def can_change(there: Column, due: Column) -> bool:
    """Return whether a type is made wider without a loss and without a rewrite: texts, and small integers."""
    if there.is_generated or there.is_fuzzy:
        return False
    return (width(there.type) is not None and width(due.type) is not None) or (
        there.type in INTEGERS and due.type in INTEGERS
    )


def widen_steps(column: Column, tables: Tables) -> Iterator[Step]:
    """Return the steps with which ids become bigint."""
    shipped = {(each.table, each.name): each for each in tables.columns if each.is_shipped}
    due = shipped.get((column.table, column.name))
    if column.is_shipped or due is None or due.type != "bigint" or column.type not in ("integer", "smallint"):
        return
    place = tables.places[column.table]
    do = f"alter table {place} alter column {column.name} type bigint"
    if column.counts and not column.identity:
        do += (
            "; do $$ begin execute format('alter sequence %s as bigint', "
            f"pg_get_serial_sequence({literal(place)}, {literal(column.name)})); end $$"
        )
    yield Step(f"bigint {column.table}.{column.name}", column.table, do, None, REWRITE, True)


def rule_steps(change: Change, tables: Tables, taken: set[str]) -> Iterator[Step]:
    """Return the steps for one key, check or index."""
    due, there = change.rule, change.there if isinstance(change.there, Rule) else None
    assert due is not None  # noqa: S101 (a change of a rule)
    place = tables.places[due.table]
    schema = place.removesuffix(due.table)
    name = due.name if due.name not in taken else f"{due.name[:54]}_rollbook"
    alter = f"alter table {place}"
    drop = f"{alter} drop constraint if exists {name}"
    label = f"{due.name} on {due.table}"
    if due.kind == "index" or due.key:
        if there is not None and not there.is_valid and there.kind == "index":  # of an adoption that was killed
            name = named(there)
            left = f"drop index concurrently if exists {schema}{name}"
            yield Step(f"what is left of {there.name}", due.table, left, None, READ, True)
        unique = "unique " if due.key or due.definition.startswith("CREATE UNIQUE") else ""
        build = f"create {unique}index concurrently if not exists {name} on {place} "
        build += f"({', '.join(columns_of(due))})" if due.key else "using " + due.definition.split(" USING ", 1)[1]
        yield Step(f"index {label}", due.table, build, f"drop index if exists {schema}{name}", READ, True)
        if due.definition.startswith("PRIMARY KEY"):
            do = f"{alter} add constraint {name} primary key using index {name}"
            yield Step(f"key {label}", due.table, do, drop, SHORT, True)
        return
    definition = refer(bare(due.definition), tables.places)
    if there is not None and not there.is_valid and meaning(there.definition) == meaning(due.definition):
        name = sql.Identifier(there.name).as_string()
    elif there is not None and due.definition.startswith("FOREIGN KEY"):
        yield replaced(there, due, definition, alter)
        name = sql.Identifier(there.name).as_string()
    else:
        lock = BOTH if due.definition.startswith("FOREIGN KEY") else SHORT
        yield Step(
            f"rule {label}", due.table, f"{alter} add constraint {name} {definition} not valid", drop, lock, True
        )
    yield Step(f"proof of {label}", due.table, f"{alter} validate constraint {name}", None, READ, True)


def columns_of(due: Rule) -> list[str]:
    """Return the columns of a key in its own order."""
    return due.definition.split("(", 1)[1].rstrip(")").split(", ")


def replaced(there: Rule, due: Rule, definition: str, alter: str) -> Step:
    """Return the step that makes a foreign key of the site cascade; name and deferral stay."""
    name = sql.Identifier(there.name).as_string()
    deferral = there.definition[there.definition.find(" DEFERRABLE") :] if " DEFERRABLE" in there.definition else ""
    deferral = deferral.removesuffix(" NOT VALID")
    do = f"{alter} drop constraint {name}, add constraint {name} {definition}{deferral} not valid"
    undo = f"{alter} drop constraint {name}, add constraint {name} {there.definition.removesuffix(' NOT VALID')}"
    return Step(f"cascade of {there.name} on {due.table}", due.table, do, undo, "ACCESS EXCLUSIVE on both, short", True)


def blocked(conn: Conn, schema: str, *, in_place: bool = False, widen: bool = False) -> list[Blocked]:
    """Return what no step can overcome; empty: the site can be adopted."""
    return [
        *blocked_session(conn), *blocked_tables(conn, schema, in_place=in_place),
        *blocked_columns(conn, schema, widen=widen), *blocked_names(conn, schema, in_place=in_place),
    ]  # fmt: skip


def blocked_session(conn: Conn) -> Iterator[Blocked]:
    """Find what is wrong with the session, the role and the database."""
    row = one(conn, RIGHTS, [ROLES])
    if row["pid"] != conn.info.backend_pid:
        reason = "a pooler, such as PgBouncer, is in between: another client may get this session and its locks"
        yield Blocked("the session", reason, "connect to PostgreSQL itself, at its own host and port: -d CONNINFO")
    if row["is_only_recorded"] and revision(conn):
        reason = "public.rollbook_revision records a portal of Rollbook's, but the tables in schema portal are Django's"
        yield Blocked(f"database {row['database']}", reason, "drop table public.rollbook_revision;")
    elif (row["is_installed"] or revision(conn)) and not row["has_begun"]:
        people = rows_of_portal(conn)
        reason = f"Rollbook is installed in this database: it has a portal of its own, with {people} accounts"
        fix = "adopt the site in another database" if people else "rollbook schema downgrade --to base"
        yield Blocked(f"database {row['database']}", reason, fix)
    if not row["may_create"]:
        fix = f"grant create on database {row['database']} to {row['role']};"
        yield Blocked(f"role {row['role']}", "it may not create schemas in this database", fix)
    if not row["may_public"]:
        fix = f"grant create on schema public to {row['role']};"
        yield Blocked(f"role {row['role']}", "it may not create tables in schema public", fix)
    if not row["may_act"] or (row["missing_roles"] and not row["may_make_roles"]):
        reason = "it may not create Rollbook's roles, or not act for those that are there"
        made = "".join(f"create role {name} nologin; " for name in row["missing_roles"])
        made += "grant rollbook_monitor to rollbook_operator; " if made else ""
        yield Blocked(f"role {row['role']}", reason, f"{made}grant rollbook_owner, rollbook_writer to {row['role']};")
    if not row["may_portal"]:
        fix = f"grant create, usage on schema portal to {row['role']};"
        yield Blocked(f"role {row['role']}", "it may not create objects in schema portal, which exists", fix)


def rows_of_portal(conn: Conn) -> int:
    """Return the accounts of a portal that is there already."""
    if one(conn, "select to_regclass('portal.auth_user') is null as missing")["missing"]:
        return 0
    return int(one(conn, "select count(*) as people from portal.auth_user")["people"])


WRONG_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}


def blocked_tables(conn: Conn, schema: str, *, in_place: bool) -> Iterator[Blocked]:
    """Find relations that cannot be a table of the portal."""
    query = {"schema": spelled(conn, schema), "names": names()}
    found = typed(Kind, conn, KINDS, query)
    if "auth_user" not in {each.name for each in found}:
        yield Blocked(f"schema {query['schema']}", "it has no table auth_user", "name the site's schema with --from")
    for each in found:
        if each.kind != "r":
            reason = f"it is {WRONG_KINDS.get(each.kind, 'not a table')}: routing needs a plain table"
            yield Blocked(each.place, reason, f"alter table {each.place} rename to {each.name}_of_site;")
        elif each.is_inherited:
            yield Blocked(each.place, "it inherits or has children, whose rows no trigger sees", "end the inheritance")
        elif not each.is_ours:
            yield Blocked(each.place, f"it belongs to {each.owner}", f"grant {each.owner} to current_user;")
        elif in_place and each.is_forced and not each.is_super:
            reason = "it forces row security on its owner, so that the views would hide rows from Rollbook"
            yield Blocked(each.place, reason, f"alter table {each.place} no force row level security;")


def blocked_columns(conn: Conn, schema: str, *, widen: bool) -> Iterator[Blocked]:
    """Find columns of a type that cannot be the portal's, and primary keys that are others."""
    tables = read(conn, places_in(conn, schema))
    for change in compare(tables, by_meaning=True):
        due, there = change.column, change.there
        place = tables.places[change.table]
        if change.aspect == "type" and isinstance(there, Column) and due:
            what = f"{place}.{due.name}"
            if not can_change(there, due):
                why = "generated" if there.is_generated else "compared without case" if there.is_fuzzy else there.type
                yield Blocked(what, f"it is {why}, not {due.type}", convert(place, there, due))
            elif views := one(conn, VIEWS, [place, due.name])["names"]:
                reason = f"it is {there.type}, not {due.type}, and {views} reads it"
                yield Blocked(what, reason, f"change the type yourself, with the view: {due.type}")
        elif change.aspect == "column" and due and due.is_required and not due.default and not due.identity:
            if one(conn, sql.SQL("select exists (select from {}) as found").format(sql.SQL(place)))["found"]:  # pyright: ignore[reportArgumentType]
                yield Blocked(f"{place}.{due.name}", "the column is missing, and each row needs a value of its own",
                              f"add and fill it: alter table {place} add column {due.name} {due.type};")  # fmt: skip
        elif change.rule and change.rule.definition.startswith("PRIMARY KEY"):
            others = [rule.definition for rule in tables.rules if not rule.is_shipped and rule.table == change.table
                      and rule.definition.startswith("PRIMARY KEY")]  # fmt: skip
            if others:
                yield Blocked(place, f"its key is {others[0]}, not id", "make id its primary key")
    if widen:
        for column in tables.columns:
            place = tables.places.get(column.table, "")
            if list(widen_steps(column, tables)) and (views := one(conn, VIEWS, [place, column.name])["names"]):
                yield Blocked(f"{place}.{column.name}", f"{views} reads it, so that its type cannot change",
                              "adopt without --widen: integer ids stay")  # fmt: skip


def convert(place: str, there: Column, due: Column) -> str:
    """Return the statement that changes a type as well as it can be guessed."""
    zone = " at time zone 'UTC'" if there.type.startswith("timestamp") and "with time zone" in due.type else ""
    using = f" using {due.name}{zone}" + ("" if zone else f"::{due.type}")
    return f"alter table {place} alter column {due.name} type {due.type}{using};"


def blocked_names(conn: Conn, schema: str, *, in_place: bool) -> Iterator[Blocked]:
    """Find names that are taken in schema portal, unless Rollbook is there, which is an obstacle of its own."""
    if schema == "portal":
        return
    query = {"schema": spelled(conn, schema), "names": names(), "moves": not in_place}
    is_there: LiteralString = "select to_regclass(%s) is not null or to_regnamespace('rollbook') is not null as found"
    for row in [] if one(conn, is_there, [ADOPTION])["found"] else conn.execute(CLASHES, query).fetchall():
        reason = "schema portal has something of this name already"
        fix = f"alter {row['kind']} {row['place']} rename to {spelled(conn, row['name'] + '_of_site')};"
        yield Blocked(row["place"], reason, fix)
