"""What stops a server's stream now, and the conflicts that its statistics have counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollbook.replication.catalog import Placement
from rollbook.replication.observe import Seen


@dataclass(frozen=True)
class Conflict:
    """A row of `replication conflicts`; the fields are its columns."""

    course: str | None
    server: str
    table: str | None
    key: str | None
    kind: str  # the operation that fails; counted: a number from the statistics
    sqlstate: str | None
    message: str
    count: int | None
    resolution: str | None


def conflicts(seen: Seen, courses: Sequence[Placement]) -> list[Conflict]:
    """Return a server's conflicts: the one that stopped its stream, and those that its statistics have counted."""
    found = []
    fault = seen.fault
    if fault is not None:
        fix = fault.fix(seen.server, next((row.course for row in courses), None))
        found.append(Conflict(
            fault.course or fault.schema_name, seen.server.name, fault.table, fault.key, fault.operation,
            fault.sqlstate, fault.message, None, fix,
        ))  # fmt: skip
    subscription = seen.reached.subscription if seen.reached else None
    if subscription and courses:
        counts = {"apply errors": subscription.apply_errors, "first copy errors": subscription.sync_errors}
        counts |= {key.removeprefix("confl_"): count for key, count in subscription.conflicts.items()}
        found += [
            Conflict(None, seen.server.name, None, None, "counted", None, key.replace("_", " "), count, None)
            for key, count in counts.items()
            if count
        ]
    return found
