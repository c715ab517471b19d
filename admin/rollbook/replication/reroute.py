"""Moving servers between the portal and a relay, while people write and without a second copy.

What a server has applied is a position of its source's WAL. PostgreSQL sends with each transaction that a relay has
from the portal where it ended there, so a position of the portal is found as one of the relay, and the other way
round. The new subscription starts there: nothing is lost or applied twice.

Order: the record of what is under way (`rollbook.server.moving_through` and its neighbours); the copies on the relay;
publication and slot at the new source; on the server, in one transaction, the new subscription, which has no slot yet
and has the position as its comment, beside the old one; the record of the new source, with the oid of the new
subscription; position, slot and start of the new one; then the old source's side goes. A killed command finds by the
oid and the slot how far the one before has come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import Error, errors, sql
from psycopg.types.json import Jsonb

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.rows import one
from rollbook.core.shell import course_word
from rollbook.replication import apply_error, attach, build, catalog, drop, link, observe, rebuild, requirements
from rollbook.replication import subscription as subscriptions
from rollbook.replication.apply_error import Reader, applied_until
from rollbook.replication.attach import CATCH_UP_SECONDS
from rollbook.replication.fence import fence
from rollbook.replication.link import Server
from rollbook.replication.provision import refuse_no_relay
from rollbook.replication.queries.copies import compare_copies
from rollbook.replication.queries.courses import Course, find_course, require_running
from rollbook.replication.queries.servers import (
    begin_server_move,
    end_server_move,
    list_moves,
    record_source,
)
from rollbook.replication.repair import repair_on_server
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.state import server_state
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

LEFT = sql.Identifier("rollbook left")  # the old subscription, beside the new one
STARTS = "Rollbook: starts at "  # the comment on a new one, before the position

# Begin, origin and commit of each transaction; a relay's slot has them whole.
MARKS = """
select data from pg_logical_slot_peek_binary_changes(
    %(slot)s::name, null, null, 'proto_version', '1', 'publication_names', %(publication)s::text
)
where get_byte(data, 0) in (66, 67, 79)
"""

POSITION = """
select obj_description(s.oid, 'pg_subscription') as words from pg_subscription as s where s.oid = %s
"""

LEFT_THERE = """
select exists (
    select from pg_subscription as s inner join pg_database as d on d.oid = s.subdbid
    where s.subname = 'rollbook left' and d.datname = current_database()
) as yes
"""

POSITION_FUNCTIONS = ("pg_show_replication_origin_status()", "pg_replication_origin_advance(text, pg_lsn)")
MAY_POSITION = "select has_function_privilege(%s, 'execute') as yes"


@dataclass(frozen=True)
class Moved:
    """A row of `server move`; the fields are its columns."""

    server: str
    course: str | None
    through: str | None  # the relay that feeds it now; None: the portal does
    outcome: str
    verdict: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Where a server is to move; `through` None: to the portal."""

    server: str
    through: str | None
    subscription_dsn: str | None = None  # None: as it was given to the command before, or as it is recorded
    unreachable: bool = False  # the relay is lost


@dataclass(frozen=True)
class Mark:
    """A transaction that a relay has from the portal: where it ends there, and where it ended on the portal."""

    end: int
    origin: int


def move(run: Run, portal: Conn, wanted: Wanted, steps: Steps, progress: Progress) -> list[Moved]:
    """Move a server behind a relay or to the portal, compare its courses, and return a line a course.

    Can be interrupted anywhere and run again, or taken back. Raises RefusedError before anything changes.
    """
    before = link.find_server(portal, wanted.server)
    relay_name = wanted.through or before.through or before.moving_through
    outcome = "would move" if run.dry_run else "moved"
    if before.through == wanted.through and not before.is_moving:
        return [Moved(before.name, None, before.through, "unchanged")]
    assert relay_name is not None  # noqa: S101 (otherwise it is at the portal already)
    relay = link.find_server(portal, relay_name)
    with link.held(portal, replace(before, moving_through=relay.name), moving=True):
        server = link.find_server(portal, wanted.server)
        if server != before:
            raise RefusedError(f"another command has changed server {server.name}", fix="run the command again")
        refuse(portal, server, relay, wanted)
        if wanted.subscription_dsn is None and server.moving_direct == (wanted.through is None):
            wanted = replace(wanted, subscription_dsn=server.moving_dsn)  # of the command that it goes on with
        is_lost = wanted.unreachable and is_silent(run, relay)
        if is_lost:
            abandon_relay(run, portal, server, wanted, steps)
        else:
            with reached(run, portal, server, relay) as (direct, behind):
                Change(run, portal, server, wanted, direct, behind, steps, progress).make()
    placed = courses_of(portal, server)
    if is_lost:
        lost = [Moved(server.name, row.course, None, outcome, row.state) for row in placed]
        return lost or [Moved(server.name, None, None, outcome)]
    verdicts = {row.course: "" for row in placed}
    progress.more(len(placed))
    for name in placed if not run.dry_run else []:
        _, found = repair_on_server(run, name.course, server.name, Progress(note=progress.note))
        verdicts[name.course] = next((word for word in found.values() if word != "match"), "match")
        progress.advance(1)
    rows = [Moved(server.name, name, wanted.through, outcome, word or None) for name, word in verdicts.items()]
    return rows or [Moved(server.name, None, wanted.through, outcome)]


