"""`rollbook course`: which courses hold copies."""

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Course, Courses
from rollbook.core.command import Format, Run, command
from rollbook.core.completion import servers
from rollbook.core.errors import AdminError, AttentionError, NotConfirmedError, RefusedError, UnreachableError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.replication.commands import comparison
from rollbook.replication.commands.server import show_steps

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.replication.link import Server
    from rollbook.replication.stream import Steps

app = noun("course")

CREATED = ("course", "schema_name", "on_leave", "enrolled", "copied_users", "outcome")
PLACED = ("course", "server", "table", "rows", "outcome")
DELETED = ("course", "schema_name", "enrolled", "copied_users", "outcome")
COLUMNS = ("course", "schema_name", "state", "on_leave", "enrolled", "copied_users", "server", "since")


class OnLeave(StrEnum):
    """What happens to user and profile copies when an enrollment ends."""

    keep = "keep"
    remove = "remove"


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("course list", "course list --match 2012 --json"),
    exits="0 also if there is none or one has drifted, 3 unreachable, 4 not migrated",
    see="rollbook status, rollbook course show",
)  # fmt: skip
def list_(run: Run) -> None:
    """List the courses with their schema, state and how many are enrolled and copied."""
    from rollbook.replication.queries.courses import list_courses

    with run.connect() as conn:
        found = list_courses(conn, run.match)
    render.listing(run, found, COLUMNS, empty="no courses yet: rollbook course create COURSE")


@command(
    app, "show", sets=("document",),
    examples=("course show MITx/6.002x/2012_Fall", "course show MITx/6.002x/2012_Fall --json"),
    exits="0 found, 1 unknown course, 3 unreachable, 4 not migrated", see="rollbook replication verify",
)  # fmt: skip
def show(run: Run, course: Course) -> None:
    """Show one course: counts, the last verify, what it added itself, and what is copied to it."""
    from rollbook.replication.queries.courses import find_course, list_replicated

    with run.connect() as conn:
        found = find_course(conn, course)
        found["replicated"] = {row["table"]: row["columns"] for row in list_replicated(conn)}
    parts = {"Course": {k: v for k, v in found.items() if k != "replicated"}, "Copied columns": found["replicated"]}
    render.document(run, found, lambda out: render.sections(run, out, parts))


@command(
    app, "create", sets=("data", "writes"), columns=CREATED, long=True,
    examples=("course create MITx/6.002x/2012_Fall", "course create edX/DemoX/2012_Fall --on-leave remove --dry-run"),
    exits="0 made (or there already, with --if-not-exists), 1 refused, 3 unreachable, 4 not migrated",
    see="rollbook enrollment add, rollbook course delete",
)  # fmt: skip
def create(
    run: Run,
    course: Course,
    on_leave: Annotated[
        OnLeave, typer.Option(help="When an enrollment ends: user and profile copies stay, or go.")
    ] = OnLeave.keep,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Be content with one that is there.")] = False,
) -> None:
    """Make a course: its schema and copies, filled with the students already enrolled."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, create_course, find_course, list_courses

    with run.connect() as conn:
        outcome = "created"
        there = [row for row in list_courses(conn, course) if row["course"] == course] if if_not_exists else []
        if there:
            outcome = "unchanged"
        else:
            create_course(conn, course, on_leave)
            history.record(conn, run, course, "created", after={"on_leave": str(on_leave)}, course_id=course)
        found = find_course(conn, course)
        statement = course_sql("rollbook.create_course", [course, str(on_leave)])
    if run.dry_run and not there and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [found | {"outcome": outcome}], CREATED)


@command(
    app, "delete", sets=("data", "writes"), columns=DELETED, long=True,
    examples=("course delete edX/toy/2013_Spring --confirm edX/toy/2013_Spring", "course delete edX/toy -n"),
    exits="0 dropped, 1 unknown course, or it holds data of its own, 3 unreachable, 6 not confirmed",
    see="rollbook course show",
)  # fmt: skip
def delete(
    run: Run,
    course: Course,
    confirm: Annotated[
        str | None,
        typer.Option(metavar="COURSE", help="Repeat the course ID to confirm."),
    ] = None,
    drop_local: Annotated[
        bool, typer.Option("--drop-local", "--drop-data", help="Drop the course's own columns and tables as well.")
    ] = False,
) -> None:
    """Drop a course and its schema. The portal's enrollments stay."""
    from rollbook.core import history
    from rollbook.replication.queries.courses import course_sql, drop_course, find_course

    with run.connect() as conn:
        found = find_course(conn, course)
        if not run.dry_run and confirm != course:
            goes = f"schema {found['schema_name']} with {found['copied_users']} user copies"
            if confirm is not None:
                raise NotConfirmedError(
                    f"--confirm {confirm} is not the course {course}", fix=f"add --confirm '{course}'"
                )
            raise NotConfirmedError(f"not confirmed: this drops {goes}", fix=f"add --confirm '{course}'")
        if found["server"]:
            raise RefusedError(
                f"course {course} is on server {found['server']}", fix=f"rollbook course detach '{course}'"
            )
        if found["local_objects"] and not drop_local:
            raise RefusedError(
                f"course {course} has data of its own: {', '.join(found['local_objects'])}",
                fix=f"save what you need of schema {found['schema_name']}, then add --drop-local",
            )
        drop_course(conn, course, drop_local=drop_local)
        gone = {name: found[name] for name in ("schema_name", "on_leave", "copied_users", "local_objects")}
        history.record(conn, run, course, "removed", before=gone, course_id=course)
        statement = course_sql("rollbook.drop_course", [course, drop_local])
    if run.dry_run and render.chosen_format(run) is Format.table:
        render.text(run, statement)
    render.rows(run, [found | {"outcome": "removed"}], DELETED)


