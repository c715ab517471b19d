"""Bringing a change of the shape to the courses, one after the other: each in short transactions of its own.

Courses of one server go together: what they need there first, then the portal's transactions, then one wait for the
server, then what is left to do there. Servers are independent of each other. Whoever is killed is run again: each step
looks at what is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, RefusedError
from rollbook.core.shell import course_word
from rollbook.core.sqlstate import translate
from rollbook.replication import build, compare, forward, link, subscription
from rollbook.replication.fence import fence
from rollbook.replication.locked import ATTEMPTS, LOCK_SECONDS, PAUSE_SECONDS, run_locked
from rollbook.replication.queries import shape as queries
from rollbook.replication.queries.courses import find_course, update_course
from rollbook.replication.queries.shape import Column, CourseShape
from rollbook.replication.repair import CATCH_UP_SECONDS, Failure
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.shape import finish
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

BATCH = 25  # courses of one server between two waits for it
HELD_SECONDS = 30.0  # how long another command may hold the server
LOOK_SECONDS = 0.2  # between two looks whether all are done: Ctrl-C comes through


@dataclass(frozen=True)
class Change:
    """What one course gets."""

    course: CourseShape
    without: list[str]  # that it leaves out from then on
    renamed: Mapping[Column, str] = field(default_factory=dict)  # columns of its copies, and their new names
    dropped: Sequence[Column] = ()  # columns of its copies that go
    tables: Sequence[str] = ()  # the copies that this concerns
    brings: Sequence[str] = ()  # what is due to it and comes
    becomes_due: Sequence[str] = ()  # what is to come later

    @property
    def arrives(self) -> bool:
        """Return whether columns travel that did not before: then its server must have their values too."""
        return any(text != queries.CONDITION for text in self.brings)


@dataclass
class Done:
    """What was done so far; several threads write it."""

    courses: list[str] = field(default_factory=list)
    rows: int = 0  # written, in the portal's database and on servers
    failures: list[Failure] = field(default_factory=list)


@dataclass
class Work:
    """A run over many courses: whether to stop, what is done, and the sessions that a Ctrl-C cancels."""

    run: Run
    progress: Progress
    done: Done = field(default_factory=Done)
    stop: threading.Event = field(default_factory=threading.Event)
    sessions: list[Conn] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def succeeded(self, change: Change, rows: int) -> None:
        """Count a course."""
        with self.lock:
            self.done.courses.append(change.course.course)
            self.done.rows += rows
            self.progress.advance(1)

    def failed(self, name: str, error: AdminError | psycopg.Error, courses: int = 1) -> None:
        """Record why a course, or all of a server's, could not be changed."""
        with self.lock:
            self.done.failures.append(Failure(name, error if isinstance(error, AdminError) else translate(error)))
            self.progress.advance(courses)

    @contextmanager
    def connect(self) -> Iterator[Conn]:
        """Yield a session on the portal, in autocommit."""
        with self.run.connect() as conn:
            conn.autocommit = True
            self.sessions.append(conn)
            yield conn


def roll_out(run: Run, changes: Sequence[Change], jobs: int, progress: Progress) -> Done:
    """Bring these changes to their courses; a course that fails does not stop the others.

    `jobs`: how many servers are worked on at once. On Ctrl-C the course under way is finished or undone.
    """
    work = Work(run, progress)
    progress.more(len(changes))
    groups: dict[str | None, dict[str | None, list[Change]]] = {}  # by relay, if there is one: it has one lock
    for change in changes:
        servers = groups.setdefault(change.course.relay or change.course.server, {})
        servers.setdefault(change.course.server, []).append(change)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        parts = [pool.submit(line, work, servers) for servers in groups.values()]
        try:
            while wait(parts, LOOK_SECONDS).not_done:
                pass
        except BaseException:
            work.stop.set()
            for conn in work.sessions:
                with suppress(psycopg.Error):
                    conn.cancel_safe(timeout=2)
            raise
    for each in parts:
        each.result()
    work.done.failures.sort(key=lambda failure: failure.course)
    return work.done


def line(work: Work, servers: Mapping[str | None, Sequence[Change]]) -> None:
    """Change the courses of servers that one relay feeds, one server after the other; of any other server alone."""
    for server, changes in servers.items():
        part(work, server, changes)


def part(work: Work, server: str | None, changes: Sequence[Change]) -> None:
    """Change the courses of one server, or those on none."""
    try:
        with work.connect() as portal:
            if server is None:
                for change in changes:
                    if work.stop.is_set():
                        return
                    alone(work, portal, change)
                return
            on_server(work, portal, server, changes)
    except (AdminError, psycopg.Error) as exc:
        if work.stop.is_set():
            return
        counted = {*work.done.courses, *(failure.course for failure in work.done.failures)}
        left = sum(change.course.course not in counted for change in changes)
        work.failed(f"{left} courses" + (f" on server {server}" if server else ""), exc, left)


