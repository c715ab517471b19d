"""`rollbook server`: the PostgreSQL servers that hold courses."""

from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import ServerName
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.nouns import noun

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.replication.link import Server
    from rollbook.replication.stream import Steps

app = noun("server")

COLUMNS = ("server", "outcome", "lag_seconds")
LISTED = ("server", "courses", "state", "version", "lag_bytes", "lag_seconds", "since")
PINGED = ("server", "route", "verdict", "seconds", "reason")
REMOVED = ("server", "what", "outcome")
FIRST_SECONDS = 10.0  # within which the first heartbeat must arrive


@command(
    app, "add", sets=("data", "writes"), columns=COLUMNS, long=True,
    examples=(
        "server add east --admin-dsn 'host=east.example dbname=courses' --subscription-dsn 'service=portal'",
        "server add east --admin-dsn service=east --subscription-dsn service=portal --dry-run",
    ),
    exits="0 added, or there already, 1 refused, 2 a conninfo without its database, 3 a route does not work",
    see="rollbook server ping, rollbook course attach",
)  # fmt: skip
def add(
    run: Run,
    name: ServerName,
    admin_dsn: Annotated[str, typer.Option(metavar="CONNINFO", help="How this program reaches the server.")],
    subscription_dsn: Annotated[
        str, typer.Option(metavar="CONNINFO", help="How the server reaches the portal; read on the server.")
    ],
    take_over: Annotated[
        bool, typer.Option("--take-over", help="This database is the portal now, or the server has new routes.")
    ] = False,
) -> None:
    """Add a course server: its publication, slot and subscription, proven by a heartbeat that arrives."""
    from dataclasses import replace

    from rollbook.core import history
    from rollbook.core.db import masked
    from rollbook.replication import link, repairing, stream
    from rollbook.replication.queries.servers import checked_server_name, note_take_over, wal_is_unbounded

    link.checked_conninfo("--admin-dsn", admin_dsn)
    link.checked_conninfo("--subscription-dsn", subscription_dsn)
    checked_server_name(name)
    steps = stream.Steps(dry=run.dry_run)
    with run.connect() as portal:
        portal.autocommit = True
        known = next((to for to in link.servers(portal) if to.name == name), None)
        to = link.Server(name, admin_dsn, subscription_dsn, link.identity(portal))
        if known:  # what else is noted of it stays
            to = replace(to, subscription=known.subscription, paused_at=known.paused_at, created_at=known.created_at)
        taken = known is not None and take_over and known != to
        if known and not taken and (known.admin_dsn, known.subscription_dsn) != (admin_dsn, subscription_dsn):
            raise RefusedError(
                f"there is a server {name} with other routes",
                why=f"see them with: rollbook server show {name}",
                fix="if these lead to the same server: the same again with --take-over; or choose another name",
            )
        if known and not taken:
            to = known
        with (
            link.held(portal, to),
            link.reached(to, run.caller(run.timeout or FIRST_SECONDS), long=True) as conn,
        ):
            refuse_itself(portal, conn, to)
            stream.check_room(portal, conn, to)
            if known is None:
                stream.refuse_fed(conn, to)
            elif not taken:
                stream.refuse_gone(portal, conn, to)
            stream.try_route(conn, to)
            if taken and not run.dry_run:
                if not repairing.carry_on(portal, conn, to):
                    repairing.rebuild(portal, conn, to)
                note_take_over(portal, to.name, to.admin_dsn, to.subscription_dsn, to.portal_identity)
            waited = made(portal, conn, to, steps, is_new=known is None, seconds=run.timeout or FIRST_SECONDS)
        done = "taken over" if taken else "unchanged" if known else "created"
        if done != "unchanged" and not run.dry_run:
            routes = {"admin_route": masked(admin_dsn), "subscription_route": masked(subscription_dsn)}
            history.record(portal, run, name, done, after=routes)
        unbounded = wal_is_unbounded(portal)
    if run.dry_run and render.chosen_format(run) is Format.table:
        show_steps(run, steps)
    planned = "would take over" if taken else "unchanged" if known else "would create"
    outcome = planned if run.dry_run else done
    render.rows(run, [{"server": name, "outcome": outcome, "lag_seconds": waited}], COLUMNS)
    for option, dsn in (("--admin-dsn", admin_dsn), ("--subscription-dsn", subscription_dsn)):
        if link.has_password(dsn):
            render.note(
                run, f"{option} holds a password, which is kept in rollbook.server; better: passfile= or service="
            )
    if unbounded:
        render.note(
            run,
            f"while server {name} is down the portal keeps WAL for it without bound; on the portal:\n"
            "  alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();",
        )


