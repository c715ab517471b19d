"""Declaring a shape in a database: checking it against the tables, and rendering the SQL that depends on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import errors

from rollbook.core.errors import RefusedError
from rollbook.core.migrating import SQL, object_files, places, rendered
from rollbook.core.rows import nearest, one, typed
from rollbook.core.shape import DEFAULT_COURSE, Shape, Table, name, of, recorded, shaped
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    from rollbook.core.db import Conn

ATTRIBUTES = """
select
    a.attname::text as name, format_type(a.atttypid, null) as type, y.typcategory = 'S' as is_text,
    format_type(coalesce(nullif(case when y.typcategory = 'A' then y.typelem else y.typbasetype end, 0), y.oid), null)
        as base,  -- of an array its elements, of a domain what it is made of: that are compared
    a.atttypid = any ('{int2,int4,int8}'::regtype[]) as is_integer,
    a.attnotnull as is_not_null, a.attnotnull and exists (
        select from pg_index as i
        where i.indrelid = a.attrelid and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null
            and i.indnkeyatts = 1 and i.indkey[0] = a.attnum
    ) as is_key
from pg_attribute as a
inner join pg_type as y on y.oid = a.atttypid
where a.attnum > 0 and not a.attisdropped and a.attrelid = coalesce((
    select d.refobjid  -- the table under the view of a site that was adopted in place
    from pg_rewrite as r
    inner join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    inner join pg_class as t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid and t.relkind in ('r', 'p')
    where r.ev_class = to_regclass(%(relation)s)
    limit 1
), to_regclass(%(relation)s))
order by a.attnum
"""

# Triggers see the rows of a plain table alone; a view of schema portal is on the table of a site adopted in place.
RELATION = """
select
    c.relkind::text as kind,
    c.relispartition or exists (select from pg_inherits as i where c.oid in (i.inhparent, i.inhrelid)) as is_inherited
from pg_class as c where c.oid = to_regclass(%s)
"""
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}
QUOTES = re.compile(r"\$(?:query)?\$")  # what the SQL that is rendered from a shape is quoted with

WRITE = """
insert into rollbook.shape_table (
    role, relation, table_name, key_column, user_column, course_column, condition, course_type, columns
) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

STALE = """
select format('drop trigger %%I on %%s', t.tgname, t.tgrelid::regclass) as statement
from pg_trigger as t
inner join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = 'rollbook'::regnamespace
where not t.tgisinternal and t.tgrelid = any (%s::regclass[]) and p.proname = any (%s)
"""


@dataclass(frozen=True)
class Attribute:
    """A column of a table that is to be copied."""

    name: str
    type: str
    base: str  # the type that is compared: of an array that of its elements
    is_text: bool
    is_integer: bool
    is_not_null: bool
    is_key: bool  # unique and not null


def check(conn: Conn, shape: Shape) -> Shape:
    """Return the shape as it is declared: with canonical condition and types. Raises RefusedError."""
    return replace(shape, tables=tuple(checked(conn, table) for table in shape.tables))


def check_first(conn: Conn, shape: Shape) -> Shape:
    """Check a shape for a database without courses, with what new courses leave out. Raises RefusedError."""
    for course, columns in shape.without.items():
        if course != DEFAULT_COURSE:
            raise RefusedError(
                f"[without] names course {course}", why="there are no courses yet",
                fix="leave only default there; when the course exists: rollbook shape apply FILE",
            )  # fmt: skip
        for column in columns:
            found = [
                table for table in shape.tables
                if column in (*table.columns, *(f"{table.name}.{each}" for each in table.columns))
            ]  # fmt: skip
            if len(found) != 1 or column.removeprefix(f"{found[0].name}.") in found[0].keys:
                raise RefusedError(
                    f"[without] default names {column}", why="it is a key, or not a column that one table copies",
                    fix="name copied columns; write TABLE.COLUMN where two tables have the name",
                )  # fmt: skip
    return check(conn, shape)


