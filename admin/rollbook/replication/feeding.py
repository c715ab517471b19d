"""Which database feeds a server: what the server knows of it, and the refusal of one that is not the portal now.

The portal's own tables cannot tell: a standby that was promoted has the same ones as the old primary. The server can:
heartbeats arrive with the timeline of the cluster that sent them, and each command that changes a server records there
which portal ran it. What a server knows survives a stream that is paused or broken.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError
from rollbook.core.rows import one, typed
from rollbook.replication.link import Identity, Server

KNOWN = """
select
    %(received)s::float8 as received,
    (
        select max(s.timeline) from (
            select p.identity, p.timeline from rollbook.portal as p
            union all
            select h.portal_identity, h.timeline from rollbook.heartbeat as h
        ) as s (identity, timeline)
        where s.identity = %(database)s
    ) as timeline,
    (select p.identity from rollbook.portal as p where p.is_current) as current
"""

# Where somebody has dropped the heartbeats: `resync` makes them again.
WITHOUT_HEARTBEATS = KNOWN.replace(
    """
            union all
            select h.portal_identity, h.timeline from rollbook.heartbeat as h""", ""
)  # fmt: skip

# A worker that is only trying to connect has received no position yet, but its time of receipt is when it began.
RECEIVED = """
select extract(epoch from clock_timestamp() - max(s.last_msg_receipt_time))::float8 as seconds
from pg_stat_subscription as s
inner join pg_subscription as n on n.oid = s.subid
where s.subname = %s and n.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
    and s.pid is not null and s.relid is null and s.received_lsn is not null and isfinite(s.last_msg_receipt_time)
"""

# Null up to PostgreSQL 16: there no slot exists on a standby, and so no stream can have gone on from one by itself.
# A slot that is lost is read by nobody, and the worker that tries is connected for a moment.
UNREAD = """
select
    (to_jsonb(s) ->> 'inactive_since')::timestamptz as since,
    extract(epoch from clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 as seconds
from pg_replication_slots as s
where s.slot_name = %s and not s.active and s.wal_status is distinct from 'lost'
    and to_jsonb(s) ->> 'inactive_since' is not null
"""

RECORD = """
with others as (
    update rollbook.portal set is_current = false where is_current and identity <> %(database)s
)
insert into rollbook.portal (identity, timeline, is_current) values (%(database)s, %(timeline)s, true)
on conflict (identity) do update
set timeline = greatest(portal.timeline, excluded.timeline), is_current = true, since = clock_timestamp()
where portal.timeline < excluded.timeline or not portal.is_current
"""

SLACK_SECONDS = 2.0  # how much later than its slot was left a server may have heard from what feeds it

HAS_TABLES = """
select to_regclass('rollbook.portal') is not null as has_portal,
    to_regclass('rollbook.heartbeat') is not null as has_heartbeat
"""


@dataclass(frozen=True)
class Known:
    """What a server knows of the portals that have fed it."""

    timeline: int | None  # the newest of this cluster that it has seen
    current: str | None  # the identity of the portal whose command has changed it last
    received: float | None  # when its subscription heard last from the database to which it is connected, see Unread


@dataclass(frozen=True)
class Unread:
    """Since when nobody reads a slot: by the clock of its database, and by the monotonic clock of this program.

    Only the second can be compared with what another machine says: its clock may be hours off.
    """

    since: datetime
    began: float


def known(conn: Conn, server: Server, own: Identity) -> Known:
    """Ask a server what it knows. One that was never prepared for courses knows nothing."""
    now = time.monotonic()
    seconds = one(conn, RECEIVED, [server.stream])["seconds"]
    received = None if seconds is None else now - seconds
    has = one(conn, HAS_TABLES)
    if not has["has_portal"]:
        return Known(None, None, received)
    query = KNOWN if has["has_heartbeat"] else WITHOUT_HEARTBEATS
    return typed(Known, conn, query, {**asdict(own), "received": received})[0]


def record(conn: Conn, own: Identity) -> None:
    """Record on a server, if it is prepared for courses, that this portal changes it now."""
    if one(conn, HAS_TABLES)["has_portal"]:
        conn.execute(RECORD, asdict(own))


def unread_since(source: Conn, server: Server) -> Unread | None:
    """Return since when nobody reads the slot of a server at its source; None: it is read, lost, or that is unknown."""
    found = source.execute(UNREAD, [server.stream]).fetchone()
    return None if found is None else Unread(found["since"], time.monotonic() - found["seconds"])


def objection(
    server: Server, own: Identity, found: Known, unread: Unread | None, *, take_over: bool = False
) -> RefusedError | None:
    """Return why this database must not change a server, None if it may: the fact, the reason, and where to go.

    `unread`: since when nobody reads its slot, here or at its relay. `take_over`: an operator has said that this
    database is the portal now. A later timeline of the same cluster, whose rows are newer, is objected to all the same.
    """
    if found.timeline is not None and found.timeline > own.timeline:
        return RefusedError(
            f"this database is an old primary: server {server.name} follows the standby that was promoted",
            why=f"this cluster writes timeline {own.timeline}, the server has seen timeline {found.timeline}",
            fix="run the command on the new portal; make a standby of this cluster, or stop it",
        )
    if found.current not in (None, own.database):
        return None if take_over else RefusedError(
            f"another portal has taken over server {server.name}",
            why=f"its cluster and database are {found.current}, these are {own.database}",
            fix="run the command on that portal",
        )  # fmt: skip
    where = "here" if server.through is None else "there"
    if found.received is not None and unread and found.received - unread.began > SLACK_SECONDS:
        return RefusedError(
            f"server {server.name} receives changes from another database, and not from "
            + ("this one" if server.through is None else f"server {server.through}"),
            why="its subscription is connected, and nobody has read its slot "
            f"{where} since {unread.since:%Y-%m-%d %H:%M} UTC: was a standby promoted?",
            fix="run the command on the portal that feeds it now"
            if server.through is None
            else f"stop the old server {server.through}, if a standby took its place; then: rollbook server add "
            f"{server.name} --subscription-dsn CONNINFO --take-over; or: rollbook server add {server.through} "
            "--admin-dsn CONNINFO --take-over, if that route leads to the old one",
        )
    return None
