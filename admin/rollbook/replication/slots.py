"""The logical slots of the portal and of its relays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.replication.link import Server, ask, list_servers
from rollbook.replication.queries.servers import SlotStatus, expected_slots, gone_slots, slots_of

OfRelays = Mapping[str, "Sequence[SlotStatus] | UnreachableError"]


@dataclass(frozen=True)
class Slots:
    """The slots, those that are missing first at each place, and the relays that did not answer."""

    found: list[SlotStatus]
    silent: dict[str, UnreachableError]


def all_slots(portal: Conn, caller: Caller, known: OfRelays | None = None) -> Slots:
    """Return the slots of the portal, and of its relays: all are asked at once, but for those that are `known`."""
    servers = list_servers(portal)
    behind = {
        relay.name: [each for each in servers if relay.name in (each.through, each.moving_through)]
        for relay in servers
    }  # fmt: skip

    def question(relay: Server, conn: Conn) -> list[SlotStatus]:
        return slots_of(conn, behind[relay.name], relay.name)

    found, silent = expected_slots(portal), {}
    relays = [server for server in servers if behind[server.name]]
    answers = dict(known or {})
    answers |= ask([relay for relay in relays if relay.name not in answers], question, caller)
    for relay in relays:
        answer = answers[relay.name]
        if isinstance(answer, UnreachableError):
            silent[relay.name] = answer
        else:
            found += [*gone_slots(portal, relay.name, answer), *answer]
    return Slots(found, silent)
