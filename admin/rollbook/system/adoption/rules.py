"""What a row must be like to be in the portal: read from the tables that revision 0001 makes. A rule stands once.

Each rule is a condition on one row of a table, true where the row breaks it. A column that the site lacks has its
default there, as it will when it is added.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.files import written
from rollbook.core.migrating import SQL
from rollbook.core.rows import Row, typed
from rollbook.system.adoption.repairs import remedy
from rollbook.system.portal_tables import definitions

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.site import Site, Table

COLUMNS = """
select
    c.relname::text as table, a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
    case when a.atttypid = 'varchar'::regtype then a.atttypmod - 4 end as width,
    a.attnotnull and a.attidentity = '' as is_required, pg_get_expr(d.adbin, d.adrelid) as default
from pg_class as c
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = pg_my_temp_schema() and c.relkind = 'r'
order by c.oid, a.attnum
"""

CHECKS = """
select
    c.relname::text as table, pg_get_expr(o.conbin, o.conrelid) as expression,
    (
        select array_agg(a.attname::text order by k.place) from unnest(o.conkey) with ordinality as k (number, place)
        inner join pg_attribute as a on a.attrelid = o.conrelid and a.attnum = k.number
    ) as columns
from pg_constraint as o inner join pg_class as c on c.oid = o.conrelid
where c.relnamespace = pg_my_temp_schema() and o.contype = 'c'
order by c.oid, o.oid
"""

REFERENCES = """
select c.relname::text as table, a.attname::text as column, t.relname::text as target
from pg_constraint as o
inner join pg_class as c on c.oid = o.conrelid
inner join pg_class as t on t.oid = o.confrelid
inner join pg_attribute as a on a.attrelid = o.conrelid and a.attnum = o.conkey[1]
where c.relnamespace = pg_my_temp_schema() and o.contype = 'f'
order by c.oid, o.oid
"""

UNIQUE_KEYS = """
select
    c.relname::text as table, pg_get_expr(i.indpred, i.indrelid) as predicate,
    array_agg(pg_get_indexdef(i.indexrelid, g.place, true) order by g.place) as expressions
from pg_index as i
inner join pg_class as c on c.oid = i.indrelid
cross join lateral generate_series(1, i.indnkeyatts) as g (place)
where c.relnamespace = pg_my_temp_schema() and i.indisunique
group by c.oid, c.relname, i.indexrelid, i.indpred, i.indrelid
order by c.oid, i.indexrelid
"""

# Rows of a site that break a rule: rule (a number), id, value.
FAULTY = """
select r.rule, t.id::bigint as id, r.value, r.together
from {source} as t
cross join lateral (values {rules}) as r (rule, is_broken, value, together)
where r.is_broken
"""

# Rules that concern one column have a name of their own; the others are named by their kind: null, length, orphans,
# duplicates, and exam for those of the test centre.
NAMES = {
    ("auth_user", "username"): "username",
    ("auth_user", "email"): "email-form",
    ("auth_userprofile", "meta"): "meta",
    ("auth_userprofile", "year_of_birth"): "year",
    ("auth_userprofile", "gender"): "gender",
    ("auth_userprofile", "level_of_education"): "level",
    ("auth_registration", "activation_key"): "key",
    ("student_courseenrollment", "course_id"): "course",
    ("student_courseenrollmentallowed", "course_id"): "course",
    ("student_courseenrollmentallowed", "email"): "allowed",
    ("student_usertestgroup", "name"): "group",
    ("student_pendingnamechange", "new_name"): "request",
    ("student_pendingemailchange", "new_email"): "request",
    ("student_pendingemailchange", "activation_key"): "key",
}
# Keys of a value that names a row which must stay: two such rows need two values.
KEYS = {
    ("auth_user", "username"): "taken",
    ("auth_user", "email"): "email",
    ("student_usertestgroup", "name"): "taken",
    ("auth_registration", "activation_key"): "key",
    ("student_pendingemailchange", "activation_key"): "key",
}
SECRETS = ("password", "activation_key")
KINDS = {
    "integer": ("smallint", "integer", "bigint"),
    "text": ("character varying", "text", "character", "citext"),
}


@dataclass(frozen=True)
class DueColumn:
    """A column as revision 0001 makes it."""

    table: str
    name: str
    type: str
    width: int | None  # in characters
    is_required: bool
    default: str | None


@dataclass(frozen=True)
class Due:
    """The tables as revision 0001 makes them."""

    columns: list[DueColumn]
    checks: list[Row]  # table columns expression
    references: list[Row]  # table column target
    keys: list[Row]  # table expressions predicate


KNOWN: dict[int, Due] = {}


@dataclass(frozen=True)
class Rule:
    """A condition on a row of a table."""

    name: str
    table: str
    column: str  # that breaks it; of a key all of them, with a comma
    is_broken: sql.Composable  # true where a row breaks it
    key: sql.Composable | None = None  # of a unique key: what no two rows share


@dataclass(frozen=True)
class Fault:
    """A rule that rows of the site break."""

    rule: str
    table: str
    column: str
    count: int  # rows; of a unique key all that share a value
    first_ids: list[int]
    remedy: str


def code(text: str) -> sql.SQL:
    """Return a piece of a statement that PostgreSQL itself or a shipped file has spelled."""
    return sql.SQL(text)  # pyright: ignore[reportArgumentType]


def kind(type_name: str) -> str:
    """Return what a type's values are for the conditions: those of one kind are read alike."""
    name = type_name.split("(", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]
    return next((kind for kind, names in KINDS.items() if name in names), name)


