"""`rollbook replication`: how far the copies are, on this server and on others, and what holds them up.

Comparing and repairing stand in comparison.py.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses, Course, OfServers
from rollbook.core.command import Run, command
from rollbook.core.errors import AttentionError, RefusedError, UnreachableError, UsageError
from rollbook.replication.commands import status as whole
from rollbook.replication.commands.comparison import app

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.render import Row
    from rollbook.replication.link import Server

__all__ = ["app"]  # its other commands stand in comparison.py

WAITED = ("course", "waited_seconds", "reached")
CANARY = ("course", "server", "seconds", "state")
SLOTS = (
    "slot", "server", "courses", "active", "wal_status", "held_bytes", "safe_bytes", "inactive_since", "alarm",
)  # fmt: skip
CONFLICTS = ("course", "server", "table", "key", "kind", "sqlstate", "message", "count", "resolution")
PAUSED = ("course", "server", "outcome", "held_bytes", "safe_bytes")


def chosen(portal: "Conn", courses: list[str], servers: list[str] = []) -> "dict[str, list[Row]]":  # noqa: B006
    """Return by server the courses asked for; all for none. Raises RefusedError for one on no server, if named."""
    from rollbook.replication import link, stream
    from rollbook.replication.queries.courses import known_courses

    known_courses(portal, courses)
    found: dict[str, list[Row]] = {}
    for to in [link.server(portal, name) for name in servers] or link.servers(portal):
        mine = [row for row in stream.attached(portal, to) if not courses or servers or row["course"] in courses]
        if mine or servers:
            found[to.name] = mine
    placed = {row["course"] for rows in found.values() for row in rows}
    if stray := [course for course in courses if course not in placed]:
        raise RefusedError(
            f"course {stray[0]} is on no server", why="its copies stand in the portal's database, in the same commit",
            fix=f"rollbook course attach '{stray[0]}' --to SERVER",
        )  # fmt: skip
    return found


@command(
    app, "status", sets=("data", "watch"), columns=whole.COLUMNS,
    examples=("replication status", "replication status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention",
    see="rollbook status, rollbook replication show",
)  # fmt: skip
def status(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Show the state of each course, the worst first, as its server answers now."""
    return whole.repeated(run, lambda: whole.courses_once(run, course))


@command(
    app, "show", sets=("document",),
    examples=("replication show MITx/6.002x/2012_Fall", "replication show MITx/6.002x/2012_Fall --json"),
    exits="0 ok, 1 unknown course, 3 unreachable, 4 it needs attention", see="rollbook replication status",
)  # fmt: skip
def show(run: Run, course: Course) -> int:
    """Show one course's stream: slot, subscription, tables, the error at which it stands, and what mends it."""
    from rollbook.replication import link, state
    from rollbook.replication.queries.courses import known_courses

    with run.connect() as portal:
        portal.autocommit = True
        known_courses(portal, [course])
        (line,) = state.courses(portal, [course])
        if line["server"] is None:
            found: dict[str, Any] = {**state.row(line, None), "server": None}
        else:
            (seen,) = state.look(portal, [link.server(portal, line["server"])], run.caller())
            found = state.detail(portal, line, seen)
    parts = {"Course": {key: value for key, value in found.items() if not isinstance(value, dict | list)}}
    for key in ("error", "subscription", "slot", "tables"):
        if found.get(key):
            parts[key.capitalize()] = found[key]
    render.document(run, found, lambda out: render.sections(run, out, parts))
    return 0 if found["state"] == "ok" else 3 if found["state"] == "unreachable" else 4


