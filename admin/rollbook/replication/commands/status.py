"""`rollbook status`: the portal and all courses on one screen."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import typer

from rollbook.core import render, watch
from rollbook.core.arguments import AnyCourses
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import AttentionError
from rollbook.core.states import STATES
from rollbook.core.table import table
from rollbook.core.values import one_line

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.replication.queries.courses import Fault
    from rollbook.replication.state import Line
    from rollbook.replication.tree import Hop

app = typer.Typer()

COLUMNS = (
    "course", "target", "kind", "state", "lag_bytes", "lag_seconds", "pending_changes", "oldest_pending_seconds",
    "error_count", "verified_at", "verdict", "observed_at", "reason", "fix",
    "closed_at",
)  # fmt: skip
SHOWN = 5  # courses that need attention and are explained on a screen
SCREEN = ("course", "state", "lag_bytes", "lag_seconds", "verified_at", "verdict", "target")
TREE = ("server", "state", "courses", "lag_seconds", "hop_seconds", "lag_bytes")
NONE = "no courses yet: rollbook course create COURSE"
DAYS = 90  # of enrollments in a page


@dataclass(frozen=True)
class Overview:
    """The portal, and the courses asked for, as they are now."""

    portal: dict[str, Any]  # as the JSON of `status` has it
    courses: "list[Line]"
    faults: "list[Fault]"
    servers: "list[Hop]"

    @property
    def title(self) -> str:
        """Return the portal in a line: its database, its server and its schema."""
        head = "head" if self.portal["is_head"] else "not the head"
        version = self.portal["server_version"].split()[0]
        return f"{self.portal['database']} · PostgreSQL {version} · schema {self.portal['revision']} ({head})"

    @property
    def size(self) -> str:
        """Return the users and enrollments in a line, and the courses that are closed, if any."""
        numbers = {"user": "users", "enrollment": "enrollments", "closed course": "closed_courses"}
        counts = [(self.portal[key], noun) for noun, key in numbers.items()]
        return " · ".join(render.plural(count, noun) for count, noun in counts if count or noun != "closed course")


class Need(NamedTuple):
    """Courses that need attention for one reason, and the command that helps."""

    courses: list[str]
    reason: str
    fix: str

    @property
    def who(self) -> str:
        """Return the first course, and how many more there are."""
        more = f" and {len(self.courses) - 1} more" if len(self.courses) > 1 else ""
        return f"{self.courses[0]}{more}"


def states(run: Run, conn: "Conn", asked: list[str]) -> "tuple[list[Line], list[Fault], list[Hop]]":
    """Return the state of the courses asked for, all for none, the faults of routing, and the servers, asked now."""
    from psycopg.errors import InsufficientPrivilege

    from rollbook.replication import state, tree
    from rollbook.replication.queries.courses import known_courses, routing_faults

    conn.autocommit = True
    ids = known_courses(conn, asked) if asked else None
    faults = [each for each in routing_faults(conn) if ids is None or each.course in (None, *ids)]
    try:
        found, seen = state.observed(conn, ids, faults, run.caller())
    except InsufficientPrivilege:
        fault = next((each for each in faults if each.kind == "role"), None)
        if fault is None:
            raise
        raise AttentionError(f"routing is off, or fails: {fault.words}", fix=fault.fix) from None
    return found, faults, tree.hops(seen)


def draw_tree(run: Run, out: IO[str], servers: "Sequence[Hop]") -> None:
    """Write the portal, its relays and servers; nothing where it feeds all servers and each has courses."""
    from rollbook.replication.tree import drawn

    if rows := drawn(servers):
        table(run, out, rows, list(TREE))
        out.write("\n")


def routing(faults: "Sequence[Fault]") -> str:
    """Return what is wrong with routing itself, and which changes of the shape are not finished, and what helps."""
    found = [fault for fault in faults if fault.course is None and fault.kind != "shape"]
    is_routing = any(fault.is_routing for fault in found)
    lines = ["routing is off, or fails:" if is_routing else "inserts fail:"] if found else []
    for fault in found[:SHOWN]:
        lines += [f"  {one_line(fault.words)}", f"    {one_line(fault.fix)}"]
    lines += [f"  {len(found) - SHOWN} more: rollbook schema check"] if len(found) > SHOWN else []
    lines += ["  when it is fixed: rollbook replication repair"] if is_routing else []
    unfinished = [fault for fault in faults if fault.kind == "shape"]
    lines += ["a change of the shape is not finished:"] if unfinished else []
    for fault in unfinished:
        lines += [f"  {one_line(f'{fault.object}: {fault.difference}')}", f"    {one_line(fault.fix)}"]
    return "\n".join(lines) + "\n\n" if lines else ""


def needs(found: "Sequence[Line]") -> list[Need]:
    """Return what needs attention, the worst first: a server that does not answer is one for all its courses."""
    alike: dict[tuple[str, str], list[str]] = {}
    for line in found:
        if line.state != "ok":
            alike.setdefault((line.reason or line.state, line.fix or ""), []).append(line.course)
    return [Need(courses, reason, fix) for (reason, fix), courses in alike.items()]


def needing(found: "Sequence[Line]") -> str:
    """Return how many of the courses need attention."""
    needy = len([line for line in found if line.state != "ok"])
    return f"{needy} of {render.plural(len(found), 'course')} {'needs' if needy == 1 else 'need'} attention"


def server_needs(servers: "Sequence[Hop]") -> list[Need]:
    """Return what servers without courses need, the worst first: what others need is in the lines of their courses."""
    from rollbook.replication.tree import unwell

    return [Need([hop.server], hop.reason or hop.state, hop.fix or "") for hop in unwell(servers)]


def servers_needing(every: Sequence[Need]) -> str:
    """Return how many servers without courses need attention."""
    return f"{render.plural(len(every), 'server')} without courses {'needs' if len(every) == 1 else 'need'} attention"


def advice(found: "Sequence[Line]", servers: "Sequence[Hop]") -> str:
    """Return for the worst courses, and servers without any, why they need attention, and the command that helps."""
    every, idle = needs(found), server_needs(servers)
    lines = []
    for title, some in ((needing(found), every), (servers_needing(idle), idle)):
        lines += [f"\n{title}:"] if some else []
        for need in some[:SHOWN]:
            words = f"  {need.who}: {need.reason}"
            lines += textwrap.wrap(words, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
            lines += [f"  {one_line(need.fix)}"] if need.fix else []  # whole, to be pasted
    return "".join(f"{line}\n" for line in lines)


def exit_code(found: "Sequence[Line]", faults: "Sequence[Fault]", servers: "Sequence[Hop]") -> int:
    """Return 3 if a server gave no answer, so that nothing is known of its courses, 4 if something needs attention."""
    words = {line.state for line in found} | {hop.state for hop in servers if not hop.courses}
    return 3 if "unreachable" in words else 4 if faults or words - {"ok"} else 0


def looked(
    found: "Sequence[Line]", faults: "Sequence[Fault]", servers: "Sequence[Hop]", write: Callable[[], None]
) -> watch.Look:
    """Return a look at courses: their exit code, in one line the number in each state and the worst lag, by server."""
    lags = {line.target.removeprefix("server "): line.lag_seconds for line in found if line.kind == "server"}
    worst = max(lags, key=lambda server: lags[server] or 0, default=None)
    states = Counter(line.state for line in found)
    summary = {
        "courses": len(found), **{state.name: states[state.name] for state in STATES},
        "lag_seconds": worst and lags[worst], "server": worst,
    }  # fmt: skip
    return watch.Look(exit_code(found, faults, servers), write, summary, lags)


def look_at_courses(run: Run, asked: list[str]) -> watch.Look:
    """Look at the courses asked for."""
    with run.connect() as conn:
        found, faults, servers = states(run, conn, asked)

    def write() -> None:
        terminal = render.chosen_format(run) is Format.table
        columns = SCREEN if terminal and not run.fields else COLUMNS
        words = f"{routing(faults)}{advice(found, servers)}" if terminal else ""
        if run.watch is not None and words:  # what matters first: the end of a long table is cut
            render.text(run, f"{words.lstrip()}\n")
        if terminal:
            render.document(run, None, lambda out: draw_tree(run, out, servers))
        render.rows(run, [vars(line) for line in found], columns, empty=NONE)
        if run.watch is None and words:
            render.text(run, words)

    return looked(found, faults, servers, write)


def overview(run: Run, conn: "Conn", asked: list[str]) -> Overview:
    """Return the portal, and the courses asked for, all for none."""
    from rollbook.core.db import revision
    from rollbook.core.migrating import known_revisions
    from rollbook.replication.queries.copies import count_portal

    found, faults, servers = states(run, conn, asked)
    portal = count_portal(conn)
    portal["revision"] = revision(conn)
    portal["is_head"] = portal["revision"] == known_revisions()[-1]
    portal["faults"] = [vars(fault) for fault in faults]
    portal["closed_courses"] = sum(line.closed_at is not None for line in found)
    return Overview(portal, found, faults, servers)


def look_at_all(run: Run, asked: list[str]) -> watch.Look:
    """Look at the portal, and at the courses asked for, with the command for each that needs attention."""
    with run.connect() as conn:
        seen = overview(run, conn, asked)
    rows = [vars(line) for line in seen.courses]
    names: list[str] = render.picked(run, COLUMNS) if run.fields else list(SCREEN)
    kept = [{name: row[name] for name in names} for row in rows]
    servers = [vars(hop) for hop in seen.servers]

    def draw(out: IO[str]) -> None:
        out.write(f"{seen.title}\n{seen.size}\n\n")
        draw_tree(run, out, seen.servers)
        out.write(routing(seen.faults))
        words = advice(seen.courses, seen.servers)
        if run.watch is not None and words:  # what matters first: the end of a long table is cut
            out.write(f"{words.lstrip()}\n")
        if rows:
            table(run, out, kept, names)
        else:
            out.write(f"({NONE})\n")
        if run.watch is None:
            out.write(words)

    def write() -> None:
        if render.chosen_format(run) in (Format.csv, Format.tsv):
            render.rows(run, rows, COLUMNS)
        else:
            listed = kept if run.fields else rows
            render.document(run, {"portal": seen.portal, "courses": listed, "servers": servers}, draw)

    return looked(seen.courses, seen.faults, seen.servers, write)


def write_page(run: Run, asked: list[str]) -> int:
    """Write the same as a page for a browser, with charts."""
    from rollbook.replication.commands.pages import status_page
    from rollbook.replication.queries.activity import enrollments_by_day

    with run.connect() as conn:
        seen = overview(run, conn, asked)
        days = enrollments_by_day(conn, DAYS)
    render.page(run, status_page(run, seen, days))
    return exit_code(seen.courses, seen.faults, seen.servers)


@command(
    app, "status", sets=("data", "watch", "page"), columns=COLUMNS,
    examples=("status", "status --json", "status --watch 5", "status --html status.html"),
    exits="0 all ok, 1 unknown course, 3 unreachable, 4 a course or server needs attention or the database is not "
    "migrated",
    see="rollbook replication verify",
)  # fmt: skip
def status(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Show the portal and every course on one screen, the worst first, with the command to run next."""
    return write_page(run, course) if run.html else watch.repeated(run, lambda: look_at_all(run, course))
