"""What is done to a subscription that exists: enable, disable, skip, refresh, and wait for its first copies."""

from __future__ import annotations

import time
from collections.abc import Sequence

from psycopg import sql

from rollbook.core.db import Conn
from rollbook.core.rows import one
from rollbook.replication import apply_error, catalog
from rollbook.replication.catalog import Placement
from rollbook.replication.link import Server
from rollbook.replication.session import Progress, Session
from rollbook.replication.steps import Steps

NOTE_SECONDS = 5.0  # between two reports of what a first copy waits for
LOOK_SECONDS = 1.0  # between two looks at the errors that its workers have met


def enable(conn: Conn, server: Server) -> None:
    """Let the subscription run, and go on by itself after an error: a lost connection is one."""
    name = sql.Identifier(server.stream)
    conn.execute(sql.SQL("alter subscription {} set (disable_on_error = false)").format(name))
    conn.execute(sql.SQL("alter subscription {} enable").format(name))


def go_on(session: Session) -> None:
    """Let a subscription run that was stopped by hand, or by an error of the days when errors stopped it."""
    found = session.subscription()
    if found is None or session.server.paused_at is not None:
        return
    if found.stops_on_error or not found.enabled:
        enable(session.conn, session.server)


def disable(conn: Conn, server: Server) -> None:
    """Stop the subscription after the transaction under way."""
    conn.execute(sql.SQL("alter subscription {} disable").format(sql.Identifier(server.stream)))


def skip(conn: Conn, server: Server, finish_lsn: str) -> None:
    """Let the subscription skip the transaction that ends there."""
    alter = sql.SQL("alter subscription {} skip (lsn = {})")
    conn.execute(alter.format(sql.Identifier(server.stream), sql.Literal(finish_lsn)))


def refresh(session: Session, steps: Steps, *, copy: bool) -> None:
    """Make the subscription take up what the publication lists now, also one that is disabled.

    A refresh needs an enabled subscription: one that is paused is enabled for the moment.
    """
    name = sql.Identifier(session.server.stream)
    refresh_it = sql.SQL("alter subscription {} refresh publication with (copy_data = {})").format(
        name, sql.SQL("true" if copy else "false")
    )
    found = session.subscription()
    if found is None or found.enabled:  # None: a dry run
        steps.on_server(session, refresh_it)
        return
    try:
        steps.on_server(session, sql.SQL("alter subscription {} enable").format(name))
        steps.on_server(session, refresh_it)
    finally:
        if session.server.paused_at is not None:
            steps.on_server(session, sql.SQL("alter subscription {} disable").format(name))


def refresh_copying(session: Session, steps: Steps) -> tuple[list[Placement], bool]:
    """Make the subscription take up what the publication lists now, with a first copy where that can be.

    Returns the courses that are new to it, and whether PostgreSQL copies them. It does not if one of them already has
    rows on the server, as their keys would stop it: the caller must then repair each.
    """
    courses = {row.schema_name: row for row in catalog.fed(session.portal, session.server) if row.state != "detached"}
    new = [copy for copy in session.copies(*courses) if copy.is_there and copy.sync is None]
    empty = all(
        one(session.conn, sql.SQL("select not exists (select from {}) as empty").format(
            sql.Identifier(copy.schema_name, copy.table)
        ))["empty"]
        for copy in new
    )  # fmt: skip
    refresh(session, steps, copy=empty)
    return [courses[name] for name in dict.fromkeys(copy.schema_name for copy in new)], empty


def await_copies(
    session: Session, schemas: Sequence[str], seconds: float | None, progress: Progress | None = None
) -> str:
    """Wait until PostgreSQL has copied the tables of these schemas. Returns `ready`, `refused` or `copying` (late).

    It is refused where the server cannot apply a row: of the first copy, or of the changes that come behind it. Then
    what was counted is taken back, as the caller may wait again.
    """
    began = noted = looked = time.monotonic()
    done = 0
    before = session.subscription()

    def refused() -> str:
        if progress is not None:
            progress.advance(-done)
        return "refused"

    while True:
        found = session.subscription()
        copies = catalog.copies(session.conn, session.copied, schemas, found)
        ready = sum(copy.sync == "r" for copy in copies)
        if progress is not None:
            progress.advance(ready - done)
        done = ready
        if ready == len(schemas) * len(session.copied.tables):
            return "ready"
        if found is None or not found.enabled:
            return refused()
        if time.monotonic() - looked > LOOK_SECONDS:
            has_errors = found.sync_errors or found.is_failing(before)
            if has_errors and apply_error.fault(session):
                return refused()
            before, looked = found, time.monotonic()
        if seconds is not None and time.monotonic() - began > seconds:
            return "copying"
        if progress is not None and time.monotonic() - noted > NOTE_SECONDS:
            noted = time.monotonic()
            progress.note(f"copying; {catalog.oldest_transaction(session.source, session.source_name)}")
        time.sleep(0.05)
