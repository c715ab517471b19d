"""Which course servers, and which courses on them, a command is about."""

from __future__ import annotations

from collections.abc import Sequence

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError
from rollbook.core.shell import course_word
from rollbook.replication.catalog import Placement, placements
from rollbook.replication.link import Server, find_server, list_servers
from rollbook.replication.queries.courses import known_courses, list_paused


def selected(portal: Conn, courses: Sequence[str], names: Sequence[str] = ()) -> dict[Server, list[Placement]]:
    """Return by server the courses asked for: all of the servers named, or these courses, or all for none.

    Raises RefusedError for a course that is unknown or on no server.
    """
    known_courses(portal, courses)
    found: dict[Server, list[Placement]] = {}
    for server in [find_server(portal, name) for name in names] or list_servers(portal):
        mine = [row for row in placements(portal, server) if not courses or names or row.course in courses]
        if mine or names:
            found[server] = mine
    placed = {row.course for rows in found.values() for row in rows}
    if stray := [course for course in courses if course not in placed]:
        is_paused = stray[0] in list_paused(portal)
        raise RefusedError(
            f"course {stray[0]} is not on a server",
            why="its copies are in the portal's database, "
            + ("and not written while it is paused" if is_paused else "and change in the same commit"),
            fix=f"rollbook course resume {course_word(stray[0])}"
            if is_paused
            else f"rollbook course attach {course_word(stray[0])} --to SERVER",
        )
    return found
