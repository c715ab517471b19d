"""`rollbook replication verify`, `repair`, `resync`: do the copies equal the portal, and if not, make them."""

from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyCourses, Courses
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.replication.commands import status as whole

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.render import Row
    from rollbook.replication.link import Server

app = noun("replication")

BATCH = 25  # courses in one call: one pass over the routes for all of them, and a bar that moves
SHOWN_PLAN = 5  # courses that the question names
SHOWN = 20  # differing rows that a terminal is shown without being asked


class Table(StrEnum):
    """The copied tables."""

    auth_user = "auth_user"
    auth_userprofile = "auth_userprofile"
    student_courseenrollment = "student_courseenrollment"


CATCH_UP_SECONDS = 10.0  # how long a server may take to catch up before its course is called not comparable
REPAIR_SECONDS = 60.0
LOOKS = 6  # comparisons of a course while it is repaired, the last of them included

SCREEN = ("course", "table", "portal_rows", "course_rows", "missing", "changed", "extra", "verdict")
COLUMNS = (*SCREEN, "server", "in_flight")
REPAIRED = ("course", "table", "inserted", "updated", "deleted", "verdict_after")
FINDINGS = ("course", "table", "finding", "row_id", "columns", "server")
RESYNCED = ("course", "server", "table", "inserted", "updated", "deleted", "verdict_after")


@command(
    app, "verify", sets=("data",), columns=tuple(dict.fromkeys((*COLUMNS, *FINDINGS))), long=True,
    examples=("replication verify", "replication verify edX/DemoX/2012_Fall --rows --json"),
    exits="0 all equal, 1 unknown course, 3 a course could not be compared, 4 differences",
    see="rollbook replication repair",
)  # fmt: skip
def verify(
    run: Run,
    course: AnyCourses = [],  # noqa: B006 (Typer's way)
    table: Annotated[list[Table], typer.Option(help="Only this table; can be repeated.")] = [],  # noqa: B006
    rows: Annotated[bool, typer.Option("--rows", help="List every differing row instead of a row a table.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what the last run has compared.")] = False,
) -> int:
    """Compare every copy with the portal, row by row, here and on the course servers. Writes no copy.

    Here in one snapshot. A server is waited for until it holds all that the portal has committed; what differs is
    looked at again behind a second wait, so that rows under way are not reported.
    """
    from rollbook.replication.queries.copies import count_portal, list_resumable
    from rollbook.replication.queries.courses import known_courses

    report: list[Row] = []
    findings: list[Row] = []
    with run.connect() as conn, run.connect() as noter:
        asked = known_courses(conn, list(dict.fromkeys(course)))
        done = list_resumable(conn) if resume else {}
        run_at = next((row["run_at"] for row in done.values()), None) or count_portal(conn)["observed_at"]
        before = {name: row["verdict"] for name, row in done.items() if name in asked and row["verdict"] != "match"}
        asked = [name for name in asked if name not in done]
        conn.rollback()
        terminal = render.chosen_format(run) is Format.table
        compared: list[str] = []

        def note(found: "list[Row]", at: Any) -> None:  # noqa: ANN401
            """Keep a part of the report, and note its verdicts."""
            report.extend(row for row in found if not table or row["table"] in table)
            compared.extend(dict.fromkeys(row["course"] for row in found))
            if not table:
                whole.note_verdicts(noter, found, at, run_at)
                noter.commit()

        try:
            compare_all(run, conn, asked, note, findings, rows=rows or terminal)
        except KeyboardInterrupt:
            if compared:
                render.note(
                    run, f"\n{len(compared)} of {render.plural(len(asked), 'course')} compared; "
                    "to go on: rollbook replication verify --resume",
                )  # fmt: skip
            raise
    findings = [row for row in findings if not table or row["table"] in table]
    columns = COLUMNS if run.fields or not terminal else SCREEN
    render.rows(
        run, findings if rows else report, FINDINGS if rows else columns,
        empty="no differences" if asked else "no courses",
    )  # fmt: skip
    bad = list(dict.fromkeys(row["course"] for row in report if row["verdict"] == "differs"))
    lame = {row["course"] for row in report if row["verdict"] in ("not_comparable", "unreachable")}
    if terminal:
        if findings and not rows:
            render.text(run, "\n")
            render.rows(run, findings[:SHOWN], FINDINGS if any(row["server"] for row in findings) else FINDINGS[:-1])
        count = sum(row["missing"] + row["changed"] + row["extra"] for row in report if row["missing"] is not None)
        render.text(run, "\n" + whole.verdict(len(asked), len(bad), count, sorted(lame)))
    for name, word in before.items():
        render.note(run, f"{name}: {word}, as the part before found")
    words = {row["verdict"] for row in report} | set(before.values())
    return 3 if words & {"not_comparable", "unreachable"} else 4 if "differs" in words else 0


