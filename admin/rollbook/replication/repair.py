"""Making the copies of a course equal to the portal, beside the portal and on its server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.shell import course_word
from rollbook.replication import build, catalog, forward, link, observe, state
from rollbook.replication.compare import Compared, compare
from rollbook.replication.fence import FaultError
from rollbook.replication.queries.copies import (
    Comparison,
    Written,
    compare_copies,
    estimated_rows,
    portal_time,
    repair_copies,
    total,
)
from rollbook.replication.queries.courses import course_states, list_paused
from rollbook.replication.queries.servers import list_moves
from rollbook.replication.restart import Removed, refusal, restart
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.steps import Steps
from rollbook.replication.verify import (
    UNCOMPARED,
    WORST_FIRST,
    compare_all,
    merged,
    record_verdicts,
    silent_seconds,
)
from rollbook.replication.write_rows import write_rows

if TYPE_CHECKING:
    from rollbook.core.command import Run

CATCH_UP_SECONDS = 60.0  # how long a server may take to catch up while it is repaired
LOOKS = 6  # comparisons of a course while it is repaired, the last of them included


@dataclass(frozen=True)
class Failure:
    """A course, and why the command could not do it."""

    course: str
    error: AdminError


@dataclass
class Plan:
    """What a repair would write, and what it cannot."""

    written: dict[str, list[Written]] = field(default_factory=dict)  # by course
    servers: dict[str, str] = field(default_factory=dict)  # of the courses that differ on one
    not_comparable: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)  # course -> what is gone and will be recreated
    failures: list[Failure] = field(default_factory=list)
    on_server: dict[str, Sequence[Compared]] = field(default_factory=dict)  # of courses that differ there alone

    def rows(self) -> dict[str, int]:
        """Return by course how many rows differ."""
        return {course: sum(part.rows for part in parts) for course, parts in self.written.items()}

    def add(self, course: str, part: Written, server: str | None) -> None:
        """Add what is to be written of one table."""
        self.written.setdefault(course, []).append(part)
        if server:
            self.servers[course] = server


@dataclass(frozen=True)
class Repaired:
    """What was written of one table; the fields are the columns of `replication repair` and `resync`."""

    course: str
    table: str | None
    inserted: int | None
    updated: int | None
    deleted: int | None
    verdict_after: str
    server: str | None = None


def plan_repair(run: Run, portal: Conn, asked: Sequence[str], progress: Progress) -> Plan:
    """Return what a repair of these courses would write. Courses of a stopped stream count with the conflicting row."""
    plan = Plan()
    portal.autocommit = True
    paused = set(list_paused(portal)).intersection(asked)
    for name in sorted(paused):
        fix = f"rollbook course resume {course_word(name)}"
        plan.failures.append(Failure(name, RefusedError("it is paused", why="its repair is to resume it", fix=fix)))
    asked = [name for name in asked if name not in paused]
    moving = {
        move.course: move.moving_to for server in link.list_servers(portal)
        for move in list_moves(portal, server.name) if move.moving_to
    }  # fmt: skip
    stopped: dict[str, str | None] = {}  # course -> the course because of which its stream stopped
    for server in link.list_servers(portal):
        courses = [row.course for row in catalog.placements(portal, server) if row.course in asked]
        if courses:
            (seen,) = observe.look(portal, [server], run.caller())
            stopped |= plan_server(portal, seen, courses, plan)
    portal.autocommit = False
    rest = [name for name in asked if name not in stopped]
    for part in compare_all(portal, rest, run.caller(), progress, with_findings=False):
        if part.on_server and sum(row.differing for row in part.rows) == sum(len(t.findings) for t in part.on_server):
            plan.on_server[part.rows[0].course] = part.on_server
        for row in part.rows:
            if row.verdict == "differs":
                written = Written(row.table, row.missing or 0, row.changed or 0, row.extra or 0)
                plan.add(row.course, written, row.server)
            elif row.verdict in UNCOMPARED and row.course not in plan.not_comparable:
                plan.not_comparable.append(row.course)
    for name in plan.not_comparable:
        plan.written.pop(name, None)
    plan_recreation(portal, plan)
    for name, cause in stopped.items():
        if cause and cause != name and cause not in asked:
            verb, there = ("course move", f" --to {moving[cause]}") if cause in moving else ("replication repair", "")
            fix = f"rollbook {verb} {course_word(cause)}{there}"
            plan.failures.append(Failure(name, AttentionError(f"replication stopped because of {cause}", fix=fix)))
    return plan


def plan_recreation(portal: Conn, plan: Plan) -> None:
    """Plan for the courses that cannot be compared because a copy in the portal's database is gone."""
    if not plan.not_comparable:
        return
    for course in course_states(portal, plan.not_comparable):
        if course.fault is not None:
            plan.faults[course.course] = course.fault
            plan.written[course.course] = []
            plan.not_comparable.remove(course.course)
            if course.server:
                plan.servers[course.course] = course.server


