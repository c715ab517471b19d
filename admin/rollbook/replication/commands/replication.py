"""`rollbook replication`: state of the copies, pausing what carries them; comparison.py and lag.py have the rest."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render, watch
from rollbook.core.arguments import AnyCourses, Course, OfServers
from rollbook.core.command import Run, command
from rollbook.core.errors import UnreachableError, UsageError
from rollbook.core.shell import course_word
from rollbook.replication.commands import status as all_status
from rollbook.replication.commands.lag import app

if TYPE_CHECKING:
    from rollbook.replication.catalog import Placement

__all__ = ["app"]  # comparison.py and lag.py have its other commands

WAITED = ("course", "waited_seconds", "reached")
CANARY = ("course", "server", "seconds", "state")
SLOTS = (
    "slot", "server", "where", "courses", "active", "wal_status", "held_bytes", "safe_bytes", "inactive_since", "alarm",
)  # fmt: skip
CONFLICTS = ("course", "server", "table", "key", "kind", "sqlstate", "message", "count", "resolution")
PAUSED = ("course", "server", "outcome", "held_bytes", "safe_bytes")
PARTS = ("error", "subscription", "slot", "tables")
WAIT_SECONDS = 60.0
ALARMS = {
    "near": "bring the server back, or raise max_slot_wal_keep_size, before the slot is lost",
    "unbounded": "alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();",
    "foreign": "if nobody will read it again: {drops}",
}


@command(
    app, "status", sets=("data", "watch"), columns=all_status.COLUMNS,
    examples=("replication status", "replication status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention",
    see="rollbook status, rollbook replication show",
)  # fmt: skip
def status(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Show the state of each course, the worst first, as its server reports it now."""
    return watch.repeated(run, lambda: all_status.look_at_courses(run, course))


@command(
    app, "show", sets=("document",),
    examples=("replication show MITx/6.002x/2012_Fall", "replication show MITx/6.002x/2012_Fall --json"),
    exits="0 ok, 1 unknown course, 3 unreachable, 4 it needs attention", see="rollbook replication status",
)  # fmt: skip
def show(run: Run, course: Course) -> int:
    """Show one course's replication: slot, subscription, tables, the apply error, and the command that fixes it.

    Behind a relay it shows both hops.
    """
    from rollbook.replication import state
    from rollbook.replication.queries.courses import known_courses

    with run.connect() as portal:
        portal.autocommit = True
        known_courses(portal, [course])
        found = state.describe_course(portal, course, run.caller())
    render.document(run, found, lambda out: render.sections(run, out, shown_parts(found)))
    return 0 if found["state"] == "ok" else 3 if found["state"] == "unreachable" else 4


def shown_parts(found: dict[str, Any]) -> dict[str, Any]:
    """Return the document of `replication show` in parts for a reader."""
    parts: dict[str, Any] = {"Course": {k: v for k, v in found.items() if not isinstance(v, dict | list)}}
    relay = found.get("relay")
    names = {key: key.capitalize() for key in PARTS}
    if relay:
        names["slot"] = f"Slot on server {relay['server']}"
    parts |= {name: found[key] for key, name in names.items() if found.get(key)}
    if relay:
        parts["Relay"] = {k: v for k, v in relay.items() if not isinstance(v, dict | list) and k not in PARTS}
        names = {**{key: f"{key.capitalize()} of the relay" for key in PARTS}, "slot": "Slot on the portal"}
        parts |= {name: relay[key] for key, name in names.items() if relay.get(key)}
    if there := found.get("moving_to"):
        parts["Server to which it moves"] = {k: v for k, v in there.items() if not isinstance(v, dict | list)}
        parts |= {f"{key.capitalize()} there": there[key] for key in ("error", "tables") if there.get(key)}
    return parts