def compare_all(
    run: Run, conn: "Conn", asked: list[str], note: "Callable[[list[Row], Any], None]", findings: "list[Row]", *,
    rows: bool,
) -> None:  # fmt: skip
    """Compare the copies here, in one snapshot, then those on servers; tell `note` each part, `findings` each row."""
    from psycopg import IsolationLevel

    from rollbook.replication import link, stream
    from rollbook.replication.queries.copies import compare_copies, count_portal, list_differences

    local: dict[str, list[Row]] = {}
    placed: dict[str, list[Row]] = {}
    with progress(run, "verify", len(asked)) as advance:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        at = count_portal(conn)["observed_at"]
        servers = link.servers(conn)
        for to in servers:
            placed[to.name] = [row for row in stream.attached(conn, to) if row["course"] in asked]
        elsewhere = {row["course"] for courses in placed.values() for row in courses}
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            found = [{**row, "server": None, "in_flight": 0} for row in compare_copies(conn, batch)]
            for name in batch:
                local[name] = [row for row in found if row["course"] == name]
                words = {row["verdict"] for row in local[name]}
                if rows and words >= {"differs"} and "not_comparable" not in words:
                    findings += [row | {"server": None} for row in list_differences(conn, name)]
            here = [row for row in found if row["course"] not in elsewhere]
            if here:
                note(here, at)
            advance(len([name for name in batch if name not in elsewhere]))
        conn.rollback()
        conn.isolation_level = None
        conn.autocommit = True
        for to in servers:
            if placed[to.name]:
                compare_server(run, conn, to, placed[to.name], local, note, findings, advance)