@command(
    app, "wait", sets=("data",), columns=WAITED,
    examples=("replication wait", "replication wait MITx/6.002x/2012_Fall --timeout 30 --json"),
    exits="0 all are there, 1 unknown course, 2 no LSN, 3 a server is silent or too slow",
    see="rollbook replication canary",
)  # fmt: skip
def wait(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    until: Annotated[
        str, typer.Option(metavar="LSN", help="Wait until this position of the portal's WAL; `now`: all until now.")
    ] = "now",
) -> int:
    """Wait until the servers hold all that the portal has committed by now, or up to a position of its WAL."""
    from rollbook.replication import link, state
    from rollbook.replication.queries.servers import check_position

    with run.connect() as portal:
        portal.autocommit = True
        if until != "now":
            check_position(portal, until)
        placed = chosen(portal, course)
        beat = link.send_beat(portal)
        seconds = run.timeout or 60
        asked = [to for to in link.servers(portal) if to.name in placed]
        end = time.monotonic() + seconds

        def question(to: "Server", conn: "Conn") -> float | None:
            return link.arrival(conn, to, beat, max(0.0, end - time.monotonic()))

        answers = link.ask(asked, question, run.caller(seconds))
        while time.monotonic() < end and (still := [to for to in asked if answers[to.name] is None]):
            seen = state.look(portal, still, run.caller())  # lets go on what can
            if not any(each.flows for each in seen):
                break
            answers |= link.ask(still, question, run.caller(max(0.1, end - time.monotonic())))
    rows = []
    for name, courses in placed.items():
        answer = answers[name]
        if isinstance(answer, UnreachableError):
            render.error(run, answer)
            answer = None
        elif answer is None:
            render.note(
                run, f"server {name} has not arrived there within {seconds:g} s; see rollbook replication status"
            )
        rows += [
            {"course": row["course"], "waited_seconds": None if answer is None else round(answer, 3),
             "reached": answer is not None}
            for row in courses
        ]  # fmt: skip
    render.rows(run, rows, WAITED, empty="no course is on a server")
    return 0 if all(row["reached"] for row in rows) else 3


