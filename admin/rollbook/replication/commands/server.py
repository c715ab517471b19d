"""`rollbook server`: the PostgreSQL servers that hold courses."""

from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import ServerName
from rollbook.core.command import Format, Run, command
from rollbook.core.completion import servers
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.shell import course_word
from rollbook.core.since import within

if TYPE_CHECKING:
    from rollbook.replication.steps import Steps

app = noun("server")

ADDED = ("server", "outcome", "lag_seconds", "base_backup")
LISTED = ("server", "through", "courses", "state", "version", "lag_bytes", "lag_seconds", "since")
PINGED = ("server", "route", "verdict", "seconds", "reason")
MOVED = ("server", "course", "through", "outcome", "verdict")
REMOVED = ("server", "what", "outcome")


@command(
    app, "add", sets=("data", "writes"), columns=ADDED, long=True,
    examples=(
        "server add east --admin-dsn 'host=east.example dbname=courses' --subscription-dsn 'service=portal'",
        "server add east --admin-dsn service=east --subscription-dsn service=portal --dry-run",
        "server add east",
        "server add west --through hub --admin-dsn service=west --subscription-dsn service=hub",
    ),
    exits="0 added, or already there, 1 refused, 2 no conninfo, or one without host or database, 3 a route does not "
    "work",
    see="rollbook server ping, rollbook course attach",
)  # fmt: skip
def add(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="SERVER", help="The new server's name: a to z, 0 to 9 and _.")],
    admin_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="CONNINFO",
            show_default=False,
            help="How this program connects to the server. Default: as it is recorded, for a known server.",
        ),
    ] = None,
    subscription_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="CONNINFO",
            show_default=False,
            help="How the server connects to the portal, or to its relay; resolved on the server. Default: as it is "
            "recorded.",
        ),
    ] = None,
    through: Annotated[
        str | None,
        typer.Option(
            metavar="RELAY",
            show_default=False,
            help="The server that is to feed the new one, instead of the portal.",
            autocompletion=servers,
        ),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Take over a known server: this database is the portal now, or the routes have changed."
        ),
    ] = False,
) -> None:
    """Add a course server with publication, slot and subscription, or give a known one what it lacks."""
    from rollbook.replication import link, provision
    from rollbook.replication.queries.servers import checked_server_name
    from rollbook.replication.steps import Steps

    checked_server_name(name)
    for option, dsn in (("--admin-dsn", admin_dsn), ("--subscription-dsn", subscription_dsn)):
        if dsn is not None:
            link.checked_conninfo(option, dsn)
    steps = Steps(dry=run.dry_run)
    with run.connect() as portal:
        portal.autocommit = True
        known = next((server for server in link.list_servers(portal) if server.name == name), None)
        if known is not None:
            admin_dsn, subscription_dsn = admin_dsn or known.admin_dsn, subscription_dsn or known.subscription_dsn
        if admin_dsn is None or subscription_dsn is None:
            behind = "" if through is None else f" --through {link.find_server(portal, through).name}"
            raise UsageError(
                f"there is no server {name} yet: its routes are needed",
                fix=f"rollbook server add {name}{behind} --admin-dsn CONNINFO --subscription-dsn CONNINFO",
            )
        routes = {"--admin-dsn": admin_dsn, "--subscription-dsn": subscription_dsn}
        server = link.Server(name, admin_dsn, subscription_dsn, link.identity(portal).database, through=through)
        added = provision.add(run, portal, server, steps, take_over=take_over)
    show_steps(run, steps)
    render.rows(run, [vars(added)], ADDED)
    if added.freed:
        verb = "would be freed" if run.dry_run else "was freed"
        render.note(run, f"server {name} {verb} of what no server behind it needs: {', '.join(added.freed)}")
    source = f"server {added.through}" if added.through else "the portal"
    if added.is_starved:
        render.note(
            run,
            f"nothing arrives at server {name}: another reads its slot on {source}, or a connection that is gone does, "
            "until wal_sender_timeout. Stop the old server, if a standby took its place; then: rollbook server add "
            f"{name}",
        )
    for option, dsn in routes.items():
        if link.has_password(dsn):
            is_wanted = added.needs_password and option == "--subscription-dsn"
            advice = (
                "PostgreSQL wants it there, as the role in --admin-dsn is not a superuser"
                if is_wanted else "better: passfile= or service="
            )  # fmt: skip
            render.note(run, f"{option} contains a password, which is kept in rollbook.server; {advice}")
    if added.base_backup is not False:
        page = "relay" if added.through else "servers"
        may = f"the login of --subscription-dsn take a base backup of the whole cluster of {source}"
        render.note(
            run,
            f"pg_hba.conf lets {may}."
            if added.base_backup
            else f"does pg_hba.conf let {may}? Not tried: dblink cannot be installed on server "
            f"{name}. rollbook doctor looks it up.",
            f"  These lines before others refuse it (NAME: that login; docs/{page}.md has all):",
            "  local  replication  NAME       reject",
            "  host   replication  NAME  all  reject",
        )
    if added.is_unbounded:
        render.note(
            run,
            f"while server {name} is down {source} keeps WAL for it without bound; on {source}:",
            "  alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();",
        )


