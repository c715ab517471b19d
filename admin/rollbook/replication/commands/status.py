"""`rollbook status`: the portal and all courses on one screen."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

import typer

from rollbook.core import render, watch
from rollbook.core.arguments import AnyCourses
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import AttentionError
from rollbook.core.states import STATES
from rollbook.core.table import table

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.replication.queries.courses import Fault
    from rollbook.replication.state import Line

app = typer.Typer()

COLUMNS = (
    "course", "target", "kind", "state", "lag_bytes", "lag_seconds", "pending_changes", "oldest_pending_seconds",
    "error_count", "verified_at", "verdict", "observed_at", "reason", "fix",
)  # fmt: skip
SHOWN = 5  # courses that need attention and are explained on a screen
SCREEN = ("course", "state", "lag_bytes", "lag_seconds", "verified_at", "verdict", "target")
NONE = "no courses yet: rollbook course create COURSE"


def states(run: Run, conn: "Conn", asked: list[str]) -> "tuple[list[Line], list[Fault]]":
    """Return the state of the courses asked for, all for none, and the faults of routing; servers are asked now."""
    from psycopg.errors import InsufficientPrivilege

    from rollbook.replication import state
    from rollbook.replication.queries.courses import known_courses, routing_faults

    conn.autocommit = True
    ids = known_courses(conn, asked) if asked else None
    faults = [each for each in routing_faults(conn) if ids is None or each.course in (None, *ids)]
    try:
        return state.status(conn, ids, faults, run.caller()), faults
    except InsufficientPrivilege:
        fault = next((each for each in faults if each.kind == "role"), None)
        if fault is None:
            raise
        raise AttentionError(f"routing is off, or fails: {fault.words}", fix=fault.fix) from None


def routing(faults: "Sequence[Fault]") -> str:
    """Return what is wrong with routing itself, and the lines that fix it."""
    found = [fault for fault in faults if fault.course is None]
    if not found:
        return ""
    is_routing = any(fault.is_routing for fault in found)
    lines = ["routing is off, or fails:" if is_routing else "inserts fail:"]
    for fault in found[:SHOWN]:
        lines += [f"  {fault.words}", f"    {fault.fix}"]
    lines += [f"  {len(found) - SHOWN} more: rollbook schema check"] if len(found) > SHOWN else []
    lines += ["  when it is fixed: rollbook replication repair"] if is_routing else []
    return "\n".join(lines) + "\n\n"


def advice(found: "Sequence[Line]") -> str:
    """Return for the worst courses why they need attention, and the command that helps."""
    needy = [line for line in found if line.state != "ok"]
    if not needy:
        return ""
    verb = "needs" if len(needy) == 1 else "need"
    lines = [f"\n{len(needy)} of {render.plural(len(found), 'course')} {verb} attention:"]
    alike: dict[tuple[str, str], list[str]] = {}  # a server that does not answer is one line for all its courses
    for line in needy:
        alike.setdefault((line.reason or line.state, line.fix or ""), []).append(line.course)
    for (reason, fix), courses in list(alike.items())[:SHOWN]:
        more = f" and {len(courses) - 1} more" if len(courses) > 1 else ""
        words = f"  {courses[0]}{more}: {reason}"
        lines += textwrap.wrap(words, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        lines += [f"  {fix}"] if fix else []  # whole, to be pasted
    return "\n".join(lines) + "\n"


def exit_code(found: "Sequence[Line]", faults: "Sequence[Fault]") -> int:
    """Return 3 if a server gave no answer, so that nothing is known of its courses, 4 if something needs attention."""
    words = {line.state for line in found}
    return 3 if "unreachable" in words else 4 if faults or words - {"ok"} else 0


def looked(found: "Sequence[Line]", faults: "Sequence[Fault]", write: Callable[[], None]) -> watch.Look:
    """Return a look at courses: their exit code, in one line the number in each state and the worst lag, by server."""
    lags = {line.target.removeprefix("server "): line.lag_seconds for line in found if line.kind == "server"}
    worst = max(lags, key=lambda server: lags[server] or 0, default=None)
    states = Counter(line.state for line in found)
    summary = {
        "courses": len(found), **{state.name: states[state.name] for state in STATES},
        "lag_seconds": worst and lags[worst], "server": worst,
    }  # fmt: skip
    return watch.Look(exit_code(found, faults), write, summary, lags)


def look_at_courses(run: Run, asked: list[str]) -> watch.Look:
    """Look at the courses asked for."""
    with run.connect() as conn:
        found, faults = states(run, conn, asked)

    def write() -> None:
        terminal = render.chosen_format(run) is Format.table
        columns = SCREEN if terminal and not run.fields else COLUMNS
        words = f"{routing(faults)}{advice(found)}" if terminal else ""
        if run.watch is not None and words:  # what matters first: the end of a long table is cut
            render.text(run, f"{words.lstrip()}\n")
        render.rows(run, [vars(line) for line in found], columns, empty=NONE)
        if run.watch is None and words:
            render.text(run, words)

    return looked(found, faults, write)


def look_at_all(run: Run, asked: list[str]) -> watch.Look:
    """Look at the portal, and at the courses asked for, with the command for each that needs attention."""
    from rollbook.core.db import revision
    from rollbook.core.migrating import known_revisions
    from rollbook.replication.queries.copies import count_portal

    with run.connect() as conn:
        found, faults = states(run, conn, asked)
        portal = count_portal(conn)
        portal["revision"] = revision(conn)
        portal["is_head"] = portal["revision"] == known_revisions()[-1]
        portal["faults"] = [vars(fault) for fault in faults]
    rows = [vars(line) for line in found]

    def draw(out: IO[str]) -> None:
        head = "head" if portal["is_head"] else "not the head"
        out.write(
            f"{portal['database']} · PostgreSQL {portal['server_version'].split()[0]} · "
            f"schema {portal['revision']} ({head})\n"
            f"{render.plural(portal['users'], 'user')} · "
            f"{render.plural(portal['enrollments'], 'enrollment')}\n\n{routing(faults)}"
        )
        if not found:
            out.write(f"({NONE})\n")
            return
        words = advice(found)
        if run.watch is not None and words:  # what matters first: the end of a long table is cut
            out.write(f"{words.lstrip()}\n")
        table(run, out, [{name: row[name] for name in SCREEN} for row in rows], list(SCREEN))
        if run.watch is None:
            out.write(words)

    def write() -> None:
        if render.chosen_format(run) in (Format.csv, Format.tsv):
            render.rows(run, rows, COLUMNS)
        else:
            render.document(run, {"portal": portal, "courses": rows}, draw)

    return looked(found, faults, write)


@command(
    app, "status", sets=("data", "watch"), columns=COLUMNS,
    examples=("status", "status --json", "status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention or the database is not migrated",
    see="rollbook replication verify",
)  # fmt: skip
def status(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Show the portal and every course on one screen, the worst first, with the command to run next."""
    return watch.repeated(run, lambda: look_at_all(run, course))