def read_due(conn: Conn) -> Due:
    """Return the tables of revision 0001: they are made as temporary ones, read and rolled back, once in a process."""
    version = conn.info.server_version  # another one may spell an expression in another way
    if version not in KNOWN:
        with conn.transaction(force_rollback=True):
            for statements in definitions():
                conn.execute(re.sub(r"\bportal\.", "pg_temp.", statements).encode())
            rows = (conn.execute(query).fetchall() for query in (CHECKS, REFERENCES, UNIQUE_KEYS))
            KNOWN[version] = Due(typed(DueColumn, conn, COLUMNS), *rows)
    return KNOWN[version]


def read_rules(conn: Conn, site: Site) -> list[Rule]:
    """Return the rules of the tables that the site has, in the order of the tables."""
    due = read_due(conn)
    rules = [rule for column in due.columns for rule in column_rules(column)]
    rules += [check_rule(conn, number, due, **row) for number, row in enumerate(due.checks)]
    rules.append(Rule("year", "auth_userprofile", "year_of_birth", refused_year()))
    rules += [reference_rule(site, **row) for row in due.references if has_number(site.tables.get(row["target"]))]
    for row in due.keys:
        if row["expressions"] == ["lower(username::text)"]:
            continue  # accounts that differ in case alone stay, and are a note of the plan
        if row["table"] in site.tables and not has_key(site.tables[row["table"]], row["expressions"]):
            rules.append(key_rule(site, due, **row))
    found: dict[tuple[str, str, str], Rule] = {}
    for rule in rules:
        if rule.table in site.tables and is_readable(site.tables[rule.table], rule, due):
            place = (rule.name, rule.table, rule.column)
            before = found.get(place, rule)
            either = code("({}) or ({})").format(before.is_broken, rule.is_broken)
            found[place] = rule if before is rule else replace(before, is_broken=either)
    order = list(site.tables)
    return sorted(found.values(), key=lambda rule: order.index(rule.table))


def is_readable(table: Table, rule: Rule, due: Due) -> bool:
    """Return whether a rule can be asked: its columns are there, of our kind of type. `blocked` reports the others."""
    if rule.key is None and not set(rule.column.split(", ")) <= table.columns.keys():
        return False
    read = {"id", *rule.column.split(", ")}
    wanted = {column.name: column.type for column in due.columns if column.table == table.name and column.name in read}
    return all(kind(table.columns[name].type) == kind(wanted[name]) for name in read & table.columns.keys())


def has_number(table: Table | None) -> bool:
    """Return whether a table's id is a number; so is that of one that will be made."""
    return table is None or ("id" in table.columns and kind(table.columns["id"].type) == "integer")


def column_rules(column: DueColumn) -> Iterator[Rule]:
    """Yield what a column's NOT NULL and its width ask for."""
    name, own = sql.Identifier(column.name), NAMES.get((column.table, column.name))
    if column.is_required:
        refers = column.name in ("user_id", "usertestgroup_id")
        rule = "null" if column.default is not None else own or ("orphans" if refers else "exam")
        yield Rule(rule, column.table, column.name, code("{} is null").format(name))
    if column.width is not None:
        too_long = code("char_length({}) > {}").format(name, column.width)
        yield Rule(own or "length", column.table, column.name, too_long)


def check_rule(conn: Conn, number: int, due: Due, *, table: str, columns: list[str], expression: str) -> Rule:
    """Return a CHECK as a rule. A text that is not JSON makes a cast fail: a function answers false then."""
    condition: sql.Composable = code(f"({expression})")
    if "::jsonb" in expression:
        (column,) = (each for each in due.columns if each.table == table and each.name == columns[0])
        function = sql.Identifier("pg_temp", f"rollbook_check_{number}")
        body = (
            f"begin return {expression}; exception when data_exception or program_limit_exceeded then return false; end"
        )
        conn.execute(
            code("create or replace function {}({} text) returns boolean language plpgsql stable as {}").format(
                function, sql.Identifier(column.name), body
            )
        )
        condition = code("{}({}::text)").format(function, sql.Identifier(column.name))
    name = NAMES.get((table, columns[0]), "exam")
    return Rule(name, table, ", ".join(columns), code("{} is false").format(condition))


