"""The servers of courses and the relays that feed some of them, as a tree: each hop with its state and its lag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollbook.core.rows import Row
from rollbook.core.states import SEVERITY
from rollbook.replication.observe import Seen
from rollbook.replication.state import idle_verdict, shown_verdict

SHOWN = 10  # servers behind one source that are drawn
VALUES = ("state", "courses", "lag_seconds", "hop_seconds", "lag_bytes")  # of a row, beside the server


@dataclass(frozen=True)
class Hop:
    """A server, and how it is fed: an entry of `servers` in the JSON of `status`."""

    server: str
    through: str | None  # the relay that feeds it; None: the portal does
    state: str
    courses: int
    lag_bytes: int | None  # WAL that its source keeps for it, unconfirmed
    lag_seconds: float | None  # since the portal's commit
    hop_seconds: float | None  # the part of it that this hop takes
    reason: str | None  # why it is not ok, if it has no courses, or moves; the lines of courses have it for others
    fix: str | None  # the command that helps


def hops(seen: Mapping[str, Seen]) -> list[Hop]:
    """Return the servers that have answered, or not, by name: each relay before the servers behind it."""
    found = []
    for name, each in seen.items():
        state, reason, fix = shown_verdict(each) if each.courses else idle_verdict(each)
        found.append(Hop(
            name, each.server.through, state, each.courses, each.hop_bytes, each.lag_seconds(), each.hop_seconds(),
            reason, fix,
        ))  # fmt: skip
    return sorted(found, key=lambda hop: (hop.through or hop.server, hop.through is not None, hop.server))


def unwell(found: Sequence[Hop]) -> list[Hop]:
    """Return the servers without courses that are not ok, the worst first; none behind a relay that is not ok."""
    bad = [hop for hop in found if hop.state != "ok"]
    relays = {hop.server for hop in bad}
    idle = [hop for hop in bad if not hop.courses and hop.through not in relays]
    return sorted(idle, key=lambda hop: (SEVERITY[hop.state], hop.server))


def drawn(found: Sequence[Hop], *, room: int | None = None, whole: bool = False) -> list[Row]:
    """Return the rows of the tree, the portal first; none where the portal feeds all servers and each has courses.

    Behind each source the worst come first; of many the last are one row, which says how many, and the worst state of
    them. `room`: how many rows there may be, at least 2. `whole`: every server has a row.
    """
    if not found or not (whole or any(hop.through or not hop.courses for hop in found)):
        return []
    if whole:
        return [row for row, _ in branches(found, len(found))]
    rows = branches(found, SHOWN)
    for shown in reversed(range(SHOWN)):
        if room is None or len(rows) <= room:
            break
        rows = branches(found, shown)
    if room is not None and len(rows) > room:
        rest = [hop for _, hops in rows[room - 1 :] for hop in hops]
        rows = [*rows[: room - 1], (more(rest, ""), rest)]
    return [row for row, _ in rows]


def branches(found: Sequence[Hop], most: int) -> list[tuple[Row, list[Hop]]]:
    """Return the rows of the tree, each with the servers that it stands for; `most` behind one source have their own.

    Every relay has its own.
    """
    silent = {hop.server for hop in found if hop.state == "unreachable"}
    said = [
        replace(hop, state=f"{hop.state} through {hop.through}")
        if hop.state == "unreachable" and hop.through in silent else hop for hop in found
    ]  # fmt: skip
    behind: dict[str | None, list[Hop]] = {}
    for hop in said:
        behind.setdefault(hop.through, []).append(hop)
    rows: list[tuple[Row, list[Hop]]] = [({"server": "portal", **dict.fromkeys(VALUES)}, [])]

    def key(hop: Hop) -> tuple[bool, int, str]:
        own = [hop, *behind.get(hop.server, [])]
        return hop.server not in behind, min(map(severity, own)), hop.server

    def add(source: str | None, indent: str) -> None:
        hops = sorted(behind.get(source, []), key=key)
        shown = hops if len(hops) <= most else hops[: max(most, sum(hop.server in behind for hop in hops))]
        for hop in shown:
            is_last = hop is hops[-1]
            branch = "└─ " if is_last else "├─ "
            values = {name: getattr(hop, name) for name in VALUES}
            rows.append(({"server": f"{indent}{branch}{hop.server}", **values}, [hop]))
            add(hop.server, indent + ("   " if is_last else "│  "))
        if rest := hops[len(shown) :]:
            rows.append((more(rest, indent), rest))

    add(None, "")
    return rows


def more(rest: Sequence[Hop], indent: str) -> Row:
    """Return the row of servers that have none of their own: how many, and the worst state of them."""
    worst = min(rest, key=severity).state
    words = f"{indent}└─ {len(rest)} more" + ("" if all(hop.state == worst for hop in rest) else ", worst")
    return {"server": words, **dict.fromkeys(VALUES), "state": worst, "courses": sum(hop.courses for hop in rest)}


def severity(hop: Hop) -> int:
    """Return the place of a server's state among all, 0 for the worst."""
    return SEVERITY[hop.state.partition(" ")[0]]