def alone(work: Work, portal: Conn, change: Change) -> None:
    """Change a course that has no server."""
    try:
        rename_columns(portal, change)
        rows = on_portal(work.run, portal, change, is_last=True)
        drop_columns(portal, change)
    except (AdminError, psycopg.Error) as exc:
        if not work.stop.is_set():
            work.failed(change.course.course, exc)
        return
    work.succeeded(change, rows)


def on_portal(run: Run, portal: Conn, change: Change, *, is_last: bool) -> int:
    """Change a course in the portal's database, in one transaction; return the rows written.

    Whoever has a lock that it needs for too long, or crosses it, is given way: it starts again.
    """
    for turn in range(ATTEMPTS):
        try:
            return once_on_portal(run, portal, change, is_last=is_last)
        except (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure):
            if turn == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("a loop that returns or raises")


def once_on_portal(run: Run, portal: Conn, change: Change, *, is_last: bool) -> int:
    """Try it once."""
    course, rows = change.course, 0
    with portal.transaction():
        if change.without != course.without:
            written = update_course(portal, course.course, change.without)
            rows += sum(row["inserted"] + row["updated"] + row["deleted"] for row in written)
            history.record(
                portal, run, course.course, "updated", before={"without": course.without},
                after={"without": change.without, "rows": rows}, course_id=course.course,
            )  # fmt: skip
        if queries.CONDITION in change.brings and not course.is_paused:  # resume repairs a paused one
            portal.execute("select set_config('lock_timeout', %s, true)", [f"{LOCK_SECONDS:g}s"])
            rows += queries.repair(portal, course.course)
        if change.becomes_due:
            queries.add_due(portal, course.course, change.becomes_due)
        if is_last:
            queries.settle(portal, course.course, change.brings)
    return rows


# --- courses of a server ----------------------------------------------------------------------------------------------


