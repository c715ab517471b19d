"""Adding course servers and removing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UnreachableError
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
        server = replace(
            wanted, subscription=known.subscription, paused_at=known.paused_at, created_at=known.created_at
        )
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
                why="its subscription route leads to another database, its login may not read rollbook.heartbeat, or "
                "the server has no free worker",
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
    drop.drop_portal_side(session.portal, session.server, oid or session.server.subscription, steps)


def remove(
    run: Run, portal: Conn, server: Server, courses: Sequence[Placement], steps: Steps, *, unreachable: bool
) -> list[Removed]:
    """Remove a server; return what was removed, and what is left there.

    Raises UnreachableError if it does not answer, unless `unreachable`; RefusedError if it answers and has courses.
    """
    with link.held(portal, server):
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
            drop.drop_portal_side(portal, server, server.subscription, steps)
            schemas = dict.fromkeys([*(row.schema_name for row in courses), *(move.schema_name for move in moves)])
            left = ["subscription", *(f"schema {schema}" for schema in schemas), "schema rollbook"]
            parts = [("slot", "removed"), ("publication", "removed")]
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


def clean_up_script(server: Server, courses: Sequence[Placement]) -> str:
    """Return the SQL that cleans a server that could not be reached."""
    stream = server.stream
    return "\n".join([
        f"alter subscription {stream} disable;", f"alter subscription {stream} set (slot_name = none);",
        f"drop subscription {stream};", "drop schema rollbook cascade;",
        *(f"drop schema {row.schema_name} cascade;  -- with what the course added there" for row in courses),
        "drop role rollbook_owner;  -- refused while another database there needs it",
    ])  # fmt: skip