@command(
    app, "attach", sets=("data", "writes", "yes"), columns=PLACED, long=True,
    examples=("course attach MITx/6.002x/2012_Fall --to east", "course attach edX/A edX/B --to east --dry-run"),
    exits="0 attached and equal, 1 refused, 3 unreachable, 4 the first copy goes on, or differs, 5 some only",
    see="rollbook server add, rollbook replication status, rollbook course detach",
)  # fmt: skip
def attach(
    run: Run,
    course: Courses,
    to: Annotated[str, typer.Option("--to", metavar="SERVER", help="The course server.", autocompletion=servers)],
) -> int:
    """Put courses on a server: their schemas there, a first copy, then every change. They stay readable here.

    Can be stopped anywhere and run again. Ends with a comparison of what arrived.
    """
    from rollbook.replication import link, stream
    from rollbook.replication.queries.courses import find_course, known_courses

    steps = stream.Steps(dry=run.dry_run)
    rows: list[render.Row] = []
    with run.connect() as portal:
        portal.autocommit = True
        server = link.server(portal, to)
        names = known_courses(portal, list(dict.fromkeys(course)))
        if server.paused_at:
            raise RefusedError(f"server {to} is paused", fix=f"rollbook replication resume --server {to}")
        with link.held(portal, server):
            found = [find_course(portal, name) for name in names]
            if elsewhere := [row for row in found if row["server"] not in (None, to)]:
                raise RefusedError(
                    f"course {elsewhere[0]['course']} is on server {elsewhere[0]['server']}",
                    fix=f"rollbook course detach '{elsewhere[0]['course']}'",
                )
            with link.reached(server, run.caller(), long=True) as conn:
                outcome = put_on(run, portal, conn, server, found, steps)
    if run.dry_run:
        if render.chosen_format(run) is Format.table:
            show_steps(run, steps)
        rows = [
            {"course": name, "server": to, "table": table, "rows": None, "outcome": "would attach"}
            for name in names for table in stream.TABLES
        ]  # fmt: skip
        render.rows(run, rows, PLACED)
        return 0
    if outcome != "ready":
        return unfinished(run, names, to, outcome)
    failures: list[AdminError] = []
    was = {row["course"] for row in found if row["server"] == to and row["state"] == "ok"}
    for name in names:
        try:
            _, after = comparison.mend_there(run, name, to)
            counted = rows_there(run, name, server)
            word = "unchanged" if name in was else "attached"
            rows += [
                {"course": name, "server": to, "table": table, "rows": counted[table],
                 "outcome": word if after.get(table) == "match" else "differs"}
                for table in stream.TABLES
            ]  # fmt: skip
        except AdminError as exc:
            failures.append(exc)
            render.error(run, type(exc)(f"{name}: {exc.message}", why=exc.why, fix=exc.fix))
    render.rows(run, rows, PLACED)
    if failures:
        return 5 if rows else failures[0].exit_code
    return 4 if any(row["outcome"] == "differs" for row in rows) else 0


