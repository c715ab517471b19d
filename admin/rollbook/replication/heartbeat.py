"""Heartbeats: rows that replication carries, so that one that arrived proves that all earlier commits arrived too."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import one, typed
from rollbook.replication.link import Server

if TYPE_CHECKING:
    from rollbook.replication.session import Session

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

WRITING = "select pid, backend_xid::text as xid from pg_stat_activity where backend_xid is not null"


@dataclass(frozen=True)
class Heartbeat:
    """A heartbeat that the portal sent; `lsn` is where its WAL ended then."""

    beat: int
    sent_at: datetime
    lsn: str


def send_heartbeat(portal: Conn) -> Heartbeat:
    """Send a heartbeat. The session must be in autocommit: the heartbeat leaves at commit."""
    return typed(Heartbeat, portal, "select beat, sent_at, lsn::text as lsn from rollbook.beat()")[0]


def arrival(conn: Conn, server: Server, beat: Heartbeat, seconds: float) -> float | None:
    """Wait on the server until a heartbeat has arrived, and with it all that was committed before it.

    A heartbeat of the same number does not count if another portal sent it, or this one before it was restored. Returns
    the seconds waited; None if it did not arrive in time, or the subscription is not enabled.
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


def fence(session: Session, seconds: float | None = None) -> None:
    """Return once the server has all that the portal has committed by now; within the session's time, or `seconds`.

    Raises UnreachableError: replication stopped, or is slower.
    """
    server = session.server
    seconds = session.timeout if seconds is None else seconds
    began = time.monotonic()
    if arrival(session.conn, server, send_heartbeat(session.portal), seconds) is None:
        stopped = time.monotonic() - began < seconds
        raise UnreachableError(
            f"replication to server {server.name} has stopped" if stopped
            else f"server {server.name} did not catch up with the portal within {seconds:g} s",
            why="differences found now may be changes in transit",
            fix="rollbook replication status" if stopped else "try again, perhaps with a longer --timeout SECONDS",
        )  # fmt: skip


def let_commit(portal: Conn) -> None:
    """Return once each transaction that is writing now has ended, or has taken too long to be just committing.

    A commit is sent to the servers as soon as it is in the WAL, and becomes visible on the portal a moment later. From
    here on the portal shows everything that a server has shown.
    """
    began = time.monotonic()
    writing = {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}
    while writing and time.monotonic() - began < COMMIT_SECONDS:
        time.sleep(0.002)
        writing &= {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}
