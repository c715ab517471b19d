"""The shape: which tables, columns and rows are copied. Declared in the database; written in TOML.

SQL that is run often names tables and columns; it is rendered from the declaration once. The files of `sql/` with
psql's variables, such as `:person` or `:'person'`, are those; everything else asks rollbook.copied_tables().
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import UsageError
from rollbook.core.migrating import ROOT
from rollbook.core.rows import nearest, one

if TYPE_CHECKING:
    from rollbook.core.db import Conn

SHAPES = ROOT / "shapes"
ROLES = ("person", "profile", "membership")  # parents first: the order in which rows are inserted
KEYS = {
    "person": ("table", "key", "columns"),
    "profile": ("table", "key", "person", "columns"),
    "membership": ("table", "key", "person", "course", "condition", "columns"),
}
OPTIONAL = ("condition", "columns")
DEFAULT_COURSE = "default"  # in [without]: what new courses leave out; never a course's ID

# What PostgreSQL 15 to 18 do not take as the name of a column or table without quotes.
RESERVED = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true union
    unique user using variadic verbose when where window with""".split()  # noqa: SIM905
)
VARIABLE = re.compile(r"(?<![:\w\\]):(')?([a-z]\w*)(?(1)')")

STATEMENT = re.compile(r"(?:--[^\n]*\n|\$\$.*?\$\$|'(?:[^']|'')*'|[^;])*?(?:;[^\S\n]*(?:--[^\n]*)?\n|\Z)", re.DOTALL)

OF = """
select role, relation, key_column, user_column, course_column, condition, course_type, columns
from rollbook.shape_table order by array_position('{person,profile,membership}', role)
"""


@dataclass(frozen=True)
class Table:
    """One table that is copied."""

    role: str  # person, profile or membership
    relation: str  # with its schema, quoted for SQL: portal.auth_user
    key: str  # the primary key: an integer
    person: str  # the column with the person's key; of the person itself: the key
    columns: tuple[str, ...]  # that travel, in the copy's order; the keys are among them
    course: str | None = None  # of the membership: the column with the course's ID
    condition: str | None = None  # of the membership: only rows for which it is true count; None: all
    course_type: str = "text"  # of the membership: the type of the course column, where an index must serve

    @property
    def name(self) -> str:
        """Return the name of the copies: that of the table, without its schema."""
        return split(self.relation)[1]

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns that always travel."""
        return tuple(dict.fromkeys([self.key, self.person, *([self.course] if self.course else [])]))

    @property
    def source(self) -> str:
        """Return the rows that count, as SQL for FROM."""
        if self.condition is None:
            return self.relation
        return f"(select {names(self.columns)} from {self.relation} where {self.condition})"  # noqa: S608

    @property
    def indexed(self) -> str | None:
        """Return the column by which a course looks people up."""
        if self.role != "person":
            return self.person
        return "username" if "username" in self.columns else None


@dataclass(frozen=True)
class Shape:
    """All that is copied."""

    tables: tuple[Table, ...]  # parents first
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # course ID, or `default` -> left out

    @cached_property
    def variables(self) -> dict[str, str]:
        """Return what the variables of shape-specific files stand for."""
        return variables(self)

    def table(self, role: str) -> Table | None:
        """Return the table of a role; None: a shape without a profile."""
        return next((table for table in self.tables if table.role == role), None)

    def named(self, name: str) -> Table | None:
        """Return the table whose copies have this name."""
        return next((table for table in self.tables if table.name == name), None)

    def listed(self, column: str) -> str:
        """Return TABLE.COLUMN as lists of left-out columns have it: by its name, if no other table has that name."""
        table, _, name = column.partition(".")
        if self.named(table) is None or any(name in other.columns for other in self.tables if other.name != table):
            return column
        return name

    def changed(self, table: Table) -> Shape:
        """Return the shape with another table for its role."""
        return replace(self, tables=tuple(table if old.role == table.role else old for old in self.tables))


def name(word: str) -> str:
    """Return an identifier as SQL spells it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", word) and word not in RESERVED:
        return word
    return '"{}"'.format(word.replace('"', '""'))


def names(words: Iterable[str], before: str = "") -> str:
    """Return identifiers with commas, each after `before`."""
    return ", ".join(before + name(word) for word in words)


def literal(text: str | None) -> str:
    """Return a text as SQL spells it."""
    if text is None:
        return "null"
    return "{}'{}'".format("E" if "\\" in text else "", text.replace("\\", "\\\\").replace("'", "''"))