def made(
    portal: "Conn", conn: "Conn", to: "Server", steps: "Steps", *, is_new: bool, seconds: float
) -> float | None:  # fmt: skip
    """Make all that a new server lacks and wait for a heartbeat; take it away again if that fails."""
    from rollbook.replication import link, stream
    from rollbook.replication.queries.servers import note_server

    try:
        if is_new and not steps.dry:
            note_server(portal, to.name, to.admin_dsn, to.subscription_dsn, to.portal_identity)
        stream.build(portal, conn, to, steps)
        if steps.dry:
            return None
        waited = link.arrival(conn, to, link.send_beat(portal), seconds)
        if waited is None and to.paused_at is None and is_new:
            raise UnreachableError(
                f"no heartbeat of the portal reached server {to.name} within {seconds:g} s",
                why="its subscription route leads to another database, or the server has no free worker",
                fix="correct --subscription-dsn; the server's log says more",
            )
        return None if waited is None else round(waited, 3)
    except BaseException:
        if is_new and not steps.dry:
            unmake(portal, conn, to)
        raise


def unmake(portal: "Conn", conn: "Conn", to: "Server") -> None:
    """Leave nothing of a server that could not be added."""
    from rollbook.replication import stream

    steps = stream.Steps()
    oid = stream.drop_subscription(conn, to, steps)
    stream.drop_portal_side(portal, to, oid, steps)
    stream.drop_server_side(conn, to, steps)


def refuse_itself(portal: "Conn", conn: "Conn", to: "Server") -> None:
    """Raise RefusedError if the server's database is the portal's own."""
    from rollbook.replication import link

    if link.identity(portal) == link.identity(conn):
        raise RefusedError(
            f"--admin-dsn of server {to.name} leads to the portal's own database",
            why="courses there need no server: rollbook course create makes their schema",
            fix="name the database of another server",
        )


def show_steps(run: Run, steps: "Steps") -> None:
    """Write the statements of a dry run, with where each would run; passwords masked."""
    from rollbook.core.db import masked

    where = ""
    for place, words in steps.noted:
        if place != where:
            render.text(run, f"-- on the {place}\n" if place == "portal" else f"-- on {place}\n")
            where = place
        text = masked(words).strip().rstrip(";")
        render.text(run, f"{text};\n")


@command(
    app, "list", sets=("data",), columns=LISTED,
    examples=("server list", "server list --json"),
    exits="0 also if there is none, 3 the portal is unreachable, 4 a server needs attention",
    see="rollbook server show",
)  # fmt: skip
def list_(run: Run) -> int:
    """List the course servers: how many courses, state and lag, as each answers now."""
    from rollbook.replication import link, state

    with run.connect() as portal:
        portal.autocommit = True
        seen = state.look(portal, link.servers(portal), run.caller(), deep=False)
        rows = [server_row(portal, each) for each in seen]
    render.rows(run, rows, LISTED, empty="no course servers: rollbook server add NAME ...")
    return 4 if any(row["state"] != "ok" for row in rows) else 0


def server_row(portal: "Conn", seen: "object") -> "render.Row":
    """Return one server's line."""
    from rollbook.replication import state, stream

    assert isinstance(seen, state.Seen)  # noqa: S101 (a forward reference, for --help's sake)
    answer = seen.reached
    found = answer.subscription if answer else None
    word = (
        "unreachable" if answer is None else "unknown" if not seen.is_ours
        else "broken" if found is None or seen.slot is None or seen.slot["alarm"] == "lost"
        else "paused" if seen.to.paused_at else "broken" if not found["enabled"]
        else "lagging" if answer.waited is None else "ok"
    )  # fmt: skip
    return {
        "server": seen.to.name, "courses": len(stream.attached(portal, seen.to)), "state": word,
        "version": answer.version if answer else None, "lag_bytes": seen.lag_bytes,
        "lag_seconds": seen.lag_seconds(), "since": seen.to.created_at,
    }  # fmt: skip