def rows_there(run: Run, course: str, server: "Server") -> dict[str, int]:
    """Return how many rows each table of a course has on its server."""
    from rollbook.replication import comparing, link
    from rollbook.replication.queries.courses import find_course

    with run.connect() as portal:
        schema_name = find_course(portal, course)["schema_name"]
    with link.reached(server, run.caller()) as conn:
        return comparing.rows_on(conn, schema_name)


def put_on(
    run: Run, portal: "Conn", conn: "Conn", server: "Server", courses: "list[render.Row]", steps: "Steps"
) -> str:
    """Make all that the courses lack on the server and wait for their first copy: ready, disabled or copying.

    Order: noted in the portal, so that whatever is made can be found; the schemas there; the publication; the
    subscription. Taken back if one of both sides refuses, or a lock does not come in time.
    """
    from psycopg import Error

    from rollbook.core import history
    from rollbook.replication import stream
    from rollbook.replication.queries.servers import note_placement

    new = [row["course"] for row in courses if row["server"] is None or row["state"] == "detached"]
    stream.check_schemas(portal, conn, server, courses)
    stream.refuse_gone(portal, conn, server)
    if run.dry_run:
        wanted = courses
    else:
        note_placement(portal, new, server.name, "copying")
        wanted = stream.attached(portal, server)
    made: list[str] = []
    try:
        stream.prepare(conn, server, steps)
        made = stream.make_schemas(portal, conn, server, wanted, steps)
        steps.run(portal, "portal", *stream.publishing(server, new if run.dry_run else []))
        stream.build(portal, conn, server, steps)
        fresh, copied = stream.refresh(portal, conn, server, steps)
    except (AdminError, Error):
        if not (run.dry_run or portal.broken or conn.broken):
            take_back(portal, conn, server, [row for row in courses if row["course"] in new], made)
        raise
    if run.dry_run:
        return "ready"
    history.record_many(portal, run, [
        {"object": name, "outcome": "attached", "after": {"server": server.name}, "course_id": name} for name in new
    ])  # fmt: skip
    if not copied:  # rows stand there already: what was not asked for must be brought level too
        for row in fresh:
            if row["course"] not in {course["course"] for course in courses}:
                half = f"{row['course']} was attached half-way"
                render.note(run, f"{half}; run: rollbook course attach '{row['course']}' --to {server.name}")
    schemas = [row["schema_name"] for row in courses]
    with progress(run, "copy", len(schemas) * len(stream.TABLES)) as advance:
        return stream.await_copies(
            conn, server, schemas, stream.whitelist(portal), advance, run.timeout,
            lambda: render.note(run, f"copying; {stream.oldest_transaction(portal)}"),
        )  # fmt: skip


def take_back(portal: "Conn", conn: "Conn", server: "Server", courses: "list[render.Row]", made: list[str]) -> None:
    """Leave nothing of courses whose attach failed; where that fails too, it is for the next attach or detach."""
    from psycopg import Error

    from rollbook.replication import stream

    with suppress(AdminError, Error):
        for keep in (True, False):
            mine = [row for row in courses if (row["schema_name"] not in made) is keep]
            if mine:
                taken_off(portal, conn, server, mine, stream.Steps(), keep=keep, drop_local=False)


def unfinished(run: Run, names: list[str], to: str, outcome: str) -> int:
    """Say why the first copy is not done; return the exit code."""
    if outcome == "copying":
        render.note(run, "the first copy goes on by itself; watch it with: rollbook replication status")
        return 4
    raise AttentionError(
        f"the first copy to server {to} stopped", why="a constraint or trigger of the course there refuses a row",
        fix=f"rollbook replication show '{names[0]}'",
    )  # fmt: skip