@command(
    app, "wait", sets=("data",), columns=WAITED,
    examples=("replication wait", "replication wait MITx/6.002x/2012_Fall --timeout 30 --json"),
    exits="0 all servers caught up, 1 unknown course, 2 not an LSN, 3 a server does not answer, or is too slow",
    see="rollbook replication canary",
)  # fmt: skip
def wait(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    until: Annotated[
        str, typer.Option(metavar="LSN", help="Wait for this position of the portal's WAL; `now`: its current end.")
    ] = "now",
) -> int:
    """Wait until the servers have received all that the portal has committed, or its WAL up to a position."""
    from rollbook.replication.arrivals import wait_for_servers
    from rollbook.replication.queries.servers import check_position
    from rollbook.replication.selection import selected

    seconds = run.timeout or WAIT_SECONDS
    with run.connect() as portal:
        portal.autocommit = True
        if until != "now":
            check_position(portal, until)
        placed = selected(portal, course)
        answers = wait_for_servers(portal, list(placed), run.caller(), seconds)
    rows = []
    for server, courses in placed.items():
        answer = answers[server.name]
        if isinstance(answer, UnreachableError):
            render.error(run, answer)
        elif answer is None:
            render.note(
                run, f"server {server.name} did not catch up within {seconds:g} s; see rollbook replication status"
            )
        waited = round(answer, 3) if isinstance(answer, float) else None
        rows += [{"course": row.course, "waited_seconds": waited, "reached": waited is not None} for row in courses]
    render.rows(run, rows, WAITED, empty="no course is on a server")
    return 0 if all(row["reached"] for row in rows) else 3


