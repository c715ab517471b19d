"""All that one side holds of some users in courses: rows of copies, whole, and what belongs to them in other tables.

A side is the portal's database or a course server. Tables of a course's own are found by foreign keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from rollbook.core.referring import Belonging, belonging, counted
from rollbook.replication.queries.users import BATCH, find_user_rows

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row
    from rollbook.replication.catalog import Copied

SCHEMAS = """
select n.nspname::text as name from pg_namespace as n
where pg_get_userbyid(n.nspowner) = 'rollbook_owner' and n.nspname <> 'rollbook' order by 1
"""

# Foreign keys of other tables that refer to copies.
KEYS = """
select
    k.conname as name, k.confdeltype as action, k.conrelid::bigint as oid, n.nspname as schema_name,
    r.relname as table_name, c.oid::bigint as copy, s.nspname as copy_schema, c.relname as copy_table,
    array(
        select a.attname::text from unnest(k.conkey) with ordinality as i (number, place)
        inner join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = i.number order by i.place
    ) as columns,
    array(
        select a.attname::text from unnest(k.confkey) with ordinality as i (number, place)
        inner join pg_attribute as a on a.attrelid = k.confrelid and a.attnum = i.number order by i.place
    ) as referred
from pg_constraint as k
inner join pg_class as c on c.oid = k.confrelid
inner join pg_namespace as s on s.oid = c.relnamespace
inner join pg_class as r on r.oid = k.conrelid
inner join pg_namespace as n on n.oid = r.relnamespace
where k.contype = 'f' and k.conparentid = 0 and c.relname = any(%(names)s)
    and pg_get_userbyid(s.nspowner) = 'rollbook_owner' and s.nspname <> 'rollbook'
    and not (r.relnamespace = c.relnamespace and r.relname = any(%(names)s))
order by 4, 5, 1
"""

# Tables of a course's own: what no foreign key connects with a copy is not searched.
OTHERS = """
select n.nspname::text as schema_name, c.relname::text as table_name
from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p') and not c.relispartition
    and c.relname <> all(%(names)s)
order by 1, 2
"""


@dataclass
class PersonRows:
    """What one side holds: keys of rows by schema and copy; rows of a course's own tables; tables not searched."""

    copies: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    own: list[Belonging] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)

    @property
    def schemas(self) -> list[str]:
        """Return the schemas with rows of copies."""
        return sorted({schema for schema, _ in self.copies})


def find(
    conn: Conn, copied: Copied, user_ids: Sequence[int], row_ids: Mapping[str, Sequence[int]] | None = None
) -> PersonRows:
    """Return what a side holds of these users. `row_ids`: keys of their rows, by table, which may be gone here.

    The session is in autocommit: it locks much.
    """
    schemas = [row["name"] for row in conn.execute(SCHEMAS).fetchall()]
    found = PersonRows()
    for start in range(0, len(schemas), BATCH):
        for place, ids in find_user_rows(conn, user_ids, schemas[start : start + BATCH]).items():
            found.copies[place] = sorted(ids)
    known: dict[str, set[int]] = {name: set(ids) for name, ids in (row_ids or {}).items()}
    for (_, table), there in found.copies.items():
        known.setdefault(table, set()).update(there)
    found.own = list(own_rows(conn, copied, known))
    searched = {each.name for each in found.own}
    parameters = {"schemas": found.schemas, "names": copied.names}
    others = [f"{row['schema_name']}.{row['table_name']}" for row in conn.execute(OTHERS, parameters).fetchall()]
    found.unsearched = [name for name in others if name not in searched]
    return found


def own_rows(conn: Conn, copied: Copied, known: Mapping[str, set[int]]) -> Iterator[Belonging]:
    """Yield what of courses' own tables belongs to copies with these keys, children first."""
    for key in conn.execute(KEYS, {"names": copied.names}).fetchall():
        ids = sorted(known.get(key["copy_table"], ()))
        referred = sql.SQL(", ").join(sql.Identifier("r", name) for name in key["columns"])
        if key["referred"] == [copied.table(key["copy_table"]).key]:  # the copy may be gone already
            condition = sql.SQL("{} = any({}::bigint[])").format(referred, ids)
        else:
            condition = sql.SQL("({}) in (select {} from {} where {} = any({}::bigint[]))").format(
                referred, sql.SQL(", ").join(map(sql.Identifier, key["referred"])),
                sql.Identifier(key["copy_schema"], key["copy_table"]),
                sql.Identifier(copied.table(key["copy_table"]).key), ids,
            )  # fmt: skip
        found = Belonging(
            key["schema_name"], key["table_name"], key["name"], tuple(key["columns"]), key["action"], condition
        )
        if key["action"] in ("a", "r", "c"):
            yield from belonging(conn, key["oid"], found.rows, (key["copy"],))
        yield found


def count(conn: Conn, own: Sequence[Belonging]) -> list[tuple[Belonging, int | None]]:
    """Return those that have rows, and how many; None where this role may not read them."""
    return [(each, rows) for each in own if (rows := counted(conn, each.rows)) != 0]


def read(conn: Conn, place: sql.Identifier, condition: sql.Composed) -> list[Row] | None:
    """Return whole rows of a table, alias r, as JSON has them; None where this role may not read them."""
    query = sql.SQL("select to_jsonb(r) as row from {} as r where {}").format(place, condition)
    try:
        with conn.transaction():
            return [row["row"] for row in conn.execute(query).fetchall()]
    except errors.InsufficientPrivilege:
        return None


def of_copy(copied: Copied, table: str, ids: Sequence[int]) -> sql.Composed:
    """Return the condition for rows of a copy, alias r."""
    return sql.SQL("{} = any({}::bigint[])").format(sql.Identifier("r", copied.table(table).key), list(ids))


def remove(conn: Conn, copied: Copied, found: PersonRows, schemas: Sequence[str]) -> dict[tuple[str, str], int]:
    """Delete rows of copies in these schemas, and all that belongs to copies; return how many, by schema and table.

    In the caller's transaction.
    """
    gone: dict[tuple[str, str], int] = {}
    for each in found.own:
        rows = conn.execute(each.removal()).rowcount
        if rows:
            gone[each.schema, each.table] = gone.get((each.schema, each.table), 0) + rows
    conn.execute("set local role rollbook_owner")  # the guards let it pass
    for schema in schemas:
        for table in reversed(copied.names):
            if ids := found.copies.get((schema, table)):
                statement = sql.SQL("delete from {} as r where {}").format(
                    sql.Identifier(schema, table), of_copy(copied, table, ids)
                )
                gone[schema, table] = conn.execute(statement).rowcount
    conn.execute("reset role")
    return gone


def position(conn: Conn) -> dict[str, Any]:
    """Return where the WAL of a side ends now, and its time: lsn, at."""
    row = conn.execute("select pg_current_wal_lsn()::text as lsn, clock_timestamp() as at").fetchone()
    return row or {}
