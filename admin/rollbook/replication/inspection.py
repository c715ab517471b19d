"""What is reported of course servers: a line each, everything of one, and whether its routes work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import errors

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.replication import catalog, link, requirements
from rollbook.replication.link import Server
from rollbook.replication.observe import Seen, look
from rollbook.replication.queries.servers import slots_of
from rollbook.replication.state import server_fault, shown_verdict, why_silent

NOT_ALLOWED = "this role may not create a subscription on the server, and so cannot try the route"
NOT_LET = (
    "the role in --admin-dsn is not a superuser: PostgreSQL lets it try the route with password=... in "
    "--subscription-dsn, where the login is asked for it"
)

# The keys of `server show` that are values, not lists or documents.
HEAD = (
    "server", "through", "state", "version", "reason", "admin_dsn", "subscription_dsn", "since", "lag_bytes",
    "lag_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class ServerLine:
    """A row of `server list`; the fields are its columns."""

    server: str
    through: str | None  # the relay that feeds it
    courses: int
    state: str
    version: str | None
    lag_bytes: int | None
    lag_seconds: float | None
    since: datetime | None


@dataclass(frozen=True)
class Route:
    """A row of `server ping`; the fields are its columns."""

    server: str
    route: str  # admin or subscription
    verdict: str
    seconds: float | None
    reason: str | None


def line(seen: Seen) -> ServerLine:
    """Return one server's line."""
    answer = seen.reached
    return ServerLine(
        seen.server.name, seen.server.through, seen.courses, shown_verdict(seen).state,
        answer.version if answer else None, seen.hop_bytes, seen.lag_seconds(), seen.server.created_at,
    )  # fmt: skip


def list_servers(portal: Conn, caller: Caller) -> list[ServerLine]:
    """Return a line for each server, as it answers now."""
    return [line(seen) for seen in look(portal, link.list_servers(portal), caller)]


def describe_server(portal: Conn, name: str, caller: Caller) -> dict[str, Any]:
    """Return all that is known of one server: the document of `server show`."""
    server = link.find_server(portal, name)
    (seen,) = look(portal, [server], caller)
    summary = line(seen)
    fed = catalog.fed(portal, server)
    kept: list[str] = []
    if seen.reached:
        with link.reached(server, caller) as conn:
            kept = catalog.kept_schemas(conn, [row.schema_name for row in fed])
    found = seen.reached.subscription if seen.reached else None
    fault = server_fault(seen, [row.course for row in fed if row.state in ("ok", "unknown")])
    why = why_silent(seen, seen.answer) if isinstance(seen.answer, UnreachableError) else fault and fault.reason
    fix = fault and fault.fix
    if summary.state == "moving":
        why, fix = server.moving_words, server.move_command
    return {
        "server": name, "through": server.through, "state": summary.state, "version": summary.version,
        "reason": why, "fix": fix,
        "admin_dsn": link.shown(server.admin_dsn), "subscription_dsn": link.shown(server.subscription_dsn),
        "since": server.created_at, "lag_bytes": summary.lag_bytes, "lag_seconds": summary.lag_seconds,
        "hop_seconds": seen.hop_seconds(), "behind": list(seen.behind),
        "slot": dict(vars(seen.slot)) if seen.slot else None,
        "courses": [row.course for row in fed if row.state != "moving"],
        "moving_here": [row.course for row in fed if row.state == "moving"],
        "kept_schemas": kept,
        "subscription": found and {
            "name": server.stream, "enabled": found.enabled, "worker": found.worker,
            "apply_errors": found.apply_errors, "sync_errors": found.sync_errors,
        },
    }  # fmt: skip


def ping(portal: Conn, name: str, caller: Caller) -> list[Route]:
    """Try both routes of a server, and time each; behind a relay, whether that is reached too."""

    def question(server: Server, conn: Conn) -> tuple[float, float | None, str | None]:
        reached = time.monotonic() - began
        try:
            requirements.try_route(conn, server)
        except UnreachableError as exc:
            return reached, None, NOT_LET if exc.details.get("sqlstate") else exc.why
        except errors.InsufficientPrivilege:
            return reached, None, NOT_ALLOWED
        return reached, time.monotonic() - began - reached, None

    def of_relay(_: Server, conn: Conn) -> tuple[float, bool]:
        return time.monotonic() - began, is_read(conn)

    def is_read(source: Conn) -> bool:
        return any(slot.active for slot in slots_of(source, [server]) if slot.slot_name == server.stream)

    server = link.find_server(portal, name)
    began = time.monotonic()
    answer = link.ask([server], question, caller)[name]
    of_its_relay: list[Route] = []
    used = server.through is None and is_read(portal)
    if relay := link.find_relay(portal, server):
        began = time.monotonic()
        there = link.ask([relay], of_relay, caller)[relay.name]
        if isinstance(there, UnreachableError):
            of_its_relay = [route(relay.name, "admin", None, there.why)]
        else:
            of_its_relay, used = [route(relay.name, "admin", there[0], None)], there[1]
    if isinstance(answer, UnreachableError):
        not_tried = route(name, "subscription", None, "not tried: no route there")
        return [route(name, "admin", None, answer.why), not_tried, *of_its_relay]
    reached, tried, reason = answer
    subscription = route(name, "subscription", tried, reason)
    if reason in (NOT_ALLOWED, NOT_LET) and used:
        subscription = Route(name, "subscription", "ok", None, "the server uses it now")
    return [route(name, "admin", reached, None), subscription, *of_its_relay]


def route(name: str, which: str, seconds: float | None, reason: str | None) -> Route:
    """Return one route's line."""
    verdict = "unreachable" if seconds is None else "ok"
    return Route(name, which, verdict, None if seconds is None else round(seconds, 3), reason)