@command(
    app, "canary", sets=("data",), columns=CANARY,
    examples=("replication canary", "replication canary --json"),
    exits="0 it arrived everywhere, 1 unknown course, 3 a server is silent, 4 it did not arrive in time",
    see="rollbook replication wait",
)  # fmt: skip
def canary(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Send one heartbeat and time it on each server: from the portal's commit until it is visible there."""
    from rollbook.replication import link

    with run.connect() as portal:
        portal.autocommit = True
        placed = chosen(portal, course)
        asked = [to for to in link.servers(portal) if to.name in placed]
        seconds = run.timeout or link.ANSWER_SECONDS
        ready: list[Any] = []
        sent: list[Any] = []

        def question(to: "Server", conn: "Conn") -> float | None:
            ready.append(to.name)
            end = time.monotonic() + seconds
            while not sent and time.monotonic() < end:  # connecting is not part of the time
                time.sleep(0.001)
            return link.arrival(conn, to, sent[0], seconds) if sent else None

        import threading

        def send() -> None:
            end = time.monotonic() + seconds / 2
            while len(ready) < len(asked) and time.monotonic() < end:
                time.sleep(0.001)
            sent.append(link.send_beat(portal))

        sender = threading.Thread(target=send)
        sender.start()
        answers = link.ask(asked, question, run.caller(seconds))
        sender.join()
    rows = []
    for name, courses in placed.items():
        answer = answers[name]
        state = "unreachable" if isinstance(answer, UnreachableError) else "lagging" if answer is None else "ok"
        taken = round(answer, 4) if isinstance(answer, float) else None
        rows += [{"course": row["course"], "server": name, "seconds": taken, "state": state} for row in courses]
    render.rows(run, rows, CANARY, empty="no course is on a server")
    words = {row["state"] for row in rows}
    return 3 if "unreachable" in words else 4 if "lagging" in words else 0


@command(
    app, "slots", sets=("data",), columns=SLOTS,
    examples=("replication slots", "replication slots --json"),
    exits="0 all well, 3 unreachable, 4 a slot raises an alarm: lost, near its bound, without one, or nobody's",
    see="rollbook replication status",
)  # fmt: skip
def slots(run: Run) -> int:
    """List the logical slots of the portal: whose each is, the WAL it holds, and what may still be written."""
    from rollbook.replication import link, state, stream

    with run.connect() as portal:
        held = {to.name: len(stream.attached(portal, to)) for to in link.servers(portal)}
        found = state.slots(portal)
    rows = [
        {**row, "slot": row["slot_name"], "courses": held.get(row["server"]) if row["server"] else None}
        for row in found
    ]
    render.rows(run, rows, SLOTS, empty="no slots: no course servers")
    advice = {
        "lost": "rollbook replication resync COURSE, for each course there",
        "near": "bring the server back, or raise max_slot_wal_keep_size, before the slot is lost",
        "unbounded": "alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();",
        "foreign": "select pg_drop_replication_slot('NAME'), if nobody will read it again",
    }
    for alarm in dict.fromkeys(row["alarm"] for row in rows if row["alarm"]):
        render.note(run, f"{alarm}: {advice[alarm]}")
    return 4 if any(row["alarm"] for row in rows) else 0


@command(
    app, "conflicts", sets=("data",), columns=CONFLICTS,
    examples=("replication conflicts", "replication conflicts --json"),
    exits="0 none stands in the way, 1 unknown course, 3 a server is silent, 4 a stream stands still",
    see="rollbook replication repair",
)  # fmt: skip
def conflicts(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """List what stops a stream now (course, table, key, the server's words, what mends it), and what it has counted."""
    from rollbook.replication import link, state

    rows: list[Row] = []
    silent = False
    with run.connect() as portal:
        portal.autocommit = True
        placed = chosen(portal, course)
        asked = [to for to in link.servers(portal) if to.name in placed]
        for seen in state.look(portal, asked, run.caller()):
            if seen.reached is None:
                silent = True
                render.error(run, seen.answer)  # type: ignore[arg-type]
                continue
            if seen.hindrance is not None:  # it stands still, and this role may not see at what
                silent = True
                render.note(run, f"server {seen.to.name}: {seen.hindrance}")
            rows += conflict_rows(portal, seen, placed[seen.to.name])
    render.rows(run, rows, CONFLICTS, empty="no conflicts")
    return 3 if silent else 4 if any(row["kind"] != "counted" for row in rows) else 0


def conflict_rows(portal: "Conn", seen: Any, courses: "list[Row]") -> "list[Row]":  # noqa: ANN401
    """Return a server's conflicts: the one at which it stands, and those that its statistics have counted."""
    from rollbook.replication import repairing

    found = []
    fault = seen.fault
    if fault is not None:
        name = repairing.course_of(portal, fault.schema_name)
        verb = "repair" if fault.is_conflict else "show"
        found.append({
            "course": name, "server": seen.to.name, "table": fault.table, "key": fault.key, "kind": fault.operation,
            "sqlstate": fault.sqlstate, "message": fault.message, "count": None,
            "resolution": f"rollbook replication {verb} '{name}'",
        })  # fmt: skip
    subscription = seen.reached.subscription
    if subscription and courses:
        counts = {"apply errors": subscription["apply_errors"], "first copy errors": subscription["sync_errors"]}
        counts |= {key.removeprefix("confl_"): n for key, n in (subscription["conflicts"] or {}).items()}
        found += [
            {"course": None, "server": seen.to.name, "table": None, "key": None, "kind": "counted", "sqlstate": None,
             "message": key.replace("_", " "), "count": count, "resolution": None}
            for key, count in counts.items() if count
        ]  # fmt: skip
    return found


@command(
    app, "pause", sets=("data", "writes"), columns=PAUSED,
    examples=("replication pause MITx/6.002x/2012_Fall", "replication pause --server east --dry-run"),
    exits="0 paused, 1 unknown, or on no server, 2 nothing named, 3 unreachable", see="rollbook replication resume",
)  # fmt: skip
def pause(run: Run, course: AnyCourses = [], server: OfServers = []) -> int:  # noqa: B006
    """Stop the stream of these courses' servers. A server has one: its other courses pause too, and are listed."""
    return switched(run, course, server, paused=True, skip=None)


@command(
    app, "resume", sets=("data", "writes"), columns=PAUSED,
    examples=("replication resume MITx/6.002x/2012_Fall", "replication resume --server east"),
    exits="0 it flows again, 1 unknown, or the error is still there, 2 nothing named, 3 unreachable, 4 it lags",
    see="rollbook replication pause, rollbook replication repair",
)  # fmt: skip
def resume(
    run: Run,
    course: AnyCourses = [],  # noqa: B006
    server: OfServers = [],  # noqa: B006
    skip: Annotated[
        str | None,
        typer.Option(
            metavar="LSN", help="Leave out the transaction at which it stands; `replication show` names its LSN."
        ),
    ] = None,
) -> int:
    """Let the stream of these courses' servers go on: after a pause, or when what stopped it is mended."""
    return switched(run, course, server, paused=False, skip=skip)


def switched(run: Run, courses: list[str], servers: list[str], *, paused: bool, skip: str | None) -> int:
    """Pause or resume the servers of these courses and write a line for each course that it concerns."""
    from rollbook.core import history
    from rollbook.replication import link, state, stream
    from rollbook.replication.queries.servers import wal_is_unbounded

    if not courses and not servers:
        raise UsageError("name a course, or --server NAME", fix="rollbook replication status")
    rows: list[Row] = []
    late = False
    with run.connect() as portal:
        portal.autocommit = True
        placed = chosen(portal, courses, servers)
        if skip is not None and len(placed) != 1:
            raise UsageError("--skip is for one server", fix="name one course")
        for name in placed:
            to = link.server(portal, name)
            with link.held(portal, to), link.reached(to, run.caller()) as conn:
                outcome = "would pause" if paused else "would resume"
                if not run.dry_run:
                    outcome = turned(portal, conn, to, paused=paused, skip=skip, seconds=run.timeout or 10)
                    late = late or outcome == "lagging"
                    history.record_many(portal, run, [
                        {"object": row["course"], "outcome": "paused" if paused else "resumed",
                         "after": {"server": name, "skipped_lsn": skip}, "course_id": row["course"]}
                        for row in stream.attached(portal, to)
                    ])  # fmt: skip
            slot = next((row for row in state.slots(portal) if row["slot_name"] == to.stream), None)
            rows += [
                {"course": row["course"], "server": name, "outcome": outcome,
                 "held_bytes": slot and slot["held_bytes"], "safe_bytes": slot and slot["safe_bytes"]}
                for row in stream.attached(portal, to)
            ]  # fmt: skip
        unbounded = wal_is_unbounded(portal)
    render.rows(run, rows, PAUSED)
    if paused and not run.dry_run:
        bound = (
            "without bound: the disk may fill (max_slot_wal_keep_size is -1)" if unbounded
            else "until SAFE bytes more are written; then the slot is lost"
        )  # fmt: skip
        render.note(run, f"the portal keeps its WAL for them {bound}")
    return 4 if late else 0


def turned(portal: "Conn", conn: "Conn", to: "Server", *, paused: bool, skip: str | None, seconds: float) -> str:
    """Pause or resume one server; return the outcome. Raises RefusedError with the fault that stops it again."""
    from rollbook.replication import apply_error as pending
    from rollbook.replication import link, repairing, stream
    from rollbook.replication.queries.servers import note_pause

    found = stream.subscription(conn, to)
    if found is None:
        raise AttentionError(f"server {to.name} has no subscription", fix="rollbook replication resync COURSE")
    if paused:
        note_pause(portal, to.name, paused=True)
        stream.disable(conn, to)
        return "paused"
    if skip is not None:
        fault = None if found["enabled"] else pending.fault(portal, conn, to)
        if fault is None or fault.finish_lsn != skip.upper():
            at = f"it stands at {fault.finish_lsn}" if fault else "it does not stand still"
            raise RefusedError(f"the stream to server {to.name} does not stand at {skip}", why=at,
                               fix="rollbook replication show COURSE")  # fmt: skip
        if fault.cannot_be_sent:
            stream.skip_unsent(portal, to, skip)
        else:
            stream.skip(conn, to, skip)
    elif not found["enabled"] and (fault := pending.fault(portal, conn, to)) is not None:
        note_pause(portal, to.name, paused=False)  # from here on it stands still for this, and can be mended
        if fault.is_conflict:
            raise RefusedError(
                f"server {to.name} would stop again: {fault.operation} {fault.table} row {fault.key}",
                why=f"{fault.message} (SQLSTATE {fault.sqlstate})",
                fix=f"rollbook replication repair '{repairing.course_of(portal, fault.schema_name)}'",
            )
        raise repairing.faulty(portal, to, fault)
    stream.enable(conn, to)
    note_pause(portal, to.name, paused=False)
    arrived = link.arrival(conn, to, link.send_beat(portal), seconds)
    return "lagging" if arrived is None else "resumed"
