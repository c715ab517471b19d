"""Repair rows that break a rule, as `--fix` says, and keep what they were for the history."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import errors, sql

from rollbook.core.errors import RefusedError
from rollbook.core.rows import as_json, one
from rollbook.system.adoption import records
from rollbook.system.adoption.repairs import REPAIRS, parsed, remedy
from rollbook.system.adoption.rules import SECRETS, Due, Rule, code, find, read_due, read_rules, source

if TYPE_CHECKING:
    from rollbook.core.command import Author
    from rollbook.core.db import Conn
    from rollbook.system.adoption.site import Site

KEPT = """
create table if not exists {kept} (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    role text not null default session_user,
    os_user text not null,
    on_behalf_of text,
    object text not null,
    user_id bigint,
    course_id text,
    outcome text not null,
    before jsonb,
    after jsonb,
    reason text not null,
    undone_at timestamptz
);
comment on table {kept} is
    'Rows that rollbook schema adopt --fix repaired, before and after; copied into rollbook.history.';
"""

HISTORY = """
insert into rollbook.history (
    at, role, os_user, on_behalf_of, command, object, user_id, course_id, outcome, before, after, reason
)
select
    f.at, f.role, f.os_user, f.on_behalf_of, 'schema adopt', f.object, f.user_id, f.course_id, f.outcome, f.before,
    f.after, f.reason
from public.rollbook_adoption_fix as f
where f.undone_at is null
order by f.id
"""

# {due}: the rows to repair, with id; {change}: what changes them and returns id and, as jsonb, what they are after.
REPAIR = """
with wrong as materialized ({due}),
due as materialized (
    select r.id, {before} as before, {user_id} as user_id, {course_id} as course_id
    from {table} as r inner join wrong as w on w.id = r.id
),
done as ({change})
insert into {kept} (
    os_user, on_behalf_of, object, user_id, course_id, outcome, before, after, reason
)
select
    {os_user}, {on_behalf_of}, {name} || ' ' || due.id, due.user_id, due.course_id, {outcome}, due.before, done.after,
    {reason}
