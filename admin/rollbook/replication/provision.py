"""Adding course servers and removing them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.db import Caller, Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import one
from rollbook.core.shell import course_word
from rollbook.replication import (
    attach,
    base_backup,
    build,
    catalog,
    drop,
    feeding,
    link,
    observe,
    rebuild,
    requirements,
)
from rollbook.replication.catalog import Placement
from rollbook.replication.heartbeat import arrival, send_heartbeat
from rollbook.replication.link import Server
from rollbook.replication.queries.servers import (
    list_moves,
    record_server,
    record_take_over,
    wal_is_unbounded,
)
from rollbook.replication.session import Session, opened
from rollbook.replication.state import server_state
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

FIRST_SECONDS = 10.0  # within which the first heartbeat must arrive
SLOT_IS_READ = (
    "select coalesce(bool_or(s.active), false) as is_read from pg_replication_slots as s where s.slot_name = %s"
)

OWNER_IS_PLAIN = """
select not r.rolsuper as yes from pg_roles as r where r.oid = coalesce(
    (
        select s.subowner from pg_subscription as s inner join pg_database as d on d.oid = s.subdbid
        where d.datname = current_database() and s.subname = %s
    ),
    current_user::regrole
)
"""


@dataclass(frozen=True)
class Added:
    """The row of `server add`; the fields are its columns."""

    server: str
    outcome: str
    lag_seconds: float | None
    base_backup: (
        bool | None
    )  # whether pg_hba.conf lets pg_basebackup in with the login of the subscription route; None: not known
    through: str | None  # no column: the relay that feeds it
    is_unbounded: bool  # no column: whether its source keeps WAL for it until the disk is full
    freed: list[str]  # no column: what a relay had of servers that are gone
    is_starved: bool  # no column: nothing arrives, and another server reads its slot
    needs_password: bool  # no column: its subscription's owner is not a superuser


@dataclass(frozen=True)
class Removed:
    """A row of `server remove`; the fields are its columns."""

    server: str
    what: str
    outcome: str


def add(run: Run, portal: Conn, wanted: Server, steps: Steps, *, take_over: bool) -> Added:
    """Add a server, or create what it lacks; `take_over`: this portal feeds it from now on, by these routes.

    `wanted` has its name and routes. Raises RefusedError, UnreachableError; then a new server leaves nothing.
    """
    known = next((server for server in link.list_servers(portal) if server.name == wanted.name), None)
    server = wanted if known is None else as_recorded(known, wanted, take_over=take_over)
    relay = link.find_relay(portal, server)
    caller = run.caller(run.timeout or FIRST_SECONDS)
    with ExitStack() as stack:
        stack.enter_context(link.held(portal, server, moving=take_over))
        if take_over and relay is not None and relay.portal_identity != link.identity(portal).database:
            raise RefusedError(
                f"server {server.name} is behind {relay.name}, which follows another portal",
                why="a relay is taken over before the servers behind it",
                fix=f"rollbook server add {relay.name} --take-over; then the same command again",
            )
        if relay is not None and known is None:
            refuse_no_relay(portal, relay)
            refuse_unwell(portal, relay, run.caller())
        session = stack.enter_context(opened(
            portal, server, caller, catch_up=FIRST_SECONDS, changes=False, take_over=take_over or known is None
        ))  # fmt: skip
        taken = known is not None and take_over and (known != server or session.is_taken_over)
        requirements.refuse_itself(session)
        requirements.check_recorder(portal)
        requirements.check_room(session)
        if known is None:
            requirements.refuse_other_portal(session)
            requirements.refuse_earlier_slot(session)
        elif not taken:
            requirements.refuse_lost(session)
        requirements.try_route(session.conn, server)
        if session.upstream is not None:
            build.prepare(session.upstream, steps)  # an older version has no publish there
        may_back_up = base_backup.may_take_one(session.conn, server)
        if not run.dry_run:
            feeding.record(session.conn, link.identity(portal))
        if taken and not run.dry_run:
            if not rebuild.keep_stream(session):
                rebuild.rebuild(session)
            record_take_over(portal, server)
        elif (
            known is not None and not (run.dry_run or server.is_moving or catalog.fed(portal, server))
            and rebuild.has_lost(session)
        ):  # fmt: skip
            rebuild.rebuild(session)  # without courses nothing is missed
        waited = provision(session, steps, is_new=known is None)
        is_changed = any(where == f"server {server.name}" for where, _ in steps.listed)
        freed = [] if known is None else tidy(session, steps)
        is_unbounded = wal_is_unbounded(session.source)
        starved = waited is None and not run.dry_run and is_starved(session)
        plain = one(session.conn, OWNER_IS_PLAIN, [server.stream])["yes"]
    outcome = "taken over" if taken else "created" if known is None else "updated" if is_changed else "unchanged"
    if (outcome != "unchanged" or freed) and not run.dry_run:
        after: dict[str, object] = {
            "admin_route": link.shown(server.admin_dsn), "subscription_route": link.shown(server.subscription_dsn),
        }  # fmt: skip
        after |= {"through": server.through} if server.through else {}
        after |= {"freed_of": freed} if freed else {}
        history.record(portal, run, server.name, outcome, after=after)
    word = "would take over" if taken and run.dry_run else outcome
    return Added(server.name, word, waited, may_back_up, server.through, is_unbounded, freed, starved, plain)


def as_recorded(known: Server, wanted: Server, *, take_over: bool) -> Server:
    """Return a recorded server, by the routes by which it is wanted. Raises RefusedError where it is another one."""
    if wanted.through == known.name:
        raise RefusedError(f"server {known.name} cannot feed itself", fix="leave --through out, or name its relay")
    if wanted.through is not None and wanted.through != known.through:
        raise RefusedError(
            f"server {known.name} is fed by {known.through or 'the portal'}, not through {wanted.through}",
            fix=f"rollbook server move {known.name} --through {wanted.through}",
        )
    routes = (wanted.admin_dsn, wanted.subscription_dsn)
    if take_over:  # what else is recorded of it stays
        admin_dsn, subscription_dsn = routes
        return replace(
            known, admin_dsn=admin_dsn, subscription_dsn=subscription_dsn, portal_identity=wanted.portal_identity
        )
    if (known.admin_dsn, known.subscription_dsn) != routes:
        raise RefusedError(
            f"there is a server {known.name} with other routes",
            why=f"see them with: rollbook server show {known.name}",
            fix="if these lead to the same server: add --take-over; or choose another name",
        )
    return known


def refuse_no_relay(portal: Conn, relay: Server) -> None:
    """Raise RefusedError for a server that cannot feed others: it is behind a relay, or has courses of its own."""
    if above := relay.through or relay.moving_through:
        raise RefusedError(
            f"server {relay.name} is itself behind {above}", why="a change goes through one relay at most",
            fix=f"--through {above}, or another server that the portal feeds",
        )  # fmt: skip
    own = [row.course for row in catalog.placements(portal, relay)]
    if own:
        raise RefusedError(
            f"server {relay.name} has courses of its own, such as {own[0]}",
            why="a relay holds the courses of the servers behind it, and nothing else",
            fix=f"rollbook course move {course_word(own[0])} --to SERVER; or add another server for the relay",
        )
    if moves := list_moves(portal, relay.name):
        raise RefusedError(
            f"the move of course {moves[0].course} to or from server {relay.name} is not finished",
            why="a relay holds the courses of the servers behind it, and nothing else",
            fix=f"rollbook course move {course_word(moves[0].course)} --to {moves[0].server}",
        )


def refuse_unwell(portal: Conn, relay: Server, caller: Caller) -> None:
    """Raise RefusedError for a relay through which nothing would arrive. Raises UnreachableError if it is silent."""
    (seen,) = observe.look(portal, [relay], caller)
    if isinstance(seen.answer, UnreachableError):
        raise seen.answer
    seen = replace(seen, unhealed=())  # what is behind it already may lack something, a new server does not
    if (word := server_state(seen)) not in ("ok", "lagging"):
        raise RefusedError(
            f"server {relay.name} is {word}", why="nothing would arrive behind it",
            fix=f"rollbook replication resume --server {relay.name}" if word == "paused"
            else f"rollbook server show {relay.name}",
        )  # fmt: skip


def is_starved(session: Session) -> bool:
    """Return whether a server receives nothing while its slot is read: by the server whose standby it was."""
    server = session.server
    is_read = one(session.source, SLOT_IS_READ, [server.stream])["is_read"]
    known = feeding.known(session.conn, server, link.identity(session.portal))
    return is_read and known.received is None and server.paused_at is None


def tidy(session: Session, steps: Steps) -> list[str]:
    """Free a server of what it has for servers behind it that are gone, or are fed elsewhere; return that in words."""
    names = [server.stream for server in link.list_behind(session.portal, session.server)]
    freed = drop.drop_stale(session, names, steps)
    unneeded = catalog.list_relayed(session.conn)
    attach.tidy_relay(session, steps)
    return freed + [f"schema {name}" for name in unneeded if name not in catalog.list_relayed(session.conn)]


def was_relay(session: Session) -> bool:
    """Return whether a server has something for servers behind it: they may have left it while it did not answer."""
    return drop.has_stale(session) or bool(catalog.list_relayed(session.conn))


def provision(session: Session, steps: Steps, *, is_new: bool) -> float | None:
    """Create all that a server lacks and wait for a heartbeat; remove it again if that fails and it is new."""
    portal, server = session.portal, session.server
    try:
        if is_new and not steps.dry:
            record_server(portal, server)
        build.build(session, steps)
        if steps.dry:
            return None
        waited = arrival(session.conn, server, send_heartbeat(portal), session.timeout)
        if waited is None and server.paused_at is None and is_new:
            raise UnreachableError(
                f"no heartbeat of the portal reached server {server.name} within {session.timeout:g} s",
                why="its subscription route leads to another database, its login may not read rollbook.heartbeat"
                f"{'' if session.upstream is None else ' there'}, or the server has no free worker",
                fix="correct --subscription-dsn; the server's log says more",
            )
        return None if waited is None else round(waited, 3)
    except BaseException:
        if is_new and not steps.dry:
            deprovision(session, Steps())
        raise


def deprovision(session: Session, steps: Steps) -> None:
    """Drop everything that belongs to a server, on both sides."""
    oid = drop.drop_subscription(session, steps)
    drop.drop_server_side(session, steps)
    drop.drop_source_side(session.source, session.server, oid or session.server.subscription, steps)
    drop.forget(session.portal, session.server, steps)


def remove(
    run: Run, portal: Conn, server: Server, courses: Sequence[Placement], steps: Steps, *, unreachable: bool
) -> list[Removed]:
    """Remove a server; return what was removed, and what is left there or on its relay.

    Raises UnreachableError if it does not answer, unless `unreachable`; RefusedError if it answers and has courses.
    """
    with link.held(portal, server, moving=unreachable):
        link.refuse_relay(portal, server)
        try:
            with opened(portal, server, run.caller(), catch_up=FIRST_SECONDS, changes=not run.dry_run) as session:
                if server.is_moving:
                    raise RefusedError(server.moving_words, fix=server.move_command)
                if courses:
                    raise RefusedError(
                        f"server {server.name} answers, and has courses, such as {courses[0].course}",
                        fix="rollbook course detach or move, then remove it without --unreachable",
                    )
                freed = tidy(session, steps) if was_relay(session) else []
                read = drop.still_read(session.conn)
                kept = catalog.kept_schemas(session.conn, [])
                deprovision(session, steps)
                left = [] if session.upstream is None else attach.tidy_relay(session.upstream, steps)
            parts = [("subscription", "removed"), ("slot", "removed"), ("publication", "removed")]
            parts += [(f"{each} of a server that was behind it", "removed") for each in freed]
            parts += read
            parts += [(f"schema {schema} on the server", "kept") for schema in kept]
            parts += on_relay(left)
        except UnreachableError:
            if not unreachable:
                raise
            parts = remove_unreached(run, portal, server, courses, steps)
        rows = [Removed(server.name, what, outcome) for what, outcome in parts]
        if not run.dry_run:
            left_there = [row.what for row in rows if row.outcome != "removed"]
            before: dict[str, object] = {"courses": [row.course for row in courses], "left_there": left_there}
            before |= {"through": server.through} if server.through else {}
            history.record(portal, run, server.name, "removed", before=before)
    return rows


def remove_unreached(
    run: Run, portal: Conn, server: Server, courses: Sequence[Placement], steps: Steps
) -> list[tuple[str, str]]:
    """Remove a server that does not answer, or whose relay does not; return each part, and its outcome."""
    moves = list_moves(portal, server.name)
    name, source = server.through or server.moving_through, [("slot", "removed"), ("publication", "removed")]
    left: list[attach.Placed] = []
    if server.through is None or server.is_moving:
        drop.drop_source_side(portal, replace(server, through=None), server.subscription, steps)
    if name is None:
        drop.forget(portal, server, steps)
    else:
        relay, server = link.find_server(portal, name), replace(server, through=name)
        try:
            with opened(portal, relay, run.caller(), catch_up=FIRST_SECONDS, changes=not run.dry_run) as session:
                drop.drop_source_side(session.conn, server, server.subscription, steps)
                drop.forget(portal, server, steps)
                left = attach.tidy_relay(session, steps)
        except UnreachableError:
            drop.forget(portal, server, steps)
            left = attach.cut_relay_off(portal, relay, [(row.course, row.schema_name) for row in courses], steps)
            source = [(f"{what} on server {relay.name}", "left there") for what, _ in source]
    schemas = dict.fromkeys([*(row.schema_name for row in courses), *(move.schema_name for move in moves)])
    mine = [move for move in moves if move.server == server.name]
    return [
        *source,
        *((f"course {move.course}", f"moved to {move.moving_to}; verify it") for move in mine if move.moving_to),
        *((f"schema {move.schema_name} on server {move.leaving}", "left there") for move in mine if move.leaving),
        *((f"{what} on the server", "left there")
          for what in ("subscription", *(f"schema {name}" for name in schemas), "schema rollbook")),
        *on_relay(left),
    ]  # fmt: skip


def on_relay(left: Sequence[attach.Placed]) -> list[tuple[str, str]]:
    """Return what a relay keeps of courses that nobody behind it has, and why."""
    return [
        (f"schema {row.schema_name} on server {row.server}", row.outcome if row.is_left else "left there")
        for row in left
    ]


def clean_up_script(server: Server, courses: Sequence[Placement]) -> str:
    """Return the SQL that cleans a server that could not be reached."""
    stream = server.stream
    return "\n".join([
        f"alter subscription {stream} disable;", f"alter subscription {stream} set (slot_name = none);",
        f"drop subscription {stream};", "drop schema rollbook cascade;",
        *(f"drop schema {row.schema_name} cascade;  -- with what the course added there" for row in courses),
        "drop role rollbook_owner;  -- refused while another database there needs it",
    ])  # fmt: skip