@command(
    app, "canary", sets=("data",), columns=CANARY,
    examples=("replication canary", "replication canary --json"),
    exits="0 it arrived everywhere, 1 unknown course, 3 a server does not answer, 4 it did not arrive in time",
    see="rollbook replication wait", needs="rollbook_owner",
)  # fmt: skip
def canary(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Send one heartbeat and time it on each server: from the portal's commit until it is visible there.

    A relay has a row without a course: the time of the first hop.
    """
    from rollbook.replication.arrivals import time_heartbeat
    from rollbook.replication.link import ANSWER_SECONDS
    from rollbook.replication.selection import selected

    with run.connect() as portal:
        portal.autocommit = True
        placed = selected(portal, course)
        answers = time_heartbeat(portal, list(placed), run.caller(), run.timeout or ANSWER_SECONDS)
    rows: list[dict[str, Any]] = []
    on = {server.name: [row.course for row in courses] for server, courses in placed.items()}
    for server, answer in answers.items():  # a relay has no courses of its own
        state = "unreachable" if isinstance(answer, UnreachableError) else "lagging" if answer is None else "ok"
        seconds = round(answer, 4) if isinstance(answer, float) else None
        courses: Sequence[str | None] = on.get(server) or [None]
        rows += [{"course": each, "server": server, "seconds": seconds, "state": state} for each in courses]
    render.rows(run, rows, CANARY, empty="no course is on a server")
    words = {row["state"] for row in rows}
    return 3 if "unreachable" in words else 4 if "lagging" in words else 0


@command(
    app, "slots", sets=("data",), columns=SLOTS,
    examples=("replication slots", "replication slots --json"),
    exits="0 no alarm, 3 the portal or a relay is unreachable, 4 a slot raises an alarm: lost, gone, near its bound, "
    "unbounded, or foreign",
    see="rollbook replication status",
)  # fmt: skip
def slots(run: Run) -> int:
    """List the logical slots of the portal and its relays: owner, retained WAL and remaining headroom of each."""
    from rollbook.replication.answered import is_known, look
    from rollbook.replication.catalog import fed
    from rollbook.replication.link import list_servers
    from rollbook.replication.queries.servers import PORTAL
    from rollbook.replication.slots import all_slots

    with run.connect() as portal:
        portal.autocommit = True
        placed = {
            server.name: [row for row in fed(portal, server) if row.state != "moving"]
            for server in list_servers(portal)
        }  # fmt: skip
        slots = all_slots(portal, run.caller())
    courses = {name: len(rows) for name, rows in placed.items()}
    rows = [{**vars(row), "slot": row.slot_name, "courses": courses.get(row.server or "")} for row in slots.found]
    render.rows(run, rows, SLOTS, empty="no slots: no course servers")
    alarms = list(dict.fromkeys((row.alarm, row.where) for row in slots.found if row.alarm))
    for alarm, where in alarms:
        found = [row for row in slots.found if (row.alarm, row.where) == (alarm, where)]
        if alarm in ("lost", "gone"):
            fix = bring_back(list(dict.fromkeys(row.server for row in found if row.server in placed)), placed)
        else:
            drops = [f"select pg_drop_replication_slot('{row.slot_name}');" for row in found]
            fix = ALARMS[alarm].format(drops=" ".join(filter(is_known, drops)) or look(where))
        render.note(run, f"{alarm}{'' if where == PORTAL else f' on server {where}'}: {fix}")
    for error in slots.silent.values():
        render.error(run, error)
    return 3 if slots.silent else 4 if alarms else 0


def bring_back(servers: Sequence[str | None], placed: "Mapping[str, Sequence[Placement]]") -> str:
    """Return the commands for servers whose slots are lost: their courses are copied again."""
    words: dict[str, None] = {}
    empty = []
    for name in servers:
        rows = [row for row in placed[str(name)] if row.state != "detached"]
        words |= dict.fromkeys(course_word(row.course) for row in rows)
        empty += [] if rows else [f"rollbook server add {name}"]
    return "; then: ".join([*([f"rollbook replication resync {' '.join(words)}"] if words else []), *empty])


@command(
    app, "conflicts", sets=("data",), columns=CONFLICTS,
    examples=("replication conflicts", "replication conflicts --json"),
    exits="0 nothing is stopped, 1 unknown course, 3 a server does not answer, 4 replication to a server is stopped",
    see="rollbook replication repair",
)  # fmt: skip
def conflicts(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """List the apply errors that have stopped replication, the commands that fix them, and counts of conflicts."""
    from rollbook.replication.conflicts import conflicts as conflicts_of
    from rollbook.replication.observe import look
    from rollbook.replication.selection import selected

    rows: list[dict[str, Any]] = []
    unknown = False
    with run.connect() as portal:
        portal.autocommit = True
        placed = selected(portal, course)
        asked = look(portal, list(placed), run.caller())
        for seen in {hop.server.name: hop for each in asked for hop in each.hops}.values():
            if isinstance(seen.answer, UnreachableError):
                unknown = True
                render.error(run, seen.answer)
                continue
            if seen.diagnosis_error is not None:  # stopped, and this role may not see why
                unknown = True
                render.note(run, f"server {seen.server.name}: {seen.diagnosis_error}")
            behind = [row for server, rows in placed.items() if seen.server.name in (server.name, server.through)
                      for row in rows]  # fmt: skip
            rows += [vars(row) for row in conflicts_of(seen, behind)]
    render.rows(run, rows, CONFLICTS, empty="no conflicts")
    return 3 if unknown else 4 if any(row["kind"] != "counted" for row in rows) else 0


@command(
    app, "pause", sets=("data", "writes"), columns=PAUSED,
    examples=("replication pause MITx/6.002x/2012_Fall", "replication pause --server east --dry-run"),
    exits="0 paused, 1 unknown, or not on a server, 2 nothing named, 3 unreachable", see="rollbook replication resume",
)  # fmt: skip
def pause(run: Run, course: AnyCourses = [], server: OfServers = []) -> int:  # noqa: B006
    """Pause replication to these courses' servers. All courses of a server pause together, and are listed."""
    return set_paused(run, course, server, paused=True, skip=None)


@command(
    app, "resume", sets=("data", "writes"), columns=PAUSED,
    examples=("replication resume MITx/6.002x/2012_Fall", "replication resume --server east"),
    exits="0 resumed, 1 unknown, or the error is still there, 2 nothing named, 3 unreachable, 4 it still lags",
    see="rollbook replication pause, rollbook replication repair",
)  # fmt: skip
def resume(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    server: OfServers = [],  # noqa: B006
    skip: Annotated[
        str | None,
        typer.Option(metavar="LSN", help="Skip the transaction that failed; `replication show` names its LSN."),
    ] = None,
) -> int:
    """Resume replication to these courses' servers after a pause or a fixed error."""
    return set_paused(run, course, server, paused=False, skip=skip)


def set_paused(run: Run, courses: list[str], servers: list[str], *, paused: bool, skip: str | None) -> int:
    """Pause or resume the servers of these courses and write a line for each course that is affected."""
    from rollbook.replication.pause import pause_or_resume

    if not courses and not servers:
        raise UsageError("name a course, or --server SERVER", fix="rollbook replication status")
    with run.connect() as portal:
        portal.autocommit = True
        found, kept = pause_or_resume(run, portal, courses, servers, paused=paused, skip=skip)
    render.rows(run, [vars(row) for row in found], PAUSED)
    for sentence in kept:
        render.note(run, sentence)
    return 4 if any(row.outcome == "lagging" for row in found) else 0