@command(
    app, "detach", sets=("data", "writes", "yes"), columns=PLACED, long=True,
    examples=("course detach MITx/6.002x/2012_Fall --yes", "course detach MITx/6.002x/2012_Fall --keep-data --yes"),
    exits="0 detached, 1 refused, 3 unreachable, 5 something is left on the server, 6 not confirmed",
    see="rollbook course attach, rollbook server remove",
)  # fmt: skip
def detach(
    run: Run,
    course: Courses,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave the copies there, as they are now.")] = False,
    drop_local: Annotated[bool, typer.Option("--drop-local", help="Drop what the course added there as well.")] = False,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="The server is gone: let go of the course on the portal's side.")
    ] = False,
) -> int:
    """Take courses off their server. The copies there go, unless the course has added columns or tables of its own.

    The copies in the portal's database stay, and stay current.
    """
    from rollbook.core import history
    from rollbook.replication import link, stream
    from rollbook.replication.queries.courses import find_course, known_courses

    steps = stream.Steps(dry=run.dry_run)
    rows: list[render.Row] = []
    code = 0
    with run.connect() as portal:
        portal.autocommit = True
        names = known_courses(portal, list(dict.fromkeys(course)))
        found = [find_course(portal, name) for name in names]
        placed = [row for row in found if row["server"]]
        if placed:
            stay = "; the rows there stay as they are" if keep_data else ", with its rows there"
            render.confirm(run, "detach " + ", ".join(f"{row['course']} from {row['server']}" for row in placed) + stay)
        for name in dict.fromkeys(row["server"] for row in placed):
            server = link.server(portal, name)
            mine = [row for row in placed if row["server"] == name]
            with link.held(portal, server):
                try:
                    with link.reached(server, run.caller(), long=True) as conn:
                        rows += taken_off(portal, conn, server, mine, steps, keep=keep_data, drop_local=drop_local)
                except UnreachableError:
                    if not unreachable:
                        raise
                    rows += let_go(portal, server, mine, steps)
                    code = 5
                if not run.dry_run:
                    history.record_many(portal, run, [
                        {"object": row["course"], "outcome": "detached", "course_id": row["course"],
                         "before": {"server": name}, "after": {"rows_there": row["outcome"]}}
                        for row in rows if row["server"] == name
                    ])  # fmt: skip
    rows += [
        {"course": row["course"], "server": None, "table": None, "rows": None, "outcome": "unchanged"}
        for row in found if not row["server"]
    ]  # fmt: skip
    if run.dry_run and render.chosen_format(run) is Format.table:
        show_steps(run, steps)
    render.rows(run, rows, PLACED)
    if code == 5:
        render.note(
            run, "should that server come back, drop these schemas there; its subscription brings them nothing more"
        )
    return code


def taken_off(
    portal: "Conn", conn: "Conn", server: "Server", courses: "list[render.Row]", steps: "Steps", *, keep: bool,
    drop_local: bool,
) -> "list[render.Row]":  # fmt: skip
    """Take courses out of a server's stream, then away from the server; return a line for each."""
    from psycopg import sql

    from rollbook.replication import comparing, stream
    from rollbook.replication.queries.servers import note_placement

    rows = []
    ids = [row["course"] for row in courses]
    if not steps.dry:
        note_placement(portal, ids, server.name, "detached")
    steps.run(portal, "portal", *stream.publishing(server, []))
    if stream.subscription(conn, server) is not None:
        stream.refreshed(conn, server, steps, copy=False)
    columns = stream.whitelist(portal)
    for row in courses:
        local = stream.local_objects(conn, columns, row["schema_name"])
        there = 0
        if stream.is_whole(conn, row["schema_name"]):
            there = sum(comparing.rows_on(conn, row["schema_name"]).values())
        outcome = "kept" if keep else "removed"
        if local and not drop_local:
            outcome = f"kept: {', '.join(local)}"
        if outcome == "removed":
            steps.run(
                conn, f"server {server.name}",
                sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(row["schema_name"])),
            )  # fmt: skip
        if steps.dry:
            outcome = f"would be {outcome}"
        rows.append({"course": row["course"], "server": server.name, "table": None, "rows": there, "outcome": outcome})
    if not steps.dry:
        note_placement(portal, ids, None, "ok")
    return rows


def let_go(portal: "Conn", server: "Server", courses: "list[render.Row]", steps: "Steps") -> "list[render.Row]":
    """Take courses out of the stream of a server that gives no answer; return what is left there."""
    from rollbook.replication import stream
    from rollbook.replication.queries.servers import note_placement

    ids = [row["course"] for row in courses]
    if not steps.dry:
        note_placement(portal, ids, None, "ok")
    steps.run(portal, "portal", *stream.publishing(server, []))
    return [
        {"course": row["course"], "server": server.name, "table": None, "rows": None,
         "outcome": f"left there: schema {row['schema_name']}"}
        for row in courses
    ]  # fmt: skip
