"""Changing which rows of the membership table count, while everybody works.

The declaration changes in one short transaction while nobody writes these tables. From then on a row that changes is
judged by the new condition. Rows that changed sides by the declaration leave or join with their course, one after the
other, by a repair; rollbook.course.due records which courses are left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core import shape as core
from rollbook.core.db import Conn
from rollbook.core.declaring import check, declare
from rollbook.core.shape import Table
from rollbook.replication.columns import WORDS, Outcome, arrive, outcome
from rollbook.replication.queries import shape as queries
from rollbook.replication.session import Progress
from rollbook.replication.switch import switch

if TYPE_CHECKING:
    from rollbook.core.command import Run


def where(run: Run, condition: str | None, jobs: int, progress: Progress) -> Outcome:
    """Let only rows of the membership table count for which a condition is true; None: all.

    Raises RefusedError for a condition that cannot be used; then nothing has changed.
    """
    with run.connect() as portal:
        shape = core.of(portal)
        before = shape.table("membership")
        assert before is not None  # noqa: S101 (each shape has one)
        wanted = check(portal, shape.changed(replace(before, condition=condition)))
        after = wanted.table("membership")
        assert after is not None  # noqa: S101 (it was there)
        if after.condition is not None:
            try_condition(portal, after)
        courses = queries.list_courses(portal)
        is_new = wanted != shape
        if run.dry_run:
            rows = count_changed(portal, before, after) if is_new else 0
            due = len(courses) if is_new else sum(queries.CONDITION in course.due for course in courses)
            return Outcome(due, rows, [], WORDS[bool(is_new or due)])

    def change(conn: Conn) -> None:
        declare(conn, wanted)
        queries.repair_all_later(conn)
        history.record(
            conn, run, "shape", "updated", before={"condition": before.condition}, after={"condition": after.condition}
        )

    if is_new:
        with run.connect() as portal:
            portal.autocommit = True
            switch(portal, shape, change, seconds=run.timeout)
    return outcome(arrive(run, jobs, progress, [queries.CONDITION]), is_new=is_new)


def try_condition(portal: Conn, table: Table) -> None:
    """Evaluate a condition on no row as the routing does; the server refuses what rollbook_owner may not call."""
    with portal.transaction(force_rollback=True):
        portal.execute("set local role rollbook_owner")
        portal.execute(f"select from {table.source} as m limit 0".encode())


def count_changed(portal: Conn, before: Table, after: Table) -> int:
    """Return how many rows count now and will not, or will and do not."""
    old, new = (f"coalesce(({table.condition or 'true'}), false)" for table in (before, after))
    query = f"select count(*) as rows from {after.relation} where {old} <> {new}"  # noqa: S608 (of the declaration)
    return int(portal.execute(query.encode()).fetchall()[0]["rows"])