def plan_server(portal: Conn, seen: observe.Seen, courses: Sequence[str], plan: Plan) -> dict[str, str | None]:
    """Plan for the courses of one server that cannot be compared; return them, with the course that stopped them."""
    for hop in seen.hops:
        fault = hop.fault
        if fault is not None and fault.is_conflict:
            cause = fault.course or courses[0]  # None: a heartbeat, which is repaired with any course
            if cause in courses:
                plan.add(cause, Written(fault.table, deleted=1), seen.server.name)
            return dict.fromkeys(courses, cause)
        if fault is not None:
            plan.failures += [Failure(name, refusal(hop.server, fault)) for name in courses]
            return dict.fromkeys(courses)
    found: dict[str, str | None] = {}
    for course in course_states(portal, courses):
        if course.fault is not None:  # in the portal's database: `plan_recreation` is for those
            continue
        word, reason, fix = state.course_state(course, seen)
        if word in ("broken", "paused", "unreachable", "detached"):
            kind = UnreachableError if word == "unreachable" else AttentionError
            words = reason if reason and reason.startswith(word) else ": ".join(filter(None, (word, reason)))
            plan.failures.append(Failure(course.course, kind(words, fix=fix)))
            found[course.course] = None
    return found


def repair_all(run: Run, plan: Plan, progress: Progress) -> tuple[list[Repaired], list[Failure]]:
    """Repair the courses of a plan, each in a transaction of its own; a failure does not stop the others."""
    result: list[Repaired] = []
    failures = list(plan.failures)
    expected = {course: count + 1 for course, count in plan.rows().items()}  # one for the look at the course
    progress.expect(sum(expected.values()))
    for course in plan.written:
        with progress.part(expected[course]) as part:
            try:
                result += repair_course(run, course, plan, part)
            except AdminError as exc:
                failures.append(Failure(course, exc))
    return result, failures


def repair_course(run: Run, course: str, plan: Plan, progress: Progress) -> list[Repaired]:
    """Repair one course beside the portal, then on its server, and verify it. A dry run changes no server."""
    server = plan.servers.get(course)
    with run.connect() as conn:
        written = [] if course in plan.on_server else repair_copies(conn, course)
        if server is None or run.dry_run:
            report = compare_copies(conn, [course])
            after = {row.table: row.verdict for row in report}
        if not run.dry_run and server is None:
            record_verdicts(conn, report, portal_time(conn))
        if written:
            done: dict[str, Any] = {"portal": [{"course": course, **vars(part)} for part in written]}
            record(run, conn, course, done, progress.note)
        count = sum(part.rows for part in written)
        progress.rows(count, count)
    if server is not None and run.dry_run:
        written = total(*plan.written[course])
    elif server is not None:
        there, after = repair_on_server(run, course, server, progress, found=plan.on_server.get(course))
        with run.connect() as conn:
            done = {"server": server, "written_there": [{"course": course, **vars(part)} for part in there]}
            record(run, conn, course, done, progress.note)
        written = total(*written, *there)
    prefix = "would " if run.dry_run and set(after.values()) <= {"match"} else ""
    tables = {part.table for part in written}
    # A table to which nothing was written, and which differs all the same.
    written += [Written(table) for table, word in after.items() if word != "match" and table not in tables]
    return [
        Repaired(course, part.table, part.inserted, part.updated, part.deleted,
                 prefix + after.get(part.table, "match"))
        for part in written or [Written("route")]  # only the routes were repaired
    ]  # fmt: skip


