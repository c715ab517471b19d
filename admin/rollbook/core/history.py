"""The history: who wrote what with which command, before, after and reason. Secrets are never recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, LiteralString

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, as_json

if TYPE_CHECKING:
    from rollbook.core.command import Author, Run
    from rollbook.core.db import Conn
    from rollbook.core.since import Period

WRITE_HISTORY = """
insert into rollbook.history (
    os_user, on_behalf_of, command, reason, object, outcome, before, after, user_id, course_id, kind, undoes
)
select
    %(os_user)s, %(on_behalf_of)s, %(command)s, %(reason)s,
    e.object, e.outcome, e.before, e.after, e.user_id, e.course_id, e.kind, e.undoes
from jsonb_to_recordset(%(entries)s) as e (
    object text, outcome text, before jsonb, after jsonb, user_id bigint, course_id text, kind text, undoes bigint
)
returning id
"""

# What a statement wrote to many rows leaves its before and after here, so that one statement records it.
WRITTEN: LiteralString = """
create temporary table written (
    kind text, object text, outcome text, user_id bigint, course_id text, before jsonb, after jsonb, undoes bigint
) on commit drop
"""

RECORD_WRITTEN = """
insert into rollbook.history (
    os_user, on_behalf_of, command, reason, batch, kind, object, outcome, user_id, course_id, before, after, undoes
)
select
    %(os_user)s, %(on_behalf_of)s, %(command)s, %(reason)s, %(batch)s,
    w.kind, w.object, w.outcome, w.user_id, w.course_id, w.before, w.after, w.undoes
from pg_temp.written as w
"""

HISTORY = """
select h.id, h.at, h.actor, h.role, h.command, h.object, h.outcome, h.reason, h.on_behalf_of
from rollbook.history as h
where (%(user_id)s::bigint is null or h.user_id = any (array(
        with recursive account (id) as (  -- with the accounts that were merged into it
            select %(user_id)s::bigint
            union
            select (m.before ->> 'id')::bigint
            from rollbook.history as m inner join account as a on a.id = m.user_id
            where m.outcome = 'merged' and m.before is not null
        )
        select a.id from account as a
    )))
    and (%(course)s::text is null or h.course_id = any (array(
        with recursive named (id) as (  -- with the IDs that it had before
            select %(course)s::text
            union
            select m.before ->> 'course' from rollbook.history as m inner join named as n on n.id = m.course_id
            where m.outcome = 'renamed' and m.before ? 'course'
        )
        select n.id from named as n
    )))
    and (%(actor)s::text is null or %(actor)s in (h.actor, h.role, h.os_user, h.on_behalf_of))
    and (%(command)s::text is null or h.command = %(command)s or starts_with(h.command, %(command)s || ' '))
    and (%(since)s::timestamptz is null or h.at >= %(since)s)
    and (%(until)s::timestamptz is null or h.at < %(until)s)
    and (
        %(batch)s::bigint is null
        or h.at = (select s.at from rollbook.history as s where s.id = %(batch)s)
        and (h.batch = %(batch)s or h.id = %(batch)s)
    )
    and (%(match)s::text is null or strpos(lower(h.object || ' ' || coalesce(h.reason, '')), lower(%(match)s)) > 0)
order by h.id desc
limit %(limit)s
"""

HISTORY_ENTRY = """
select
    id, at, actor, role, os_user, on_behalf_of, command, object, outcome, reason, user_id, course_id as course,
    kind, batch, undoes, (select u.id from rollbook.history as u where u.undoes = h.id) as undone_by, erased_at,
    before, after
from rollbook.history as h where id = %s
"""

ERASED = """
select h.id, h.after ->> 'before' as before from rollbook.history as h
where h.command = 'history erase' and h.outcome = 'erased' and h.id > %s and h.after ->> 'outcome' = 'removed'
order by h.id limit 1
"""

# An undo that was undone itself is none.
IMPORTS = """
select
    h.id as batch, h.at, h.actor, h.command, h.object as file,
    (
        select string_agg(c.value || ' ' || c.key, ', ' order by c.key)
        from jsonb_each_text(h.after) as c where jsonb_typeof(h.after -> c.key) = 'number'
    ) as counts,
    (
        select u.id from rollbook.history as u
        where u.undoes = h.id and not exists (select from rollbook.history as r where r.undoes = u.id)
        order by u.id desc limit 1
    ) as undone_by,
    h.reason, h.on_behalf_of
