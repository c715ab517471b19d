"""Restarting replication that an apply error has stopped: conflicting rows are deleted, anything else is reported."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import Row
from rollbook.core.shell import course_word
from rollbook.replication import apply_error, subscription
from rollbook.replication.build import publish
from rollbook.replication.catalog import course_of
from rollbook.replication.heartbeat import fence
from rollbook.replication.link import Server
from rollbook.replication.queries.servers import record_state
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps
from rollbook.replication.write_rows import course_errors

IDLE_ROUNDS = 50  # how often a restarted subscription may stop again where nothing could be deleted


@dataclass(frozen=True)
class Removed:
    """A conflicting row that was deleted on a server."""

    schema_name: str
    table: str
    row_id: int


def restart(session: Session) -> list[Removed]:
    """Restart a subscription that stopped at conflicting rows; delete those, and only those.

    Continues as long as there is something to delete: others write meanwhile, and may meet the next conflict. Returns
    what was deleted. Raises RefusedError for any other apply error, which it names.
    """
    portal, conn, server = session.portal, session.conn, session.server
    removed: list[Removed] = []
    idle = 0
    while idle < IDLE_ROUNDS:
        idle += 1
        found = session.subscription()
        if found is None or not found.enabled:
            fault = apply_error.fault(portal, conn, server)
            if fault is not None and not fault.is_conflict:
                raise refusal(portal, server, fault)
            if fault is not None and fault.operation == "copy":
                readd_tables(session, fault.schema_name)
            elif fault is not None:
                fresh = [row for row in delete_conflicts(session) if row not in removed]
                removed += fresh
                idle = 0 if fresh else idle  # somebody on the server who puts a row back ends it
            subscription.enable(conn, server)
        try:
            fence(session)
            return removed
        except UnreachableError:
            found = session.subscription()
            if found is None or found.enabled:
                raise
    raise UnreachableError(
        f"replication to server {server.name} stops again and again", fix="rollbook replication status"
    )


def refusal(portal: Conn, server: Server, fault: apply_error.Fault) -> RefusedError:
    """Return the refusal for an apply error that only a person can fix, with the ways to continue."""
    course = course_of(portal, fault.schema_name) or fault.schema_name
    key = f" row {fault.key}" if fault.key else ""
    skip = f"; or skip that transaction with --skip {fault.finish_lsn}, then repair" if fault.finish_lsn else ""
    return RefusedError(
        f"server {server.name} cannot {fault.operation} {fault.table}{key} of course {course}",
        why=f"{fault.message} (SQLSTATE {fault.sqlstate})",
        fix=f"fix that there, then: rollbook replication resume {course_word(course)}{skip}",
        course=course, table=fault.table, key=fault.key, sqlstate=fault.sqlstate, lsn=fault.finish_lsn,
    )  # fmt: skip


def delete_conflicts(session: Session) -> list[Removed]:
    """Delete on the server the rows whose keys pending inserts bring; return them."""
    conn = session.conn
    removed: list[Removed] = []
    absent = apply_error.expected_absent(session.portal, conn, session.server)
    with conn.transaction():
        conn.execute("set local role rollbook_owner")
        for (schema_name, name), keys in absent.items():
            key = sql.Identifier("beat" if name == "heartbeat" else "id")
            delete = sql.SQL("delete from {} where {} = any(%s) returning {} as row_id").format(
                sql.Identifier(schema_name, name), key, key
            )
            with course_errors(course_of(session.portal, schema_name) or schema_name, schema_name):
                gone: list[Row] = conn.execute(delete, [keys]).fetchall()
            removed += [Removed(schema_name, name, row["row_id"]) for row in gone]
    return removed


def readd_tables(session: Session, schema_name: str) -> None:
    """Take one course out of the stream and in again, without a first copy: its rows are repaired instead."""
    for state in ("detached", "copying"):
        record_state(session.portal, schema_name, state)
        session.portal.execute(publish(session.server))
        subscription.refresh(session, Steps(), copy=False)
