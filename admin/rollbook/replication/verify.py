"""Comparing all copies with the portal: those beside it in one snapshot, those on servers behind a fence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg import Error, IsolationLevel, errors

from rollbook.core.bound import bounded
from rollbook.core.db import Caller, Conn
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.shell import course_word
from rollbook.replication import catalog
from rollbook.replication.catalog import Placement
from rollbook.replication.compare import Compared, compare
from rollbook.replication.link import Server, either_error, list_servers
from rollbook.replication.queries.copies import (
    Comparison,
    Finding,
    compare_copies,
    estimated_rows,
    list_differences,
    list_resumable,
    portal_time,
    record_verification,
)
from rollbook.replication.queries.courses import course_states, known_courses
from rollbook.replication.session import Progress, opened

if TYPE_CHECKING:
    from rollbook.core.command import Run

BATCHES = 20  # calls, for many courses: each reads all routes once, and a bar moves
BATCH = 25  # the fewest courses in one call
NAMED = 5  # courses whose fault is printed
LOCK_SECONDS = 30.0  # how long a table on a server may be locked against us
SILENT_SECONDS = 120.0  # and how long a server may take over a course in all, and besides
ROWS_A_SECOND = 10_000  # of it
CATCH_UP_SECONDS = 10.0  # how long a server may take to catch up before its course counts as not comparable
WORST_FIRST = ("unreachable", "not_comparable", "differs", "match")
UNCOMPARED = ("unreachable", "not_comparable")


@dataclass(frozen=True)
class Part:
    """A part of a comparison, and the time of the portal to which it applies."""

    rows: list[Comparison]
    findings: list[Finding]
    at: datetime
    on_server: Sequence[Compared] = ()  # what was found on the server of the one course that this is about


@dataclass
class Report:
    """What a verify is to compare, and what it has compared so far."""

    asked: list[str]
    run_at: datetime  # when the run began, perhaps an earlier one that this one resumes
    earlier: dict[str, str]  # verdicts other than `match` of the run that this one resumes
    tables: frozenset[str]  # only these; all for none
    courses: list[str] = field(default_factory=list)
    rows: list[Comparison] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Add what was compared."""
        self.courses += dict.fromkeys(row.course for row in part.rows)
        self.rows += [row for row in part.rows if not self.tables or row.table in self.tables]
        self.findings += [row for row in part.findings if not self.tables or row.table in self.tables]

    def courses_with(self, *verdicts: str) -> list[str]:
        """Return the courses of which a table has one of these verdicts, in order."""
        return list(dict.fromkeys(row.course for row in self.rows if row.verdict in verdicts))


def start(run: Run, courses: Sequence[str], tables: Collection[str], *, resume: bool) -> Report:
    """Return what a verify of these courses, all for none, is to compare; `resume`: what the last run did not.

    Raises RefusedError, UsageError for a table that is not copied.
    """
    with run.connect() as conn:
        catalog.require_tables(conn, tables)
        asked = known_courses(conn, list(dict.fromkeys(courses)))
        done = list_resumable(conn) if resume else {}
        run_at = next((row.run_at for row in done.values()), None) or portal_time(conn)
    earlier = {name: row.verdict for name, row in done.items() if name in asked and row.verdict != "match"}
    return Report([name for name in asked if name not in done], run_at, earlier, frozenset(tables))


def verify(run: Run, report: Report, progress: Progress, *, with_findings: bool) -> None:
    """Compare what a report asks for, and record the verdicts as they come, unless only some tables are compared."""
    with run.connect() as portal, run.connect() as recorder:
        for part in compare_all(portal, report.asked, run.caller(), progress, with_findings=with_findings):
            report.add(part)
            if part.rows and not report.tables:
                record_verdicts(recorder, part.rows, part.at, report.run_at)
                recorder.commit()
        reasons = [course for course in course_states(recorder, report.courses_with("not_comparable")) if course.fault]
    for course in reasons[:NAMED]:
        fix = f"rollbook replication repair {course_word(course.course)}"
        progress.note(f"{course.course}: {course.fault}; to restore it: {fix}")
    if len(reasons) > NAMED:
        progress.note(f"{len(reasons) - NAMED} more courses; to restore them all: rollbook replication repair")


