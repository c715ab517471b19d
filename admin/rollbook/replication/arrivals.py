"""Waiting until servers have what the portal has committed, and timing how long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
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
from rollbook.replication.link import Server, ask, cut_off, list_servers
from rollbook.replication.observe import with_relays
from rollbook.replication.session import joined
from rollbook.replication.subscription import await_copies

Arrivals = dict[str, float | UnreachableError | None]  # by server: seconds; None: not in time


def wait_for_servers(portal: Conn, asked: Sequence[Server], caller: Caller, seconds: float) -> Arrivals:
    """Send a heartbeat and wait until each server, and each relay of one, has it."""
    beat = send_if_allowed(portal)
    if beat is None:
        return confirmed(portal, asked, caller, seconds)

    def question(server: Server, conn: Conn) -> float | None:
        return arrival(conn, server, beat, seconds)

    servers = with_relays(list_servers(portal), asked)
    return by_hop(servers, ask(servers, question, Caller(caller.name, seconds), waits=seconds))


def by_hop(servers: Sequence[Server], answers: Mapping[str, Any]) -> Arrivals:
    """Return the answers of servers, relays first; behind a relay that does not answer nothing is known.

    What has arrived behind a relay was there before, also where the look at the relay came later.
    """
    found: Arrivals = {}
    for server in sorted(servers, key=lambda each: (each.through or each.name, each.through is not None, each.name)):
        found[server.name] = answers[server.name]
        relay = next((each for each in servers if each.name == server.through), None)
        if relay is None:
            continue
        above, own = answers[relay.name], answers[server.name]
        if isinstance(above, UnreachableError):
            found[server.name] = cut_off(server, relay, above)
        elif isinstance(above, float) and isinstance(own, float):
            found[server.name] = max(own, above)
    return found


def confirmed(portal: Conn, asked: Sequence[Server], caller: Caller, seconds: float) -> Arrivals:
    """Wait until servers have confirmed what the portal has committed by now, hop by hop; sends no heartbeat.

    What a relay has confirmed is in its WAL; the servers behind it confirm that.
    """
    began = time.monotonic()
    servers = with_relays(list_servers(portal), asked)
    direct = [server for server in servers if server.through is None]
    found: dict[str, Any] = dict(confirmation(portal, direct, portal_lsn(portal), seconds))
    behind = {relay.name: [server for server in servers if server.through == relay.name] for relay in direct}

    def question(relay: Server, conn: Conn) -> dict[str, float | None]:
        passed = time.monotonic() - began
        there = confirmation(conn, behind[relay.name], portal_lsn(conn), max(0.0, seconds - passed))
        return {name: None if waited is None else passed + waited for name, waited in there.items()}

    due = [relay for relay in direct if behind[relay.name] and found[relay.name] is not None]
    answers = ask(due, question, caller, waits=seconds)
    for relay in direct:
        answer = answers.get(relay.name, {})
        if isinstance(answer, UnreachableError):
            found[relay.name] = answer
        for server in behind[relay.name]:
            found[server.name] = answer.get(server.name) if isinstance(answer, dict) else None
    return by_hop(servers, found)


def time_heartbeat(portal: Conn, asked: Sequence[Server], caller: Caller, seconds: float) -> Arrivals:
    """Send one heartbeat and time it on each server: from the portal's commit until it is visible there.

    The relays of these servers are asked too, and come first.
    """
    servers = with_relays(list_servers(portal), asked)
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
    return by_hop(servers, answers)


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
    known = {} if beat else confirmed(portal, servers, caller, seconds)

    def question(server: Server, conn: Conn) -> bool:
        arrived = arrival(conn, server, beat, seconds) if beat else known[server.name]
        if isinstance(arrived, UnreachableError):
            raise arrived
        if arrived is None:
            return False
        with joined(portal, conn, server, caller, seconds) as session:
            return await_copies(session, schemas[server], seconds) == "ready"

    return dict(ask(servers, question, caller, waits=2 * seconds))
