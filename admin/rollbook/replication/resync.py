"""Bringing courses on servers back, whatever happened: rebuild their streams where needed, then repair their rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.errors import AdminError, RefusedError
from rollbook.core.shell import course_word
from rollbook.replication import link
from rollbook.replication.catalog import Placement
from rollbook.replication.queries.copies import Written, repair_copies, total
from rollbook.replication.queries.courses import find_course, known_courses
from rollbook.replication.queries.servers import record_pause
from rollbook.replication.rebuild import restore_stream
from rollbook.replication.repair import Failure, Repaired, repair_on_server
from rollbook.replication.session import Progress, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.command import Run


def servers_of(run: Run, courses: Sequence[str]) -> dict[str, str]:
    """Return the server of each course. Raises RefusedError for a course that is unknown, or on no server."""
    with run.connect() as portal:
        found: dict[str, str] = {}
        for name in known_courses(portal, list(dict.fromkeys(courses))):
            server = find_course(portal, name).server
            if server is None:
                raise RefusedError(
                    f"course {name} is not on a server", fix=f"rollbook replication repair {course_word(name)}"
                )
            found[name] = server
        for server in dict.fromkeys(found.values()):
            link.find_server(portal, server)
    return found


def resync_course(run: Run, course: str, server: str, progress: Progress) -> list[Repaired]:
    """Bring one course back; return what was written to each table, and its verdict then."""

    def restore(session: Session, placement: Placement) -> None:
        if session.server.paused_at is not None:  # what is brought back must arrive
            name = session.server.name
            progress.note(f"server {name} was paused; its replication resumes")
            record_pause(session.portal, name, paused=False)
            session = replace(session, server=replace(session.server, paused_at=None))
        restore_stream(session, placement)

    with run.connect() as portal:
        written = repair_copies(portal, course)
    there, after = repair_on_server(run, course, server, progress, restore)
    with run.connect() as portal:
        done = {
            "server": server, "portal": [{"course": course, **vars(part)} for part in written],
            "written_there": [{"course": course, **vars(part)} for part in there],
        }  # fmt: skip
        history.record(portal, run, course, "resynced", after=done, course_id=course)
    by_table = {part.table: part for part in total(*written, *there)}
    return [
        Repaired(course, table, part.inserted, part.updated, part.deleted, verdict, server)
        for table, verdict in after.items()
        for part in [by_table.get(table, Written(table))]
    ]


def resync_all(run: Run, servers: dict[str, str], progress: Progress) -> tuple[list[Repaired], list[Failure]]:
    """Bring courses back, one after the other; a failure does not stop the others."""
    result: list[Repaired] = []
    failures: list[Failure] = []
    for course, server in servers.items():
        try:
            result += resync_course(run, course, server, progress)
        except AdminError as exc:
            failures.append(Failure(course, exc))
        progress.advance(1)
    return result, failures
