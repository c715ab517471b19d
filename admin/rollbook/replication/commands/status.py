"""`rollbook status`: the portal and all courses on one screen."""

import textwrap
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import AttentionError
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


def repeated(run: Run, once: Callable[[], int]) -> int:
    """Call `once`; with --watch repeat it every N seconds, --count times or until Ctrl-C. Return the last code."""
    turn = 1
    code = once()
    while run.watch is not None and turn != run.count:
        time.sleep(run.watch)
        turn += 1
        code = once()
    return code


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
    lines = ["routing is off, or fails:"]
    for fault in found[:SHOWN]:
        lines += [f"  {fault.words}", f"    {fault.fix}"]
    more = f"{len(found) - SHOWN} more: rollbook schema check; " if len(found) > SHOWN else ""
    return "\n".join([*lines, f"  {more}when it is fixed: rollbook replication repair"]) + "\n\n"


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


def courses_once(run: Run, asked: list[str]) -> int:
    """Write the state of the courses asked for; return the exit code."""
    with run.connect() as conn:
        found, faults = states(run, conn, asked)
    terminal = render.chosen_format(run) is Format.table
    columns = SCREEN if terminal and not run.fields else COLUMNS
    render.rows(run, [vars(line) for line in found], columns, empty=NONE)
    if terminal:
        render.text(run, f"{routing(faults)}{advice(found)}")
    return exit_code(found, faults)


def once(run: Run, asked: list[str]) -> int:
    """Write the portal's numbers, the state of the courses, and the command for each that needs attention."""
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
        table(run, out, [{name: row[name] for name in SCREEN} for row in rows], list(SCREEN))
        out.write(advice(found))

    if render.chosen_format(run) in (Format.csv, Format.tsv):
        render.rows(run, rows, COLUMNS)
    else:
        render.document(run, {"portal": portal, "courses": rows}, draw)
    return exit_code(found, faults)


@command(
    app, "status", sets=("data", "watch"), columns=COLUMNS,
    examples=("status", "status --json", "status --watch 5"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course needs attention or the database is not migrated",
    see="rollbook replication verify",
)  # fmt: skip
def status(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Show the portal and every course on one screen, the worst first, with the command to run next."""
    return repeated(run, lambda: once(run, course))
