"""Pausing and resuming the streams of servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.errors import AttentionError, RefusedError, UnreachableError, UsageError
from rollbook.core.shell import course_word
from rollbook.replication import apply_error, catalog, link, subscription
from rollbook.replication.fence import FaultError, fence
from rollbook.replication.queries.copies import portal_time, record_verification
from rollbook.replication.queries.servers import record_pause, slots_of, wal_is_unbounded
from rollbook.replication.restart import refusal
from rollbook.replication.selection import selected
from rollbook.replication.session import Session, opened

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

ARRIVAL_SECONDS = 10.0  # how long a resumed stream may take to deliver a heartbeat


@dataclass(frozen=True)
class Paused:
    """A row of `replication pause` and `resume`; the fields are their columns."""

    course: str
    server: str
    outcome: str
    held_bytes: int | None
    safe_bytes: int | None


def pause_or_resume(
    run: Run, portal: Conn, courses: Sequence[str], names: Sequence[str], *, paused: bool, skip: str | None
) -> tuple[list[Paused], list[str]]:
    """Pause or resume the servers of these courses, past the transaction that ends at `skip`.

    Returns a line for each course that is affected: with a relay the courses of all servers behind it; and in sentences
    who keeps WAL for a paused server, and how long. A dry run changes nothing. Raises RefusedError with the apply error
    that would stop a server again.
    """
    servers = selected(portal, courses, names)
    if skip is not None and not re.fullmatch(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", skip):
        raise UsageError(f"{skip} is not an LSN", fix="copy it from: rollbook replication show COURSE")
    if skip is not None and len(servers) != 1:
        raise UsageError("--skip is for one server", fix="name one course")
    found: list[Paused] = []
    kept: list[str] = []
    for server in servers:
        relay = link.find_relay(portal, server)
        resumed = relay if relay is not None and relay.paused_at and not paused else server
        affected = [row for row in catalog.fed(portal, resumed) if row.state != "moving"]
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=ARRIVAL_SECONDS, changes=not run.dry_run) as session,
        ):
            outcome = "would pause" if paused else "would resume"
            if not run.dry_run:
                outcome = pause(session) if paused else resume(session, skip)
                history.record_many(portal, run, [
                    {"object": row.course, "outcome": "paused" if paused else "resumed",
                     "after": {"server": server.name, "skipped_lsn": skip}, "course_id": row.course}
                    for row in affected
                ])  # fmt: skip
            slot = next((row for row in slots_of(session.source, [server]) if row.slot_name == server.stream), None)
            if paused and not run.dry_run:
                kept.append(keeps_wal(session))
        wal = (slot.held_bytes, slot.safe_bytes) if slot else (None, None)
        found += [Paused(row.course, row.server or server.name, outcome, *wal) for row in affected]
    return found, list(dict.fromkeys(kept))


def keeps_wal(session: Session) -> str:
    """Return in a sentence for how long the source of a paused server keeps its WAL."""
    bound = (
        "without bound: the disk may fill (max_slot_wal_keep_size is -1)" if wal_is_unbounded(session.source)
        else "until it has written SAFE more bytes; then the slot is lost"
    )  # fmt: skip
    return f"{session.source_name} keeps its WAL for them {bound}"


def pause(session: Session) -> str:
    """Pause a server; return `paused`."""
    require_subscription(session)
    record_pause(session.portal, session.server.name, paused=True)
    subscription.disable(session.conn, session.server)
    return "paused"


def resume(session: Session, skip: str | None) -> str:
    """Resume a server, and its relay first; return `resumed`, or `lagging` if no heartbeat arrives in time."""
    portal = session.portal
    for hop in session.hops:
        require_subscription(hop)
    touched: tuple[str, ...] = ()
    if skip is not None:
        touched = skip_transaction(session, skip)
    for hop in session.hops:
        subscription.enable(hop.conn, hop.server)
        record_pause(portal, hop.server.name, paused=False)
    try:
        fence(session, skipped=skip)
    except FaultError as exc:
        raise refusal(exc.session.server, exc.fault) from exc
    except UnreachableError:
        return "lagging"
    finally:
        for course in touched:  # what was skipped is missing there
            record_verification(portal, course, "differs", None, portal_time(portal), None)
    for hop in session.hops:
        if fault := apply_error.copy_fault(hop):
            raise refusal(hop.server, fault)
    return "resumed"


def skip_transaction(session: Session, skip: str) -> tuple[str, ...]:
    """Skip the transaction that fails; return its courses. Raises RefusedError unless it ends at `skip`."""
    fault = None
    for hop in session.hops:
        fault = apply_error.apply_fault(hop) or fault
        if fault is not None and fault.finish_lsn == skip.upper():
            subscription.skip(hop.conn, hop.server, skip)
            return fault.touched
    raise RefusedError(
        f"replication to server {session.server.name} did not stop at {skip}",
        why=f"it stopped at {fault.finish_lsn}" if fault else "it has not stopped",
        fix=f"rollbook replication conflicts{named(session)}",
    )


def require_subscription(session: Session) -> catalog.Subscription:
    """Return the subscription. Raises AttentionError if the server has none."""
    found = session.subscription()
    if found is None:
        raise AttentionError(
            f"server {session.server.name} has no subscription",
            fix=f"rollbook replication resync{named(session)}"
            if named(session)
            else f"rollbook server add {session.server.name}",
        )
    return found


def named(session: Session) -> str:
    """Return the courses that a server has, or those behind a relay, as words for a command; empty for none."""
    rows = [row for row in catalog.fed(session.portal, session.server) if row.state not in ("moving", "detached")]
    return "".join(f" {course_word(row.course)}" for row in rows)