def courses_of(portal: Conn, server: Server) -> list[catalog.Placement]:
    """Return the courses of a server that its move takes along."""
    return [row for row in catalog.placements(portal, server) if row.state != "detached"]


def is_silent(run: Run, relay: Server) -> bool:
    """Return whether a relay does not answer."""
    try:
        with link.reached(relay, run.caller()):
            return False
    except UnreachableError:
        return True


def refuse(portal: Conn, server: Server, relay: Server, wanted: Wanted) -> None:
    """Raise RefusedError for a server, or a relay, that cannot change its place."""
    if wanted.through == server.name:
        raise RefusedError(f"server {server.name} cannot be its own relay", fix="name another server")
    if server.through not in (None, relay.name):
        raise RefusedError(
            f"server {server.name} is behind {server.through}", why="it leaves one relay before it goes to another",
            fix=f"rollbook server move {server.name} --direct; then the same command again",
        )  # fmt: skip
    if server.moving_through not in (None, relay.name):
        raise RefusedError(server.moving_words, fix=server.move_command)
    if behind := [each.name for each in link.list_behind(portal, server)]:
        raise RefusedError(
            f"server {server.name} is itself the relay of {', '.join(behind)}",
            why="a change goes through one relay at most",
            fix=f"rollbook server move {behind[0]} --direct; then the same command again",
        )  # fmt: skip
    if wanted.through is not None:
        refuse_no_relay(portal, relay)
    if wanted.unreachable:
        return
    for each in (relay, server):
        if each.paused_at is not None:
            raise RefusedError(f"server {each.name} is paused", fix=f"rollbook replication resume --server {each.name}")
    for moving in list_moves(portal, server.name):
        there = moving.moving_to if moving.server == server.name and moving.moving_to else moving.server
        raise RefusedError(
            f"the move of course {moving.course} is not finished",
            fix=f"rollbook course move {course_word(moving.course)} --to {there}",
        )
    for row in catalog.placements(portal, server):
        if row.state in ("copying", "detached"):
            verb, where = ("attach", f" --to {server.name}") if row.state == "copying" else ("detach", "")
            raise RefusedError(
                f"the {verb} of course {row.course} is not finished",
                fix=f"rollbook course {verb} {course_word(row.course)}{where}",
            )
        require_running(portal, row.course)


@contextmanager
def reached(run: Run, portal: Conn, server: Server, relay: Server) -> Iterator[tuple[Session, Session]]:
    """Yield the server as the portal feeds it, and as the relay does; over one session each with server and relay."""
    caller, changes = run.caller(), not run.dry_run
    with ExitStack() as stack:
        try:
            above = stack.enter_context(opened(portal, relay, caller, catch_up=CATCH_UP_SECONDS, changes=changes))
        except UnreachableError as exc:
            if server.through is None and not server.is_moving:
                raise  # it is direct: the relay alone is down
            fix = f"rollbook server ping {relay.name}; if it is lost for good: rollbook server move {server.name} "
            lost = link.cut_off(server, relay, exc)
            route = "--direct --unreachable"
            raise UnreachableError(lost.message, why=lost.why, fix=fix + route) from exc
        own = stack.enter_context(opened(portal, server, caller, catch_up=CATCH_UP_SECONDS, changes=changes))
        yield (
            replace(own, server=replace(server, through=None), upstream=None),
            replace(own, server=replace(server, through=relay.name), upstream=own.upstream or above),
        )


