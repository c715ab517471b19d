"""What the portal records of course servers and of the courses on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import one, typed
from rollbook.core.shipped import as_query

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.replication.link import Server

PLACE = """
with forgotten as (
    delete from rollbook.verification where course_id = any({ids})
)
update rollbook.course set server = {server}, state = {state} where course_id = any({ids})
"""

BEGIN_MOVE = """
update rollbook.course set moving_to = {server}, leaving = null
where course_id = any({ids}) and server <> {server} and moving_to is null and coalesce(leaving, {server}) = {server}
"""

# Of two servers a course keeps one, and leaves the other.
SWITCH = """
with forgotten as (
    delete from rollbook.verification as v using rollbook.course as c
    where v.course_id = {id} and c.course_id = v.course_id and c.moving_to = {server}
)
update rollbook.course set
    server = {server}, moving_to = null,
    leaving = case when moving_to = {server} then server else moving_to end,
    state = case when moving_to = {server} then 'ok' else state end
where course_id = {id} and moving_to is not null and {server} in (server, moving_to)
"""

END_MOVE = "update rollbook.course set leaving = null where course_id = {id}"

BEGIN_SERVER_MOVE = (
    "update rollbook.server set moving_through = {relay}, moving_direct = {direct}, moving_dsn = {route} "
    "where name = {name}"
)

RECORD_SOURCE = (
    "update rollbook.server set through = {through}, subscription_dsn = {route}, subscription = {oid} "
    "where name = {name}"
)

END_SERVER_MOVE = (
    "update rollbook.server set moving_through = null, moving_direct = false, moving_dsn = null where name = {name}"
)

MOVES = """
select course_id as course, schema_name::text as schema_name, server, moving_to, leaving
from rollbook.course
where %(server)s in (server, moving_to, leaving) and num_nonnulls(moving_to, leaving) > 0
order by course_id
"""

# Of a relay the courses of all servers behind it.
REBUILD = """
with own as (
    select c.course_id from rollbook.course as c
    inner join rollbook.server as s on s.name = c.server
    where %(server)s in (s.name, s.through)
),
forgotten as (
    delete from rollbook.verification as v using own as o where o.course_id = v.course_id
)
update rollbook.course set state = 'unknown'
where course_id in (select o.course_id from own as o) and state <> 'detached'
"""

SLOTS = """
select
    slot_name::text as slot_name, server, active, wal_status, held_bytes, safe_bytes, lag_bytes, inactive_since,
    invalidation_reason, alarm
from rollbook.slot_status order by server nulls last, slot_name
"""

# In a moment of `course attach` and `replication resync` a server that has courses has none, too. A relay's slot is the
# one of all servers behind it.
GONE_SLOTS = """
select
    'rollbook_' || v.name as slot_name, v.name as server, false as active, null as wal_status, null as held_bytes,
    null as safe_bytes, null as lag_bytes, null as inactive_since, null as invalidation_reason, 'gone' as alarm
from rollbook.server_route as v
where v.through is null
    and not exists (select from pg_replication_slots as s where s.slot_name = 'rollbook_' || v.name)
    and exists (
        select from rollbook.course as c
        inner join rollbook.server_route as b on b.name = c.server
        where v.name in (b.name, b.through) and c.state <> 'detached'
    )
order by v.name
"""


PORTAL = "portal"

# The servers behind relays that have courses, and so must have a slot there.
EXPECTED_BEHIND = """
select v.through as relay, v.name as server from rollbook.server_route as v
where v.through is not null
    and exists (select from rollbook.course as c where c.server = v.name and c.state <> 'detached')
order by 1, 2
"""


@dataclass(frozen=True)
class Move:
    """A course on two servers: on its way to one, or not yet removed from the other."""

    course: str
    schema_name: str
    server: str
    moving_to: str | None
    leaving: str | None


@dataclass(frozen=True)
class SlotStatus:
    """A row of rollbook.slots_of: a logical slot of the portal's database, or a relay's, and the WAL that it holds."""

    slot_name: str
    server: str | None
    active: bool
    wal_status: str | None
    held_bytes: int | None
    safe_bytes: int | None
    lag_bytes: int | None
    inactive_since: datetime | None
    invalidation_reason: str | None
    alarm: str | None
    where: str = PORTAL  # or the name of a relay


def checked_server_name(name: str) -> str:
    """Return a name that a slot can have. Raises UsageError."""
    import re

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise UsageError(
            f"{name} is not a valid server name", why="its slot has the name: a to z first, then a to z, 0 to 9 and _, "
            "at most 40", fix="choose another name, such as east",
        )  # fmt: skip
    return name


def record_server(conn: Conn, server: Server) -> None:
    """Record a new server: from here on whatever is created for it can be found and removed."""
    conn.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity, through) "
        "values (%s, %s, %s, %s, %s)",
        [server.name, server.admin_dsn, server.subscription_dsn, server.portal_identity, server.through],
    )


def record_take_over(conn: Conn, server: Server) -> None:
    """Record that this database feeds the server now, and by which routes."""
    conn.execute(
        "update rollbook.server set admin_dsn = %s, subscription_dsn = %s, portal_identity = %s where name = %s",
        [server.admin_dsn, server.subscription_dsn, server.portal_identity, server.name],
    )


def record_subscription(conn: Conn, name: str, oid: int) -> None:
    """Record the oid of a server's subscription: the slots of its first copies have it in their names."""
    conn.execute("update rollbook.server set subscription = %s where name = %s", [oid, name])


