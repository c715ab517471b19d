"""Waiting until servers have what the portal has committed, and timing how long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.replication.catalog import placements
from rollbook.replication.heartbeat import (
    Heartbeat,
    arrival,
    confirmation,
    portal_lsn,
    send_heartbeat,
    send_if_allowed,
)
from rollbook.replication.link import Server, ask, list_servers, reached
from rollbook.replication.session import joined
from rollbook.replication.subscription import await_copies

Arrivals = dict[str, float | UnreachableError | None]  # by server: seconds; None: not in time


def confirmed(portal: Conn, servers: Sequence[Server], caller: Caller, seconds: float) -> dict[str, float | None]:
    """Wait until servers have confirmed what the portal has written by now, their relays first; sends no heartbeat.

    Returns the seconds waited; None for a server that has not confirmed it in time, or whose relay does not answer.
    """
    began = time.monotonic()
    through = {server.through for server in servers}
    relays = [server for server in list_servers(portal) if server.name in through]
    first = {server.name: server for server in (*servers, *relays) if server.through is None}
    found = confirmation(portal, list(first.values()), portal_lsn(portal), seconds)
    for relay in relays:
        behind = [server for server in servers if server.through == relay.name]
        found |= dict.fromkeys((server.name for server in behind), None)
        if found[relay.name] is None:
            continue
        passed = time.monotonic() - began
        with suppress(UnreachableError), reached(relay, caller) as conn:
            waited = confirmation(conn, behind, portal_lsn(conn), max(0.0, seconds - passed))
            found |= {name: None if more is None else passed + more for name, more in waited.items()}
    return {server.name: found[server.name] for server in servers}


def wait_for_servers(portal: Conn, servers: Sequence[Server], caller: Caller, seconds: float) -> Arrivals:
    """Send a heartbeat and wait until each server has it."""
    beat = send_if_allowed(portal)
    if beat is None:
        return dict(confirmed(portal, servers, caller, seconds))

    def question(server: Server, conn: Conn) -> float | None:
        return arrival(conn, server, beat, seconds)

    return dict(ask(servers, question, Caller(caller.name, seconds), waits=seconds))


def time_heartbeat(portal: Conn, servers: Sequence[Server], caller: Caller, seconds: float) -> Arrivals:
    """Send one heartbeat and time it on each server: from the portal's commit until it is visible there."""
    connected: list[str] = []
    sent: list[Heartbeat] = []
    failed: list[psycopg.Error] = []

    def question(server: Server, conn: Conn) -> float | None:
        connected.append(server.name)
        end = time.monotonic() + seconds
        while not (sent or failed) and time.monotonic() < end:  # connecting does not count
            time.sleep(0.001)
        return arrival(conn, server, sent[0], seconds) if sent else None

    def send() -> None:
        end = time.monotonic() + seconds / 2
        while len(connected) < len(servers) and time.monotonic() < end:
            time.sleep(0.001)
        try:
            sent.append(send_heartbeat(portal))
        except psycopg.Error as exc:  # raised below: here nobody would see it
            failed.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    answers: dict[str, Any] = ask(servers, question, Caller(caller.name, seconds), waits=2 * seconds)
    sender.join()
    if failed:
        raise failed[0]
    return answers


def wait_for_courses(
    portal: Conn, courses: Sequence[str], caller: Caller, seconds: float
) -> dict[str, bool | UnreachableError]:
    """Wait until the servers of these courses have copied them, and have all that is committed by now.

    Returns by server whether it has. A course on no server had it at commit.
    """
    schemas = {
        server: [row.schema_name for row in placements(portal, server) if row.course in courses]
        for server in list_servers(portal)
    }
    servers = [server for server, found in schemas.items() if found]
    if not servers:
        return {}
    beat = send_if_allowed(portal)
    reports = {} if beat else confirmed(portal, servers, caller, seconds)

    def question(server: Server, conn: Conn) -> bool:
        arrived = arrival(conn, server, beat, seconds) if beat else reports[server.name]
        if arrived is None:
            return False
        with joined(portal, conn, server, caller, seconds) as session:
            return await_copies(session, schemas[server], seconds) == "ready"

    return dict(ask(servers, question, caller, waits=2 * seconds))
