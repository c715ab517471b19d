"""The history: each write of the command line leaves who, command, object, before, after and reason. Never a secret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rollbook import queries, render

if TYPE_CHECKING:
    from rollbook.db import Conn
    from rollbook.options import Run
    from rollbook.queries import Row

SECRETS = ("password", "activation_key", "api_key", "admin_dsn", "subscription_dsn", "key")


def record(
    conn: Conn, run: Run, object_name: str, outcome: str, *, before: Row | None = None, after: Row | None = None,
    user_id: int | None = None, course_id: str | None = None,
) -> None:  # fmt: skip
    """Note one write in the transaction that does it: a dry run's is rolled back with it."""
    entry = {
        "object": object_name, "outcome": outcome, "before": public(before), "after": public(after),
        "user_id": user_id, "course_id": course_id,
    }  # fmt: skip
    record_many(conn, run, [entry])


def record_if_allowed(conn: Conn, run: Run, object_name: str, outcome: str, **values: Any) -> None:  # noqa: ANN401
    """Note what was done as `record` does; a role that may not write the history does it without a note, and is told.

    For what a role may do that is no administrator of people: exports and repairs.
    """
    from psycopg import errors

    try:
        with conn.transaction():  # of its own: what the caller has done stays
            record(conn, run, object_name, outcome, **values)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        render.note(run, "this role may not write to the history: this is not noted there")


def record_many(conn: Conn, run: Run, entries: Iterable[Row]) -> None:
    """Note many writes of one command: object outcome before after user_id course_id."""
    queries.note_history(conn, run.verb, run.actor, run.reason, list(entries))


def public(values: Row | None) -> Row | None:
    """Return values without secrets: that one was set is told, not what it is."""
    if values is None:
        return None
    return {name: "(secret)" if name in SECRETS and value else value for name, value in values.items()}


def changed(changes: Iterable[Row], side: str) -> dict[str, Any]:
    """Return one side, before or after, of rows of field, before, after."""
    return {row["field"]: row[side] for row in changes}