def checked(conn: Conn, table: Table) -> Table:
    """Check one table of a shape against the database."""
    found = {each.name: each for each in typed(Attribute, conn, ATTRIBUTES, {"relation": table.relation})}
    if not found:
        raise RefusedError(f"there is no table {table.relation}", fix=f"correct [{table.role}] table")
    refuse_relation(conn, table)
    for column in table.columns:
        if column not in found:
            raise RefusedError(
                f"{table.relation} has no column {column}", why=nearest(column, found),
                fix=f"its columns are {', '.join(found)}",
            )  # fmt: skip
        refuse_quotes(f"the name {column}", column)
        refuse_type(conn, table, found[column])
    if not found[table.key].is_integer or not found[table.key].is_key:
        raise RefusedError(
            f"{table.relation}.{table.key} cannot be the key", why="it is not an integer, unique and not null",
            fix="name a column that is",
        )  # fmt: skip
    if not found[table.person].is_integer:
        raise RefusedError(
            f"{table.relation}.{table.person} cannot hold a person's key", why=f"it is {found[table.person].type}",
            fix="name the integer column with the person's key",
        )  # fmt: skip
    if table.course is not None and not (found[table.course].is_text or found[table.course].is_integer):
        raise RefusedError(
            f"{table.relation}.{table.course} cannot hold a course's ID", why=f"it is {found[table.course].type}",
            fix="name a column that is a text or an integer",
        )  # fmt: skip
    for column in table.keys:
        if not found[column].is_not_null:
            raise RefusedError(
                f"{table.relation}.{column} can be null: such a row is nobody's, or of no course",
                fix=f"in psql: alter table {table.relation} alter column {name(column)} set not null;",
            )
    if table.course is None:
        return table
    course = found[table.course]
    condition = None if table.condition is None else canonical(conn, table.relation, table.condition)
    return replace(table, condition=condition, course_type="text" if course.is_text else course.type)


def refuse_relation(conn: Conn, table: Table) -> None:
    """Raise RefusedError for a relation whose rows change without its triggers."""
    row = one(conn, RELATION, [table.relation])
    why = None
    if row["kind"] != "r" and not (row["kind"] == "v" and table.name in places(conn)):
        why = f"it is {KINDS.get(row['kind'], 'not a table')}: triggers see the rows of a plain table alone"
    elif row["is_inherited"]:
        why = "it inherits or has children, whose rows no trigger sees"
    if why:
        raise RefusedError(
            f"{table.relation} cannot be copied", why=why,
            fix="name a plain table; triggers of yours can keep one equal to it",
        )  # fmt: skip
    refuse_quotes(f"the name {table.relation}", table.relation)


def refuse_quotes(what: str, words: str) -> None:
    """Raise RefusedError for words that would end the text of a function."""
    if match := QUOTES.search(words):
        raise RefusedError(
            f"{what} cannot be used", why=f"it has {match[0]}, which ends the text of a function",
            fix="rename it; in a condition write chr(36) for the dollar sign",
        )  # fmt: skip


