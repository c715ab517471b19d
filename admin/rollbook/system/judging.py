"""What `rollbook check` makes of what was collected: a judgement a line, and one line for Nagios."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from rollbook.core.migrating import known_revisions
from rollbook.core.shell import course_word
from rollbook.core.states import STATES
from rollbook.replication.queries.servers import PORTAL
from rollbook.replication.state import LAG_SECONDS, server_name

if TYPE_CHECKING:
    from rollbook.replication.queries.servers import SlotStatus
    from rollbook.replication.state import Line
    from rollbook.system.collection import Collected

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"
NAGIOS = {OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
# A silent server does not hide a real fault elsewhere; it is worse than a warning, as nothing is known of its courses.
WORST = (CRITICAL, UNKNOWN, WARNING, OK)

# What is checked -> the parts that are collected for it, `schema` apart.
CHECKS = {
    "replication": ("routing", "courses", "slots"), "schema": (), "verify": ("verify",), "pearson": ("pearson",),
    "discussion": ("discussion",),
}  # fmt: skip

OF_STATE = {
    "broken": CRITICAL, "drifted": CRITICAL, "unreachable": UNKNOWN, "unknown": UNKNOWN, "ok": OK,
}  # fmt: skip
"""The judgement of a course's state; of others it is a warning."""
OF_ALARM = {"lost": CRITICAL, "gone": CRITICAL, None: OK}
STOPPED = ("broken", "unknown", "paused", "detached")  # states of a course in which no heartbeat may arrive
SHOWN = 3  # courses that a message names
QUEUE_SECONDS = 900.0  # from here on a change for the discussion service waits because nothing delivers it
VERIFY_AGE, EXPORT_AGE = timedelta(days=2), timedelta(days=3)


@dataclass(frozen=True)
class Limits:
    """What the options set; None is the default of each check."""

    warning: float | None = None  # lag in seconds
    critical: float | None = None
    max_age: timedelta | None = None

    @property
    def lag(self) -> float:
        """Return the lag in seconds from which on a server lags."""
        return LAG_SECONDS if self.warning is None else self.warning

    def age(self, default: timedelta) -> float:
        """Return the age in seconds that is too old."""
        return (default if self.max_age is None else self.max_age).total_seconds()


@dataclass(frozen=True)
class Judgement:
    """A line of `check`; the fields are its columns."""

    check: str
    state: str  # ok, warning, critical or unknown
    value: float | None
    unit: str | None  # s, B or what is counted
    warning: float | None  # the limits of the value: from here on
    critical: float | None
    message: str


def judged(found: Collected, checks: Collection[str], limits: Limits) -> list[Judgement]:
    """Return the judgements of these checks, the worst first."""
    judges: dict[str, Callable[[], Iterable[Judgement]]] = {
        "replication": lambda: [*routing(found), *courses(found, limits), *slots(found)],
        "schema": lambda: [schema(found)],
        "verify": lambda: verify(found, limits),
        "pearson": lambda: pearson(found, limits),
        "discussion": lambda: discussion(found),
    }
    lines: list[Judgement] = []
    for name, parts in CHECKS.items():
        if name in checks:
            missing = [part for part in parts if part in found.asked and part not in found.answered]
            lines += [unmeasured(found, part) for part in missing]
            lines += judges[name]()
    return sorted(lines, key=lambda line: WORST.index(line.state))


def worst(lines: Iterable[Judgement]) -> str:
    """Return the worst state; unknown for none."""
    return min((line.state for line in lines), key=WORST.index, default=UNKNOWN)


def exit_code(lines: Collection[Judgement]) -> int:
    """Return 3 if something is unknown, 4 if something needs attention, else 0: as other commands do."""
    states = {line.state for line in lines}
    return 3 if UNKNOWN in states else 4 if states - {OK} else 0


def unmeasured(found: Collected, part: str) -> Judgement:
    """Return that nothing is known of a part, and why."""
    why = next((failure.why for failure in found.failures if failure.part == part and not failure.server), None)
    if why is None:
        why = f"the database is at revision {found.revision}, this program needs {known_revisions()[-1]}"
    return Judgement(part, UNKNOWN, None, None, None, None, why)


def schema(found: Collected) -> Judgement:
    """Judge the revision."""
    if found.pending_revisions is None:
        return unmeasured(found, "schema")
    words = f"revision {found.revision}, the head"
    if found.pending_revisions:
        words = f"revision {found.revision} is not the head: rollbook schema upgrade"
    state = WARNING if found.pending_revisions else OK
    return Judgement("schema", state, found.pending_revisions, "revisions", 1, None, words)