@command(
    app, "show", sets=("document",),
    examples=("server show east", "server show east --json"),
    exits="0 found, 1 unknown server, 3 the portal is unreachable, 4 it needs attention",
    see="rollbook server ping",
)  # fmt: skip
def show(run: Run, name: ServerName) -> int:
    """Show one server: routes (passwords masked), slot, subscription, its courses, and what else stands there."""
    from rollbook.core.db import masked
    from rollbook.replication import link, state, stream

    with run.connect() as portal:
        portal.autocommit = True
        to = link.server(portal, name)
        (seen,) = state.look(portal, [to], run.caller())
        line = server_row(portal, seen)
        courses = [row["course"] for row in stream.attached(portal, to)]
        kept: list[str] = []
        if seen.reached:
            with link.reached(to, run.caller()) as conn:
                kept = stream.kept_schemas(conn, [row["schema_name"] for row in stream.attached(portal, to)])
    found = seen.reached.subscription if seen.reached else None
    head = {
        "server": name, "state": line["state"], "version": line["version"],
        "reason": seen.answer.why if isinstance(seen.answer, UnreachableError) else None,
        "admin_dsn": masked(to.admin_dsn), "subscription_dsn": masked(to.subscription_dsn), "since": to.created_at,
        "lag_bytes": line["lag_bytes"], "lag_seconds": line["lag_seconds"],
    }  # fmt: skip
    body = head | {
        "slot": seen.slot, "courses": courses, "kept_schemas": kept,
        "subscription": found and {
            "name": to.stream, **{key: found[key] for key in ("enabled", "worker", "apply_errors", "sync_errors")},
        },
    }  # fmt: skip
    parts = {
        "Server": head, "Slot on the portal": seen.slot or [], "Subscription on the server": body["subscription"] or [],
        "Courses": [{"course": course} for course in courses],
        "Schemas that were kept there after a detach": [{"schema": schema} for schema in kept],
    }  # fmt: skip
    render.document(run, body, lambda out: render.sections(run, out, parts))
    return 0 if line["state"] == "ok" else 4


@command(
    app, "ping", sets=("data",), columns=PINGED,
    examples=("server ping east", "server ping east --timeout 2 --json"),
    exits="0 both routes work, 1 unknown server, 3 one does not; the row says which", see="rollbook server show",
)  # fmt: skip
def ping(run: Run, name: ServerName) -> int:
    """Try both routes: this program to the server, and the server to the portal."""
    import time

    from rollbook.replication import link, stream

    rows: list[render.Row] = []
    with run.connect() as portal:
        portal.autocommit = True
        to = link.server(portal, name)

        def question(to: "Server", conn: "Conn") -> "render.Row":
            reached = time.monotonic() - began
            try:
                stream.try_route(conn, to)
                return {"reached": reached, "tried": time.monotonic() - began - reached, "reason": None}
            except UnreachableError as exc:
                return {"reached": reached, "tried": None, "reason": exc.why}

        began = time.monotonic()
        answer = link.ask([to], question, run.caller())[name]
    if isinstance(answer, UnreachableError):
        rows = [route(name, "admin", None, answer.why), route(name, "subscription", None, "not asked: no way there")]
    else:
        rows = [
            route(name, "admin", answer["reached"], None),
            route(name, "subscription", answer["tried"], answer["reason"]),
        ]
    render.rows(run, rows, PINGED)
    return 3 if any(row["seconds"] is None for row in rows) else 0


def route(name: str, which: str, seconds: float | None, reason: str | None) -> "render.Row":
    """Return one route's line."""
    return {
        "server": name, "route": which, "verdict": "unreachable" if seconds is None else "ok",
        "seconds": None if seconds is None else round(seconds, 3), "reason": reason,
    }  # fmt: skip