from rollbook.history as h
where h.outcome = 'imported'
    and (%(since)s::timestamptz is null or h.at >= %(since)s)
    and (%(until)s::timestamptz is null or h.at < %(until)s)
    and (%(match)s::text is null or strpos(lower(h.object || ' ' || coalesce(h.reason, '')), lower(%(match)s)) > 0)
order by h.id desc
limit %(limit)s
"""


def write_history(conn: Conn, command: str, author: Author, reason: str | None, entries: list[Row]) -> list[int]:
    """Record writes, see `record_many`; return the entries' ids. Values without a JSON form become text."""
    parameters = {**vars(author), "command": command, "reason": reason, "entries": as_json(entries)}
    return [row["id"] for row in conn.execute(WRITE_HISTORY, parameters)]


def list_history(conn: Conn, **filters: Any) -> list[Row]:  # noqa: ANN401
    """Return the history, newest first: id at actor role command object outcome reason on_behalf_of."""
    return conn.execute(HISTORY, filters).fetchall()


def list_imports(conn: Conn, match: str | None, limit: int | None, period: Period) -> list[Row]:
    """Return the imports, newest first: batch at actor command file counts undone_by reason on_behalf_of."""
    return conn.execute(IMPORTS, {"match": match, "limit": limit, **period}).fetchall()


def find_history_entry(conn: Conn, number: int) -> Row:
    """Return one entry with before and after. Raises RefusedError for an unknown one."""
    row = conn.execute(HISTORY_ENTRY, [number]).fetchone()
    if row is None:
        erased = conn.execute(ERASED, [number]).fetchone()
        why = f"entries before {erased['before']} were erased: see entry {erased['id']}" if erased else None
        raise RefusedError(f"no history entry {number}", why=why, fix="rollbook history list")
    return row


NOT_RECORDED = "this role may not write to the history: nothing was recorded there"
SECRETS = ("password", "activation_key", "api_key", "admin_dsn", "subscription_dsn", "key")


def record(
    conn: Conn, run: Run, object_name: str, outcome: str, *, before: Row | None = None, after: Row | None = None,
    user_id: int | None = None, course_id: str | None = None, kind: str | None = None, undoes: int | None = None,
) -> int:  # fmt: skip
    """Record one write in its own transaction; a dry run rolls both back. Return the entry's id."""
    entry = {
        "object": object_name, "outcome": outcome, "before": public(before), "after": public(after),
        "user_id": user_id, "course_id": course_id, "kind": kind, "undoes": undoes,
    }  # fmt: skip
    return write_history(conn, run.verb, run.author, run.reason, [entry])[0]


def record_if_allowed(conn: Conn, run: Run, object_name: str, outcome: str, **values: Any) -> bool:  # noqa: ANN401
    """Record a write as `record` does, unless this role may not write to the history; return whether it was recorded.

    For operations open to roles without user-admin rights: exports and repairs.
    """
    from psycopg import errors

    try:
        with conn.transaction():  # a savepoint: a refusal must not undo the writes of the caller
            record(conn, run, object_name, outcome, **values)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        return False
    return True


def record_many(conn: Conn, run: Run, entries: Iterable[Row]) -> None:
    """Record many writes of one command: object outcome before after user_id course_id kind undoes.

    With a kind, before and after have what an undo needs: see `rollbook.core.undoing`.
    """
    write_history(conn, run.verb, run.author, run.reason, list(entries))


def begin(conn: Conn) -> None:
    """Make pg_temp.written, for statements that leave there what they changed."""
    conn.execute(WRITTEN)


def record_written(conn: Conn, run: Run, batch: int | None = None) -> None:
    """Record the rows of pg_temp.written; `batch` is the entry that sums them up."""
    conn.execute(RECORD_WRITTEN, {**vars(run.author), "command": run.verb, "reason": run.reason, "batch": batch})


def public(values: Row | None) -> Row | None:
    """Return values without secrets: the history shows that one was set, not its value."""
    if values is None:
        return None
    return {name: "(secret)" if name in SECRETS and value else value for name, value in values.items()}


def changed(changes: Iterable[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """Return one side, before or after, of rows of field, before, after."""
    return {row["field"]: row[side] for row in changes}
