"""A deletion that foreign keys of other tables in the portal's database forbid: which tables, and how many rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import errors, sql
from psycopg.rows import tuple_row

from rollbook.core.errors import RefusedError

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# The foreign keys that refer to a table: what a deletion there does, the table that has the key, both sides' columns.
KEYS = """
select
    c.conname as name, c.confdeltype as action, c.conrelid as oid, n.nspname as schema_name, r.relname as table_name,
    array(
        select a.attname::text from unnest(c.conkey) with ordinality as k (number, place)
        inner join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.number order by k.place
    ) as columns,
    array(
        select a.attname::text from unnest(c.confkey) with ordinality as k (number, place)
        inner join pg_attribute as a on a.attrelid = c.confrelid and a.attnum = k.number order by k.place
    ) as referred
from pg_constraint as c
inner join pg_class as r on r.oid = c.conrelid
inner join pg_namespace as n on n.oid = r.relnamespace
where c.contype = 'f' and c.confrelid = %s::oid and c.conparentid = 0
order by n.nspname, r.relname, c.conname
"""


@dataclass(frozen=True)
class Referring:
    """A foreign key whose rows forbid a deletion; `rows` is None where this role may not read them."""

    table: str
    key: str
    rows: int | None


@contextmanager
def deleting(conn: Conn, what: str, table: str, condition: sql.Composed) -> Iterator[None]:
    """Delete the rows of a table of the portal that fulfil a condition; deferred keys are checked at the end of it.

    Raises RefusedError with every table whose rows refer to `what`, and how many.
    """
    try:
        with conn.transaction():
            yield
            conn.execute("set constraints all immediate")
    except (errors.ForeignKeyViolation, errors.RestrictViolation) as exc:
        found = list(referring(conn, table, condition))
        if not found:
            raise
        raise RefusedError(
            f"rows of other tables in the portal's database refer to {what}",
            why=", ".join(f"{each.table}: {'not readable' if each.rows is None else each.rows}" for each in found),
            fix="delete or change those rows first, or let these foreign keys cascade: "
            + ", ".join(f"{each.key} of {each.table}" for each in found),
            referring=[vars(each) for each in found],
        ) from exc


@dataclass(frozen=True)
class Reference:
    """A foreign key whose rows refer to a row that goes; `new` are the keys of the row that replaces it, if one does.

    `rows` is None where this role may not read them.
    """

    schema: str
    table: str
    key: str
    columns: tuple[str, ...]
    old: tuple[Any, ...]
    new: tuple[Any, ...] | None
    rows: int | None

    @property
    def name(self) -> str:
        """Return the table with its schema."""
        return f"{self.schema}.{self.table}"

    @property
    def change(self) -> sql.Composed | None:
        """Return the statement that makes the rows refer to the other row."""
        return None if self.new is None else sql.SQL("update {} set {} where {}").format(
            sql.Identifier(self.schema, self.table), equal(self.columns, self.new, ", "),
            equal(self.columns, self.old, " and "),
        )  # fmt: skip

    def doubles(self, unique: Sequence[str]) -> sql.Composed:
        """Return the statement that deletes the rows of which the other row has the same, by columns of an index."""
        same = [
            sql.SQL("n.{name} = o.{name}").format(name=sql.Identifier(each))
            for each in unique if each not in self.columns
        ]  # fmt: skip
        place = sql.Identifier(self.schema, self.table)
        return sql.SQL("delete from {place} as o using {place} as n where {conditions}").format(
            place=place,
            conditions=sql.SQL(" and ").join(
                [equal(self.columns, self.old, " and ", "o"), equal(self.columns, self.new or (), " and ", "n"), *same]
            ),
        )


def replaced(
    conn: Conn, oid: int, place: sql.Composable, which: sql.Composable, match: sql.Composable,
    parameters: dict[str, Any], ours: Collection[int],
) -> Iterator[Reference]:  # fmt: skip
    """Yield what refers to rows of the table `oid`, in tables that are not `ours`, row by row.

    The keys of the rows `o` that go, and of the rows `n` that replace them, are read from `place`.
    """
    for key in conn.execute(KEYS, [oid]).fetchall():
        if key["oid"] in ours or key["schema_name"] == "rollbook":
            continue
        number = len(key["referred"])
        table = sql.Identifier(key["schema_name"], key["table_name"])
        pairs = sql.SQL("select {}, {} from {place} as o left join {place} as n on {match} where {which}").format(
            columns("o", key["referred"]), columns("n", key["referred"]), place=place, match=match, which=which
        )
        for pair in conn.cursor(row_factory=tuple_row).execute(pairs, parameters).fetchall():
            old, new = pair[:number], pair[number:]
            rows = counted(conn, sql.SQL("select from {} where {}").format(table, equal(key["columns"], old, " and ")))
            if rows != 0:
                yield Reference(
                    key["schema_name"], key["table_name"], key["name"], tuple(key["columns"]), old,
                    None if None in new else new, rows,
                )  # fmt: skip


def equal(
    names: Sequence[str], values: Sequence[Any], separator: LiteralString, alias: str | None = None
) -> sql.Composed:
    """Return `column = value` for each column."""
    return sql.SQL(separator).join(
        sql.SQL("{} = {}").format(sql.Identifier(*filter(None, [alias, name])), sql.Literal(value))
        for name, value in zip(names, values, strict=True)
    )


def with_ids(ids: Sequence[int | None]) -> sql.Composed:
    """Return the condition for the rows with these ids."""
    return sql.SQL("id = any({}::bigint[])").format(list(ids))


def referring(conn: Conn, table: str, condition: sql.Composed) -> Iterator[Referring]:
    """Yield what refers to rows of a table of the portal, or to rows that would be deleted with them."""
    row = conn.execute("select rollbook.portal_table(%s)::oid as oid", [table]).fetchone()
    rows = sql.SQL("select * from {} where {}").format(sql.Identifier("portal", table), condition)
    yield from referring_to(conn, row["oid"] if row else 0, rows, ())


def referring_to(conn: Conn, oid: int, deleted: sql.Composed, above: tuple[int, ...]) -> Iterator[Referring]:
    """Yield what refers to the rows of the query `deleted` of a table; follow the keys that cascade."""
    for key in conn.execute(KEYS, [oid]).fetchall():
        rows = sql.SQL("select r.* from {} as r where ({}) in (select {} from ({}) as d)").format(
            sql.Identifier(key["schema_name"], key["table_name"]),
            columns("r", key["columns"]), columns("d", key["referred"]), deleted,
        )  # fmt: skip
        if key["action"] == "c" and key["oid"] not in (*above, oid):
            yield from referring_to(conn, key["oid"], rows, (*above, oid))
        count = counted(conn, rows) if key["action"] in ("a", "r") else 0
        if count != 0:
            yield Referring(f"{key['schema_name']}.{key['table_name']}", key["name"], count)


@dataclass(frozen=True)
class Belonging:
    """Rows of a table that belong to rows of another by a foreign key; `action`: what a deletion there does to them.

    `condition` finds them, as the alias r. An `action` as PostgreSQL has it: a no action, r restrict, c cascade, n set
    null, d set default.
    """

    schema: str
    table: str
    key: str
    columns: tuple[str, ...]
    action: str
    condition: sql.Composed

    @property
    def name(self) -> str:
        """Return the table with its schema."""
        return f"{self.schema}.{self.table}"

    @property
    def rows(self) -> sql.Composed:
        """Return the query for the rows."""
        place = sql.Identifier(self.schema, self.table)
        return sql.SQL("select r.* from {} as r where {}").format(place, self.condition)

    @property
    def forbids(self) -> bool:
        """Return whether the rows forbid the deletion."""
        return self.action in ("a", "r")

    def removal(self) -> sql.Composed:
        """Return the statement that deletes the rows, or takes the reference out of them where the key does so."""
        place = sql.Identifier(self.schema, self.table)
        if self.action in ("n", "d"):
            value = sql.SQL("null" if self.action == "n" else "default")
            sets = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(each), value) for each in self.columns)
            return sql.SQL("update {} as r set {} where {}").format(place, sets, self.condition)
        return sql.SQL("delete from {} as r where {}").format(place, self.condition)


def belonging(conn: Conn, oid: int, rows: sql.Composed, above: tuple[int, ...] = ()) -> Iterator[Belonging]:
    """Yield what belongs to the rows of the query `rows` of a table, by foreign keys of any depth: children first."""
    for key in conn.execute(KEYS, [oid]).fetchall():
        condition = sql.SQL("({}) in (select {} from ({}) as d)").format(
            columns("r", key["columns"]), columns("d", key["referred"]), rows
        )
        found = Belonging(
            key["schema_name"], key["table_name"], key["name"], tuple(key["columns"]), key["action"], condition
        )
        if key["action"] in ("a", "r", "c") and key["oid"] not in (*above, oid):
            yield from belonging(conn, key["oid"], found.rows, (*above, oid))
        yield found


def columns(alias: str, names: Sequence[str]) -> sql.Composed:
    """Return columns of an alias."""
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def counted(conn: Conn, rows: sql.Composed) -> int | None:
    """Return how many rows a query has, None if this role may not read them."""
    try:
        with conn.transaction():
            found: dict[str, Any] | None = conn.execute(
                sql.SQL("select count(*) as rows from ({}) as r").format(rows)
            ).fetchone()
    except errors.InsufficientPrivilege:
        return None
    return found["rows"] if found else 0
