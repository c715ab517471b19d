"""Heartbeats: rows that replication carries, so that one that arrived proves that all earlier commits arrived too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import errors

from rollbook.core.db import Conn
from rollbook.core.rows import Row, one, typed
from rollbook.replication.link import Server

COMMIT_SECONDS = 1.0  # how long a commit may take to become visible once it can be sent
POLL_SECONDS = 0.005  # between two looks for a heartbeat; grows tenfold while it does not arrive

ARRIVED = """
select
    exists (select from rollbook.heartbeat where beat = %(beat)s and sent_at = %(sent_at)s) as arrived,
    coalesce((
        select s.subenabled from pg_subscription as s
        where s.subname = %(stream)s
            and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
    ), false) as enabled
"""

# Not pg_stat_activity: it shows the transactions of other roles to members of pg_monitor alone.
WRITING = """
select pid, transactionid::text as xid from pg_locks
where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted and pid is not null
"""

NEWEST = "select beat, sent_at, lsn::text as lsn from rollbook.heartbeat order by beat desc limit 1"

NOW = "select clock_timestamp() as now"

# Through jsonb: a server that was added by an older version has no such column.
TRAVELLED = """
select clock_timestamp() as now, (
    select (to_jsonb(h) ->> 'arrived_at')::timestamptz from rollbook.heartbeat as h
    where h.beat = %s and h.sent_at = %s
) as arrived_at
"""

CONFIRMED = """
select slot_name::text as slot_name from pg_replication_slots
where slot_name = any(%s) and confirmed_flush_lsn >= %s::pg_lsn
"""


@dataclass(frozen=True)
class Heartbeat:
    """A heartbeat that the portal sent; `lsn` is where its WAL ended then."""

    beat: int
    sent_at: datetime
    lsn: str


@dataclass(frozen=True)
class Clock:
    """A clock, in seconds before the monotonic clock of this program, and how exactly that is known."""

    ahead: float
    error: float

    def before(self, other: Clock) -> float:
        """Return how far it is ahead of another; 0 for less than what the questions took: that is not measured."""
        ahead = self.ahead - other.ahead
        return 0.0 if abs(ahead) <= self.error + other.error else ahead


def clock(conn: Conn) -> Clock:
    """Read the clock of a server; the quickest of three answers is the most exact."""
    return min((timed(conn, NOW)[1] for _ in range(3)), key=lambda each: each.error)


def timed(conn: Conn, query: LiteralString, parameters: Sequence[Any] = ()) -> tuple[Row, Clock]:
    """Return the row of a query that reads the clock as `now`, and that clock."""
    began = time.monotonic()
    row = one(conn, query, parameters)
    took = time.monotonic() - began
    return row, Clock(row["now"].timestamp() - began - took / 2, took / 2)


def send_heartbeat(portal: Conn) -> Heartbeat:
    """Send a heartbeat. The session must be in autocommit: the heartbeat leaves at commit."""
    return typed(Heartbeat, portal, "select beat, sent_at, lsn::text as lsn from rollbook.beat()")[0]


def send_if_allowed(portal: Conn) -> Heartbeat | None:
    """Send a heartbeat; return None for a role or server that may not write, or while another session holds the table.

    The session must be in autocommit.
    """
    try:
        return send_heartbeat(portal)
    except (
        errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.LockNotAvailable, errors.QueryCanceled
    ):  # fmt: skip
        return None


def newest_heartbeat(portal: Conn) -> Heartbeat | None:
    """Return the newest heartbeat that the portal has sent; None if it never sent one."""
    return next(iter(typed(Heartbeat, portal, NEWEST)), None)


def portal_lsn(portal: Conn) -> str:
    """Return where the portal's WAL ends now, and see to it that it is sent. The session must be in autocommit.

    WAL behind the last commit, of an open transaction or a page that was tidied up, stays in memory for up to 15 s on a
    quiet server. A transaction with an id ends with a commit record, up to which PostgreSQL flushes within a second.
    """
    return str(one(portal, "select pg_current_wal_insert_lsn()::text as lsn, pg_current_xact_id()")["lsn"])


def confirmation(portal: Conn, servers: Sequence[Server], lsn: str, seconds: float) -> dict[str, float | None]:
    """Wait until servers have confirmed the portal's WAL up to a position; sends no heartbeat.

    Returns the seconds waited; None for a server that has not confirmed it in time.
    """
    began = time.monotonic()
    found: dict[str, float | None] = dict.fromkeys((server.name for server in servers), None)
    names = {server.stream: server.name for server in servers}
    while True:
        for row in portal.execute(CONFIRMED, [list(names), lsn]):
            found[names.pop(row["slot_name"])] = time.monotonic() - began
        if not names or time.monotonic() - began >= seconds:
            return found
        time.sleep(POLL_SECONDS * 10)


def arrival(conn: Conn, server: Server, beat: Heartbeat, seconds: float) -> float | None:
    """Wait on the server until a heartbeat has arrived, and with it all that was committed before it.

    A heartbeat of the same number does not count if another portal sent it, or this one before it was restored. Returns
    the seconds waited; None if it did not arrive in time, or the subscription is disabled.
    """
    began = time.monotonic()
    pause = POLL_SECONDS
    while True:
        look = one(conn, ARRIVED, {**asdict(beat), "stream": server.stream})  # type: ignore[arg-type]
        waited = time.monotonic() - began
        if look["arrived"]:
            return waited
        if not look["enabled"] or waited >= seconds:
            return None
        time.sleep(min(pause, max(0.001, seconds - waited)))
        pause = min(pause * 1.2, POLL_SECONDS * 10)


def travelled(conn: Conn, beat: Heartbeat, portal: Clock, waited: float) -> float:
    """Return how long a heartbeat that has arrived took to this server.

    By the clocks of both, and their difference now: how long a look has `waited` for it depends on when the look began,
    and is returned only where the time of arrival was not recorded.
    """
    row, theirs = timed(conn, TRAVELLED, [beat.beat, beat.sent_at])
    arrived_at: datetime | None = row["arrived_at"]
    if arrived_at is None:
        return waited
    return max(0.0, (arrived_at - beat.sent_at).total_seconds() - theirs.before(portal))


def let_commit(portal: Conn) -> None:
    """Return once each transaction that is writing now has ended, or has taken too long to be just committing.

    A commit is sent to the servers as soon as it is in the WAL, and becomes visible on the portal a moment later. From
    here on the portal shows everything that a server has shown.
    """
    began = time.monotonic()
    writing = {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}
    while writing and time.monotonic() - began < COMMIT_SECONDS:
        time.sleep(POLL_SECONDS)
        writing &= {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}
