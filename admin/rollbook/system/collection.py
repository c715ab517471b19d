"""What an operator watches: courses and their servers, slots, the last verify, the test centre, the discussion service.

Each part is asked for apart from the others: one that gives no answer is reported, and the others are known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg

from rollbook.core.db import DEFAULT_TABLES, Caller, installed, refuse_newer
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.migrating import known_revisions
from rollbook.core.rows import one
from rollbook.core.sqlstate import translate
from rollbook.people.queries import discussion
from rollbook.replication import state, tree
from rollbook.replication.queries.copies import Compared, list_compared
from rollbook.replication.queries.courses import Fault, routing_faults
from rollbook.replication.queries.servers import SlotStatus
from rollbook.replication.slots import all_slots
from rollbook.testcentre.queries import pearson

if TYPE_CHECKING:
    from rollbook.core.db import Conn

PARTS = ("schema", "routing", "courses", "slots", "verify", "pearson", "discussion")
OF_PEOPLE = ("pearson", "discussion")  # they need the default's tables


@dataclass(frozen=True)
class Failure:
    """A part that gave no answer, or a course server, and why."""

    part: str  # of PARTS, or server
    server: str | None
    why: str


@dataclass
class Collected:
    """What was measured; None is not measured. It fills while it is collected."""

    is_up: bool = False  # the portal answered
    database: str | None = None
    observed_at: datetime | None = None
    revision: str | None = None
    pending_revisions: int | None = None
    faults: list[Fault] | None = None
    lines: list[state.Line] | None = None
    idle: list[tree.Hop] = field(default_factory=list)  # the servers without courses
    servers: dict[str, bool] = field(default_factory=dict)  # by server: whether it answered
    relays: dict[str, list[SlotStatus] | UnreachableError] = field(default_factory=dict)  # their slots, by relay
    through: dict[str, str] = field(default_factory=dict)  # by server behind a relay: the relay
    slots: list[SlotStatus] | None = None
    compared: list[Compared] | None = None
    waiting: list[pearson.Waiting] | None = None
    last_export: datetime | None = None
    is_discussion_active: bool | None = None
    discussion: discussion.State | None = None
    asked: list[str] = field(default_factory=list)  # the parts that this installation has
    answered: list[str] = field(default_factory=list)  # those that were measured
    failures: list[Failure] = field(default_factory=list)


def schema(conn: Conn, found: Collected) -> list[str]:
    """Measure the revision; return the parts that can be measured: those that this installation has, at the head."""
    found.database = conn.info.dbname
    found.asked = list(PARTS)
    found.revision, tables = installed(conn)
    known = known_revisions()
    found.is_up = True
    refuse_newer(found.revision)
    found.pending_revisions = sum(found.revision is None or name > found.revision for name in known)
    found.observed_at = one(conn, "select clock_timestamp() as at")["at"]
    if tables and tuple(tables) != DEFAULT_TABLES:
        found.asked = [part for part in PARTS if part not in OF_PEOPLE]
    return found.asked if found.pending_revisions == 0 else ["schema"]


def courses(conn: Conn, found: Collected, caller: Caller) -> None:
    """Measure the state of each course, and ask the course servers."""
    found.lines, seen = state.observed(conn, None, found.faults or [], caller)
    found.servers = {name: each.reached is not None for name, each in seen.items()}
    found.idle = [hop for hop in tree.hops(seen) if not hop.courses]
    for name, each in seen.items():
        if each.server.through is not None:
            found.through[name] = each.server.through
        if isinstance(each.answer, UnreachableError):
            found.failures.append(Failure("server", name, state.why_silent(each, each.answer) or each.answer.message))
        if each.behind:
            feeds = each.reached and each.reached.feeds
            found.relays[name] = each.answer if isinstance(each.answer, UnreachableError) else [
                *(feeds.slots.values() if feeds else ())
            ]  # fmt: skip


def collect(conn: Conn, found: Collected, caller: Caller, parts: Collection[str] = PARTS) -> None:
    """Measure these parts of an installation, and always its schema. The session must be in autocommit.

    Raises psycopg.Error and AdminError where the portal does not answer, or the schema is none that this program knows.
    """

    def routing() -> None:
        found.faults = routing_faults(conn)

    def slots() -> None:
        answer = all_slots(conn, caller, found.relays)
        found.slots = answer.found
        for name, error in answer.silent.items():
            if name not in found.servers:  # the courses were not measured
                found.servers[name] = False
                found.failures.append(Failure("server", name, error.why or error.message))

    def verify() -> None:
        found.compared = list_compared(conn)

    def test_centre() -> None:
        found.waiting, found.last_export = pearson.waiting(conn), pearson.last_export(conn)

    def service() -> None:
        found.is_discussion_active, found.discussion = discussion.settings(conn).active, discussion.state(conn)

    work: dict[str, Callable[[], None]] = {
        "routing": routing, "courses": lambda: courses(conn, found, caller), "slots": slots, "verify": verify,
        "pearson": test_centre, "discussion": service,
    }  # fmt: skip
    there = schema(conn, found)
    found.answered.append("schema")
    for part, ask in work.items():
        if part in there and part in parts:
            measure(conn, found, part, ask)


def measure(conn: Conn, found: Collected, part: str, ask: Callable[[], None]) -> None:
    """Measure a part. An error is recorded, and raised where the session is lost with it."""
    try:
        ask()
    except (AdminError, psycopg.Error) as exc:
        if conn.closed:
            raise
        meant = translate(exc) if isinstance(exc, psycopg.Error) else exc
        found.failures.append(Failure(part, None, ": ".join(filter(None, (meant.message, meant.why)))))
    else:
        found.answered.append(part)
