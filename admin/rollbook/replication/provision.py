"""Adding course servers and removing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.shell import course_word
from rollbook.replication import base_backup, build, catalog, drop, feeding, link, rebuild, requirements
from rollbook.replication.catalog import Placement
from rollbook.replication.heartbeat import arrival, send_heartbeat
from rollbook.replication.link import Server
from rollbook.replication.queries.servers import list_moves, record_server, record_take_over
from rollbook.replication.session import Session, opened
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

FIRST_SECONDS = 10.0  # within which the first heartbeat must arrive


@dataclass(frozen=True)
class Added:
    """The row of `server add`; the fields are its columns."""

    server: str
    outcome: str
    lag_seconds: float | None
    base_backup: bool | None  # whether the login of the subscription route could take one; None: not known


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
    server = wanted
    if known:  # what else is recorded of it stays
        if wanted.through is not None and wanted.through != known.through:
            raise RefusedError(
                f"server {known.name} is fed by {known.through or 'the portal'}, not through {wanted.through}",
                fix=f"rollbook server move {known.name} --through {wanted.through}",
            )
        server = replace(
            known, admin_dsn=wanted.admin_dsn, subscription_dsn=wanted.subscription_dsn,
            portal_identity=wanted.portal_identity,
        )  # fmt: skip
    elif wanted.through is not None:
        refuse_no_relay(portal, link.find_server(portal, wanted.through))
    routes = (server.admin_dsn, server.subscription_dsn)
    if known and not take_over and (known.admin_dsn, known.subscription_dsn) != routes:
        raise RefusedError(
            f"there is a server {server.name} with other routes",
            why=f"see them with: rollbook server show {server.name}",
            fix="if these lead to the same server: add --take-over; or choose another name",
        )
    if known and not take_over:
        server = known
    caller = run.caller(run.timeout or FIRST_SECONDS)
    with (
        link.held(portal, server),
        opened(
            portal, server, caller, catch_up=FIRST_SECONDS, changes=False, take_over=take_over or known is None
        ) as session,
    ):
        taken = known is not None and take_over and (known != server or session.is_taken_over)
        requirements.refuse_itself(session)
        requirements.check_room(session)
        if known is None:
            requirements.refuse_other_portal(session)
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
        waited = provision(session, steps, is_new=known is None)
    outcome = "taken over" if taken else "unchanged" if known else "created"
    if outcome != "unchanged" and not run.dry_run:
        after = {"admin_route": link.shown(server.admin_dsn), "subscription_route": link.shown(server.subscription_dsn)}
        history.record(portal, run, server.name, outcome, after=after)
    return Added(server.name, "would take over" if taken and run.dry_run else outcome, waited, may_back_up)


def refuse_no_relay(portal: Conn, relay: Server) -> None:
    """Raise RefusedError for a server that cannot feed others: it is behind a relay, or has courses of its own."""
    if relay.through is not None or relay.moving_through is not None:
        raise RefusedError(
            f"server {relay.name} is itself behind {relay.through or relay.moving_through}",
            why="a change goes through one relay at most", fix="name a server that the portal feeds",
        )  # fmt: skip
    behind = {server.name for server in link.list_behind(portal, relay)}
    if own := [row for row in catalog.fed(portal, relay) if row.server not in behind and row.state != "moving"]:
        raise RefusedError(
            f"server {relay.name} has courses of its own, such as {own[0].course}",
            why="a relay holds the courses of the servers behind it, and nothing else",
            fix=f"rollbook course move {course_word(own[0].course)} --to SERVER; or add another server for the relay",
        )


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
    """Remove a server; return what was removed, and what is left there.

    Raises UnreachableError if it does not answer, unless `unreachable`; RefusedError if it answers and has courses.
    """
    with link.held(portal, server):
        if behind := link.list_behind(portal, server):
            raise RefusedError(
                f"server {server.name} is the relay of {', '.join(each.name for each in behind)}",
                fix=f"rollbook server move {behind[0].name} --direct",
            )
        try:
            with opened(portal, server, run.caller(), catch_up=FIRST_SECONDS, changes=not run.dry_run) as session:
                if courses:
                    raise RefusedError(
                        f"server {server.name} answers, and has courses, such as {courses[0].course}",
                        fix="rollbook course detach or move, then remove it without --unreachable",
                    )
                kept = catalog.kept_schemas(session.conn, [])
                deprovision(session, steps)
            parts = [("subscription", "removed"), ("slot", "removed"), ("publication", "removed")]
            parts += [(f"schema {schema} on the server", "kept") for schema in kept]
        except UnreachableError:
            if not unreachable:
                raise
            moves = list_moves(portal, server.name)
            source_left = drop_unreached(run, portal, server, steps)
            schemas = dict.fromkeys([*(row.schema_name for row in courses), *(move.schema_name for move in moves)])
            left = ["subscription", *(f"schema {schema}" for schema in schemas), "schema rollbook"]
            parts = [(what, source_left or "removed") for what in ("slot", "publication")]
            parts += [
                (f"course {move.course}", f"moved to {move.moving_to}; verify it")
                for move in moves if move.server == server.name and move.moving_to
            ]  # fmt: skip
            parts += [
                (f"schema {move.schema_name} on server {move.leaving}", "left there")
                for move in moves if move.server == server.name and move.leaving
            ]  # fmt: skip
            parts += [(f"{what} on the server", "left there") for what in left]
        rows = [Removed(server.name, what, outcome) for what, outcome in parts]
        if not run.dry_run:
            left_there = [row.what for row in rows if row.outcome != "removed"]
            before = {"courses": [row.course for row in courses], "left_there": left_there}
            history.record(portal, run, server.name, "removed", before=before)
    return rows


def drop_unreached(run: Run, portal: Conn, server: Server, steps: Steps) -> str | None:
    """Drop at its source what belongs to a server that does not answer, and forget it.

    Returns `left there` where the source, its relay, does not answer either.
    """
    left = None
    try:
        with link.source(portal, server, run.caller()) as source:
            drop.drop_source_side(source, server, server.subscription, steps)
    except UnreachableError:
        left = "left there"
    drop.forget(portal, server, steps)
    return left


def clean_up_script(server: Server, courses: Sequence[Placement]) -> str:
    """Return the SQL that cleans a server that could not be reached."""
    stream = server.stream
    return "\n".join([
        f"alter subscription {stream} disable;", f"alter subscription {stream} set (slot_name = none);",
        f"drop subscription {stream};", "drop schema rollbook cascade;",
        *(f"drop schema {row.schema_name} cascade;  -- with what the course added there" for row in courses),
        "drop role rollbook_owner;  -- refused while another database there needs it",
    ])  # fmt: skip