def compare_server(
    run: Run, conn: "Conn", to: "Server", courses: "list[Row]", local: "dict[str, list[Row]]",
    note: "Callable[[list[Row], Any], None]", findings: "list[Row]", advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Compare the courses of one server; one that gives no answer costs its timeout once."""
    from psycopg import Error

    from rollbook.replication import comparing, link, state, stream
    from rollbook.replication.queries.copies import count_portal

    columns = comparing.columns_of(conn)
    silent: AdminError | None = None
    with ExitStack() as stack:
        try:
            there = stack.enter_context(link.reached(to, run.caller(), long=True))
            found_there = stream.subscription(there, to)
            if found_there and not found_there["enabled"]:  # perhaps at a lost connection: then it is let go on
                state.look(conn, [to], run.caller())
        except UnreachableError as exc:
            render.note(run, f"{exc.message}: {exc.why}")
            silent, word = exc, "unreachable"
        for course in courses:
            found, at = local[course["course"]], count_portal(conn)["observed_at"]
            if silent is None:
                try:
                    compared = comparing.compare(
                        conn, there, to, course["schema_name"], columns, run.timeout or CATCH_UP_SECONDS
                    )
                    found = merged(found, compared, to)
                    findings += [
                        {"course": course["course"], "table": part.table, "server": to.name, **row}
                        for part in compared for row in part.findings
                    ]  # fmt: skip
                except (AdminError, Error) as exc:
                    said = exc if isinstance(exc, AdminError) else link.meaning(to, exc)
                    render.note(run, f"{course['course']}: {said.message}: {said.why}")
                    found = unknown(found, to, "not_comparable")
                    # The stream is one: its other courses need no second wait. What has details is this course's own.
                    if isinstance(said, UnreachableError) and not said.details:
                        silent, word = said, "not_comparable"
            else:
                found = unknown(found, to, word)
            note(found, at)
            advance(1)


def merged(local: "list[Row]", compared: "list[Any]", to: "Server") -> "list[Row]":
    """Return the rows of a course with what its server adds: rows there, and differences in either place."""
    parts = {part.table: part for part in compared}
    found = []
    for row in local:
        part = parts.get(row["table"])
        if part is None or row["verdict"] == "not_comparable":
            found.append(row | {"server": to.name})
            continue
        counts = {word: row[word] + part.count(word) for word in ("missing", "changed", "extra")}
        verdict = "differs" if any(counts.values()) else "match"
        found.append(
            row | counts
            | {"course_rows": part.rows, "in_flight": part.in_flight, "server": to.name, "verdict": verdict}
        )  # fmt: skip
    return found


def unknown(local: "list[Row]", to: "Server", word: str) -> "list[Row]":
    """Return the rows of a course whose server could not be compared: nothing is known of it."""
    nothing = dict.fromkeys(("course_rows", "missing", "changed", "extra", "in_flight"))
    return [row | nothing | {"verdict": word, "server": to.name} for row in local if row["table"] != "route"]


@command(
    app, "repair", sets=("data", "writes", "yes"), columns=REPAIRED, long=True,
    examples=("replication repair", "replication repair edX/DemoX/2012_Fall --yes", "replication repair --dry-run"),
    exits="0 repaired, or nothing to do, 1 refused, 3 not comparable, 4 still unequal, 5 some only, 6 not confirmed",
    see="rollbook replication verify, rollbook replication resync",
)  # fmt: skip
def repair(run: Run, course: AnyCourses = []) -> int:  # noqa: B006
    """Make the copies equal to the portal: writes what differs, never what a course added itself. Asks first.

    On a course server, rows that stand in the way of a stream are deleted and the stream is set going.
    """
    from rollbook.replication.queries.courses import course_sql, known_courses

    result: list[Row] = []
    failures: list[tuple[str, AdminError]] = []
    with run.connect() as conn:
        asked = known_courses(conn, list(dict.fromkeys(course)))
        conn.rollback()
        plan, lame, remote, would = planned(run, conn, asked, failures)
        if plan and not run.dry_run:
            shown = ", ".join(f"{name} ({found})" for name, found in list(plan.items())[:SHOWN_PLAN])
            more = ", ..." if len(plan) > SHOWN_PLAN else ""
            total = f"{render.plural(sum(plan.values()), 'row')} in {render.plural(len(plan), 'course')}"
            render.confirm(run, f"repair {total}: {shown}{more}")
    with progress(run, "repair", len(plan)) as advance:
        for name in plan:
            result += mend(run, name, remote.get(name), failures, would.get(name, []))
            advance(1)
    if run.dry_run and render.chosen_format(run) is Format.table:
        for name in plan:
            render.text(run, course_sql("rollbook.repair", [name]))
    render.rows(run, result, REPAIRED, empty="nothing to repair" if not (failures or lame) else "nothing was repaired")
    for name, exc in failures:
        render.error(run, type(exc)(f"{name}: {exc.message}", why=exc.why, fix=exc.fix))
    for name in lame:
        render.note(run, f"{name}: not comparable, not repaired; see rollbook replication verify {name}")
    unequal = any(row["verdict_after"] not in ("match", "would match") for row in result)
    if failures:
        return 5 if result else failures[0][1].exit_code
    return 3 if lame and not result else 5 if lame else 4 if unequal else 0


def planned(
    run: Run, conn: "Conn", asked: list[str], failures: list[tuple[str, AdminError]]
) -> "tuple[dict[str, int], list[str], dict[str, str], dict[str, list[Row]]]":
    """Return how many rows a repair would write in each course, the courses that cannot be compared, servers, and rows.

    Streams that stand still at a conflict count with the rows in their way.
    """
    from rollbook.replication import link, repairing, state, stream

    plan: dict[str, int] = {}
    remote: dict[str, str] = {}
    lame: list[str] = []
    would: dict[str, list[Row]] = {}
    conn.autocommit = True
    stopped: dict[str, str] = {}  # course -> why, where its stream stands still
    for to in link.servers(conn):
        courses = [row["course"] for row in stream.attached(conn, to) if row["course"] in asked]
        if not courses:
            continue
        (seen,) = state.look(conn, [to], run.caller())
        if seen.fault is not None and seen.fault.is_conflict:
            guilty = repairing.course_of(conn, seen.fault.schema_name)
            if guilty in asked:
                plan[guilty] = plan.get(guilty, 0) + 1
                written = {"table": seen.fault.table, "inserted": 0, "updated": 0, "deleted": 1}
                would.setdefault(guilty, []).append(written)
                remote[guilty] = to.name
            stopped |= {name: guilty for name in courses if name != guilty}
            stopped |= {guilty: guilty}
        elif seen.fault is not None:
            failures += [(name, repairing.faulty(conn, to, seen.fault)) for name in courses]
            stopped |= dict.fromkeys(courses, "")
        else:
            for line in (state.row(course, seen) for course in state.courses(conn, courses)):
                if line["state"] in ("broken", "paused", "unreachable", "detached"):
                    error = UnreachableError if line["state"] == "unreachable" else AttentionError
                    failures.append((line["course"], error(f"{line['state']}: {line['reason']}", fix=line["fix"])))
                    stopped[line["course"]] = ""

    def note(found: "list[Row]", at: Any) -> None:  # noqa: ANN401, ARG001
        for row in found:
            if row["verdict"] == "differs":
                count = row["missing"] + row["changed"] + row["extra"]
                plan[row["course"]] = plan.get(row["course"], 0) + count
                written = {"inserted": row["missing"], "updated": row["changed"], "deleted": row["extra"]}
                would.setdefault(row["course"], []).append({"table": row["table"], **written})
                if row["server"]:
                    remote[row["course"]] = row["server"]
            elif row["verdict"] in ("not_comparable", "unreachable") and row["course"] not in lame:
                lame.append(row["course"])

    conn.autocommit = False
    compare_all(run, conn, [name for name in asked if name not in stopped], note, [], rows=False)
    for name, guilty in stopped.items():
        if guilty and guilty != name and guilty not in asked:
            fix = f"rollbook replication repair '{guilty}'"
            failures.append((name, AttentionError(f"its stream stands still because of {guilty}", fix=fix)))
    return {name: found for name, found in plan.items() if name not in lame}, lame, remote, would


def mend(
    run: Run, course_id: str, server: str | None, failures: "list[tuple[str, AdminError]]", would: "list[Row]"
) -> "list[Row]":
    """Repair one course in a transaction of its own, then on its server, and verify it; note a failure and go on.

    A dry run touches no server: `would` is what differs there, and here.
    """
    from rollbook.core import history
    from rollbook.replication.queries.copies import compare_copies, count_portal, repair_copies

    try:
        with run.connect() as conn:
            written = repair_copies(conn, course_id)
            report = compare_copies(conn, [course_id])
            after = {row["table"]: row["verdict"] for row in report}
            if not run.dry_run and server is None:
                whole.note_verdicts(conn, report, count_portal(conn)["observed_at"])
            if written:
                done = {"portal": written}
                if not history.record_if_allowed(conn, run, course_id, "repaired", after=done, course_id=course_id):
                    render.note(run, history.NOT_RECORDED)
        if server is not None and run.dry_run:
            written = added(course_id, [], would)
        elif server is not None:
            there, after = mend_there(run, course_id, server)
            with run.connect() as conn:
                note = {"server": server, "written_there": there}
                if not history.record_if_allowed(conn, run, course_id, "repaired", after=note, course_id=course_id):
                    render.note(run, history.NOT_RECORDED)
            written = added(course_id, written, there)
        prefix = "would " if run.dry_run and set(after.values()) <= {"match"} else ""
        shown = {row["table"] for row in written}
        written += [  # nothing was written, and yet it differs
            {"course": course_id, "table": table, "inserted": 0, "updated": 0, "deleted": 0}
            for table, word in after.items()
            if word != "match" and table not in shown
        ]
        if not written:  # only the routes were mended
            written = [{"course": course_id, "table": "route", "inserted": 0, "updated": 0, "deleted": 0}]
        return [row | {"verdict_after": prefix + after.get(row["table"], "match")} for row in written]
    except AdminError as exc:
        failures.append((course_id, exc))
        return []


def added(course_id: str, here: "list[Row]", there: "list[Row]") -> "list[Row]":
    """Return by table what was written in both places together."""
    total: dict[str, Row] = {}
    for row in [*here, *there]:
        known = total.setdefault(
            row["table"], {"course": course_id, "table": row["table"], "inserted": 0, "updated": 0, "deleted": 0}
        )
        for word in ("inserted", "updated", "deleted"):
            known[word] += row[word]
    return list(total.values())


def mend_there(
    run: Run, course_id: str, server: str, *, thoroughly: bool = False, advance: Callable[[int], None] = lambda _: None
) -> "tuple[list[Row], dict[str, str]]":
    """Bring a course back on its server; return what was written by table, and the verdict of each after it.

    `thoroughly`: also make its stream and its tables anew, where they are gone.
    """
    from rollbook.replication import comparing, link, repairing, stream
    from rollbook.replication.queries.copies import compare_copies, count_portal
    from rollbook.replication.queries.servers import note_pause

    seconds = run.timeout or REPAIR_SECONDS
    with run.connect() as portal, run.connect() as holder:
        portal.autocommit = True
        holder.autocommit = True
        to = link.server(portal, server)
        course = next(row for row in stream.attached(portal, to) if row["course"] == course_id)
        columns = comparing.columns_of(portal)
        with link.held(portal, to), link.reached(to, run.caller(), long=True) as conn:
            if thoroughly:
                if to.paused_at is not None:  # what is brought back must flow
                    render.note(run, f"server {server} was paused; its stream goes on")
                    note_pause(portal, server, paused=False)
                repairing.restore_stream(portal, conn, to, course, seconds)
            written: list[Row] = []
            cleared: list[Row] = []
            looks = 0
            while True:  # rows that are being written may need a second look
                fresh = [row for row in repairing.set_going(portal, conn, to, seconds) if row not in cleared]
                cleared += fresh
                looks = 1 if fresh else looks + 1  # as long as rows in the way are cleared, it gets on
                try:
                    at = count_portal(portal)["observed_at"]
                    found = comparing.compare(portal, conn, to, course["schema_name"], columns, seconds)
                    if looks == LOOKS or not any(part.findings for part in found):
                        break
                    written += repairing.write(portal, holder, conn, to, course, found, columns, seconds, advance)
                except UnreachableError:  # a change that came meanwhile met a row that was not repaired yet
                    stands = stream.subscription(conn, to)
                    if looks == LOOKS or stands is None or stands["enabled"]:
                        raise
            written += [
                {"table": row["table"], "inserted": 0, "updated": 0, "deleted": 1}
                for row in cleared if row["schema_name"] == course["schema_name"]
            ]  # fmt: skip
            local = [{**row, "server": None, "in_flight": 0} for row in compare_copies(portal, [course_id])]
            report = merged(local, found, to)
            whole.note_verdicts(portal, report, at)
    return added(course_id, [], written), {row["table"]: row["verdict"] for row in report}


@command(
    app, "resync", sets=("data", "writes", "yes"), columns=RESYNCED, long=True,
    examples=("replication resync MITx/6.002x/2012_Fall --yes", "replication resync MITx/6.002x/2012_Fall -n"),
    exits="0 it is back, 1 unknown, or on no server, 3 unreachable, 4 still unequal, 5 some only, 6 not confirmed",
    see="rollbook replication repair",
)  # fmt: skip
def resync(
    run: Run,
    course: Courses,
) -> int:
    """Bring a course on a server back, whatever happened: a lost slot, a restored server, a restored portal.

    Makes the stream anew where it is gone, then writes the rows that differ, in batches: readers there never see an
    empty table. Other courses of the server are not touched; where the stream was made anew they are `unknown` until
    they are resynced too.
    """
    from rollbook.core import history
    from rollbook.replication import link
    from rollbook.replication.queries.copies import repair_copies
    from rollbook.replication.queries.courses import find_course, known_courses

    rows: list[Row] = []
    failures: list[tuple[str, AdminError]] = []
    with run.connect() as portal:
        names = known_courses(portal, list(dict.fromkeys(course)))
        where = {name: find_course(portal, name)["server"] for name in names}
        if stray := [name for name, server in where.items() if server is None]:
            raise RefusedError(f"course {stray[0]} is on no server", fix=f"rollbook replication repair '{stray[0]}'")
        for server in dict.fromkeys(where.values()):
            link.server(portal, server)
    on = ", ".join(f"{name} on {server}" for name, server in where.items())
    if run.dry_run:
        rows = [
            {"course": name, "server": server, "table": None, "inserted": None, "updated": None, "deleted": None,
             "verdict_after": "would match"}
            for name, server in where.items()
        ]  # fmt: skip
    else:
        render.confirm(run, f"resync {on}")
        nothing = {"inserted": 0, "updated": 0, "deleted": 0}
        for name, server in where.items():
            try:
                with run.connect() as portal:
                    written = repair_copies(portal, name)
                with progress(run, f"resync {name}", 0) as advance:
                    there, after = mend_there(run, name, server, thoroughly=True, advance=advance)
                with run.connect() as portal:
                    note = {"server": server, "portal": written, "written_there": there}
                    history.record(portal, run, name, "resynced", after=note, course_id=name)
                done = {row["table"]: row for row in added(name, written, there)}
                line = {"course": name, "server": server}
                rows += [
                    {**done.get(table, nothing), **line, "table": table, "verdict_after": word}
                    for table, word in after.items()
                ]  # fmt: skip
            except AdminError as exc:
                failures.append((name, exc))
    render.rows(run, rows, RESYNCED, empty="nothing was resynced")
    for name, failure in failures:
        render.error(run, type(failure)(f"{name}: {failure.message}", why=failure.why, fix=failure.fix))
    if failures:
        return 5 if rows else failures[0][1].exit_code
    return 4 if any(row["verdict_after"] not in ("match", "would match") for row in rows) else 0
