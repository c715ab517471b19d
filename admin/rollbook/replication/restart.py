"""Letting replication go on at an apply error: conflicting rows are deleted, anything else is reported."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import errors, sql

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import Row
from rollbook.core.shell import course_word
from rollbook.replication import apply_error, subscription
from rollbook.replication.build import publish
from rollbook.replication.catalog import course_of
from rollbook.replication.fence import FaultError, fence
from rollbook.replication.link import Server
from rollbook.replication.queries.servers import begin_move, is_moving_to, list_moves, record_state, switch
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps
from rollbook.replication.write_rows import course_errors

IDLE_ROUNDS = 50  # how often a worker may fail again where nothing could be deleted
LOCK_ROUNDS = 5  # how often the tables of conflicting rows are locked again after a deadlock


@dataclass(frozen=True)
class Removed:
    """A conflicting row that was deleted on a server."""

    schema_name: str
    table: str
    row_id: int


def restart(session: Session) -> list[Removed]:
    """Delete the rows of a server because of which its worker cannot apply others; delete those, and only those.

    Continues as long as there is something to delete: others write meanwhile, and may meet the next conflict. Returns
    what was deleted. Raises RefusedError for any other apply error, which it names.
    """
    portal, conn, server = session.portal, session.conn, session.server
    removed: list[Removed] = []
    idle = 0
    subscription.go_on(session)
    while idle < IDLE_ROUNDS:
        idle += 1
        fault = apply_error.copy_fault(portal, conn, server)
        if fault is None:
            try:
                fence(session)
            except FaultError as exc:
                fault = exc.fault
            else:
                return removed
        if not fault.is_conflict:
            raise refusal(portal, server, fault)
        if fault.operation == "copy":
            readd_tables(session, fault.schema_name)
        else:
            fresh = [row for row in delete_conflicts(session) if row not in removed]
            removed += fresh
            idle = 0 if fresh else idle  # somebody on the server who puts a row back ends it
    raise UnreachableError(
        f"replication to server {server.name} stops again and again", fix="rollbook replication status"
    )


def refusal(portal: Conn, server: Server, fault: apply_error.Fault) -> RefusedError:
    """Return the refusal for an apply error, with the ways to continue."""
    course = course_of(portal, fault.schema_name) or fault.schema_name
    key = f" row {fault.key}" if fault.key else ""
    again = f"rollbook replication resume {course_word(course)}"
    repair = f"rollbook replication repair {course_word(course)}"
    if is_moving_to(portal, fault.schema_name, server.name):
        again = repair = f"rollbook course move {course_word(course)} --to {server.name}"
    skip = f"; or skip that transaction with --skip {fault.finish_lsn}, then repair" if fault.finish_lsn else ""
    return RefusedError(
        f"server {server.name} cannot {fault.operation} {fault.table}{key} of course {course}",
        why=f"{fault.message} (SQLSTATE {fault.sqlstate})",
        fix=repair if fault.is_conflict else f"fix that there, then: {again}{skip}",
        course=course, table=fault.table, key=fault.key, sqlstate=fault.sqlstate, lsn=fault.finish_lsn,
    )  # fmt: skip


def delete_conflicts(session: Session) -> list[Removed]:
    """Delete on the server the rows whose keys pending inserts bring; return them.

    The tables are locked before the keys are read again: the worker retries meanwhile, and what it has inserted is no
    conflict. Several rounds where a lock of the worker's crosses these.
    """
    conn = session.conn
    absent = apply_error.expected_absent(session.portal, conn, session.server)
    for _ in range(LOCK_ROUNDS if absent else 0):
        try:
            with conn.transaction():
                conn.execute("set local role rollbook_owner")
                conn.execute("set local lock_timeout = '5s'")
                names = sql.SQL(", ").join(sql.Identifier(*place) for place in sorted(absent))
                conn.execute(sql.SQL("lock table {} in share row exclusive mode").format(names))
                conn.execute("set local role none")
                now = apply_error.expected_absent(session.portal, conn, session.server)
                return [row for place in absent.keys() & now.keys() for row in delete_rows(session, place, now[place])]
        except (errors.DeadlockDetected, errors.LockNotAvailable):
            continue
    return []


def delete_rows(session: Session, place: tuple[str, str], keys: list[int]) -> list[Removed]:
    """Delete rows of one table on the server, in its current transaction."""
    schema_name, name = place
    key = sql.Identifier("beat" if name == "heartbeat" else "id")
    delete = sql.SQL("delete from {} where {} = any(%s) returning {} as row_id").format(
        sql.Identifier(*place), key, key
    )
    session.conn.execute("set local role rollbook_owner")
    with course_errors(course_of(session.portal, schema_name) or schema_name, schema_name):
        gone: list[Row] = session.conn.execute(delete, [keys]).fetchall()
    return [Removed(schema_name, name, row["row_id"]) for row in gone]


def readd_tables(session: Session, schema_name: str) -> None:
    """Take one course out of the stream and in again, without a first copy: its rows are repaired instead."""
    if is_moving_to(session.portal, schema_name, session.server.name):
        move = next(move for move in list_moves(session.portal, session.server.name) if move.schema_name == schema_name)
        changes = [switch(move.course, move.server), begin_move([move.course], session.server.name)]
        for change in changes:
            session.portal.execute(change)
            session.portal.execute(publish(session.server))
            subscription.refresh(session, Steps(), copy=False)
        return
    for state in ("detached", "copying"):
        record_state(session.portal, schema_name, state)
        session.portal.execute(publish(session.server))
        subscription.refresh(session, Steps(), copy=False)