def on_server(work: Work, portal: Conn, name: str, changes: Sequence[Change]) -> None:
    """Change the courses of one server, some at a time."""
    server = link.find_server(portal, name)
    if server.is_moving:
        raise RefusedError(server.moving_words, fix=server.move_command)
    with opened(portal, server, work.run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session:
        work.sessions.append(session.conn)
        is_prepared = False
        for start in range(0, len(changes), BATCH):
            if work.stop.is_set():
                return
            with patiently_held(work, session):
                for hop in [] if is_prepared else session.hops:
                    build.prepare(hop, Steps())
                    subscription.go_on(hop)
                is_prepared = True
                left = batch(work, session, changes[start : start + BATCH])
            for change, rows in left:
                repair_and_finish(work, session, change, rows)


@contextmanager
def patiently_held(work: Work, session: Session) -> Iterator[None]:
    """Lock a server for one batch; other commands may have it in between. Raises RefusedError."""
    end = time.monotonic() + HELD_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(link.held(session.portal, session.server))
                break
            except RefusedError:
                if time.monotonic() > end or work.stop.is_set():
                    raise
                time.sleep(PAUSE_SECONDS)
        yield


def batch(work: Work, session: Session, changes: Sequence[Change]) -> list[tuple[Change, int]]:
    """Change some courses of a server; return those whose rows must be compared again, and the rows written so far."""
    ready = [change for change in changes if attempt(work, change, lambda change: refuse_moving(change.course))]
    if forward.settle(session, {change.course.schema_name: change.course.course for change in ready}):
        fence(session)  # of an earlier run: what the relay sent before is there before a column goes
    for hop in reversed(session.hops):
        ready = reshape(work, hop, ready, is_final=False, behind=None if hop is session else session)
    written: list[tuple[Change, int]] = []
    for change in ready:
        if work.stop.is_set():
            break
        try:
            rename_columns(session.portal, change)
            written.append((change, on_portal(work.run, session.portal, change, is_last=False)))
        except (AdminError, psycopg.Error) as exc:
            if not work.stop.is_set():
                work.failed(change.course.course, exc)
    if not written:
        return []
    try:
        forward.settle(session, {change.course.schema_name: change.course.course for change, _ in written})
        fence(session)
    except (AdminError, psycopg.Error) as exc:
        for change, _ in written if not work.stop.is_set() else ():
            work.failed(change.course.course, exc)
        return []
    equal, differing = compared(session, written)
    finished = [change for change, _ in equal if change.arrives]
    for hop in session.hops:
        finished = reshape(work, hop, finished, is_final=True)
    finished = [change for change, _ in equal if not change.arrives or change in finished]
    finished = [change for change in finished if attempt(work, change, lambda change: drop_everywhere(session, change))]
    for change, rows in equal:
        if change in finished:
            queries.settle(session.portal, change.course.course, change.brings)
            work.succeeded(change, rows)
    return differing


def attempt(work: Work, change: Change, what: Callable[[Change], None]) -> bool:
    """Return whether a step of a course succeeded; record its failure."""
    try:
        what(change)
    except (AdminError, psycopg.Error) as exc:
        if not work.stop.is_set():
            work.failed(change.course.course, exc)
        return False
    return True


def refuse_moving(course: CourseShape) -> None:
    """Raise RefusedError for a course on two servers."""
    if course.is_moving:
        name = course.course
        raise RefusedError(
            f"course {name} moves to another server", why="its copies are on two of them",
            fix=f"end its move: rollbook course show {course_word(name)} names it; then the same command again",
        )  # fmt: skip


def reshape(
    work: Work, session: Session, changes: Sequence[Change], *, is_final: bool, behind: Session | None = None
) -> list[Change]:
    """Give the copies on a server their form; return the courses of which that succeeded.

    `behind`: the server is a relay, which is then to send on what joins to this one behind it.
    """
    if not changes:
        return []
    found = queries.copy_shapes(session.conn, {change.course.schema_name: change.tables for change in changes})
    renamed = {
        change.course.schema_name: {(c.table, c.name): new for c, new in change.renamed.items()} for change in changes
    }
    for shape in found:
        for (table, old), new in renamed.get(shape.schema_name, {}).items():
            if shape.table == table and old in shape.columns and new not in shape.columns:
                shape.columns[new] = shape.columns.pop(old)
    without = {change.course.schema_name: change.without for change in changes}
    statements = queries.shape_statements(session.portal, found, without, is_final=is_final)
    good = []
    for change in changes:
        words = statements.get(change.course.schema_name, [])
        if not is_final:
            words = rename_statements(session.conn, change) + words
        if behind is not None:
            words = [*words, forward.statement(
                session.portal, behind.server, change.course.course, change.course.schema_name, change.without
            )]  # fmt: skip
        if attempt(work, change, lambda _, words=words: run_locked(session.conn, words)):  # type: ignore[misc]
            good.append(change)
    return good


def compared(
    session: Session, written: Sequence[tuple[Change, int]]
) -> tuple[list[tuple[Change, int]], list[tuple[Change, int]]]:
    """Return which courses are equal on the server, as far as one look can tell, and which may not be."""
    fresh = [replace(hop) for hop in session.hops]  # their columns are those of before
    equal: list[tuple[Change, int]] = []
    differing: list[tuple[Change, int]] = []
    with ThreadPoolExecutor(2) as pool:
        for change, rows in written:
            is_equal = change.course.is_paused or not change.arrives or all(
                not compare.compare_table(
                    hop, change.course.schema_name, table, pool, judged=False, with_columns=False
                ).findings
                for hop in fresh for table in change.tables
            )  # fmt: skip
            (equal if is_equal else differing).append((change, rows))
    return equal, differing


def repair_and_finish(work: Work, session: Session, change: Change, rows: int) -> None:
    """Make a course equal on its server, row by row, and finish it: some of its rows were being written."""
    name = change.course.course
    try:
        written = finish(work.run, find_course(session.portal, name), session.server.name, Progress())
        rows += sum(row.rows for row in written)
        drop_everywhere(session, change)
        queries.settle(session.portal, name, change.brings)
    except (AdminError, psycopg.Error) as exc:
        if not work.stop.is_set():
            work.failed(name, exc)
        return
    work.succeeded(change, rows)


# --- columns of copies ------------------------------------------------------------------------------------------------


def rename_statements(conn: Conn, change: Change) -> list[str]:
    """Return the statements that rename columns of a course's copies, as far as they have their old names."""
    schema = change.course.schema_name
    words = []
    for column, new in change.renamed.items():
        there = queries.column_names(conn, schema, column.table)
        if column.name in there and new not in there:
            rename = sql.SQL("alter table {} rename column {} to {}").format(
                sql.Identifier(schema, column.table), sql.Identifier(column.name), sql.Identifier(new)
            )
            words.append(rename.as_string(conn))
    return words


def rename_columns(portal: Conn, change: Change) -> None:
    """Rename columns of a course's copies in the portal's database."""
    run_locked(portal, rename_statements(portal, change))


def drop_everywhere(session: Session, change: Change) -> None:
    """Drop columns of a course's copies, on its server first; its relay keeps no value of what it leaves out."""
    if not change.becomes_due:  # what comes back under another name keeps its values
        forward.empty(session, change.course.schema_name, change.without)
    for hop in reversed(session.hops):
        drop_columns(hop.conn, change)
    drop_columns(session.portal, change)


def drop_columns(conn: Conn, change: Change) -> None:
    """Drop columns of a course's copies. Raises RefusedError where something of the course's own needs one."""
    schema = change.course.schema_name
    words = [
        sql.SQL("alter table {} drop column {}").format(
            sql.Identifier(schema, column.table), sql.Identifier(column.name)
        ).as_string(conn)
        for column in change.dropped
        if column.name in queries.column_names(conn, schema, column.table)
    ]  # fmt: skip
    try:
        run_locked(conn, words)
    except errors.DependentObjectsStillExist as exc:
        needing = "; ".join((exc.diag.message_detail or "").splitlines())
        columns = ", ".join(f"{column.table}.{column.name}" for column in change.dropped)
        where = "in the portal's database" if getattr(exc, "server", None) is None else f"on server {exc.server}"  # type: ignore[attr-defined]
        raise RefusedError(
            f"{schema} {where} has objects of its own that need {columns}", why=needing,
            fix="drop or change them there; then the same command again",
        ) from exc  # fmt: skip
