"""What the portal notes of course servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import one

if TYPE_CHECKING:
    from rollbook.core.db import Conn

PLACE = """
with forgotten as (
    delete from rollbook.verification where course_id = any(%(ids)s)
)
update rollbook.course set server = %(server)s, state = %(state)s where course_id = any(%(ids)s)
"""


def checked_server_name(name: str) -> str:
    """Return a name that a slot can bear. Raises UsageError."""
    import re

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise UsageError(
            f"{name} cannot name a server", why="its slot bears the name: a to z first, then a to z, 0 to 9 and _, "
            "at most 40", fix="choose another name, such as east",
        )  # fmt: skip
    return name


def note_server(conn: Conn, name: str, admin_dsn: str, subscription_dsn: str, identity: str) -> None:
    """Note a new server: from here on whatever is made for it can be found and removed."""
    conn.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) values (%s, %s, %s, %s)",
        [name, admin_dsn, subscription_dsn, identity],
    )


def note_take_over(conn: Conn, name: str, admin_dsn: str, subscription_dsn: str, identity: str) -> None:
    """Note that this database feeds the server now, and by which routes."""
    conn.execute(
        "update rollbook.server set admin_dsn = %s, subscription_dsn = %s, portal_identity = %s where name = %s",
        [admin_dsn, subscription_dsn, identity, name],
    )


def note_placement(conn: Conn, course_ids: Sequence[str], server: str | None, state: str) -> None:
    """Note which server holds these courses, and how far that has come."""
    conn.execute(PLACE, {"ids": list(course_ids), "server": server, "state": state})


def note_pause(conn: Conn, name: str, *, paused: bool) -> None:
    """Note that an operator holds a server's stream, or lets it go."""
    conn.execute(
        "update rollbook.server set paused_at = case when %s then coalesce(paused_at, now()) end where name = %s",
        [paused, name],
    )


def check_position(conn: Conn, lsn: str) -> None:
    """Raise UsageError for what is no LSN, RefusedError for one that the portal has not reached itself."""
    from psycopg import DataError

    try:
        reached = one(conn, "select %s::pg_lsn <= pg_current_wal_insert_lsn() as yes", [lsn])["yes"]
    except DataError:
        raise UsageError(f"{lsn} is no LSN", fix="write it like 0/16B3748, or `now`") from None
    if not reached:
        raise RefusedError(f"the portal itself has not reached {lsn}", fix="select pg_current_wal_lsn() on the portal")


def wal_is_unbounded(conn: Conn) -> bool:
    """Say whether the portal keeps WAL for a server that is down until the disk is full."""
    return bool(one(conn, "select current_setting('max_slot_wal_keep_size') = '-1' as unbounded")["unbounded"])
