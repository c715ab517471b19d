"""Metrics in Prometheus's format: their names, what each sample is taken from, and the collection behind a scrape."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from rollbook.core.db import Caller, session
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.shell import quoted
from rollbook.core.sqlstate import translate
from rollbook.core.states import STATES
from rollbook.replication.queries.servers import PORTAL
from rollbook.replication.state import server_name
from rollbook.system.collection import Collected, Failure, collect

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from rollbook.core.command import Run
    from rollbook.core.db import Session

SCRAPE_SECONDS = 10.0  # Prometheus's own default
SERVER_SHARE = 5  # of a scrape, a server may take this part to connect, and to answer, and once more to be diagnosed


class Sample(NamedTuple):
    """A value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """A metric: its type and what it means."""

    kind: str
    help: str


FAMILIES = {
    "rollbook_up": Family("gauge", "1: the portal answered; 0: it did not."),
    "rollbook_collect_success": Family("gauge", "1: this part was measured; 0: it was not, or the server is silent."),
    "rollbook_collect_duration_seconds": Family("gauge", "How long this collection took."),
    "rollbook_schema_pending_revisions": Family("gauge", "Revisions that the database lacks; 0: it is at the head."),
    "rollbook_routing_faults": Family("gauge", "Why writes to the portal are not routed, or fail; 0: they are routed."),
    "rollbook_courses": Family("gauge", "Courses in each state."),
    "rollbook_course_info": Family("gauge", "A course, its kind (schema or server) and where it is; always 1."),
    "rollbook_course_state": Family("gauge", "1: the course is in this state; 0: it is not."),
    "rollbook_replication_lag_bytes": Family("gauge", "WAL that the course's server has not confirmed."),
    "rollbook_replication_lag_seconds": Family("gauge", "How long a heartbeat took, or the age of one under way."),
    "rollbook_replication_pending_changes": Family("gauge", "Changes that are not in the course; always 0 in schemas."),
    "rollbook_replication_oldest_pending_timestamp_seconds": Family(
        "gauge", "When the oldest change that has not arrived was committed."
    ),
    "rollbook_replication_errors_total": Family("counter", "Errors of the worker that applies changes on the server."),
    "rollbook_slot_held_bytes": Family("gauge", "WAL that the portal, or a relay, keeps for the slot."),
    "rollbook_slot_safe_bytes": Family("gauge", "WAL that can still be written before the slot is lost."),
    "rollbook_slot_lost": Family("gauge", "1: the slot is lost or gone, and its courses need a resync."),
    "rollbook_verify_rows_differing": Family("gauge", "Rows that differed at the last verify."),
    "rollbook_verify_last_success_timestamp_seconds": Family("gauge", "When a verify last could compare the course."),
    "rollbook_pearson_waiting_records": Family("gauge", "Records that wait for an export (send) or an answer."),
    "rollbook_pearson_last_export_timestamp_seconds": Family("gauge", "When a file was last exported."),
    "rollbook_discussion_pending_changes": Family("gauge", "User changes that the service has not confirmed."),
    "rollbook_discussion_failed_changes": Family("gauge", "Those of them that failed at least once."),
    "rollbook_discussion_oldest_pending_timestamp_seconds": Family("gauge", "When the oldest of them was made."),
}


def samples(found: Collected, seconds: float) -> Iterator[Sample]:
    """Yield what was measured, and nothing for what was not. `seconds`: how long that took."""
    yield Sample("rollbook_up", {}, found.is_up)
    for part in found.asked:
        yield Sample("rollbook_collect_success", {"part": part}, part in found.answered)
    for name, is_there in found.servers.items():
        yield Sample("rollbook_collect_success", {"part": "server", "server": name}, is_there)
    yield Sample("rollbook_collect_duration_seconds", {}, round(seconds, 3))
    if found.pending_revisions is not None and found.database:
        yield Sample("rollbook_schema_pending_revisions", {"database": found.database}, found.pending_revisions)
    if found.faults is not None:
        yield Sample("rollbook_routing_faults", {}, sum(each.kind != "shape" for each in found.faults))
    yield from of_courses(found)
    yield from of_slots(found)
    yield from of_queues(found)


def of_courses(found: Collected) -> Iterator[Sample]:
    """Yield the samples of the courses."""
    if found.lines is None:
        return
    counts = Counter(line.state for line in found.lines)
    for state in STATES:
        yield Sample("rollbook_courses", {"state": state.name}, counts[state.name])
    for line in found.lines:
        course = {"course": line.course}
        relay = found.through.get(server_name(line) or "")
        info = {**course, "kind": line.kind, "target": line.target} | ({"through": relay} if relay else {})
        yield Sample("rollbook_course_info", info, 1)
        for state in STATES:
            yield Sample("rollbook_course_state", {**course, "state": state.name}, line.state == state.name)
        oldest = line.oldest_pending_seconds
        for name, value in (
            ("lag_bytes", line.lag_bytes), ("lag_seconds", line.lag_seconds), ("pending_changes", line.pending_changes),
            ("oldest_pending_timestamp_seconds", None if oldest is None else line.observed_at.timestamp() - oldest),
            ("errors_total", line.error_count),
        ):  # fmt: skip
            if value is not None:
                yield Sample(f"rollbook_replication_{name}", course, value)