def refuse_type(conn: Conn, table: Table, column: Attribute) -> None:
    """Raise RefusedError for a column whose values cannot be compared: neither routing nor verify could tell them."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(f"select null::{column.base} = null::{column.base}".encode())
    except errors.UndefinedFunction as exc:
        fix = f"let it stay at home: remove it from [{table.role}] columns"
        if column.type == "json":
            fix = f"make it jsonb: alter table {table.relation} alter {name(column.name)} type jsonb; or {fix}"
        raise RefusedError(
            f"{table.relation}.{column.name} cannot travel", why=f"values of type {column.type} cannot be compared",
            fix=fix,
        ) from exc  # fmt: skip


def canonical(conn: Conn, relation: str, condition: str) -> str:
    """Return a condition as PostgreSQL understands it: as of a partial index, it may change by the row alone."""
    words = f"the condition {condition} cannot be used"
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("set local search_path = pg_catalog, pg_temp")
            conn.execute(f"create temporary table rollbook_condition as table {relation} with no data".encode())
            index = f"create index rollbook_condition_index on rollbook_condition ((1)) where {condition}"
            conn.execute(index.encode(), prepare=True)  # prepared: it can be one statement only
            found = one(
                conn,
                "select pg_get_expr(i.indpred, i.indrelid) as condition from pg_index as i "
                "where i.indexrelid = 'pg_temp.rollbook_condition_index'::regclass",
            )["condition"]
    except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as exc:
        raise RefusedError(
            words, why=exc.diag.message_primary,
            fix="write an expression that is true or false by the columns of the row alone, such as: is_active",
        ) from exc  # fmt: skip
    if found is None:
        raise RefusedError(words, why="it is not an expression", fix="write one such as: is_active")
    refuse_quotes(words.removesuffix(" cannot be used"), str(found))
    return str(found)


def declare(conn: Conn, shape: Shape) -> None:
    """Record a shape that was checked, and render functions, triggers and rights from it, in the caller's transaction.

    Locks SHARE ROW EXCLUSIVE on the tables that are copied: writers drain before it and wait until the commit. Other
    tables, keys or roles can be declared only while there are no courses.
    """
    old = of(conn)
    is_other = identity(old) != identity(shape)
    if is_other and (row := conn.execute("select course_id from rollbook.course limit 1").fetchone()):
        raise RefusedError(
            "the tables and keys of the shape cannot change while there are courses",
            why=f"there is course {row['course_id']}", fix="delete each of them: "
            f"rollbook course delete {quoted(row['course_id'])} --confirm {quoted(row['course_id'])}",
        )  # fmt: skip
    for relation in sorted({table.relation for table in (*old.tables, *shape.tables)}):
        conn.execute(f"lock table {relation} in share row exclusive mode".encode())
    conn.execute("delete from rollbook.shape_table")
    for table in shape.tables:
        conn.execute(WRITE, [*recorded(table), list(table.columns)])  # fmt: skip
    where = places(conn)
    paths = object_files(SQL)
    conn.execute("set local check_function_bodies = off")
    if is_other:
        withdraw(conn, old)
    for path in paths:
        text = path.read_text()
        if is_other or path.name == "grants.sql" or shaped(text, shape) != text:
            conn.execute(rendered(text, shape, where).encode())


def identity(shape: Shape) -> list[tuple[object, ...]]:
    """Return what cannot change under courses."""
    return [(table.role, table.relation, table.key, table.person, table.course) for table in shape.tables]


def withdraw(conn: Conn, old: Shape) -> None:
    """Drop what is rendered from a shape whose tables are others now: triggers, functions, and the views on them."""
    own = [path.stem for path in SQL.glob("triggers/*.sql") if ":" + "person" in path.read_text()]
    own += [path.stem for path in SQL.glob("triggers/route_*.sql")]
    relations = [table.relation for table in old.tables]
    for row in conn.execute(STALE, [relations, own]).fetchall():
        conn.execute(row["statement"].encode())
    for relation in relations:
        conn.execute(f"drop policy if exists rollbook_reads on {relation}".encode())
        conn.execute(f"revoke select on {relation} from rollbook_owner".encode())  # noqa: S608
    for path in SQL.glob("views/*.sql"):
        conn.execute(f"drop view if exists rollbook.{path.stem} cascade".encode())
    for row in conn.execute(
        "select p.oid::regprocedure::text as name from pg_proc as p where p.pronamespace = 'rollbook'::regnamespace "
        "and p.proname = any (%s)", [[path.stem for path in SQL.glob("functions/shape/*.sql")]]
    ).fetchall():  # fmt: skip
        conn.execute(f"drop function {row['name']} cascade".encode())
