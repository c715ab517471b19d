"""Waiting until a server has all that the portal has committed, or until it is known what its worker cannot apply."""

from __future__ import annotations

import time

from psycopg import errors

from rollbook.core.errors import UnreachableError
from rollbook.replication import apply_error
from rollbook.replication.apply_error import Fault
from rollbook.replication.heartbeat import arrival, confirmation, portal_lsn, send_if_allowed
from rollbook.replication.session import Session

LOOK_SECONDS = 1.0  # how long a heartbeat may take before the errors of the server's worker are looked at


class FaultError(UnreachableError):
    """The server's worker meets the same error again and again."""

    def __init__(self, session: Session, fault: Fault) -> None:
        server = session.server
        super().__init__(
            f"replication to server {server.name} has stopped", why=fault.words, fix=fault.fix(server)
        )  # fmt: skip
        self.fault = fault


def fence(session: Session, seconds: float | None = None, *, skipped: str | None = None) -> float:
    """Return once the server has all that the portal has committed by now; within the session's time, or `seconds`.

    Returns the seconds waited. Raises FaultError for what the server cannot apply, but for the transaction that ends at
    `skipped`: the worker passes it at its next try. Raises UnreachableError if the subscription is disabled, or the
    server is slower.
    """
    portal, conn, server = session.portal, session.conn, session.server
    seconds = session.timeout if seconds is None else seconds
    began = time.monotonic()
    beat = send_if_allowed(portal)
    lsn = beat.lsn if beat else portal_lsn(portal)
    before = session.subscription()
    unknown: UnreachableError | None = None  # why the worker's errors cannot be diagnosed
    while True:
        left = seconds - (time.monotonic() - began)
        turn = max(0.0, min(left, LOOK_SECONDS))
        if beat is not None:
            waited = arrival(conn, server, beat, turn)
        else:
            waited = confirmation(portal, [server], lsn, turn)[server.name]
        if waited is not None:
            return time.monotonic() - began
        found = session.subscription()
        if found is None or not found.enabled:
            raise UnreachableError(
                f"replication to server {server.name} has stopped",
                why="its subscription is disabled, or gone", fix="rollbook replication status",
            )  # fmt: skip
        if found.is_failing(before):
            try:
                fault = apply_error.apply_fault(portal, conn, server)
            except UnreachableError as exc:
                unknown = exc
            except errors.InsufficientPrivilege:  # the portal's: a role that only looks may not read a slot
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