def show_steps(run: Run, steps: "Steps") -> None:
    """Write the statements of a dry run, and where each would run; passwords masked. Only where tables are written."""
    from rollbook.core.conninfo import masked

    if not run.dry_run or render.chosen_format(run) is not Format.table:
        return
    where = ""
    for place, statement in steps.listed:
        if place != where:
            render.text(run, f"-- on the {place}\n" if place == "portal" else f"-- on {place}\n")
            where = place
        render.text(run, f"{masked(statement).strip().rstrip(';')};\n")


@command(
    app, "list", sets=("data",), columns=LISTED, times="since",
    examples=("server list", "server list --json"),
    exits="0 even if there is none, 3 the portal is unreachable, 4 a server needs attention",
    see="rollbook server show",
)  # fmt: skip
def list_(run: Run) -> int:
    """List the course servers with the number of courses, state and lag, as each reports them now."""
    from rollbook.replication import inspection

    with run.connect() as portal:
        portal.autocommit = True
        found = inspection.list_servers(portal, run.caller())
    found = [line for line in found if within(run.period, line.since)]
    render.rows(run, [vars(line) for line in found], LISTED, empty="no course servers: rollbook server add SERVER ...")
    return 4 if any(line.state != "ok" for line in found) else 0


@command(
    app, "show", sets=("document",),
    examples=("server show east", "server show east --json"),
    exits="0 found, 1 unknown server, 3 the portal is unreachable, 4 it needs attention",
    see="rollbook server ping",
)  # fmt: skip
def show(run: Run, name: ServerName) -> int:
    """Show one server: routes (passwords masked), relay, slot, subscription, courses, schemas kept after a detach."""
    from rollbook.replication import inspection

    with run.connect() as portal:
        portal.autocommit = True
        found = inspection.describe_server(portal, name, run.caller())
    head = {key: found[key] for key in inspection.HEAD}
    if found["through"] or found["behind"]:
        head |= {"hop_seconds": found["hop_seconds"], "behind": found["behind"] or None}
    if found["fix"]:
        head["fix"] = found["fix"]
    where = f"server {found['through']}" if found["through"] else "the portal"
    parts = {
        "Server": head, f"Slot on {where}": found["slot"] or [],
        "Subscription on the server": found["subscription"] or [],
        "Courses": [{"course": course} for course in found["courses"]],
        "Courses that move to it": [{"course": course} for course in found["moving_here"]],
        "Schemas kept on the server after a detach": [{"schema": schema} for schema in found["kept_schemas"]],
    }  # fmt: skip
    render.document(run, found, lambda out: render.sections(run, out, parts))
    return 0 if found["state"] == "ok" else 4


@command(
    app, "ping", sets=("data",), columns=PINGED,
    examples=("server ping east", "server ping east --timeout 2 --json"),
    exits="0 both routes work, 1 unknown server, 3 a route fails; the row shows which", see="rollbook server show",
)  # fmt: skip
def ping(run: Run, name: ServerName) -> int:
    """Try both routes: this program to the server, and the server to what feeds it: the portal, or a relay."""
    from rollbook.replication import inspection

    with run.connect() as portal:
        portal.autocommit = True
        found = inspection.ping(portal, name, run.caller())
    render.rows(run, [vars(route) for route in found], PINGED)
    return 3 if any(route.verdict != "ok" for route in found) else 0