def of_slots(found: Collected) -> Iterator[Sample]:
    """Yield the samples of the slots, and of the last verify."""
    for slot in found.slots or ():
        named = {"slot": slot.slot_name} | ({} if slot.where == PORTAL else {"through": slot.where})
        yield Sample("rollbook_slot_lost", named, slot.alarm in ("lost", "gone"))
        for what, value in (("held", slot.held_bytes), ("safe", slot.safe_bytes)):
            if value is not None:
                yield Sample(f"rollbook_slot_{what}_bytes", named, value)
    for row in found.compared or ():
        if row.compared_at is not None:
            at = row.compared_at.timestamp()
            yield Sample("rollbook_verify_last_success_timestamp_seconds", {"course": row.course}, at)
            if row.differing_rows is not None:
                yield Sample("rollbook_verify_rows_differing", {"course": row.course}, row.differing_rows)


def of_queues(found: Collected) -> Iterator[Sample]:
    """Yield the samples of what waits for the test centre and for the discussion service."""
    for each in found.waiting or ():
        for wait, count in (("send", each.to_send), ("answer", each.to_answer)):
            yield Sample("rollbook_pearson_waiting_records", {"kind": each.kind, "for": wait}, count)
    if found.last_export is not None:
        yield Sample("rollbook_pearson_last_export_timestamp_seconds", {}, found.last_export.timestamp())
    if found.discussion is not None:
        yield Sample("rollbook_discussion_pending_changes", {}, found.discussion.pending)
        yield Sample("rollbook_discussion_failed_changes", {}, found.discussion.failed)
        if found.discussion.oldest_seconds is not None and found.observed_at is not None:
            at = found.observed_at.timestamp() - found.discussion.oldest_seconds
            yield Sample("rollbook_discussion_oldest_pending_timestamp_seconds", {}, at)


class Exporter:
    """Collects for one scrape after the other, in a session that it keeps; `report` gets what goes wrong, once."""

    def __init__(self, run: Run, report: Callable[[str], None]) -> None:
        self.run, self.report = run, report
        self.turn = threading.Lock()
        self.conn: Session | None = None
        self.error: AdminError | None = None  # why the last collection that was given up was
        self.known: dict[tuple[str, str | None], str] = {}  # failures that were reported

    def scrape(self, seconds: float) -> list[Sample]:
        """Return the samples of a collection, after this time at most those of what has answered by then."""
        began = time.monotonic()
        found = Collected()
        work = threading.Thread(target=self.collect, args=(found, seconds), daemon=True)
        work.start()
        work.join(seconds)
        if work.is_alive():
            found = copy.copy(found)  # the thread goes on, until its own bounds end it; the next scrape waits for it
            found.failures = [*found.failures, Failure("portal", None, f"no answer within {seconds:g} s")]
        self.note(found)
        return list(samples(found, time.monotonic() - began))

    def collect(self, found: Collected, seconds: float) -> None:
        """Collect, in the kept session if there is one; where that was lost meanwhile, in a new one."""
        if not self.turn.acquire(timeout=seconds):
            return
        try:
            for may_be_stale in (True, False) if self.conn else (False,):
                try:
                    self.ask(found, seconds)
                except (psycopg.Error, AdminError) as exc:
                    was_lost = self.conn is None or self.conn.closed
                    self.close()
                    if may_be_stale and was_lost and not found.is_up:
                        continue
                    self.error = translate(exc) if isinstance(exc, psycopg.Error) else exc
                    found.is_up = found.is_up and not was_lost
                    found.failures.append(Failure("portal", None, self.error.why or self.error.message))
                return
        finally:
            self.turn.release()

    def ask(self, found: Collected, seconds: float) -> None:
        """Collect in the kept session, or one that is opened for it."""
        if self.conn is None:
            self.conn = session(self.run.dsn, name=self.run.name, timeout=seconds / 2, verbose=self.run.verbose)
            self.conn.autocommit = True
        collect(self.conn, found, Caller(self.run.name, max(0.5, seconds / SERVER_SHARE)))
        if any(failure.server is None for failure in found.failures):
            self.close()  # what it has prepared may be of an older schema

    def close(self) -> None:
        """Close the session."""
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def note(self, found: Collected) -> None:
        """Report each failure when it begins, or has another reason, and when it has ended."""
        failures = {(each.part, each.server): each.why for each in found.failures}
        for key, why in failures.items():
            if self.known.get(key) != why:
                self.report(f"{named(*key)} is not measured: {why}")
        for key in self.known.keys() - failures.keys():
            if found.is_up:
                self.report(f"{named(*key)} is measured again")
        self.known = failures if found.is_up else {**self.known, **failures}


def named(part: str, server: str | None) -> str:
    """Return a part in words."""
    return f"server {server}" if server else part


def require_client() -> None:
    """Raise UnreachableError where the Python package is missing that writes the format."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise UnreachableError(
            "metrics cannot be written here", why="the Python package prometheus-client is not installed",
            fix=f"{quoted(sys.executable)} -m pip install prometheus-client",
        ) from None  # fmt: skip


def text(found: list[Sample], accept: str = "") -> tuple[bytes, str]:
    """Return samples in the format that a scraper accepts, and its media type; the text format by default."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    metrics: dict[str, Metric] = {}
    for sample in found:
        family = FAMILIES[sample.name]
        metric = metrics.setdefault(
            sample.name, Metric(sample.name.removesuffix("_total"), family.help, family.kind)
        )  # fmt: skip
        metric.add_sample(sample.name, sample.labels, float(sample.value))

    class Found(Collector):
        def collect(self) -> list[Metric]:
            return list(metrics.values())

    encode, kind = choose_encoder(accept)
    return encode(Found()), kind
