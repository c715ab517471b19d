"""Attaching courses to a server, and detaching them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg import Error, sql

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.remains import Remain
from rollbook.core.shell import course_word
from rollbook.replication import apply_error, build, catalog, link, readable, requirements, subscription
from rollbook.replication.link import Server
from rollbook.replication.queries.courses import Course, find_course, known_courses, require_running
from rollbook.replication.queries.servers import placement
from rollbook.replication.repair import Failure, repair_on_server, write_until_equal
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

CATCH_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Placed:
    """A row of `course attach` and `course detach`; the fields but the last are their columns."""

    course: str
    server: str | None
    table: str | None
    rows: int | None
    outcome: str
    schema_name: str | None = None  # of a detach

    @property
    def is_left(self) -> bool:
        """Return whether a detach left on the server what it should have dropped: the course added to it."""
        return "kept: " in self.outcome

    @property
    def remains(self) -> list[Remain]:
        """Return what a detach leaves on a server, or its relay: the schema, where it was not dropped."""
        if "kept" not in self.outcome and "left there" not in self.outcome:
            return []
        what = f"rows in schema {self.schema_name}, no longer current"
        fix = f"drop schema {self.schema_name} cascade, on that server"
        return [Remain(f"server {self.server}", what, self.rows, fix)]


@dataclass
class Attached:
    """What an attach did; `outcome` of the first copy: ready, refused or copying."""

    outcome: str
    rows: list[Placed] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def attach(run: Run, courses: Sequence[str], server_name: str, steps: Steps, progress: Progress) -> Attached:
    """Attach courses to a server and, once they are copied, compare and repair each.

    Can be interrupted anywhere and run again. Raises RefusedError for a course that is elsewhere, AttentionError if the
    first copy stopped.
    """
    with run.connect() as portal:
        portal.autocommit = True
        server = link.find_server(portal, server_name)
        names = known_courses(portal, list(dict.fromkeys(courses)))
        with link.held(portal, server):
            found = [find_course(portal, name) for name in names]
            refuse_relay(portal, server, "attach", found[0])
            for name in names:
                require_running(portal, name)
            if elsewhere := [course for course in found if course.server not in (None, server.name)]:
                there = elsewhere[0].moving_to or server.name
                raise RefusedError(
                    f"course {elsewhere[0].course} is on server {elsewhere[0].server}",
                    fix=f"rollbook course move {course_word(elsewhere[0].course)} --to {there}",
                )
            with opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not run.dry_run) as session:
                refuse_paused(session)
                outcome = build_and_copy(run, session, found, steps, progress)
                faults = [(hop.server, apply_error.fault(hop)) for hop in session.hops] if outcome == "refused" else []
                copied = session.copied
    if run.dry_run:
        rows = [Placed(name, server.name, table, None, "would attach") for name in names for table in copied.names]
        return Attached(outcome, rows)
    if outcome == "refused":
        stuck, fault = next(((where, found) for where, found in faults if found), (server, None))
        raise stopped_copy(stuck, server, names[0], fault)
    result = Attached(outcome)
    if outcome == "ready":
        for course in found:
            try:
                result.rows += compare_copied(run, course, server, copied, progress)
            except AdminError as exc:
                result.failures.append(Failure(course.course, exc))
    return result


def refuse_relay(portal: Conn, server: Server, verb: str, course: Course) -> None:
    """Raise RefusedError for a relay: it takes no course of its own. `verb`: attach or move."""
    if behind := [each.name for each in link.list_behind(portal, server)]:
        is_behind = course.server in behind
        others = [name for name in behind if name != course.server]
        word = course_word(course.course)
        raise RefusedError(
            f"server {server.name} is a relay",
            why="it holds the courses of the servers behind it, and nothing else"
            f"{f'; {course.course} is on {course.server}, behind it' if is_behind else ''}",
            fix=f"rollbook course {'move' if course.server else verb} {word} --to {others[0]}" if others else None,
        )


def refuse_paused(session: Session) -> None:
    """Raise RefusedError if a server, or its relay, is paused: nothing would arrive there."""
    for hop in session.hops:
        if hop.server.paused_at is not None:
            name = hop.server.name
            raise RefusedError(f"server {name} is paused", fix=f"rollbook replication resume --server {name}")


def stopped_copy(stuck: Server, server: Server, course: str, fault: apply_error.Fault | None) -> AttentionError:
    """Return the error of an attach whose first copy, to a server or its relay, does not end by itself."""
    return AttentionError(
        f"the first copy to server {stuck.name} stopped", why=fault.words if fault else "its subscription is disabled",
        fix=f"{fault.fix(stuck, course)}; then: rollbook course attach {course_word(course)} --to {server.name}"
        if fault else f"rollbook replication resume {course_word(course)}",
    )  # fmt: skip


def count_copies(run: Run, courses: Sequence[str], server: str) -> int:
    """Return how many copies of these courses a server needs, with those of its relay."""
    with run.connect() as portal:
        hops = 1 if link.find_server(portal, server).through is None else 2
        return hops * len(set(courses)) * len(catalog.copied(portal).tables)


def build_and_copy(run: Run, session: Session, courses: Sequence[Course], steps: Steps, progress: Progress) -> str:
    """Create what the courses lack on the server and wait for their first copy: ready, refused or copying.

    Order: the record in the portal, so that whatever is created can be found; the schemas on the server; the
    publication; the subscription. Undone if either side refuses, or a lock is not available in time.
    """
    portal, server = session.portal, session.server
    new = [course for course in courses if course.server is None or course.state == "detached"]
    new_ids = [course.course for course in new]
    schemas = [course.schema_name for course in courses]
    requirements.refuse_identity(portal, schemas)
    for hop in session.hops:
        requirements.refuse_encoding(hop)
        requirements.check_schemas(hop, schemas)
        requirements.refuse_lost(hop)
        if new_ids:
            requirements.check_copy_room(hop)
        readable.refuse_unreadable(hop, schemas)
    if new_ids:
        steps.on_portal(portal, placement(new_ids, server.name, "copying"))
    created: dict[str, list[str]] = {}
    try:
        for hop in session.hops:  # a relay has the rows before the servers behind it copy them
            added, copied = feed(hop, courses, created, steps)
            if hop is not session and not run.dry_run:
                outcome = subscription.await_copies(hop, schemas, run.timeout, progress)
                if outcome != "ready":
                    return outcome
                with run.connect() as holder:
                    holder.autocommit = True
                    equal_on_relay(hop, holder, courses, progress)
    except (AdminError, Error):
        if not (run.dry_run or any(conn.broken for conn in (portal, *(hop.conn for hop in session.hops)))):
            undo(session, new, created)
        raise
    if run.dry_run:
        return "ready"
    history.record_many(portal, run, [
        {"object": name, "outcome": "attached", "after": {"server": server.name}, "course_id": name}
        for name in new_ids
    ])  # fmt: skip
    if not copied:  # rows exist there already: courses that were not asked for must be compared too
        for row in added:
            if row.course not in {course.course for course in courses}:
                verb = "move" if row.state == "moving" else "attach"
                again = f"rollbook course {verb} {course_word(row.course)} --to {server.name}"
                progress.note(f"the {verb} of {row.course} was interrupted; run: {again}")
    return subscription.await_copies(session, schemas, run.timeout, progress)


def feed(
    session: Session, courses: Sequence[Course], created: dict[str, list[str]], steps: Steps
) -> tuple[list[catalog.Placement], bool]:
    """Create what courses lack on one server, and let its stream feed them; return what refresh_copying returns.

    `created` takes by server the schemas that are new there.
    """
    portal, server = session.portal, session.server
    wanted = {course.course: course.schema_name for course in courses}  # in a dry run the portal does not record them
    wanted |= {row.course: row.schema_name for row in catalog.fed(portal, server) if row.state != "detached"}
    build.prepare(session, steps)
    created[server.name] = build.create_schemas(session, list(wanted.items()), steps)
    build.build(session, steps)
    return subscription.refresh_copying(session, steps)


def equal_on_relay(relay: Session, holder: Conn, courses: Sequence[Course], progress: Progress) -> None:
    """Make the copies of courses on a relay equal to the portal's, before a server behind it copies them.

    Raises AttentionError where they are not equal.
    """
    for course in courses:
        placement = catalog.Placement(course.course, course.schema_name, "moving", None)
        _, report = write_until_equal(relay, holder, placement, Progress(note=progress.note))
        if differing := [row.table for row in report if row.verdict != "match"]:
            raise AttentionError(
                f"the copies of {course.course} are not equal on server {relay.server.name}: {', '.join(differing)}",
                why="they are being written, or the copies in the portal's database differ",
                fix=f"rollbook replication repair {course_word(course.course)}; then the same command again",
            )


def undo(session: Session, courses: Sequence[Course], created: dict[str, list[str]]) -> None:
    """Remove what a failed attach left of these courses; where that fails too, the next attach or detach does it."""
    with suppress(AdminError, Error):
        for keep in (True, False):
            new = created.get(session.server.name, [])
            mine = [course for course in courses if (course.schema_name not in new) is keep]
            if mine:
                detach_from(session, mine, Steps(), keep=keep, drop_local=False)


def compare_copied(
    run: Run, course: Course, server: Server, copied: catalog.Copied, progress: Progress
) -> list[Placed]:
    """Compare and repair a course whose first copy is complete; return a line a table."""
    _, verdicts = repair_on_server(run, course.course, server.name, Progress(note=progress.note))
    with link.reached(server, run.caller()) as conn:
        counts = catalog.count_rows(conn, copied, course.schema_name)
    was_attached = course.server == server.name and course.state == "ok"
    outcome = "unchanged" if was_attached else "attached"
    return [
        Placed(course.course, server.name, table, counts[table],
               outcome if verdicts.get(table) == "match" else "differs")
        for table in copied.names
    ]  # fmt: skip


@dataclass(frozen=True)
class Detaching:
    """The options of a detach."""

    keep_data: bool = False
    drop_local: bool = False
    unreachable: bool = False


def list_attached(run: Run, courses: Sequence[str]) -> list[Course]:
    """Return these courses; those on no server too. Raises RefusedError for an unknown one."""
    with run.connect() as portal:
        found = [find_course(portal, name) for name in known_courses(portal, list(dict.fromkeys(courses)))]
    for course in found:
        refuse_moving(course)
    return found


def refuse_moving(course: Course, *, on: str | None = None) -> None:
    """Raise RefusedError if the course is on two servers: its move ends first. `on`: or if it is not on that server."""
    if on is not None and course.server != on:
        raise RefusedError(f"course {course.course} is not on server {on} any more", fix="run the command again")
    if course.moving_to or course.leaving:
        other = course.moving_to or course.leaving
        raise RefusedError(
            f"course {course.course} is on two servers, {course.server} and {other}: its move is not finished",
            fix=f"rollbook course move {course_word(course.course)} --to {course.server}",
        )


def detach(run: Run, courses: Sequence[Course], options: Detaching, steps: Steps) -> tuple[list[Placed], bool]:
    """Detach courses from their servers; return a line a course, and whether a server was not reached.

    Raises UnreachableError for a server that does not answer, unless `options.unreachable`.
    """
    rows: list[Placed] = []
    abandoned = False
    with run.connect() as portal:
        portal.autocommit = True
        for name in dict.fromkeys(course.server for course in courses if course.server):
            server = link.find_server(portal, name)
            mine = [course for course in courses if course.server == name]
            with link.held(portal, server):
                for course in mine:  # as it is now: another command may have moved it
                    refuse_moving(find_course(portal, course.course), on=name)
                try:
                    with opened(
                        portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not run.dry_run
                    ) as session:
                        done = detach_from(session, mine, steps, keep=options.keep_data, drop_local=options.drop_local)
                except UnreachableError:
                    if not options.unreachable:
                        raise
                    done = abandon(run, portal, server, mine, steps)
                    abandoned = True
                if not run.dry_run:
                    history.record_many(portal, run, [
                        {"object": row.course, "outcome": "detached", "course_id": row.course,
                         "before": {"server": name}, "after": {"rows_there": row.outcome}}
                        for row in done if row.server == name
                    ])  # fmt: skip
            rows += done
    rows += [Placed(course.course, None, None, None, "unchanged") for course in courses if not course.server]
    return rows, abandoned


def detach_from(
    session: Session, courses: Sequence[Course], steps: Steps, *, keep: bool, drop_local: bool
) -> list[Placed]:
    """Take courses out of a server's stream, then drop their schemas there; return a line for each.

    Another line for what their relay keeps.
    """
    ids = [course.course for course in courses]
    steps.on_portal(session.portal, placement(ids, session.server.name, "detached"))
    rows = release(session, courses, steps, keep=keep, drop_local=drop_local)
    steps.on_portal(session.portal, placement(ids, None, "ok"))
    return rows


def release(session: Session, courses: Sequence[Course], steps: Steps, *, keep: bool, drop_local: bool) -> list[Placed]:
    """Take courses that the portal no longer records for a server out of its stream; then drop their schemas there.

    Returns a line for each, and for each that its relay keeps.
    """
    schemas = [(course.course, course.schema_name) for course in courses]
    rows = release_from(session, schemas, steps, keep=keep, drop_local=drop_local)
    return rows if session.upstream is None else [*rows, *tidy_relay(session.upstream, steps)]


def tidy_relay(relay: Session, steps: Steps) -> list[Placed]:
    """Take off a relay what no server behind it has any more; return a line for each schema that stays there.

    A schema stays for what somebody has added to it, and is nobody's then.
    """
    portal = relay.portal
    with steps.recorded(portal):
        needed = {row.schema_name for row in catalog.fed(portal, relay.server) if row.state != "detached"}
    unneeded = [name for name in catalog.list_relayed(relay.conn) if name not in needed]
    courses = [(catalog.course_of(portal, name) or name, name) for name in unneeded]
    rows = release_from(relay, courses, steps, keep=False, drop_local=False)
    left = [row for row in rows if row.is_left]
    for row in left:
        steps.on_server(relay, build.comment_on(str(row.schema_name), row.course, is_relay=False))
    return left


def release_from(
    session: Session, courses: Sequence[tuple[str, str]], steps: Steps, *, keep: bool, drop_local: bool
) -> list[Placed]:
    """Take courses (id, schema) out of the stream of one server or relay, then drop their schemas there."""
    conn, server = session.conn, session.server
    steps.on_source(session.source, server, build.publish(session.portal, server, steps))
    if session.subscription() is not None:
        subscription.refresh(session, steps, copy=False)
    rows = []
    for course, schema in courses:
        local = catalog.local_objects(conn, schema, on_copies=False) + catalog.dependents(conn, schema)
        is_complete = catalog.is_complete(conn, session.copied, schema)
        count = sum(catalog.count_rows(conn, session.copied, schema).values()) if is_complete else 0
        added = f"kept: {', '.join(local)}"
        outcome = added if local and not drop_local else "kept" if keep else "removed"
        if outcome == "removed":
            steps.on_server(session, sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
        if steps.dry:
            outcome = f"would be {outcome}"
        rows.append(Placed(course, server.name, None, count, outcome, schema))
    return rows


def abandon(
    run: Run, portal: Conn, server: Server, courses: Sequence[Course], steps: Steps, *, record: bool = True
) -> list[Placed]:
    """Take courses out of the stream of a server that does not answer; return what is left there, and on its relay.

    `record`: they are on no server from now on.
    """
    if record:
        steps.on_portal(portal, placement([course.course for course in courses], None, "ok"))
    rows = [
        Placed(each.course, server.name, None, None, f"left there: schema {each.schema_name}", each.schema_name)
        for each in courses
    ]  # fmt: skip
    relay = link.find_relay(portal, server)
    if relay is None:
        steps.on_source(portal, server, build.publish(portal, server))
        return rows
    try:
        with opened(portal, relay, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not steps.dry) as session:
            steps.on_source(session.conn, server, build.publish(portal, server, steps))
            return [*rows, *tidy_relay(session, steps)]
    except UnreachableError:
        return [
            *rows,
            *cut_relay_off(portal, relay, [(course.course, course.schema_name) for course in courses], steps),
        ]


def cut_relay_off(portal: Conn, relay: Server, courses: Sequence[tuple[str, str]], steps: Steps) -> list[Placed]:
    """Send a relay that does not answer nothing of courses that no server behind it has; return what it keeps."""
    steps.on_source(portal, relay, build.publish(portal, relay))
    with steps.recorded(portal):
        needed = {row.course for row in catalog.fed(portal, relay) if row.state != "detached"}
    return [
        Placed(course, relay.name, None, None, f"left there: schema {schema}", schema)
        for course, schema in courses if course not in needed
    ]  # fmt: skip
