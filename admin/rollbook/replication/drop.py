"""Dropping a server's stream: subscription, slots, publication, and what the server needed for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from psycopg import errors, sql

from rollbook.core.db import Conn
from rollbook.replication.link import Server
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps

SLOT_SECONDS = 10.0  # how long a terminated reader may take to release its slot

# The stream's slot, and those of its first copies.
SLOTS = """
select slot_name from pg_replication_slots
where slot_name = %(stream)s or starts_with(slot_name, 'pg_' || %(subscription)s::text || '_sync_')
"""

# Of the streams of servers that are gone; a slot that is read belongs to one that is not.
STALE = """
select 'slot' as kind, s.slot_name::text as name from pg_replication_slots as s
where s.database = current_database() and s.plugin = 'pgoutput' and not s.active
    and starts_with(s.slot_name, 'rollbook_') and s.slot_name <> all (%(streams)s)
union all
select 'publication', p.pubname from pg_publication as p
where starts_with(p.pubname, 'rollbook_') and p.pubname <> all (%(streams)s)
    and not exists (select from pg_replication_slots as s where s.slot_name = p.pubname and s.active)
"""

# Those that are read, by whom nobody here knows.
READ = """
select s.slot_name::text as name, s.active_pid as pid from pg_replication_slots as s
where s.database = current_database() and s.plugin = 'pgoutput' and s.active
    and starts_with(s.slot_name, 'rollbook_')
order by 1
"""

RELEASE = """
select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active_pid is not null
"""


def drop_subscription(session: Session, steps: Steps) -> int | None:
    """Drop the subscription on the server, not its slot; return its oid, None if there was none."""
    found = session.subscription()
    if found is None:
        return None
    name = sql.Identifier(session.server.stream)
    steps.on_server(
        session,
        sql.SQL("alter subscription {} disable").format(name),
        sql.SQL("alter subscription {} set (slot_name = none)").format(name),
        sql.SQL("drop subscription {}").format(name),
    )
    return found.oid


def drop_slots(source: Conn, server: Server, oid: int | None, steps: Steps) -> None:
    """Drop the server's slot at its source, and those that its first copies may have left; terminate their readers."""
    asked = {"stream": server.stream, "subscription": oid or 0}
    for row in source.execute(SLOTS, asked).fetchall():
        statement = sql.SQL("select pg_drop_replication_slot({})").format(row["slot_name"])
        if steps.dry:
            steps.on_source(source, server, statement)
            continue
        end = time.monotonic() + SLOT_SECONDS
        while True:
            source.execute(RELEASE, [row["slot_name"]])
            try:
                steps.on_source(source, server, statement)
                break
            except errors.UndefinedObject:
                break
            except errors.ObjectInUse:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)


def drop_stale(session: Session, names: Sequence[str], steps: Steps) -> list[str]:
    """Drop on a relay the slots and publications of streams other than these; return them in words."""
    stale = session.conn.execute(STALE, {"streams": list(names)}).fetchall()
    for row in stale:
        name = sql.Identifier(row["name"]) if row["kind"] == "publication" else sql.Literal(row["name"])
        steps.on_server(session, sql.SQL(
            "drop publication {}" if row["kind"] == "publication" else "select pg_drop_replication_slot({})"
        ).format(name))  # fmt: skip
    return [f"{row['kind']} {row['name']}" for row in stale]


def has_stale(session: Session) -> bool:
    """Return whether a server has slots or publications of other streams."""
    return session.conn.execute(STALE, {"streams": []}).fetchone() is not None


def still_read(conn: Conn) -> list[tuple[str, str]]:
    """Return the streams that somebody still reads from a relay, and what to do about each, as `server remove` does."""
    found = conn.execute(READ).fetchall()
    return [
        (f"slot and publication {row['name']}", f"left there, as process {row['pid']} reads it; once nobody does: "
         + sql.SQL("select pg_drop_replication_slot({}); drop publication {};")
         .format(row["name"], sql.Identifier(row["name"])).as_string(conn))
        for row in found
    ]  # fmt: skip


def drop_source_side(source: Conn, server: Server, oid: int | None, steps: Steps) -> None:
    """Drop slot and publication at the source of a server."""
    drop_slots(source, server, oid, steps)
    drop = sql.SQL("drop publication if exists {}").format(sql.Identifier(server.stream))
    steps.on_source(source, server, drop)


def forget(portal: Conn, server: Server, steps: Steps) -> None:
    """Free the courses of a server, and delete its row.

    A course that was moving from there to another server is on that one now; one on its way there stays where it is.
    """
    steps.on_portal(
        portal,
        sql.SQL(
            "delete from rollbook.verification where course_id in "
            "(select c.course_id from rollbook.course as c where c.server = {})"
        ).format(server.name),
        sql.SQL(
            "update rollbook.course set moving_to = null, leaving = null, "
            "server = case when server = {0} then moving_to else server end, "
            "state = case when server <> {0} then state when moving_to is null then 'ok' else 'copying' end "
            "where {0} in (server, moving_to, leaving)"
        ).format(server.name),
        sql.SQL("delete from rollbook.server where name = {}").format(server.name),
    )


def drop_server_side(session: Session, steps: Steps) -> None:
    """Drop what `build.prepare` created on the server. Schemas that were kept stay, without their guards."""
    steps.on_server(session, sql.SQL("drop schema if exists rollbook cascade"))
    # Kept schemas, or another database of that cluster, may need the role.
    with suppress(errors.DependentObjectsStillExist, errors.InsufficientPrivilege):
        steps.on_server(session, sql.SQL("drop role if exists rollbook_owner"))
