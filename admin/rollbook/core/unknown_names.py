"""A filter that matched nothing, because its name is not one: the nearest is printed beside the empty answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from rollbook.core import render
from rollbook.core.rows import nearest

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

# Kind of a name -> a query of all, column name.
KNOWN: dict[str, LiteralString] = {
    "course": "select course_id as name from rollbook.course",
    "exam": "select exam_series_code as name from rollbook.exam union "
    "select exam_series_code from portal.student_testcenterregistration",
    "group": "select name from portal.student_usertestgroup",
}


def note_unknown(conn: Conn, run: Run, **names: str | None) -> None:
    """Report each name, by its kind, that does not exist; the answer stays empty (exit 0)."""
    for kind, name in names.items():
        if name is None:
            continue
        known = {row["name"] for row in conn.execute(KNOWN[kind])}
        if name not in known:
            near = nearest(name, known)
            render.note(run, f"there is no {kind} {name}" + (f"; {near}" if near else ""))