@command(
    app, "remove", sets=("data", "writes", "yes"), columns=REMOVED, long=True,
    examples=("server remove east --yes", "server remove east --unreachable --yes"),
    exits="0 removed, 1 unknown, or it holds courses, 3 unreachable, 5 some is left there, 6 not confirmed",
    see="rollbook course detach",
)  # fmt: skip
def remove(
    run: Run,
    name: ServerName,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="It is gone: clean the portal's side, and let go of its courses.")
    ] = False,
) -> int:
    """Remove a course server: subscription, slot and publication. Courses must be detached before."""
    from rollbook.core import history
    from rollbook.replication import link, stream

    steps = stream.Steps(dry=run.dry_run)
    with run.connect() as portal:
        portal.autocommit = True
        to = link.server(portal, name)
        courses = stream.attached(portal, to)
        if courses and not unreachable:
            raise RefusedError(
                f"server {name} holds {render.plural(len(courses), 'course')}",
                fix="rollbook course detach " + " ".join(f"'{row['course']}'" for row in courses[:5]),
            )
        lost = f"; {render.plural(len(courses), 'course')} there will get no more changes" if courses else ""
        render.confirm(run, f"remove server {name} and its slot{lost}")
        with link.held(portal, to):
            try:
                with link.reached(to, run.caller(), long=True) as conn:
                    if courses:
                        raise RefusedError(
                            f"server {name} answers, and holds {render.plural(len(courses), 'course')}",
                            fix="rollbook course detach, then remove it without --unreachable",
                        )
                    kept = stream.kept_schemas(conn, [])
                    oid = stream.drop_subscription(conn, to, steps)
                    stream.drop_server_side(conn, to, steps)
                stream.drop_portal_side(portal, to, oid or to.subscription, steps)
                rows, code = removed(name, kept), 0
            except UnreachableError:
                if not unreachable:
                    raise
                rows, code = forgotten(portal, to, [row["schema_name"] for row in courses], steps)
            if not run.dry_run:
                left = [row["what"] for row in rows if row["outcome"] != "removed"]
                gone = {"courses": [row["course"] for row in courses], "left_there": left}
                history.record(portal, run, name, "removed", before=gone)
    if run.dry_run and render.chosen_format(run) is Format.table:
        show_steps(run, steps)
    render.rows(run, rows, REMOVED)
    if code == 5:
        render.note(run, left_there(to, [row["schema_name"] for row in courses]))
    return code


def removed(name: str, kept: list[str]) -> "list[render.Row]":
    """Return what was removed of a server, and what stays there."""
    parts = [("subscription", "removed"), ("slot", "removed"), ("publication", "removed")]
    parts += [(f"schema {schema} on the server", "kept") for schema in kept]
    return [{"server": name, "what": what, "outcome": outcome} for what, outcome in parts]


def forgotten(portal: "Conn", to: "Server", schemas: list[str], steps: "Steps") -> "tuple[list[render.Row], int]":
    """Clean the portal's side alone; return what was removed, what could not be, and the exit code."""
    from rollbook.replication import stream

    stream.drop_portal_side(portal, to, to.subscription, steps)
    done = [("slot", "removed"), ("publication", "removed")]
    left = ["subscription", *(f"schema {schema}" for schema in schemas), "schema rollbook"]
    done += [(f"{what} on the server", "left there") for what in left]
    return [{"server": to.name, "what": what, "outcome": outcome} for what, outcome in done], 5


def left_there(to: "Server", schemas: list[str]) -> str:
    """Return the SQL that cleans a server that could not be reached, should it come back."""
    lines = [
        f"alter subscription {to.stream} disable;", f"alter subscription {to.stream} set (slot_name = none);",
        f"drop subscription {to.stream};", "drop schema rollbook cascade;",
        *(f"drop schema {schema} cascade;  -- with what the course added there" for schema in schemas),
        "drop role rollbook_owner;  -- refused while another database there needs it",
    ]  # fmt: skip
    return "should that server come back, run there:\n  " + "\n  ".join(lines)
