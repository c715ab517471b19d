"""A deletion that foreign keys of other tables in the portal's database forbid: which tables, and how many rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

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
