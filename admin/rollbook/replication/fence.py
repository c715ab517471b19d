"""Waiting until a server has all that the portal has committed, or until it is known what its worker cannot apply."""

from __future__ import annotations

import time

from psycopg import errors

from rollbook.core.errors import UnreachableError
from rollbook.replication import apply_error
from rollbook.replication.apply_error import Fault
from rollbook.replication.heartbeat import Heartbeat, arrival, confirmation, portal_lsn, send_if_allowed
from rollbook.replication.session import Session

LOOK_SECONDS = 1.0  # how long a heartbeat may take before the errors of the server's worker are looked at


class FaultError(UnreachableError):
    """The server's worker meets the same error again and again."""

    def __init__(self, session: Session, fault: Fault) -> None:
        server = session.server
        super().__init__(
            f"replication to server {server.name} has stopped", why=fault.words, fix=fault.fix(server)
        )  # fmt: skip
        self.session = session  # with the server, or the relay, that cannot apply it
        self.fault = fault


def fence(session: Session, seconds: float | None = None, *, skipped: str | None = None) -> float:
    """Return once the server has all that the portal has committed by now; within the session's time, or `seconds`.

    Returns the seconds waited. Raises FaultError for what the server, or its relay, cannot apply, but for the
    transaction that ends at `skipped`: the worker passes it at its next try. Raises UnreachableError if a subscription
    is disabled, or slower.
    """
    began = time.monotonic()
    seconds = session.timeout if seconds is None else seconds
    beat = send_if_allowed(session.portal)
    for hop in session.hops:
        wait_at(hop, beat, began + seconds, seconds, skipped)
    return time.monotonic() - began


def wait_at(session: Session, beat: Heartbeat | None, end: float, seconds: float, skipped: str | None) -> None:
    """Wait on one server for a heartbeat or, without one, for what its source has written by now."""
    source, conn, server = session.source, session.conn, session.server
    lsn = portal_lsn(source) if beat is None else ""
    before = session.subscription()
    unknown: UnreachableError | None = None  # why the worker's errors cannot be diagnosed
    while True:
        left = end - time.monotonic()
        turn = max(0.0, min(left, LOOK_SECONDS))
        if beat is not None:
            waited = arrival(conn, server, beat, turn)
        else:
            waited = confirmation(source, [server], lsn, turn)[server.name]
        if waited is not None:
            return
        found = session.subscription()
        if found is None or not found.enabled:
            raise UnreachableError(
                f"replication to server {server.name} has stopped",
                why="its subscription is disabled, or gone", fix="rollbook replication status",
            )  # fmt: skip
        if found.is_failing(before):
            try:
                fault = apply_error.apply_fault(session)
            except UnreachableError as exc:
                unknown = exc
            except errors.InsufficientPrivilege:  # the source's: a role that only looks may not read a slot
                pass
            else:
                if fault is not None and (skipped is None or fault.finish_lsn != skipped.upper()):
                    raise FaultError(session, fault)
        if left <= turn:
            raise UnreachableError(
                f"server {server.name} did not catch up with the portal within {seconds:g} s",
                why=unknown.why if unknown else "differences found now may be changes in transit",
                fix=(unknown and unknown.fix) or "try again, perhaps with a longer --timeout SECONDS",
            )
        before = found
