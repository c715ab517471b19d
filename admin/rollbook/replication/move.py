"""Moving courses from one server to another, while people write.

The portal records the new server (`rollbook.course.moving_to`) before anything is built there. From then on both
servers are fed. Once the new one is equal, and has what the course added to the old one, one statement makes it the
course's server and the old one the server that the course leaves (`leaving`), until its copies there are gone. So what
a killed command has begun is always recorded, and the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg import Error

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.shell import course_word
from rollbook.replication import attach, carry, catalog, link, observe, readable, requirements, subscription
from rollbook.replication.attach import CATCH_UP_SECONDS
from rollbook.replication.carry import Carried
from rollbook.replication.catalog import Placement
from rollbook.replication.fence import fence
from rollbook.replication.link import Server
from rollbook.replication.queries.copies import Comparison, portal_time
from rollbook.replication.queries.courses import Course, find_course, known_courses, require_running
from rollbook.replication.queries.servers import begin_move, end_move, switch
from rollbook.replication.repair import Failure, write_until_equal
from rollbook.replication.restart import restart
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.state import server_state
from rollbook.replication.steps import Steps
from rollbook.replication.verify import record_verdicts

if TYPE_CHECKING:
    from rollbook.core.command import Run


@dataclass(frozen=True)
class Moving:
    """The options of a move."""

    prepare: bool = False
    finish: bool = False
    drop_local: bool = False
    unreachable: bool = False


@dataclass(frozen=True)
class Moved:
    """A row of `course move`; the fields are its columns."""

    course: str
    from_server: str | None
    server: str
    object: str
    rows: int | None
    outcome: str
    command: str | None = None  # for a shell: what carries an object of the course's own

    @property
    def is_left(self) -> bool:
        """Return whether the old server still has what should be gone there."""
        return self.outcome.startswith(("kept: ", "left there"))


@dataclass
class Result:
    """What a move did; `outcome` of the first copies: ready or copying."""

    outcome: str = "ready"
    rows: list[Moved] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    is_waiting: bool = False  # for an operator, who carries what a course has added


@dataclass
class Plan:
    """What there is to do, by course."""

    server: Server
    attaching: list[Course] = field(default_factory=list)  # not on a server yet
    arriving: list[Course] = field(default_factory=list)  # from another server
    returning: list[Course] = field(default_factory=list)  # their move from here is taken back
    left: list[Course] = field(default_factory=list)  # they are here; the server that they left is still to be cleaned
    here: list[Course] = field(default_factory=list)
    copies: int = 0  # that are to be built, with those of the server's relay

    @property
    def question(self) -> str:
        """Return what a move drops, for the operator to confirm; empty if that is nothing."""
        gone = [f"{course.course} from {course.server}" for course in self.arriving]
        gone += [f"{course.course} from {course.moving_to}" for course in self.returning]
        gone += [f"{course.course} from {course.leaving}" for course in self.left]
        return f"move {', '.join(gone)}, and drop the rows there" if gone else ""


def plan_move(run: Run, courses: Sequence[str], server_name: str, options: Moving) -> Plan:
    """Return what a move of these courses has to do. Raises RefusedError for an unknown course, or one in the way."""
    with run.connect() as portal:
        server = link.find_server(portal, server_name)
        found = [find_course(portal, name) for name in known_courses(portal, list(dict.fromkeys(courses)))]
        attach.refuse_relay(portal, server, "move", found[0])
        tables = len(catalog.copied(portal).tables)
    plan = Plan(server)
    for course in found:
        others = {course.server, course.moving_to, course.leaving} - {None, server_name}
        if server_name in (course.server, course.moving_to):
            parts = plan.returning if course.moving_to else plan.left if course.leaving else plan.here
            (plan.arriving if course.moving_to == server_name else parts).append(course)
        elif course.server is None:
            plan.attaching.append(course)
        elif course.state == "detached":
            raise RefusedError(
                f"course {course.course}: its detach from server {course.server} was not finished",
                fix=f"rollbook course detach {course_word(course.course)}",
            )
        elif len(others) > 1:
            attach.refuse_moving(course)
        elif options.finish:
            raise RefusedError(
                f"course {course.course} does not move to server {server_name}: it is on {course.server}",
                fix=f"rollbook course move {course_word(course.course)} --to {server.name}",
            )
        else:
            plan.arriving.append(course)
    hops = 1 if server.through is None else 2
    plan.copies = hops * tables * len(plan.arriving + plan.attaching)
    return plan


def move(run: Run, plan: Plan, options: Moving, steps: Steps, progress: Progress) -> Result:
    """Move courses to a server; return a line for each table, and for each object that the courses added.

    Can be interrupted anywhere and run again. Raises RefusedError where the server cannot take them, before anything
    changes; what fails for one course is in the result.
    """
    server = plan.server
    result = Result(rows=[Moved(each.course, None, server.name, "course", None, "unchanged") for each in plan.here])
    if plan.attaching:
        names = [course.course for course in plan.attaching]
        progress.note(f"not on a server yet, so this attaches them: {', '.join(names)}")
        done = attach.attach(run, names, server.name, steps, progress)
        result.outcome = done.outcome
        result.failures += done.failures
        result.rows += [
            Moved(row.course, None, server.name, str(row.table), row.rows, row.outcome) for row in done.rows
        ]
    with run.connect() as portal, run.connect() as holder:
        portal.autocommit = holder.autocommit = True
        with link.held(portal, server):
            if plan.arriving or plan.left:
                with opened(
                    portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not run.dry_run
                ) as session:
                    change_over = ChangeOver(run, session, holder, options, steps, progress)
                    if plan.arriving and build_there(change_over, plan.arriving) == "copying":
                        result.outcome = "copying"
                        return result
                    for course in (*plan.arriving, *plan.left):
                        each(result, course, change_over.course)
            for course in plan.returning:
                each(result, course, lambda course: take_back(run, portal, course, options, steps))
    return result


def each(result: Result, course: Course, work: Callable[[Course], Result]) -> None:
    """Do one course, and add what it gave; what fails for one does not stop the others."""
    try:
        done = work(course)
    except AdminError as exc:
        result.failures.append(Failure(course.course, exc))
    else:
        result.rows += done.rows
        result.failures += done.failures
        result.is_waiting |= done.is_waiting


# --- to the new server ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeOver:
    """How the courses of one command change over to the new server, with which the session is."""

    run: Run
    session: Session
    holder: Conn  # on the portal, in autocommit: it holds the routes of users whose rows are repaired
    options: Moving
    steps: Steps
    progress: Progress

    def course(self, course: Course) -> Result:
        """Change one course over: compare it, see whether its own objects have been carried, let the old server go.

        Raises RefusedError with --finish while its own objects are missing, AttentionError while rows differ.
        """
        session, options, dry = self.session, self.options, self.run.dry_run
        portal, new = session.portal, session.server
        if session.conn.closed:  # by a course before, for which that server took too long
            raise UnreachableError(
                f"server {new.name} does not answer", why="it was given up at a course before",
                fix="the same command again",
            )  # fmt: skip
        course = find_course(portal, course.course)  # its old server may have been removed meanwhile
        if course.server == new.name and course.leaving is None:
            return Result(rows=[Moved(course.course, None, new.name, "course", None, "unchanged")])
        is_switched = course.server == new.name
        old = link.find_server(portal, str(course.leaving if is_switched else course.server))
        report, at = ([], portal_time(portal)) if is_switched or dry else self.equal_rows(course)
        with link.held(portal, old), reached(self.run, portal, old, options) as there:
            own = [] if there is None else self.own_objects(there, course)
            is_whole = options.drop_local or not any(row.is_left for row in own)
            stops = not is_switched and (options.prepare or (own and not options.finish))
            if not (stops or is_switched or is_whole):
                raise self.refusal(course, own)
            counts = {} if dry else catalog.count_rows(session.conn, session.copied, course.schema_name)
            outcome = "would move" if dry else "moving" if stops else "moved"
            rows = [
                Moved(course.course, old.name, new.name, name, counts.get(name), outcome)
                for name in session.copied.names
            ]
            rows += [
                Moved(course.course, old.name, new.name, row.name, row.rows, row.outcome, row.command) for row in own
            ]
            if stops:
                return Result(rows=rows, is_waiting=bool(own))
            if not is_switched:
                with portal.transaction():
                    self.steps.on_portal(portal, switch(course.course, new.name))
                    if not dry:
                        record_verdicts(portal, report, at)
                        history.record(
                            portal, self.run, course.course, "moved", before={"server": old.name},
                            after={"server": new.name, "own_objects": [row.name for row in own]},
                            course_id=course.course,
                        )  # fmt: skip
            rows += release(self.run, portal, there, old, course, self.steps, drop_local=is_whole)
        return Result(rows=rows)

    def equal_rows(self, course: Course) -> tuple[list[Comparison], datetime]:
        """Compare a course on the new server, and repair it; return the report. Raises AttentionError if it differs."""
        at = portal_time(self.session.portal)
        placement = Placement(course.course, course.schema_name, "moving", course.server)
        _, report = write_until_equal(self.session, self.holder, placement, self.progress)
        if differing := [row.table for row in report if row.verdict != "match"]:
            raise AttentionError(
                f"its copies are not equal on server {self.session.server.name}: {', '.join(differing)}",
                why="they are being written, or the copies in the portal's database differ",
                fix=f"rollbook replication repair {course_word(course.course)}; then the same command again",
            )
        return report, at

    def own_objects(self, there: Session, course: Course) -> list[Carried]:
        """Return what the course has added on the old server, and whether the new one has it."""
        sides = carry.Sides(there.server, self.session.server, course.schema_name)
        own = carry.own_objects(there.conn, there.copied, course.schema_name)
        if not any(row.stage for row in own):
            return []
        rows = carry.counted(there.conn, own)
        if not self.run.dry_run:
            fence(self.session)  # rows that the old server has, and so holds something in, are on the new one too
        return carry.carried(sides, own, rows, self.session.conn, there.copied)

    def refusal(self, course: Course, own: Sequence[Carried]) -> RefusedError:
        """Return the refusal to let the old server go while what the course added there would be lost."""
        left = [row for row in own if row.is_left]
        names = ", ".join(f"{row.name} ({row.outcome})" for row in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        server, quoted = self.session.server, course_word(course.course)
        return RefusedError(
            f"server {server.name} does not have all that the course added to its schema on the other one",
            why=names + more,
            fix=f"rollbook course move {quoted} --to {server.name} prints what carries it; or add --drop-local",
        )


def build_there(change_over: ChangeOver, courses: Sequence[Course]) -> str:
    """Build the copies of courses on the new server, where that was not done yet, and wait for them: ready or copying.

    Raises RefusedError before anything changes where the server cannot take them, or an old one is not to be reached.
    """
    run, session, steps, progress = change_over.run, change_over.session, change_over.steps, change_over.progress
    portal, server = session.portal, session.server
    schemas = [course.schema_name for course in courses]
    fresh = [course for course in courses if course.moving_to is None]
    attach.refuse_relay(portal, server, "move", courses[0])
    attach.refuse_paused(session)
    for course in courses:
        require_running(portal, course.course)
    for hop in session.hops:
        requirements.check_schemas(hop, schemas)
        requirements.refuse_lost(hop)
        readable.refuse_unreadable(hop, schemas)
    if fresh:
        check_target(run, session)
    for name in dict.fromkeys(course.server for course in fresh):
        old = link.find_server(portal, str(name))
        mine = [course.course for course in fresh if course.server == name]
        with link.held(portal, old), reached(run, portal, old, change_over.options):
            for each_id in mine:
                now = find_course(portal, each_id)
                if now.leaving != server.name:  # a move that was taken back, if not to the end, can begin again
                    attach.refuse_moving(now, on=name)
            with portal.transaction():
                steps.on_portal(portal, begin_move(mine, server.name))
                if not run.dry_run:
                    history.record_many(portal, run, [
                        {"object": each_id, "outcome": "moving", "course_id": each_id, "before": {"server": name},
                         "after": {"moving_to": server.name}} for each_id in mine
                    ])  # fmt: skip
    try:
        for hop in session.hops:  # a relay has the rows before the server behind it copies them
            attach.feed(hop, courses, {}, steps)
            if hop is not session and not run.dry_run:
                if (outcome := await_there(run, hop, courses, progress)) != "ready":
                    return outcome
                attach.equal_on_relay(hop, change_over.holder, courses, progress)
    except (AdminError, Error, KeyboardInterrupt):
        progress.note("the move has begun; run the command again, or take it back: course move COURSE --to OLD_SERVER")
        raise
    return "ready" if run.dry_run else await_there(run, session, courses, progress)


def await_there(run: Run, session: Session, courses: Sequence[Course], progress: Progress) -> str:
    """Wait until a server, or its relay, has the copies of courses: ready or copying.

    Deletes rows that are in the way. Raises RefusedError for what that one cannot apply.
    """
    schemas = [course.schema_name for course in courses]
    outcome = subscription.await_copies(session, schemas, run.timeout, progress)
    if outcome == "refused":  # deletes rows in the way, or raises what the server cannot apply
        restart(session)
        outcome = subscription.await_copies(session, schemas, run.timeout, progress)
    if outcome == "refused":
        raise AttentionError(
            f"the first copy to server {session.server.name} stopped",
            fix=f"rollbook replication show {course_word(courses[0].course)}",
        )
    return outcome


def check_target(run: Run, session: Session) -> None:
    """Raise RefusedError if the new server is not well, or has no room for a first copy."""
    server = session.server
    (seen,) = observe.look(session.portal, [server], run.caller())
    if (word := server_state(seen)) not in ("ok", "lagging"):
        raise RefusedError(
            f"server {server.name} is {word}",
            why="its own courses come first",
            fix=f"rollbook server show {server.name}",
        )
    for hop in session.hops:
        requirements.check_copy_room(hop)


# --- away from a server -----------------------------------------------------------------------------------------------


def take_back(run: Run, portal: Conn, course: Course, options: Moving, steps: Steps) -> Result:
    """Take the move of a course back: it stays on its server, and the one to which it was moving lets it go."""
    other = link.find_server(portal, str(course.moving_to))
    with link.held(portal, other), reached(run, portal, other, options) as there:
        with portal.transaction():
            steps.on_portal(portal, switch(course.course, str(course.server)))
            if not run.dry_run:
                history.record(
                    portal, run, course.course, "stayed", before={"moving_to": other.name},
                    after={"server": course.server}, course_id=course.course,
                )  # fmt: skip
        return Result(rows=release(run, portal, there, other, course, steps, drop_local=options.drop_local))


@contextmanager
def reached(run: Run, portal: Conn, server: Server, options: Moving) -> Iterator[Session | None]:
    """Yield a session with a server that lets go; None if it does not answer, and the operator says that it is lost."""
    with ExitStack() as stack:
        try:
            session: Session | None = stack.enter_context(
                opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not run.dry_run)
            )
        except UnreachableError as exc:
            if not options.unreachable:
                fix = f"rollbook server ping {server.name}; if it is lost for good, add --unreachable"
                raise UnreachableError(exc.message, why=exc.why, fix=fix) from exc
            session = None
        yield session


def release(
    run: Run, portal: Conn, there: Session | None, server: Server, course: Course, steps: Steps, *, drop_local: bool
) -> list[Moved]:
    """Let a server go that the portal no longer records for a course; return lines with what is left there.

    Another line for what its relay keeps.
    """
    if there is None:
        placed = attach.abandon(run, portal, server, [course], steps, record=False)
    else:
        placed = attach.release(there, [course], steps, keep=False, drop_local=drop_local)
    steps.on_portal(portal, end_move(course.course))
    return [
        Moved(row.course, row.server, str(row.server), f"schema {row.schema_name}", row.rows,
              "left there" if row.outcome.startswith("left there") else row.outcome)
        for row in placed
    ]  # fmt: skip