def split(relation: str) -> tuple[str, str]:
    """Return schema and name of a relation that is quoted for SQL; a name alone is in schema public."""
    parts = [
        plain or quoted.replace('""', '"')
        for quoted, plain in re.findall(r'"((?:[^"]|"")+)"|([^".]+)', relation)
    ]  # fmt: skip
    if not 1 <= len(parts) <= 2:
        raise UsageError(f"{relation} is not the name of a table", fix="write schema.table")
    return ("public", parts[0]) if len(parts) == 1 else (parts[0], parts[1])


@cache
def default() -> Shape:
    """Return the shape that ships."""
    return load(SHAPES / "default.toml")


def load(path: Path) -> Shape:
    """Read a shape from a TOML file. Raises UsageError."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read", why=str(exc), fix="name a TOML file with a shape") from exc
    return parse(text, str(path))


def parse(text: str, source: str) -> Shape:
    """Return the shape that a TOML text declares; `source` names it in errors. Raises UsageError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{source} is not TOML", why=str(exc), fix="see docs/shape.md for a shape") from exc
    known(content, (*ROLES, "without"), source, "")
    for role in ("person", "membership"):
        if role not in content:
            raise UsageError(f"{source} has no [{role}]", fix="see docs/shape.md for a shape")
    tables = tuple(read(role, content[role], source) for role in ROLES if role in content)
    copies = [table.name for table in tables]
    if "route" in copies:
        raise UsageError(f"{source} names a table route", why="verify calls the routes so", fix="rename it")
    if len(set(copies)) < len(copies):
        raise UsageError(
            f"{source} names two tables {copies[-1]}", why="in a course they would have one name",
            fix="rename one of them",
        )  # fmt: skip
    without = content.get("without", {})
    if not isinstance(without, dict) or not all(is_words(columns) for columns in without.values()):
        raise UsageError(f"{source}: [without] has lists of columns", fix='write: default = ["last_login"]')
    return Shape(tables, {course: tuple(sorted(columns)) for course, columns in without.items()})


def known(given: Mapping[str, Any], keys: tuple[str, ...], source: str, where: str) -> None:
    """Raise UsageError for a key that no shape has."""
    for key in given:
        if key not in keys:
            near = nearest(key, keys)
            raise UsageError(f"{source}: {where}{key} is unknown", why=near, fix=f"known are {', '.join(keys)}")


def is_words(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)


def read(role: str, given: object, source: str) -> Table:
    """Return one table of a file."""
    if not isinstance(given, dict):
        raise UsageError(f"{source}: {role} is not a table", fix=f"write [{role}]")
    known(given, KEYS[role], source, f"[{role}] ")
    for key in KEYS[role]:
        value = given.get(key)
        if value is None and key in OPTIONAL:
            continue
        if not (is_words(value) if key == "columns" else isinstance(value, str) and value.strip()):
            words = "a list of names" if key == "columns" else "a text"
            raise UsageError(f"{source}: [{role}] {key} must be {words}", fix="see docs/shape.md for a shape")
    table = Table(
        role, ".".join(map(name, split(given["table"]))), given["key"], str(given.get("person", given["key"])),
        tuple(given.get("columns", ())), given.get("course"), given.get("condition"),
    )  # fmt: skip
    columns = [*(key for key in table.keys if key not in table.columns), *table.columns]
    if len(set(columns)) < len(columns):
        raise UsageError(f"{source}: [{role}] columns has a column twice", fix="remove one of them")
    return replace(table, columns=tuple(columns))


def of(conn: Conn) -> Shape:
    """Return the shape that a database declares, without what single courses leave out."""
    return Shape(tables(conn.execute(OF).fetchall()))


