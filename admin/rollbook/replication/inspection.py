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
from rollbook.replication.queries.servers import list_slots
from rollbook.replication.state import server_state

NOT_ALLOWED = "this role may not create a subscription on the server, and so cannot try the route"

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


def line(portal: Conn, seen: Seen) -> ServerLine:
    """Return one server's line."""
    answer = seen.reached
    return ServerLine(
        seen.server.name, seen.server.through, len(catalog.fed(portal, seen.server)), server_state(seen),
        answer.version if answer else None, seen.lag_bytes, seen.lag_seconds(), seen.server.created_at,
    )  # fmt: skip


def list_servers(portal: Conn, caller: Caller) -> list[ServerLine]:
    """Return a line for each server, as it answers now."""
    return [line(portal, seen) for seen in look(portal, link.list_servers(portal), caller)]


def describe_server(portal: Conn, name: str, caller: Caller) -> dict[str, Any]:
    """Return all that is known of one server: the document of `server show`."""
    server = link.find_server(portal, name)
    (seen,) = look(portal, [server], caller)
    summary = line(portal, seen)
    courses = catalog.placements(portal, server)
    kept: list[str] = []
    if seen.reached:
        with link.reached(server, caller) as conn:
            kept = catalog.kept_schemas(conn, [row.schema_name for row in catalog.fed(portal, server)])
    found = seen.reached.subscription if seen.reached else None
    return {
        "server": name, "through": server.through, "state": summary.state, "version": summary.version,
        "reason": seen.answer.why if isinstance(seen.answer, UnreachableError) else None,
        "admin_dsn": link.shown(server.admin_dsn), "subscription_dsn": link.shown(server.subscription_dsn),
        "since": server.created_at, "lag_bytes": summary.lag_bytes, "lag_seconds": summary.lag_seconds,
        "slot": dict(vars(seen.slot)) if seen.slot else None, "courses": [row.course for row in courses],
        "moving_here": [row.course for row in catalog.fed(portal, server) if row.state == "moving"],
        "kept_schemas": kept,
        "subscription": found and {
            "name": server.stream, "enabled": found.enabled, "worker": found.worker,
            "apply_errors": found.apply_errors, "sync_errors": found.sync_errors,
        },
    }  # fmt: skip


def ping(portal: Conn, name: str, caller: Caller) -> list[Route]:
    """Try both routes of a server, and time each."""

    def question(server: Server, conn: Conn) -> tuple[float, float | None, str | None]:
        reached = time.monotonic() - began
        try:
            requirements.try_route(conn, server)
        except UnreachableError as exc:
            return reached, None, exc.why
        except errors.InsufficientPrivilege:
            return reached, None, NOT_ALLOWED
        return reached, time.monotonic() - began - reached, None

    server = link.find_server(portal, name)
    began = time.monotonic()
    answer = link.ask([server], question, caller)[name]
    if isinstance(answer, UnreachableError):
        return [route(name, "admin", None, answer.why), route(name, "subscription", None, "not tried: no route there")]
    reached, tried, reason = answer
    if reason == NOT_ALLOWED and any(slot.active for slot in list_slots(portal) if slot.server == name):
        return [route(name, "admin", reached, None), Route(name, "subscription", "ok", None, "the server uses it now")]
    return [route(name, "admin", reached, None), route(name, "subscription", tried, reason)]


def route(name: str, which: str, seconds: float | None, reason: str | None) -> Route:
    """Return one route's line."""
    verdict = "unreachable" if seconds is None else "ok"
    return Route(name, which, verdict, None if seconds is None else round(seconds, 3), reason)