@dataclass(frozen=True)
class Change:
    """One change of source: the server as either source feeds it, of which the record names one."""

    run: Run
    portal: Conn
    server: Server
    wanted: Wanted
    direct: Session
    behind: Session
    steps: Steps
    progress: Progress

    @property
    def relay(self) -> Session:
        """Return the session with the relay."""
        assert self.behind.upstream is not None  # noqa: S101 (`reached` sets it)
        return self.behind.upstream

    def with_route(self, session: Session) -> Session:
        """Return a session whose server has the route that was given, if there is one."""
        dsn = self.wanted.subscription_dsn or session.server.subscription_dsn
        return replace(session, server=replace(session.server, subscription_dsn=dsn))

    def make(self) -> None:
        """Go on from wherever the command before has come, and finish the change."""
        portal, server, dry = self.portal, self.server, self.run.dry_run
        to_portal = self.wanted.through is None
        goal, other = (self.direct, self.behind) if to_portal else (self.behind, self.direct)
        is_there = server.through == goal.server.through
        for session in (self.relay, goal if is_there else other):
            requirements.refuse_lost(session)
        if not server.is_moving:
            self.check(other, goal)
        is_switched = self.is_switched()  # on the server, and not in the portal's record
        if is_switched and is_there:
            raise RefusedError(server.moving_words, why="it can be taken back then", fix=server.move_command)
        route = self.wanted.subscription_dsn
        self.steps.on_portal(portal, begin_server_move(server.name, self.relay.server.name, route, direct=to_portal))
        if is_switched:
            requirements.check_route(self.with_route(goal))
            self.record(self.with_route(goal))
        elif not is_there:
            if not dry:
                self.start(other)
            self.prepare(goal)
            self.switch(other, self.with_route(goal))
        if not dry:
            self.start(goal)
        self.clean_up(goal, other)

    # --- before the change ---

    def check(self, old: Session, new: Session) -> None:
        """Raise RefusedError, before anything changes, where server or relay are not well, or lack room or rights."""
        schemas = [row.schema_name for row in courses_of(self.portal, self.server)]
        relay, own = observe.look(self.portal, [self.relay.server, self.server], self.run.caller())
        relay = replace(relay, unhealed=())  # what its other servers lack keeps this one neither here nor there
        for seen in (relay, own):
            if (word := server_state(seen)) not in ("ok", "lagging"):
                name = seen.server.name
                raise RefusedError(f"server {name} is {word}", fix=f"rollbook server show {name}")
        if due := [copy for copy in old.copies(*schemas) if copy.sync != "r"]:
            raise RefusedError(
                f"the copy of {due[0].schema_name}.{due[0].table} is not complete", fix="rollbook replication status"
            )
        for report in compare_copies(self.portal, [row.course for row in courses_of(self.portal, self.server)]):
            if report.verdict == "differs":
                raise AttentionError(
                    f"the copies of {report.course} in the portal's database differ",
                    fix=f"rollbook replication repair {course_word(report.course)}",
                )
        requirements.refuse_encoding(new)
        requirements.check_room(new)
        requirements.refuse_earlier_slot(new)
        if lacking := [name for name in POSITION_FUNCTIONS if not one(self.direct.conn, MAY_POSITION, [name])["yes"]]:
            role = sql.Identifier(self.direct.conn.info.user).as_string()
            grant = "; ".join(f"grant execute on function {name} to {role}" for name in lacking)
            raise UnreachableError(
                f"the role on server {self.server.name} may not say where a subscription starts",
                why="a superuser may, or who is granted it", fix=f"on server {self.server.name}: {grant}",
            )  # fmt: skip
        if not self.run.dry_run:
            requirements.check_route(self.with_route(new))

    # --- the change ---

    def prepare(self, new: Session) -> None:
        """Bring the courses to the relay, if it is to feed the server; publish them, and keep WAL from here on."""
        server, steps = new.server, self.steps
        courses = self.courses()
        if new is self.behind:
            requirements.check_schemas(self.relay, [course.schema_name for course in courses])
            attach.feed(self.relay, courses, {}, steps)
            if not self.run.dry_run:
                self.progress.note(f"bringing the courses to server {self.relay.server.name}") if courses else None
                schemas = [course.schema_name for course in courses]
                outcome = subscriptions.await_copies(
                    self.relay, schemas, self.run.timeout, Progress(note=self.progress.note)
                )
                if outcome != "ready":
                    raise self.not_copied(outcome, courses[0].course)
                with self.run.connect() as holder:
                    holder.autocommit = True
                    attach.equal_on_relay(self.relay, holder, courses, self.progress)
        steps.on_source(new.source, server, self.publish(new))
        if not self.run.dry_run:
            requirements.check_route(self.with_route(new))
        slot = catalog.slot(new.source, server)
        if slot is not None and slot.wal_status == "lost":  # of a command long ago
            drop.drop_slots(new.source, server, None, steps)
            slot = None
        if slot is None:
            build.create_slot(new, steps)

    def publish(self, session: Session) -> sql.Composed:
        """Return the statement that publishes the server's courses at a source, whatever the record names."""
        if session.upstream is not None:
            return build.publish(self.portal, session.server, self.steps)
        wanted = Jsonb(one(self.portal, build.PUBLISHED, [self.server.name, None])["wanted"])
        return sql.SQL("select rollbook.publish({}, {})").format(self.server.stream, wanted)

    def not_copied(self, outcome: str, course: str) -> AttentionError:
        """Return the error of a relay that does not have the courses yet."""
        again = f"rollbook server move {self.server.name} --through {self.relay.server.name}"
        if outcome == "copying":
            return AttentionError(
                f"the first copy to server {self.relay.server.name} is not complete", why="it continues by itself",
                fix=again,
            )  # fmt: skip
        fault = apply_error.fault(self.relay)
        return AttentionError(
            f"the first copy to server {self.relay.server.name} stopped",
            why=fault.words if fault else "its subscription is disabled",
            fix=f"{fault.fix(self.relay.server, course)}; then: {again}" if fault else again,
        )

    def courses(self) -> list[Course]:
        """Return the courses of the server."""
        return [find_course(self.portal, row.course) for row in courses_of(self.portal, self.server)]

    def switch(self, old: Session, new: Session) -> None:
        """Create the subscription to the new source, exactly where the old one has come, and record the new source."""
        steps, name = self.steps, sql.Identifier(self.server.stream)
        if self.run.dry_run:
            steps.on_server(self.direct, *self.turn(new, "POSITION"))
            steps.on_portal(self.portal, record_source(new.server, 0))
            return
        subscriptions.go_on(old)
        to_relay, mark_slot = new.upstream is not None, self.server.stream
        try:
            if not to_relay:  # its reader has the slot itself, and moves it
                mark_slot = f"rollbook_move_{old.source.info.backend_pid}"
                apply_error.copy_slot(old, mark_slot)
            fence(self.relay)
            fence(old)  # a transaction that both have, behind the beginning of the slots
            steps.on_server(self.direct, sql.SQL("alter subscription {} disable").format(name))
            self.await_end(old)
            applied = applied_until(old.conn, old.server)
            if to_relay:
                fence(self.relay)  # it has all that the server has
            marks = list_marks(self.relay, mark_slot, self.server.stream)
            if to_relay:
                position = max((mark.end for mark in marks if mark.origin <= applied), default=None)
            else:
                position = max((mark.origin for mark in marks if mark.end <= applied), default=None)
            if position is None:
                raise AttentionError(
                    f"where server {self.server.name} has come is not found in the WAL of {self.relay.server.name}",
                    fix=self.server.move_command,
                )
            steps.on_server(self.direct, *self.turn(new, apply_error.lsn(position)))
        except BaseException as exc:
            with suppress(AdminError, Error):
                if not self.is_switched():
                    subscriptions.go_on(old)
            if isinstance(exc, errors.ConnectionFailure):
                raise requirements.unroutable(new.server, exc) from exc
            raise
        finally:
            if not to_relay:
                with suppress(Error):
                    old.source.execute("select pg_drop_replication_slot(%s)", [mark_slot])
        self.record(new)

    def turn(self, new: Session, position: str) -> list[sql.Composed]:
        """Return the statements, one transaction, that put the new subscription beside the old one."""
        name = sql.Identifier(self.server.stream)
        return [
            sql.SQL("alter subscription {} set (slot_name = none)").format(name),
            sql.SQL("alter subscription {} rename to {}").format(name, LEFT),
            build.create_subscription(new, sql.SQL("none"), copy=False, enabled=False),
            sql.SQL("comment on subscription {} is {}").format(name, sql.Literal(STARTS + position)),
        ]

    def await_end(self, session: Session) -> None:
        """Wait until the worker of a disabled subscription has ended: after the transaction under way."""
        end = time.monotonic() + session.timeout
        while (found := session.subscription()) and found.worker is not None:
            if time.monotonic() > end:
                raise UnreachableError(
                    f"the worker of server {self.server.name} did not end within {session.timeout:g} s",
                    why="it applies a large transaction", fix="try again, perhaps with a longer --timeout SECONDS",
                )  # fmt: skip
            time.sleep(0.02)

    def is_switched(self) -> bool:
        """Return whether the server has a subscription that the portal does not know: to the other source."""
        found = self.direct.subscription()
        return found is not None and found.slot is None and found.oid != self.server.subscription

    def record(self, new: Session) -> None:
        """Record the source to which the new subscription leads: from here on only the same way leads back."""
        found = new.subscription()
        assert found is not None  # noqa: S101 (created before)
        relay = self.relay.server.name
        old, now = ("the portal", relay) if new.upstream is not None else (relay, "the portal")
        with self.portal.transaction():
            self.steps.on_portal(self.portal, record_source(new.server, found.oid))
            history.record(
                self.portal, self.run, self.server.name, "moved", before={"source": old},
                after={"source": now, "subscription_route": link.shown(new.server.subscription_dsn)},
            )  # fmt: skip

    def start(self, session: Session) -> None:
        """Set a new subscription going where the old one has come, and drop the old one; one that runs stays so."""
        found, steps = session.subscription(), self.steps
        if found is None:
            return
        name = sql.Identifier(self.server.stream)
        if found.slot is None:
            words = str(one(session.conn, POSITION, [found.oid])["words"] or "")
            if not words.startswith(STARTS):
                raise AttentionError(
                    f"where the subscription of server {self.server.name} starts is not known",
                    why="its comment is gone", fix="rollbook replication resync, for the courses there",
                )  # fmt: skip
            advance = sql.SQL("select pg_replication_origin_advance({}, {})")
            steps.on_server(session, advance.format(f"pg_{found.oid}", words.removeprefix(STARTS)))
            steps.on_server(
                session,
                sql.SQL("alter subscription {} set (slot_name = {})").format(name, sql.Literal(self.server.stream)),
                sql.SQL("alter subscription {} enable").format(name),
                sql.SQL("comment on subscription {} is null").format(name),
            )
        subscriptions.go_on(session)
        if one(session.conn, LEFT_THERE)["yes"]:
            steps.on_server(session, sql.SQL("drop subscription {}").format(LEFT))

    # --- behind the change ---

    def clean_up(self, goal: Session, other: Session) -> None:
        """Drop what the other source has of the server; free the relay of courses that no server behind it has."""
        if not self.run.dry_run:
            fence(goal)
            goal.source.execute(self.publish(goal))  # what has changed meanwhile
        drop.drop_source_side(other.source, other.server, None, self.steps)
        left = attach.tidy_relay(self.relay, self.steps) if other is self.behind else []
        for row in left:
            self.progress.note(f"server {row.server}: schema {row.schema_name} {row.outcome}")
        self.steps.on_portal(self.portal, end_server_move(self.server.name))


