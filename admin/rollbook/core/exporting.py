"""Exports: personal data, written as the import of its kind reads it, and recorded in the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rollbook.core import history, render
from rollbook.core.command import Format
from rollbook.core.unknown_names import note_unknown

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row


def export(
    run: Run, columns: Sequence[str], fetch: Callable[[Conn, int | None], list[Row]], *, what: str,
    course: str | None = None, exam: str | None = None,
) -> None:  # fmt: skip
    """Write all rows of `fetch`, or --limit of them, as CSV unless --format or the file's ending asks for another.

    `fetch` gets how many rows are wanted, None for all. `what` and `course` name the export in the history;
    `course` and `exam` are its filters.
    """
    configured = run.usual_format not in (None, Format.table)  # a table cannot be imported again
    run.csv = run.csv or not (run.format or run.json or configured or (run.output != "-" and run.ending_format))
    limit = None if run.all else run.limit
    with run.connect() as conn:
        found = render.ordered(run, fetch(conn, None if run.sort else limit))[:limit]
        if not found:
            note_unknown(conn, run, course=course, exam=exam)
        record_export(conn, run, what, len(found), course)
    render.rows(run, found, columns)


def record_export(conn: Conn, run: Run, what: str, rows: int, course_id: str | None = None) -> None:
    """Record that personal data left."""
    if not history.record_if_allowed(conn, run, what, "exported", after={"rows": rows}, course_id=course_id):
        render.note(run, history.NOT_RECORDED)
