"""Rebuilding a stream that has lost something: its slot, its subscription, its tables, or a stretch of changes."""

from __future__ import annotations

from psycopg import sql

from rollbook.core.db import Caller
from rollbook.replication import build, catalog, drop, observe, subscription
from rollbook.replication.catalog import Placement
from rollbook.replication.heartbeat import send_heartbeat
from rollbook.replication.queries.servers import record_rebuild
from rollbook.replication.restart import readd_tables, restart
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps


def rebuild(session: Session) -> None:
    """Recreate the stream, from now on: after its slot was lost, or a side was restored. Copies nothing.

    The server misses what was committed between: each course there is `unknown` until it is resynced.
    """
    portal, server, steps = session.portal, session.server, Steps()
    oid = drop.drop_subscription(session, steps)
    record_rebuild(portal, server.name)
    drop.drop_slots(session.source, server, oid or server.subscription, steps)
    for hop in session.hops:  # a relay that lacks its function publishes nothing
        build.prepare(hop, steps)
    session.conn.execute("delete from rollbook.heartbeat")  # those of a restored portal would collide with new ones
    wanted = [(row.course, row.schema_name) for row in catalog.fed(portal, server)]
    build.create_schemas(session, wanted, steps)
    build.build(session, steps, copy=False)
    send_heartbeat(portal)


def needs_rebuild(session: Session, seen: observe.Seen) -> bool:
    """Return whether the stream has lost something, so that it must be rebuilt."""
    found = session.subscription()
    return (
        seen.slot is None or seen.slot.alarm == "lost" or found is None or found.slot != session.server.stream
        or not found.has_heartbeat or not seen.is_published or seen.lost_beats[1]
    )  # fmt: skip


def has_lost(session: Session) -> bool:
    """Look at a stream, and return whether it has lost something."""
    (seen,) = observe.look(session.portal, [session.server], Caller("rollbook server add"), deep=False)
    return needs_rebuild(session, seen)


def keep_stream(session: Session) -> bool:
    """Continue a stream of which nothing was lost, by the routes of the session's server; return whether it is one.

    It is where the slot was kept: by pg_upgrade, from PostgreSQL 17 on, or on a standby that was promoted.
    """
    server = session.server
    if has_lost(session):
        return False
    route = sql.SQL("alter subscription {} connection {}")
    session.conn.execute(route.format(sql.Identifier(server.stream), sql.Literal(server.subscription_dsn)))
    subscription.go_on(session)
    return True


def restore_stream(session: Session, course: Placement) -> None:
    """Create whatever is missing for a course's changes to arrive: stream, tables, their place in the publication."""
    portal, server, schema = session.portal, session.server, course.schema_name
    (seen,) = observe.look(portal, [server], Caller("rollbook resync"))
    if needs_rebuild(session, seen):
        rebuild(session)
        return
    steps = Steps()
    for hop in session.hops:
        build.prepare(hop, steps)
    build.create_schemas(session, [(course.course, schema)], steps)
    session.source.execute(build.publish(portal, server))  # first: a relay whose heartbeats were gone sends them again
    subscription.go_on(session)
    restart(session)
    if any(copy.sync is None for copy in session.copies(schema)):
        subscription.refresh_copying(session, steps)
    if subscription.await_copies(session, [schema], session.timeout) == "copying":
        readd_tables(session, schema)