def abandon_relay(run: Run, portal: Conn, server: Server, wanted: Wanted, steps: Steps) -> None:
    """Let the portal feed a server whose relay is lost: what the server misses, nobody knows."""
    dsn = wanted.subscription_dsn or server.subscription_dsn
    alone = replace(server, through=None, moving_through=None, subscription_dsn=dsn)
    with opened(portal, alone, run.caller(), catch_up=CATCH_UP_SECONDS, changes=not run.dry_run) as session:
        if not run.dry_run:
            requirements.check_route(session)
        found = session.subscription()
        with portal.transaction():
            steps.on_portal(portal, record_source(alone, server.subscription or 0), end_server_move(server.name))
            if not run.dry_run:
                history.record(
                    portal, run, server.name, "moved", before={"source": server.through or server.moving_through},
                    after={"source": "the portal", "relay": "lost"},
                )  # fmt: skip
        if not run.dry_run and one(session.conn, LEFT_THERE)["yes"]:
            steps.on_server(session, sql.SQL("drop subscription {}").format(LEFT))
        if not run.dry_run and (found is None or server.through is not None or not rebuild.keep_stream(session)):
            rebuild.rebuild(session)


def list_marks(relay: Session, slot: str, publication: str) -> list[Mark]:
    """Return the transactions in a slot of a relay that came from the portal: not its own, such as repairs."""
    found = relay.subscription()
    name, end, origin = f"pg_{found.oid if found else 0}", 0, 0
    marks: list[Mark] = []
    asked = {"slot": slot, "publication": publication}
    for row in relay.conn.execute(MARKS, asked, binary=True):
        message = Reader(bytes(row["data"]))
        kind = message.letter()
        if kind == "B":
            origin = 0
        elif kind == "O":
            position = message.number("Q")
            origin = position if message.word() == name else 0
        else:
            _ = message.number("B"), message.number("Q")  # flags, the LSN of the commit
            end = message.number("Q")
            marks += [Mark(end, origin)] if origin else []
    return marks


def lost_words(rows: Sequence[Moved]) -> str:
    """Return the command for courses of which nobody knows what they miss; empty if there are none."""
    names = [course_word(row.course) for row in rows if row.verdict == "unknown" and row.course]
    return f"rollbook replication resync {' '.join(names)}" if names else ""