def refused_year() -> sql.SQL:
    """Return the condition under which the trigger refuses a year of birth: its own."""
    text = (SQL / "triggers" / "refuse_year_of_birth.sql").read_text()
    condition = text.split("for each row when (", 1)[1].split("\n    )", 1)[0]
    return code(condition.replace("new.", "t."))


def reference_rule(site: Site, *, table: str, column: str, target: str) -> Rule:
    """Return a foreign key as a rule: what it refers to is there."""
    name = code("t.{}").format(sql.Identifier(column))
    there = code("exists (select from {} as p where p.id = {})").format(site.name(target), name)
    missing = code("{} is not null and not {}").format(name, there if target in site.tables else code("false"))
    return Rule("orphans", table, column, missing)


def has_key(table: Table, columns: list[str]) -> bool:
    """Return whether the site itself keeps these columns unique."""
    return any(key.kind in "pu" and key.is_valid and key.columns == columns for key in table.keys)


def key_rule(site: Site, due: Due, *, table: str, expressions: list[str], predicate: str | None) -> Rule:
    """Return a unique key as a rule."""
    columns = [
        column.name for column in due.columns
        if column.table == table and any(re.search(rf"\b{column.name}\b", text) for text in expressions)
    ]  # fmt: skip
    name = KEYS.get((table, columns[0]), "exam" if "testcenter" in table else "duplicates")
    key, where = code(", ".join(expressions)), code(predicate or "true")
    query = code(
        "({where}) and ({key}) in (select {key} from {source} as s where {where} group by {key} having count(*) > 1)"
    )
    is_broken = query.format(where=where, key=key, source=source(site, due, table))
    return Rule("id" if columns == ["id"] else name, table, ", ".join(columns), is_broken, key)


def source(site: Site, due: Due, table: str) -> sql.Composed:
    """Return a table of the site with all our columns: one that is missing has its default."""
    there = site.tables[table].columns
    columns = [
        sql.Identifier(column.name)
        if column.name in there
        else code("({})::{} as {}").format(
            code(column.default or "null"), code(column.type), sql.Identifier(column.name)
        )
        for column in due.columns
        if column.table == table
    ]
    return code("(select {} from {})").format(sql.SQL(", ").join(columns), site.name(table))


def faulty(site: Site, due: Due, table: str, rules: list[tuple[int, Rule]]) -> sql.Composed:
    """Return the query for the rows of a table that break rules: rule id value together. Secrets are not read."""
    lines = [
        code("({}, {}, {}, {})").format(
            number, rule.is_broken, shown(rule), code("lower({})").format(shown(rule)) if rule.key else code("null")
        )
        for number, rule in rules
    ]
    return code(FAULTY).format(source=source(site, due, table), rules=sql.SQL(",\n").join(lines))


def shown(rule: Rule) -> sql.Composable:
    """Return the value that breaks a rule, as text."""
    columns = rule.column.split(", ")
    if set(columns) & set(SECRETS):
        return code("'(secret)'")
    if len(columns) == 1:
        return code("t.{}::text").format(sql.Identifier(columns[0]))
    return code("concat_ws(', ', {})").format(sql.SQL(", ").join(sql.Identifier("t", name) for name in columns))


def by_table(site: Site, rules: list[Rule]) -> Iterator[tuple[str, list[tuple[int, Rule]]]]:
    """Yield each table that has an id, and its rules with their numbers."""
    for table in site.tables.values():
        if has_number(table):
            yield table.name, [(number, rule) for number, rule in enumerate(rules) if rule.table == table.name]


def find(conn: Conn, site: Site) -> list[Fault]:
    """Return every rule that is broken, read in the snapshot of the caller's transaction. Takes ACCESS SHARE."""
    due, rules, faults = read_due(conn), read_rules(conn, site), []
    for table, numbered in by_table(site, rules):
        query = code("""
            select rule, count(*) as count, (array_agg(id order by id))[1:5] as first_ids
            from ({}) as f group by rule order by rule""")
        for row in conn.execute(query.format(faulty(site, due, table, numbered))):
            rule = rules[row["rule"]]
            found = Fault(rule.name, table, rule.column, row["count"], row["first_ids"], remedy(rule.name))
            faults.append(found)
    return faults


def rejects(conn: Conn, site: Site, file: str) -> int:
    """Write every faulty row to a CSV file: table,id,column,value,rule. Rows that share a key are beside each other."""
    due, rules, count = read_due(conn), read_rules(conn, site), 0
    with written(file, "--rejects") as out:
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["table", "id", "column", "value", "rule"])
        for table, numbered in by_table(site, rules):
            query = code("{} order by r.rule, r.together, t.id").format(faulty(site, due, table, numbered))
            for row in conn.cursor().stream(query):
                rule = rules[row["rule"]]
                lines.writerow([table, row["id"], rule.column, row["value"], rule.name])
                count += 1
    return count