def by_course(rows: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Return the rows of each course."""
    found: dict[str, list[Comparison]] = {}
    for row in rows:
        found.setdefault(row.course, []).append(row)
    return found


def record_verdicts(conn: Conn, rows: Sequence[Comparison], at: datetime, run_at: datetime | None = None) -> None:
    """Record for each course the worst verdict of its tables; a role that may not write records nothing."""
    try:
        with conn.transaction():  # a savepoint: what the caller has done stays
            for course_id, tables in by_course(rows).items():
                words = {row.verdict for row in tables}
                worst = next(word for word in WORST_FIRST if word in words)
                count = None if worst in UNCOMPARED else sum(row.differing for row in tables)
                record_verification(conn, course_id, worst, count, at, run_at)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        pass


def compare_all(
    portal: Conn, asked: Sequence[str], caller: Caller, progress: Progress, *, with_findings: bool
) -> Iterator[Part]:
    """Compare the copies of these courses, part by part: those in the portal's database first, then each server's.

    Leaves the session in autocommit. A server that does not answer costs its timeout once.
    """
    local: dict[str, list[Comparison]] = {}
    portal.isolation_level = IsolationLevel.REPEATABLE_READ
    at = portal_time(portal)
    servers = list_servers(portal)
    wanted = frozenset(asked)
    placed = {
        server.name: [row for row in catalog.placements(portal, server) if row.course in wanted] for server in servers
    }
    on_server = {row.course for courses in placed.values() for row in courses}
    expected = estimated_rows(portal, asked)
    progress.expect(sum(expected[name] * (2 if name in on_server else 1) for name in expected))
    size = max(BATCH, -(-len(asked) // BATCHES))
    for start in range(0, len(asked), size):
        batch = list(asked[start : start + size])
        found = compare_copies(portal, batch)
        findings: list[Finding] = []
        compared = by_course(found)
        for name in batch:
            local[name] = compared.get(name, [])
            words = {row.verdict for row in local[name]}
            if with_findings and "differs" in words and "not_comparable" not in words:
                findings += list_differences(portal, name)
        here = [row for row in found if row.course not in on_server]
        if here or findings:
            yield Part(here, findings, at)
        progress.rows(sum(row.portal_rows or 0 for row in found), sum(expected.get(name, 0) for name in batch))
        progress.advance(len([name for name in batch if name not in on_server]))
    portal.rollback()
    portal.isolation_level = None
    portal.autocommit = True
    for server in servers:
        if placed[server.name]:
            courses = [(course, local[course.course]) for course in placed[server.name]]
            for part in compare_server(portal, server, courses, caller, progress.note, with_findings=with_findings):
                yield part
                progress.rows(sum(table.rows for table in part.on_server), expected.get(part.rows[0].course, 0))
                progress.advance(1)


def compare_server(
    portal: Conn, server: Server, courses: Sequence[tuple[Placement, list[Comparison]]], caller: Caller,
    note: Callable[[str], None], *, with_findings: bool,
) -> Iterator[Part]:  # fmt: skip
    """Compare the courses of one server, on its relay too; `courses` come with their comparison in the portal."""
    silent = ""  # the verdict of what cannot be compared any more
    with ExitStack() as stack:
        try:
            session = stack.enter_context(opened(portal, server, caller, catch_up=CATCH_UP_SECONDS, changes=False))
        except AdminError as exc:  # whatever it answers is that server's alone
            note(f"{exc.message}: {exc.why}")
            silent = "unreachable" if isinstance(exc, UnreachableError) else "not_comparable"
        else:
            for hop in session.hops:
                hop.conn.execute(f"set lock_timeout = '{LOCK_SECONDS:g}s'".encode())
        for course, local in courses:
            at = portal_time(portal)
            if silent:
                yield Part(uncompared(local, server, silent), [], at)
                continue
            try:
                seconds = silent_seconds(sum(row.portal_rows or 0 for row in local))
                hops = []
                for hop in session.hops:
                    with bounded(hop.conn, seconds):
                        hops.append((hop.server, compare(hop, course.schema_name, with_columns=with_findings)))
            except (AdminError, Error) as exc:
                error = exc if isinstance(exc, AdminError) else either_error(server, exc)
                note(f"{course.course}: {error.message}: {error.why}")
                yield Part(uncompared(local, server, "not_comparable"), [], at)
                # The courses share one stream: the others need no second wait. An error with details is the course's.
                if isinstance(error, UnreachableError) and not error.details:
                    silent = "not_comparable"
                continue
            findings = [
                Finding(course.course, part.table, each.finding, each.row_id, each.columns, where.name)
                for where, compared in hops for part in compared for each in part.findings
            ]  # fmt: skip
            rows: Sequence[Comparison] = local
            for where, compared in hops:
                rows = merged(rows, compared, where)
            yield Part(list(rows), findings, at, hops[-1][1])


def silent_seconds(rows: int) -> float:
    """Return how long a server may take to compare a course with this number of rows."""
    return SILENT_SECONDS + rows / ROWS_A_SECOND


def merged(local: Sequence[Comparison], compared: Sequence[Compared], server: Server) -> list[Comparison]:
    """Return the rows of a course with what its server adds: rows there, and differences in either place."""
    parts = {part.table: part for part in compared}
    found = []
    for row in local:
        part = parts.get(row.table)
        if part is None or row.verdict == "not_comparable":
            found.append(replace(row, server=server.name))
            continue
        both = replace(
            row, course_rows=part.rows, in_flight=(row.in_flight or 0) + part.in_flight, server=server.name,
            missing=(row.missing or 0) + part.count("missing"), changed=(row.changed or 0) + part.count("changed"),
            extra=(row.extra or 0) + part.count("extra"),
        )  # fmt: skip
        found.append(replace(both, verdict="differs" if both.differing else "match"))
    return found


def uncompared(local: Sequence[Comparison], server: Server, verdict: str) -> list[Comparison]:
    """Return the rows of a course whose server could not be compared: nothing is known of it."""
    return [
        Comparison(row.course, row.table, row.portal_rows, None, None, None, None, verdict, server.name, None)
        for row in local
        if row.table != "route"
    ]
