"""The history: who wrote what with which command, before, after and reason. Secrets are never recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, as_json

if TYPE_CHECKING:
    from rollbook.core.command import Author, Run
    from rollbook.core.db import Conn

WRITE_HISTORY = """
insert into rollbook.history (
    os_user, on_behalf_of, command, reason, object, outcome, before, after, user_id, course_id
)
select
    %(os_user)s, %(on_behalf_of)s, %(command)s, %(reason)s,
    e.object, e.outcome, e.before, e.after, e.user_id, e.course_id
from jsonb_to_recordset(%(entries)s) as e (
    object text, outcome text, before jsonb, after jsonb, user_id bigint, course_id text
)
"""

HISTORY = """
select h.id, h.at, h.actor, h.role, h.command, h.object, h.outcome, h.reason, h.on_behalf_of
from rollbook.history as h
where (%(user_id)s::bigint is null or h.user_id = %(user_id)s)
    and (%(course)s::text is null or h.course_id = %(course)s)
    and (%(actor)s::text is null or %(actor)s in (h.actor, h.role, h.os_user, h.on_behalf_of))
    and (%(command)s::text is null or h.command = %(command)s or starts_with(h.command, %(command)s || ' '))
    and (%(since)s::timestamptz is null or h.at >= %(since)s)
    and (%(match)s::text is null or strpos(lower(h.object || ' ' || coalesce(h.reason, '')), lower(%(match)s)) > 0)
order by h.id desc
limit %(limit)s
"""

HISTORY_ENTRY = """
select
    id, at, actor, role, os_user, on_behalf_of, command, object, outcome, reason, user_id, course_id as course,
    before, after
from rollbook.history where id = %s
"""


def write_history(conn: Conn, command: str, author: Author, reason: str | None, entries: list[Row]) -> None:
    """Record writes: object outcome before after user_id course_id. Values without a JSON form become text."""
    conn.execute(WRITE_HISTORY, {**vars(author), "command": command, "reason": reason, "entries": as_json(entries)})


def list_history(conn: Conn, **filters: Any) -> list[Row]:  # noqa: ANN401
    """Return the history, newest first: id at actor role command object outcome reason on_behalf_of."""
    return conn.execute(HISTORY, filters).fetchall()


def find_history_entry(conn: Conn, number: int) -> Row:
    """Return one entry with before and after. Raises RefusedError for an unknown one."""
    row = conn.execute(HISTORY_ENTRY, [number]).fetchone()
    if row is None:
        raise RefusedError(f"no history entry {number}", fix="rollbook history list")
    return row


NOT_RECORDED = "this role may not write to the history: nothing was recorded there"
SECRETS = ("password", "activation_key", "api_key", "admin_dsn", "subscription_dsn", "key")


def record(
    conn: Conn, run: Run, object_name: str, outcome: str, *, before: Row | None = None, after: Row | None = None,
    user_id: int | None = None, course_id: str | None = None,
) -> None:  # fmt: skip
    """Record one write in its own transaction; a dry run rolls both back."""
    entry = {
        "object": object_name, "outcome": outcome, "before": public(before), "after": public(after),
        "user_id": user_id, "course_id": course_id,
    }  # fmt: skip
    record_many(conn, run, [entry])


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
    """Record many writes of one command: object outcome before after user_id course_id."""
    write_history(conn, run.verb, run.author, run.reason, list(entries))


def public(values: Row | None) -> Row | None:
    """Return values without secrets: the history shows that one was set, not its value."""
    if values is None:
        return None
    return {name: "(secret)" if name in SECRETS and value else value for name, value in values.items()}


def changed(changes: Iterable[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """Return one side, before or after, of rows of field, before, after."""
    return {row["field"]: row[side] for row in changes}