from due inner join done on done.id = due.id
order by due.id
"""

# All of a set of rows that share a key but the first in an order.
BUT_FIRST = """
select o.id from (
    select t.id, row_number() over (partition by {key} order by {order}) as place from {source} as t where {is_broken}
) as o where o.place > 1
"""

# The first rows that a repair would make equal.
EQUAL = """
with wrong as materialized ({due}),
repaired as (
    select r.id, case when r.id in (select w.id from wrong as w) then {value} else {column} end as value
    from {table} as r
)
select (array_agg(id order by id))[1:5] as ids from repaired
where value is not null group by value having count(*) > 1 order by min(id) limit 1
"""


@dataclass(frozen=True)
class Repaired:
    """What one repair changed or deleted."""

    fix: str  # RULE=WORD
    table: str
    column: str
    rows: int


def apply(
    conn: Conn, site: Site, fixes: Sequence[str], author: Author | None = None, reason: str | None = None, *,
    keep: bool = True,
) -> list[Repaired]:  # fmt: skip
    """Repair rows, and keep each with before and after in public.rollbook_adoption_fix, in the caller's transaction.

    `fixes` are RULE=WORD. Not `keep`: for a plan, which may have no right to create tables. Raises RefusedError where a
    row is wrong afterwards; the caller rolls back.
    """
    chosen = parsed(fixes)
    if not chosen:
        return []
    before = {(fault.rule, fault.table, fault.column): fault.count for fault in find(conn, site)}
    kept = sql.Identifier("public" if keep else "pg_temp", "rollbook_adoption_fix")
    conn.execute(code(KEPT).format(kept=kept))
    if keep:
        records.seal(conn, records.FIXES)
    due, done = read_due(conn), []
    for rule in read_rules(conn, site):  # referred tables first: what refers to a deleted row is an orphan after that
        for name, word in chosen:
            if name == rule.name:
                rows = repair(conn, site, due, rule, word, kept, author, reason)
                done.append(Repaired(f"{name}={word}", rule.table, rule.column, rows))
    conn.execute("set constraints all immediate")  # another table of the site may refer to what was deleted
    rules = {name for name, _ in chosen}
    for fault in find(conn, site):
        if fault.rule in rules or fault.count > before.get((fault.rule, fault.table, fault.column), 0):
            ids = ", ".join(map(str, fault.first_ids))
            raise RefusedError(
                f"after these repairs {fault.count} rows of {fault.table} break the rule {fault.rule}: id {ids}",
                why="a repair made two values equal, or cannot repair them; nothing was changed", fix=fault.remedy,
            )  # fmt: skip
    return [each for each in done if each.rows]


def repair_all(
    conn: Conn, site: Site, fixes: Sequence[str], author: Author, reason: str | None, lock_timeout: float
) -> None:
    """Repair rows in a transaction of its own, for which writers of the tables wait: none corrects a row meanwhile.

    `lock_timeout` in seconds bounds the wait for the tables. Raises RefusedError, and changes nothing, if a fault is
    left.
    """
    if not parsed(fixes):
        return
    with conn.transaction():
        conn.execute(code("set local lock_timeout = {}").format(f"{lock_timeout * 1000:.0f}ms"))
        tables = sql.SQL(", ").join(map(site.name, site.tables))
        conn.execute(code("lock table {} in share row exclusive mode").format(tables))
        apply(conn, site, fixes, author, reason)
        if left := find(conn, site):
            raise RefusedError(
                f"a row of {left[0].table} breaks the rule {left[0].rule} since the plan: id {left[0].first_ids[0]}",
                why="nothing was changed", fix="rollbook schema adopt --dry-run",
            )  # fmt: skip


def repair(
    conn: Conn, site: Site, due: Due, rule: Rule, word: str, kept: sql.Identifier, author: Author | None,
    reason: str | None,
) -> int:  # fmt: skip
    """Make one repair; return the number of rows."""
    how = REPAIRS[rule.name][word]
    table, columns, equal = site.name(rule.table), site.tables[rule.table].columns, None
    rows = source(site, due, rule.table)
    wrong = code("select t.id from {} as t where {}").format(rows, rule.is_broken)
    if how.but_first and rule.key:
        wrong = code(BUT_FIRST).format(key=rule.key, order=code(how.but_first), source=rows, is_broken=rule.is_broken)
    before = masked([rule.column])
    if how.value is None:
        secrets = as_json({name: "(secret)" for name in SECRETS if name in columns})
        before = code("to_jsonb(r) || {}").format(secrets)
        change = code("delete from {} as r using due where r.id = due.id returning r.id, null::jsonb as after").format(
            table
        )
    else:
        value = filled(how.value, rule, due)
        change = code("update {} as r set {} = {} from due where r.id = due.id returning r.id, {} as after").format(
            table, sql.Identifier(rule.column), value, masked([rule.column])
        )
        equal = code(EQUAL).format(due=wrong, value=value, column=sql.Identifier("r", rule.column), table=table)
    user_id = "id" if rule.table == "auth_user" else "user_id" if "user_id" in columns else None
    statement = code(REPAIR).format(
        due=wrong, change=change, before=before, table=table, kept=kept,
        user_id=sql.Identifier("r", user_id) if user_id else code("null::bigint"),
        course_id=sql.Identifier("r", "course_id") if "course_id" in columns else code("null"),
        os_user=author.os_user if author else getpass.getuser(),
        on_behalf_of=author.on_behalf_of if author else None,
        name=rule.table, outcome="removed" if how.value is None else "changed",
        reason=f"{rule.name}={word}" + (f": {reason}" if reason else ""),
    )  # fmt: skip
    try:
        with conn.transaction():
            return conn.execute(statement).rowcount
    except errors.UniqueViolation as exc:
        found = conn.execute(equal).fetchone() if equal else None
        where = f"id {', '.join(map(str, found['ids']))}" if found else exc.diag.message_detail
        raise RefusedError(
            f"--fix {rule.name}={word} would make rows of {rule.table} equal: {where}",
            why=f"the site's index {exc.diag.constraint_name} keeps them apart; nothing was changed",
            fix=remedy(rule.name, word),
        ) from exc  # fmt: skip


def filled(value: str, rule: Rule, due: Due) -> sql.Composed:
    """Return the new value of a repair for the column of a rule."""
    (column,) = (each for each in due.columns if (each.table, each.name) == (rule.table, rule.column))
    text = value.replace(" id", " r.id").replace("(id", "(r.id")
    return code(text).format(
        column=sql.Identifier("r", column.name), width=column.width or 0, default=code(column.default or "null")
    )


def masked(columns: list[str]) -> sql.Composed:
    """Return the values of columns of a row r as jsonb, without secrets."""
    return code("jsonb_build_object({})").format(
        sql.SQL(", ").join(
            code("{}, {}").format(name, code("'(secret)'") if name in SECRETS else sql.Identifier("r", name))
            for name in columns
        )
    )


def are_fixed(conn: Conn) -> bool:
    """Return whether a repair was made for this adoption: one of an adoption that was undone does not count."""
    if one(conn, "select to_regclass('public.rollbook_adoption_fix') is null as missing")["missing"]:
        return False
    query = "select exists (select from public.rollbook_adoption_fix where undone_at is null) as there"
    return bool(one(conn, query)["there"])


def close(conn: Conn) -> None:
    """Mark the repairs of an adoption that is undone; called in the undoing transaction."""
    if are_fixed(conn):
        conn.execute("update public.rollbook_adoption_fix set undone_at = now() where undone_at is null")


def write_history(conn: Conn) -> int:
    """Copy the repairs that were made into rollbook.history; called in the adopting transaction. Return how many."""
    return conn.execute(HISTORY).rowcount if are_fixed(conn) else 0
