"""The servers of courses and the relays that feed some of them, as a tree: each hop with its state and its lag."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rollbook.core.rows import Row
from rollbook.core.states import SEVERITY
from rollbook.replication.observe import Seen
from rollbook.replication.state import Verdict, idle_verdict, server_state

SHOWN = 10  # servers behind one source that are drawn


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
    reason: str | None  # of a server without courses: why it is not ok; the lines of courses have it for others
    fix: str | None  # the command that helps


def hops(seen: Mapping[str, Seen]) -> list[Hop]:
    """Return the servers that have answered, or not, by name: each relay before the servers behind it."""
    found = []
    for name, each in seen.items():
        state, reason, fix = Verdict(server_state(each)) if each.courses else idle_verdict(each)
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


def drawn(found: Sequence[Hop]) -> list[Row]:
    """Return the rows of the tree, the portal first; none where the portal feeds all servers and each has courses.

    Behind each source the worst come first; of many the last are one row.
    """
    if not any(hop.through or not hop.courses for hop in found):
        return []
    nothing = dict.fromkeys(("state", "courses", "lag_seconds", "hop_seconds", "lag_bytes"))
    rows: list[Row] = [{"server": "portal", **nothing}]

    def add(source: str | None, indent: str) -> None:
        relays = {hop.through for hop in found}
        behind = sorted(
            (hop for hop in found if hop.through == source),
            key=lambda hop: (hop.server not in relays, SEVERITY[hop.state], hop.server),
        )
        shown = behind if len(behind) <= SHOWN else behind[: max(SHOWN, sum(hop.server in relays for hop in behind))]
        rest = behind[len(shown) :]
        for hop in shown:
            is_last = hop is behind[-1]
            branch = "└─ " if is_last else "├─ "
            rows.append({"server": f"{indent}{branch}{hop.server}", **{name: getattr(hop, name) for name in nothing}})
            add(hop.server, indent + ("   " if is_last else "│  "))
        if rest:
            courses = sum(hop.courses for hop in rest)
            words = f"{indent}└─ {len(rest)} more: {worst(rest)}"
            rows.append({"server": words, **nothing, "courses": courses})

    add(None, "")
    return rows


def worst(found: Collection[Hop]) -> str:
    """Return the worst state of these servers."""
    return min((hop.state for hop in found), key=SEVERITY.__getitem__)
