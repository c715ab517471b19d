"""Letting replication go on at an apply error: conflicting rows are deleted, anything else is reported."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.shell import is_name
from rollbook.replication import apply_error, catalog, obstacle, subscription
from rollbook.replication.apply_error import Keyed
from rollbook.replication.build import publish
from rollbook.replication.fence import FaultError, fence
from rollbook.replication.link import Server
from rollbook.replication.queries.servers import record_state
from rollbook.replication.session import Session
from rollbook.replication.steps import Steps
from rollbook.replication.write_rows import refused_write

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
    removed: list[Removed] = []
    idle = 0
    fault, at = None, session
    subscription.go_on(session)
    while idle < IDLE_ROUNDS:
        idle += 1
        fault, at = apply_error.copy_fault(session), session
        if fault is None:
            try:
                fence(session)
            except FaultError as exc:
                fault, at = exc.fault, exc.session  # perhaps the relay's
            else:
                return removed
        if fault.sent_without:
            pass_over(at, fault.schema_name)
            continue
        if not fault.is_conflict:
            raise refusal(at.server, fault)
        if fault.operation == "copy":
            readd_tables(at, fault.schema_name)
        else:
            fresh = [row for row in delete_conflicts(at) if row not in removed]
            removed += fresh
            idle = 0 if fresh else idle  # somebody on the server who puts a row back ends it
    raise UnreachableError(
        f"replication to server {at.server.name} stops again and again",
        why=f"{fault.words}; the row is there again each time it is deleted" if fault else None,
        fix=kept_row_fix(at, fault) if fault else "rollbook replication status",
    )


def kept_row_fix(session: Session, fault: apply_error.Fault) -> str:
    """Return what helps where a deleted row is there again: its triggers are disabled, or whoever writes it stops."""
    sql_there = obstacle.keepers(session.conn, fault.schema_name, fault.table)
    if sql_there is None:
        copy = f"{fault.schema_name}.{fault.table}"
        place = f"{copy if is_name(copy) else 'that row'} on server {session.server.name}"
        return f"stop whatever writes {place}; then: {fault.fix(session.server)}"
    return obstacle.fix_lines(session.server, fault.course, sql_there, ["repair"], moving_to=fault.moving_to)


def refusal(server: Server, fault: apply_error.Fault) -> RefusedError:
    """Return the refusal for an apply error, with the ways to continue."""
    course = fault.course or fault.schema_name
    key = f" row {fault.key}" if fault.key else ""
    return RefusedError(
        f"server {server.name} cannot {fault.operation} {fault.table}{key} of course {course}",
        why=f"{fault.message} (SQLSTATE {fault.sqlstate})", fix=fault.fix(server, with_skip=True),
        course=course, table=fault.table, key=fault.key, sqlstate=fault.sqlstate, lsn=fault.finish_lsn,
    )  # fmt: skip


def delete_conflicts(session: Session) -> list[Removed]:
    """Delete on the server the rows whose keys pending inserts bring; return them.

    The tables are locked before the keys are read again: the worker retries meanwhile, and what it has inserted is no
    conflict. Several rounds where a lock of the worker's crosses these.
    """
    conn = session.conn
    absent = apply_error.expected_absent(session)
    schema_name = ""
    for _ in range(LOCK_ROUNDS if absent else 0):
        gone: list[Removed] = []
        try:
            with conn.transaction():
                conn.execute("set local role rollbook_owner")
                conn.execute("set local lock_timeout = '5s'")
                names = sql.SQL(", ").join(sql.Identifier(*table[:2]) for table in sorted(absent))
                conn.execute(sql.SQL("lock table {} in share row exclusive mode").format(names))
                conn.execute("set local role none")
                now = apply_error.expected_absent(session)
                conn.execute("set local role rollbook_owner")
                for table in absent.keys() & now.keys():
                    schema_name = table.schema_name
                    gone += delete_rows(conn, table, now[table])
        except (errors.DeadlockDetected, errors.LockNotAvailable):
            continue
        except psycopg.Error as exc:
            raise refused_write(session, schema_name, exc) or exc from exc
        return gone
    return []


def delete_rows(conn: Conn, table: Keyed, keys: list[int]) -> list[Removed]:
    """Delete rows of one table on the server, in its current transaction."""
    delete = sql.SQL("delete from {0} where {1} = any(%s) returning {1} as row_id").format(
        sql.Identifier(table.schema_name, table.name), sql.Identifier(table.key_column)
    )
    return [Removed(table.schema_name, table.name, row["row_id"]) for row in conn.execute(delete, [keys])]


def pass_over(session: Session, schema_name: str) -> None:
    """Take one course out of the stream until all that was sent of it has gone by, and in again.

    A row that was sent without a column stays so, whatever the publication lists now. Its rows are repaired instead.
    """
    record_copying(session, schema_name)
    session.source.execute(publish(session.portal, session.server, without=schema_name))
    try:
        subscription.refresh(session, Steps(), copy=False)
        with suppress(FaultError):  # of another course: the next round meets it
            fence(session)
    finally:
        session.source.execute(publish(session.portal, session.server))
        subscription.refresh(session, Steps(), copy=False)


def record_copying(session: Session, schema_name: str) -> None:
    """Record that a course lacks rows until it is repaired and compared; one that moves here is compared anyway."""
    placed = catalog.fed(session.portal, session.server)
    if any(row.schema_name == schema_name and row.state != "moving" for row in placed):
        record_state(session.portal, schema_name, "copying")


def readd_tables(session: Session, schema_name: str) -> None:
    """Take one course out of the stream and in again, without a first copy: its rows are repaired instead."""
    record_copying(session, schema_name)
    for without in (schema_name, None):
        session.source.execute(publish(session.portal, session.server, without=without))
        subscription.refresh(session, Steps(), copy=False)