def routing(found: Collected) -> Iterator[Judgement]:
    """Judge whether writes to the portal reach the courses."""
    if found.faults is None:
        return
    unfinished = [fault for fault in found.faults if fault.kind == "shape"]
    if unfinished:
        words = "; ".join(f"{each.object}: {each.difference}: {each.fix}" for each in unfinished)
        yield Judgement("shape", WARNING, len(unfinished), "changes", 1, None, words)
    # Those of a course are in its state.
    faults = [fault for fault in found.faults if fault.course is None and fault.kind != "shape"]
    words = f"{faults[0].words}; {faults[0].fix}" if faults else "writes to the portal are routed"
    yield Judgement("routing", CRITICAL if faults else OK, len(faults), "faults", None, 1, words)


def courses(found: Collected, limits: Limits) -> Iterator[Judgement]:
    """Judge the courses by state, and the lag of each server, and servers without courses by their state."""
    if found.lines is None:
        return
    by_state = {state.name: [line for line in found.lines if line.state == state.name] for state in STATES}
    for state, lines in by_state.items():
        if lines or state == "ok":
            judgement = OF_STATE.get(state, WARNING)
            limit = None if judgement in (OK, UNKNOWN) else 1
            yield Judgement(
                f"courses {state}", judgement, len(lines), "courses", limit if judgement == WARNING else None,
                limit if judgement == CRITICAL else None, names(lines) if judgement != OK else f"{len(lines)} ok",
            )  # fmt: skip
    for server in dict.fromkeys(server_name(line) for line in found.lines):
        if server:
            yield lag(server, [line for line in found.lines if server_name(line) == server], found, limits)
    for hop in found.idle:
        words = f"{hop.reason or hop.state}{f'; {hop.fix}' if hop.fix else ''}" if hop.state != "ok" else "no courses"
        yield Judgement(f"server {hop.server}", OF_STATE.get(hop.state, WARNING), None, None, None, None, words)


def names(lines: Sequence[Line]) -> str:
    """Return the first of these courses, and why they are in their state."""
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    reason = lines[0].reason or lines[0].state
    fix = f"; {lines[0].fix}" if lines[0].fix else ""
    return f"{', '.join(line.course for line in lines[:SHOWN])}{more}: {reason}{fix}"


def lag(server: str, lines: Sequence[Line], found: Collected, limits: Limits) -> Judgement:
    """Judge the lag of a server."""
    seconds = max((line.lag_seconds for line in lines if line.lag_seconds is not None), default=None)
    state, words = OK, "everything has arrived"
    if not found.servers.get(server):
        state, words = UNKNOWN, next((each.why for each in found.failures if each.server == server), "it was not asked")
        told = next((line for line in found.lines or () if line.state == lines[0].state), lines[0])
        if (told.reason or "").startswith(words):  # the line of these courses has it
            words = f"not known: its courses are {told.state}"
    elif seconds is not None and limits.critical is not None and seconds >= limits.critical:
        state, words = CRITICAL, f"{seconds:g} s behind"
    elif seconds is not None and seconds >= limits.lag:
        state, words = WARNING, f"{seconds:g} s behind"
    elif seconds is not None:
        words = f"{seconds:g} s"
    elif all(line.state in STOPPED for line in lines):
        words = f"not known: its courses are {lines[0].state}"
    return Judgement(f"lag {server}", state, seconds, "s", limits.lag, limits.critical, words)


def slots(found: Collected) -> Iterator[Judgement]:
    """Judge the slots of the portal and its relays."""
    for slot in found.slots or ():
        state = OF_ALARM.get(slot.alarm, WARNING)
        limit = None if slot.safe_bytes is None or slot.held_bytes is None else slot.held_bytes + slot.safe_bytes
        words = slot_words(slot)
        name = f"slot {slot.slot_name}" + ("" if slot.where == PORTAL else f" on {slot.where}")
        yield Judgement(name, state, slot.held_bytes, "B", None, limit, words)