@command(
    app, "move", sets=("data", "writes", "yes"), columns=MOVED, long=True,
    examples=(
        "server move east --through hub --subscription-dsn service=hub --yes",
        "server move east --direct --subscription-dsn service=portal --yes",
        "server move east --direct --unreachable --subscription-dsn service=portal --yes",
    ),
    exits="0 moved and equal, or there already, 1 refused, 2 neither --through nor --direct, 3 unreachable, "
    "4 the relay does not have the courses yet, rows differ, or the courses must be resynced, 6 not confirmed",
    see="rollbook server add, rollbook status",
)  # fmt: skip
def move(
    run: Run,
    name: ServerName,
    through: Annotated[
        str | None,
        typer.Option(
            metavar="RELAY", show_default=False, help="The server that is to feed this one.", autocompletion=servers
        ),
    ] = None,
    direct: Annotated[bool, typer.Option("--direct", help="The portal is to feed this one.")] = False,
    subscription_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="CONNINFO",
            show_default=False,
            help="How the server connects to its new source; resolved on the server. Default: as it was given to the "
            "command that is finished now, or as it is recorded, for a service that leads to the new source by now.",
        ),
    ] = None,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="The relay is lost: the courses are unknown until they are resynced.")
    ] = False,
) -> int:
    """Let a server be fed by a relay, or by the portal again, while people write; nothing is copied a second time.

    The relay is given the courses first, the server goes on exactly where it has come, and its courses are compared.
    It can be interrupted at any point and run again; the other way takes it back.
    """
    from rollbook.replication import link, reroute
    from rollbook.replication.commands.comparison import reporting
    from rollbook.replication.steps import Steps

    if (through is None) != direct:
        raise UsageError("where the server is to move is not clear", fix="either --through RELAY or --direct")
    if unreachable and not direct:
        raise UsageError("--unreachable goes with --direct")
    if subscription_dsn is not None:
        link.checked_conninfo("--subscription-dsn", subscription_dsn)
    steps = Steps(dry=run.dry_run)
    with run.connect() as portal:
        portal.autocommit = True
        old = link.find_server(portal, name).through or "the portal"
        lost = "; its courses are unknown until they are resynced" if unreachable else ""
        render.confirm(run, f"move server {name} {'to the portal' if direct else f'behind server {through}'}{lost}")
        wanted = reroute.Wanted(name, through, subscription_dsn, unreachable)
        with reporting(run, "compare", None) as progress:
            rows = reroute.move(run, portal, wanted, steps, progress)
    show_steps(run, steps)
    render.rows(run, [vars(row) for row in rows], MOVED)
    if any(row.outcome == "moved" for row in rows):
        render.note(run, f"if nothing else uses it, drop the login of server {name} on {old}")
    if resync := reroute.lost_words(rows):
        render.note(run, f"what the courses there miss is not known: {resync}")
    return 4 if any(row.verdict not in (None, "match") for row in rows) else 0


@command(
    app, "remove", sets=("data", "writes", "yes"), columns=REMOVED, long=True,
    examples=("server remove east --yes", "server remove east --unreachable --yes"),
    exits="0 removed, 1 unknown, or it has courses, 3 unreachable, 5 removed, but something is left on the server, "
    "6 not confirmed",
    see="rollbook course detach",
)  # fmt: skip
def remove(
    run: Run,
    name: ServerName,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="The server is lost: remove it here without contacting it.")
    ] = False,
) -> int:
    """Remove a course server: subscription, slot and publication. Its courses must be detached first."""
    from rollbook.replication import catalog, link, provision
    from rollbook.replication.queries.servers import list_moves
    from rollbook.replication.steps import Steps

    steps = Steps(dry=run.dry_run)
    with run.connect() as portal:
        portal.autocommit = True
        server = link.find_server(portal, name)
        link.refuse_relay(portal, server)
        courses = catalog.fed(portal, server)
        if courses and not unreachable:
            words = " ".join(course_word(row.course) for row in courses[:5])
            fix = f"rollbook course detach {words}; or rollbook course move {words} --to SERVER"
            if moving := next(iter(list_moves(portal, name)), None):
                there = moving.moving_to if moving.server == name and moving.moving_to else moving.server
                fix = f"end its move: rollbook course move {course_word(moving.course)} --to {there}"
            raise RefusedError(f"server {name} has {render.plural(len(courses), 'course')}", fix=fix)
        lost = f"; {render.plural(len(courses), 'course')} there will stop receiving changes" if courses else ""
        render.confirm(run, f"remove server {name} and its slot{lost}")
        found = provision.remove(run, portal, server, courses, steps, unreachable=unreachable)
    show_steps(run, steps)
    render.rows(run, [vars(row) for row in found], REMOVED)
    left = [row.what for row in found if row.outcome == "left there"]
    if any(what.endswith(" on the server") for what in left):
        script = provision.clean_up_script(server, courses).splitlines()
        render.note(run, "if that server comes back, run there:", *(f"  {line}" for line in script))
    if any(what.endswith(f" on server {server.through}") for what in left):
        render.note(run, f"when {server.through} answers again, free it: rollbook server add {server.through}")
    return 5 if any(row.outcome.startswith(("left there", "kept")) for row in found) else 0