def begin_server_move(name: str, relay: str, route: str | None, *, direct: bool) -> sql.Composed:
    """Return the statement that records that a server moves behind a relay, or from there to the portal.

    `route`: the subscription_dsn that was given, for the command that goes on.
    """
    return sql.SQL(BEGIN_SERVER_MOVE).format(name=name, relay=relay, direct=direct, route=route)


def record_source(server: Server, oid: int) -> sql.Composed:
    """Return the statement that records what feeds a server now, by which route and which subscription of it."""
    return sql.SQL(RECORD_SOURCE).format(
        name=server.name, through=server.through, route=server.subscription_dsn, oid=oid
    )


def end_server_move(name: str) -> sql.Composed:
    """Return the statement that records that the move of a server is finished."""
    return sql.SQL(END_SERVER_MOVE).format(name=name)


def record_rebuild(conn: Conn, name: str) -> None:
    """Record that a server's courses have missed changes: they are `unknown`, and their verdicts are void."""
    conn.execute(REBUILD, {"server": name})


def placement(course_ids: Sequence[str], server: str | None, state: str) -> sql.Composed:
    """Return the statement that records which server holds these courses, and their state; their verdicts are void."""
    return sql.SQL(PLACE).format(ids=list(course_ids), server=server, state=state)


def begin_move(course_ids: Sequence[str], server: str) -> sql.Composed:
    """Return the statement that records to which server these courses move."""
    return sql.SQL(BEGIN_MOVE).format(ids=list(course_ids), server=server)


def switch(course_id: str, server: str) -> sql.Composed:
    """Return the statement that records which of its two servers a course keeps."""
    return sql.SQL(SWITCH).format(id=course_id, server=server)


def end_move(course_id: str) -> sql.Composed:
    """Return the statement that records that the other server no longer has the course."""
    return sql.SQL(END_MOVE).format(id=course_id)


def list_moves(conn: Conn, server: str) -> list[Move]:
    """Return the courses that move to a server, from it, or have left it, as long as that is not finished."""
    return typed(Move, conn, MOVES, {"server": server})


def record_state(conn: Conn, schema_name: str, state: str) -> None:
    """Record the state of one course."""
    conn.execute("update rollbook.course set state = %s where schema_name = %s", [state, schema_name])


def record_pause(conn: Conn, name: str, *, paused: bool) -> None:
    """Record that an operator has paused or resumed a server's stream."""
    conn.execute(
        "update rollbook.server set paused_at = case when %s then coalesce(paused_at, now()) end where name = %s",
        [paused, name],
    )


def slots_of(source: Conn, servers: Sequence[Server], where: str = PORTAL) -> list[SlotStatus]:
    """Return the logical slots of a database that feeds these servers: the portal, or a relay, which has no view."""
    rows = source.execute(as_query("servers/slots_of", "servers", "subscriptions"), {
        "servers": [server.name for server in servers],
        "subscriptions": [server.subscription for server in servers],
    })  # fmt: skip
    return [SlotStatus(**row, where=where) for row in rows]


def list_slots(conn: Conn) -> list[SlotStatus]:
    """Return the logical slots of the portal's database, those of course servers first."""
    return typed(SlotStatus, conn, SLOTS)


def expected_slots(conn: Conn) -> list[SlotStatus]:
    """Return these slots, and before them those that servers with courses lack: their alarm is `gone`."""
    return [*typed(SlotStatus, conn, GONE_SLOTS), *list_slots(conn)]


def gone_slots(conn: Conn, relay: str, found: Sequence[SlotStatus]) -> list[SlotStatus]:
    """Return the slots that servers with courses behind a relay lack there: their alarm is `gone`."""
    there = {slot.slot_name for slot in found}
    behind = [row["server"] for row in conn.execute(EXPECTED_BEHIND) if row["relay"] == relay]
    return [
        SlotStatus(f"rollbook_{name}", name, False, None, None, None, None, None, None, "gone", relay)
        for name in behind if f"rollbook_{name}" not in there
    ]  # fmt: skip


def check_position(conn: Conn, lsn: str) -> None:
    """Raise UsageError for text that is not an LSN, RefusedError for an LSN that the portal has not reached."""
    from psycopg import DataError

    try:
        reached = one(conn, "select %s::pg_lsn <= pg_current_wal_insert_lsn() as yes", [lsn])["yes"]
    except DataError:
        raise UsageError(f"{lsn} is not an LSN", fix="write it like 0/16B3748, or `now`") from None
    if not reached:
        raise RefusedError(f"the portal itself has not reached {lsn}", fix="select pg_current_wal_lsn() on the portal")


def wal_is_unbounded(conn: Conn) -> bool:
    """Return whether a database keeps WAL for a server that is down until the disk is full."""
    return bool(one(conn, "select current_setting('max_slot_wal_keep_size') = '-1' as unbounded")["unbounded"])