def record(run: Run, conn: Conn, course: str, done: dict[str, Any], note: Callable[[str], None]) -> None:
    """Record a repair in the history, if the role may write there."""
    if not history.record_if_allowed(conn, run, course, "repaired", after=done, course_id=course):
        note(history.NOT_RECORDED)


def repair_on_server(
    run: Run, course_id: str, server_name: str, progress: Progress,
    restore: Callable[[Session, catalog.Placement], None] | None = None, found: Sequence[Compared] | None = None,
) -> tuple[list[Written], dict[str, str]]:  # fmt: skip
    """Make a course on its server equal to the portal; return what was written, and the verdict of each table then.

    `restore` is called first: it rebuilds what is missing of the stream. `found`: what a comparison has just found.
    """
    with run.connect() as portal, run.connect() as holder:
        portal.autocommit = True
        holder.autocommit = True
        server = link.find_server(portal, server_name)
        course = next(row for row in catalog.placements(portal, server) if row.course == course_id)
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
        ):
            written: list[Written] = []
            verdicts: dict[str, str] = {}
            unequal: list[Comparison] = []  # on the relay
            expected = estimated_rows(portal, [course_id])
            for hop in session.hops:
                link.hurry(hop.conn, silent_seconds(expected.get(course_id, 0)))  # the relay is locked for its others
                is_last = hop is session
                if restore is not None:
                    restore(hop, course)
                build.guard(hop, hop.copies(course.schema_name), Steps())
                forward.settle(hop, {course.schema_name: course_id})
                placed = course if is_last else replace(course, state="moving")  # judged by the server that it is on
                done, report = write_until_equal(
                    hop, holder, placed, progress, found if is_last else None, below=None if is_last else session
                )
                written += done
                unequal += [row for row in report if row.verdict != "match" and not is_last]
                for row in report:
                    words = (row.verdict, verdicts.get(row.table, "match"))
                    verdicts[row.table] = min(words, key=WORST_FIRST.index)
            if course.state != "moving":  # the last hop has recorded its own verdict
                record_verdicts(portal, unequal, portal_time(portal))
    return total(*written), verdicts


def write_until_equal(
    session: Session, holder: Conn, course: catalog.Placement, progress: Progress,
    found: Sequence[Compared] | None = None, *, below: Session | None = None,
) -> tuple[list[Written], list[Comparison]]:  # fmt: skip
    """Write what differs until nothing does, or it was looked at LOOKS times; return what was written, and the report.

    The verdict is recorded, unless the course only moves to that server: it is judged by the one that it is on.
    What the first look finds, or has `found` before, is written at once: a row in flight is written like the others.
    Rows that are being written may need another look. A look at which conflicting rows were deleted does not count.
    `below`: the server behind a relay, as for write_rows.
    """
    written: list[Written] = []
    removed: list[Removed] = []
    looks = 0
    while True:
        fresh = [row for row in restart(session) if row not in removed]
        removed += fresh
        looks = 1 if fresh else looks + 1
        try:
            at = portal_time(session.portal)
            if found is None or looks > 1 or fresh:
                found = compare(session, course.schema_name, judged=looks > 1)
            if looks == LOOKS or not any(part.findings for part in found):
                break
            progress.expect(sum(len(part.findings) for part in found))
            written += write_rows(session, holder, course, found, progress, below=below)
        except FaultError:  # a change that arrived meanwhile met a row that was not repaired yet
            if looks == LOOKS:
                raise
    written += [Written(row.table, deleted=1) for row in removed if row.schema_name == course.schema_name]
    report = merged(compare_copies(session.portal, [course.course]), found, session.server)
    if course.state != "moving":
        record_verdicts(session.portal, report, at)
    return written, report
