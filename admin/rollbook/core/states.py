"""The states of a course, each once: severity, mark and meaning. The database's check constraint has the same words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """A state of a course, as `status` shows it."""

    name: str
    mark: str
    color: str
    meaning: str  # as docs/servers.md has it


# The worst first: `status` lists courses in this order.
STATES = (
    State(
        "broken", "✗", "red", "a row cannot be applied, or changes are lost; `replication show` names the row and error"
    ),
    State("unreachable", "✗", "red", "the server does not answer; the portal keeps the WAL for it"),
    State("drifted", "✗", "red", "the last verify found differences"),
    State("unknown", "?", "yellow", "changes were lost, or came from another portal: one side was restored"),
    State("detached", "!", "yellow", "a detach was not finished"),
    State("lagging", "!", "yellow", "the heartbeat did not arrive within a second, or the slot is near its bound"),
    State("paused", "!", "yellow", "paused by an operator, or the course by a fault; nothing of it is lost"),
    State("moving", "→", "cyan", "it is on two servers: its move is not finished"),
    State("copying", "→", "cyan", "the first copy is running, or was not compared yet"),
    State("ok", "✓", "green", "the heartbeat that this command sent has arrived"),
)
SEVERITY = {state.name: place for place, state in enumerate(STATES)}  # 0 is the worst
