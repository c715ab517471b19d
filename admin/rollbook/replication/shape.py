"""Changing which columns travel to a course.

On a course server first what lets rows come with and without these columns, then on its relay; then the portal, where
copies, routing and publication change in one transaction; then, on relay and server, the rows and what they must
fulfil. So the stream never brings a row that the server cannot take. A command that was killed is run again: each step
looks at what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from rollbook.core import history
from rollbook.core.errors import AdminError, AttentionError
from rollbook.core.shell import course_word
from rollbook.core.shipped import as_query
from rollbook.replication import attach, build, forward, link
from rollbook.replication.locked import run_locked
from rollbook.replication.queries.copies import Written, total
from rollbook.replication.queries.courses import (
    Course,
    find_course,
    left_out,
    resume_course,
    set_on_fault,
    set_on_leave,
    update_course,
)
from rollbook.replication.repair import CATCH_UP_SECONDS, repair_on_server
from rollbook.replication.session import Progress, Session, opened
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

STATEMENTS = "select w.words from rollbook.shape_statements(%s, %s, %s, %s, %s) as w (words)"


@dataclass(frozen=True)
class Updated:
    """A row of `course update`; the fields are its columns."""

    course: str
    on_leave: str
    on_fault: str
    without: list[str]
    rows: int  # written, in the portal's database and on the server
    outcome: str


@dataclass(frozen=True)
class Options:
    """What `course update` sets; None: that stays."""

    on_leave: str | None = None
    on_fault: str | None = None
    without: Sequence[str] | None = None


def update(run: Run, course_id: str, options: Options, progress: Progress) -> Updated:
    """Change what a course leaves out, and what happens when an enrollment ends or a copy cannot be written.

    Raises RefusedError, UnreachableError if its server does not answer: then nothing has changed.
    """
    with run.connect() as portal:
        before = find_course(portal, course_id)
        wanted = before.without if options.without is None else left_out(portal, options.without)
    server = None if run.dry_run or options.without is None else before.server
    if server is not None:
        attach.refuse_moving(before)
        prepare(run, before, wanted)
    with run.connect() as portal:
        written = update_course(portal, course_id, wanted) if wanted != before.without else []
        if options.on_leave not in (None, before.on_leave):
            written += set_on_leave(portal, course_id, str(options.on_leave))
        if options.on_fault not in (None, before.on_fault):
            set_on_fault(portal, course_id, str(options.on_fault))
        rows = sum(row["inserted"] + row["updated"] + row["deleted"] for row in written)
        after = find_course(portal, course_id)
        old, new = (
            {"on_leave": row.on_leave, "on_fault": row.on_fault, "without": row.without} for row in (before, after)
        )
        if old != new:
            history.record(portal, run, course_id, "updated", before=old, after=new, course_id=course_id)
    only_leaves_out = wanted != before.without and set(wanted) >= set(before.without)
    if server is not None and before.paused_at is None and not only_leaves_out:
        rows += sum(row.rows for row in finish(run, after, server, progress))
    elif server is not None:
        forward_as_sent(run, after, server)
    outcome = "unchanged" if old == new else "updated"
    return Updated(course_id, after.on_leave, after.on_fault, after.without, rows, outcome)


def prepare(run: Run, course: Course, without: Sequence[str]) -> None:
    """Let a course's server take rows with and without the columns that change, and its relay send them on."""
    with run.connect() as portal:
        portal.autocommit = True
        server = link.find_server(portal, str(course.server))
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
        ):
            for hop in reversed(session.hops):
                build.prepare(hop, Steps())
                reshape(hop, course.schema_name, without, is_final=False)
            if session.upstream is not None:
                sends = forward.statement(portal, server, course.course, course.schema_name, without)
                run_locked(session.source, [sends])


def forward_as_sent(run: Run, course: Course, server_name: str) -> None:
    """Let the relay of a course's server, if it has one, send the columns on that the portal sends, and no others."""
    with run.connect() as portal:
        portal.autocommit = True
        server = link.find_server(portal, server_name)
        if server.through is None:
            return
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
        ):
            forward.settle(session, {course.schema_name: course.course})
            forward.empty(session, course.schema_name, course.without)


def resume(run: Run, course_id: str, progress: Progress) -> list[Written]:
    """End the pause of a course: repair its copies in the portal's database, and then those on its server.

    Also a column that travels again since the pause comes to the server now. Returns what was written, by table. Raises
    RefusedError if a copy cannot be written: the course stays paused. What fails on the server leaves it resumed.
    """
    with run.connect() as portal:
        before = find_course(portal, course_id)
        written = [Written(**row) for row in resume_course(portal, course_id)]
        history.record(
            portal, run, course_id, "resumed",
            before={"paused_at": before.paused_at, "pause_reason": before.pause_reason},
            after={"written": [vars(row) for row in written]}, course_id=course_id,
        )  # fmt: skip
    if before.server is None or run.dry_run:
        return written
    try:
        return total(*written, *finish(run, before, before.server, progress))
    except AdminError:
        progress.note(f"course {course_id} is resumed, but its copies on server {before.server} are not repaired yet: "
                      "run the same command again")  # fmt: skip
        raise


def finish(run: Run, course: Course, server_name: str, progress: Progress) -> list[Written]:
    """Fill the columns that travel again on the server, then hold them to what the portal's fulfil.

    Returns what was written there, by table.
    """
    written, verdicts = repair_on_server(run, course.course, server_name, progress)
    if differing := [table for table, verdict in verdicts.items() if verdict != "match"]:
        raise AttentionError(
            f"its copies are not equal on server {server_name}: {', '.join(differing)}",
            why="they are being written, or the copies in the portal's database differ",
            fix=f"rollbook replication repair {course_word(course.course)}; then the same command again",
        )
    with run.connect() as portal:
        portal.autocommit = True
        server = link.find_server(portal, server_name)
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
        ):
            for hop in session.hops:
                reshape(hop, course.schema_name, course.without, is_final=True)
            forward.empty(session, course.schema_name, course.without)
    return written


def reshape(session: Session, schema_name: str, without: Sequence[str], *, is_final: bool) -> None:
    """Give the copies on a server their form, each in a transaction of its own. Raises RefusedError for a lock."""
    for name in session.copied.names:
        asked = {"schema": schema_name, "table": name}
        row = session.conn.execute(as_query("copies/copy_shape", "schema", "table"), asked).fetchone()
        if row is None or row["shape"] is None:
            continue  # gone: resync makes it
        given = [schema_name, name, list(without), Jsonb(row["shape"]), is_final]
        statements = [row["words"] for row in session.portal.execute(STATEMENTS, given)]
        run_locked(session.conn, statements)