def tables(rows: Iterable[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Return the tables of a shape from the rows of OF."""
    return tuple(
        Table(
            row["role"], row["relation"], row["key_column"], row["user_column"], tuple(row["columns"]),
            row["course_column"], row["condition"], row["course_type"],
        )
        for row in rows
    )  # fmt: skip


def with_courses(conn: Conn) -> Shape:
    """Return the shape that a database declares, with what new courses leave out and the courses that differ."""
    usual = tuple(one(conn, "select without from rollbook.shape")["without"])
    courses = conn.execute("select course_id, without from rollbook.course where without <> %s", [list(usual)])
    left = {row["course_id"]: tuple(row["without"]) for row in courses}
    return replace(of(conn), without={DEFAULT_COURSE: usual} | left)


def toml(shape: Shape) -> str:
    """Return the shape as the file that `load` reads."""
    parts = []
    for table in shape.tables:
        lines = [f"[{table.role}]", f"table = {quote(table.relation)}", f"key = {quote(table.key)}"]
        lines += [f"person = {quote(table.person)}"] if table.role != "person" else []
        lines += [f"course = {quote(table.course)}"] if table.course else []
        lines += [f"condition = {quote(table.condition)}"] if table.condition else []
        parts.append("\n".join([*lines, f"columns = [{', '.join(map(quote, table.columns))}]"]))
    if any(shape.without.values()):
        lines = [f"{quote(course)} = [{', '.join(map(quote, left))}]" for course, left in shape.without.items()]
        parts.append("\n".join(["[without]", *lines]))
    return "\n\n".join(parts) + "\n"


def quote(text: str) -> str:
    """Return a text as TOML spells it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def shaped(script: str, shape: Shape) -> str:
    """Return SQL with the variables of the shape replaced; statements on a table that it does not have are left out."""
    values = shape.variables

    def value(found: re.Match[str]) -> str:
        if found[2] not in values:
            return found[0]
        return literal(values[found[2]]) if found[1] else values[found[2]]

    if shape.table("profile") is None:
        script = without_profile(script)
    if shape.tables[-1].condition is None:
        script = re.sub(r"\s+(?:where|and) :membership_condition\b", "", script)
    return VARIABLE.sub(value, script)


def without_profile(script: str) -> str:
    """Return SQL without the statements on the profile table, and on functions that are made for it."""
    parts = statements(script)
    gone = [part for part in parts if re.search(r"(?<!:):'?profile", part)]
    made = re.findall(r"create or replace (function rollbook\.\w+)", "".join(gone))
    return "".join(part for part in parts if part not in gone and not any(f"{word}(" in part for word in made))


def statements(script: str) -> list[str]:
    """Return the statements of a file of `sql/`, each with the comment before it and its semicolon."""
    return STATEMENT.findall(script)


def variables(shape: Shape) -> dict[str, str]:
    """Return what the variables of shape-specific files stand for."""
    found = {
        "copied_tables": ",\n    ".join(constants(number, table) for number, table in enumerate(shape.tables, 1)),
        "replicated_columns": "\n        ".join(
            f"when {literal(table.name)} then array[{', '.join(map(literal, table.columns))}]"
            for table in shape.tables
        ),
        "shape_rows": ",\n".join(
            f"({', '.join(map(literal, recorded(table)))}, array[{', '.join(map(literal, table.columns))}])"
            for table in shape.tables
        ),
        "left_out": ", ".join(map(literal, shape.without.get(DEFAULT_COURSE, ()))),
        "schemas": ", ".join(sorted({name(split(table.relation)[0]) for table in shape.tables})),
        "relations": ", ".join(table.relation for table in shape.tables),
        "person_email_changes": "o.email is distinct from n.email"
        if shape.tables[0].relation == "portal.auth_user" else "false",
    }  # fmt: skip
    for table in shape.tables:
        others = [column for column in table.columns if table.role != "person" or column != table.key]
        found |= {
            table.role: table.relation,
            f"{table.role}_name": table.name,
            f"{table.role}_key": name(table.key),
            f"{table.role}_person": name(table.person),
            f"{table.role}_condition": f"({table.condition})" if table.condition else "true",
            f"{table.role}_old": names(others, "o."),
            f"{table.role}_new": names(others, "n."),
            f"{table.role}_changes": ",\n            ".join(
                f"case when record_image_ne(row(o.{name(c)}), row(n.{name(c)})) then {literal(name(c))} end"
                for c in others
            ),
        }
        if table.course:
            found[f"{table.role}_course"] = name(table.course)
            found[f"{table.role}_course_type"] = table.course_type
    return found


def recorded(table: Table) -> tuple[str | None, ...]:
    """Return the row of rollbook.shape_table for a table, without its columns."""
    keys = (table.key, table.person, table.course)
    return (table.role, table.relation, table.name, *keys, table.condition, table.course_type)


def constants(number: int, table: Table) -> str:
    """Return the row of rollbook.copied_tables() for a table."""
    first = ", ".join([literal(table.name), literal(table.person), str(number)])
    rest = (table.role, table.relation, table.source, table.key, table.course, table.indexed)
    return f"({first}, {', '.join(map(literal, rest))})"