def slot_words(slot: SlotStatus) -> str:
    """Return what a slot's alarm means."""
    owner = f"server {slot.server}" if slot.server else "no server of Rollbook"
    disk = "the portal's disk" if slot.where == PORTAL else f"the disk of server {slot.where}"
    words = {
        "lost": f"lost; courses of {owner} need rollbook replication resync",
        "gone": f"is gone; courses of {owner} need rollbook replication resync",
        "near": f"about to be lost; is {owner} down, or does it lag? rollbook replication status",
        "unbounded": f"max_slot_wal_keep_size is -1: a server that is down fills {disk}",
        "foreign": "belongs to no server of Rollbook, and nobody reads it: rollbook replication slots",
        None: f"WAL for {owner}",
    }
    return words.get(slot.alarm, slot.alarm or "")


def verify(found: Collected, limits: Limits) -> Iterator[Judgement]:
    """Judge what the last verify found, and how long ago that was; a new course has as much time."""
    if found.compared is None:
        return
    differing = [row for row in found.compared if row.verdict == "differs"]
    words = "no differences"
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        listed = ", ".join(row.course for row in differing[:SHOWN])
        words = f"{listed}{more}; rollbook replication repair {course_word(differing[0].course)}"
    yield Judgement("verify drift", CRITICAL if differing else OK, len(differing), "courses", None, 1, words)
    oldest = min(found.compared, key=lambda row: row.compared_at or row.created_at, default=None)
    if oldest is None:
        return
    bound = limits.age(VERIFY_AGE)
    at = oldest.compared_at or oldest.created_at
    age = max(0.0, (oldest.observed_at - at).total_seconds())
    late = age >= bound
    new = sum(row.compared_at is None for row in found.compared)
    words = f"{new} not compared yet" if new else "every course was compared"
    if late:
        since = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        words = f"{oldest.course} was not compared since {since}: rollbook replication verify"
    yield Judgement("verify age", WARNING if late else OK, round(age), "s", bound, None, words)


def pearson(found: Collected, limits: Limits) -> Iterator[Judgement]:
    """Judge what waits for an export for too long."""
    if found.waiting is None or found.observed_at is None:
        return
    bound = limits.age(EXPORT_AGE)
    dues = [each.due_since for each in found.waiting if each.due_since is not None]
    age = max(0.0, (found.observed_at - min(dues)).total_seconds()) if dues else 0.0
    count = sum(each.to_send for each in found.waiting)
    state = WARNING if age >= bound else OK
    words = f"{count} records wait for rollbook pearson export" if count else "everything was exported"
    yield Judgement("pearson export", state, round(age), "s", bound, None, words)


def discussion(found: Collected) -> Iterator[Judgement]:
    """Judge the changes for the discussion service."""
    queue = found.discussion
    if queue is None:
        return
    if not found.is_discussion_active:
        yield Judgement("discussion", OK, queue.pending, "changes", None, None, "not active")
        return
    yield Judgement(
        "discussion failed", WARNING if queue.failed else OK, queue.failed, "changes", 1, None,
        "rollbook discussion list --state failed" if queue.failed else "none",
    )  # fmt: skip
    age = float(queue.oldest_seconds or 0)
    late = age >= QUEUE_SECONDS
    words = "is rollbook discussion sync --follow running?" if late else f"{queue.pending} wait"
    yield Judgement("discussion queue", WARNING if late else OK, age, "s", QUEUE_SECONDS, None, words)


# --- Nagios -----------------------------------------------------------------------------------------------------------


def nagios(lines: Sequence[Judgement]) -> str:
    """Return the line of a plugin: the state, what is wrong, and performance data."""
    state = worst(lines)
    wrong = [f"{line.check}: {line.message}" for line in lines if line.state != OK]
    words = "; ".join(wrong) or f"{len(lines)} checks"
    data = " ".join(performance(line) for line in lines if line.value is not None)
    return f"ROLLBOOK {state.upper()} - {cleaned(words)}{f' | {data}' if data else ''}"


def cleaned(words: str) -> str:
    """Return words on one line, without the sign that begins performance data."""
    return " ".join(words.replace("|", "/").split())


def performance(line: Judgement) -> str:
    """Return a value as performance data: 'label'=value[unit];warning;critical;0."""
    label = cleaned(line.check).replace("'", "").replace("=", "-")
    unit = line.unit if line.unit in ("s", "B") else ""
    value, *limits = ("" if each is None else digits(each) for each in (line.value, line.warning, line.critical))
    return f"'{label}'={value}{unit};{';'.join(limits)};0"


def digits(number: float) -> str:
    """Return a number in digits: plugins may not write exponents."""
    return str(int(number)) if float(number).is_integer() else f"{number:.6f}".rstrip("0").rstrip(".")
