"""The copies beside the portal: compare, verify, repair, and what was noted of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollbook.core.rows import Row, one

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COMPARE = """
select
    course_id as course, table_name as table, portal_rows, course_rows, missing, changed, extra, verdict
from rollbook.compare(%s)
"""


FINDINGS = """
select course_id as course, table_name as table, finding, row_id, columns from rollbook.verify(%s)
"""


NOTE_VERIFICATION = """
with noted as (
    insert into rollbook.verification as v (course_id, verified_at, verdict, differing_rows, run_at)
    values (%(course)s, %(at)s, %(verdict)s, %(rows)s, %(run_at)s)
    on conflict (course_id) do update
    set verified_at = excluded.verified_at, verdict = excluded.verdict, differing_rows = excluded.differing_rows,
        run_at = excluded.run_at
    where v.verified_at < excluded.verified_at
)
update rollbook.course set state = 'ok'
where course_id = %(course)s and state in ('copying', 'unknown') and %(verdict)s = 'match'
"""


RESUMABLE = """
select course_id as course, run_at, verdict from rollbook.verification
where run_at = (select max(v.run_at) from rollbook.verification as v)
"""


REPAIR = """
select course_id as course, table_name as table, inserted, updated, deleted from rollbook.repair(%s)
"""


PORTAL = """
select
    current_setting('server_version') as server_version, current_database() as database,
    (select count(*) from portal.auth_user) as users,
    (select count(*) from portal.student_courseenrollment) as enrollments,
    (select count(*) from rollbook.course) as courses, now() as observed_at
"""


def compare_copies(conn: Conn, course_ids: list[str]) -> list[Row]:
    """Return a row for each course and table: portal_rows course_rows missing changed extra verdict."""
    return conn.execute(COMPARE, [course_ids]).fetchall()


def list_differences(conn: Conn, course_id: str) -> list[Row]:
    """Return every difference of one course: table, finding, row_id, columns. Raises RefusedError RB008."""
    return conn.execute(FINDINGS, [course_id]).fetchall()


def note_verification(conn: Conn, course_id: str, at: Any, verdict: str, rows: int | None, run_at: Any) -> None:  # noqa: ANN401
    """Note what a verify said of a course, unless a later one has spoken; an equal one is `ok` again."""
    found = {"course": course_id, "at": at, "verdict": verdict, "rows": rows, "run_at": run_at}
    conn.execute(NOTE_VERIFICATION, found)


def list_resumable(conn: Conn) -> dict[str, Row]:
    """Return by course what the latest verify has said of those it has compared, and the time at which it began."""
    return {row["course"]: row for row in conn.execute(RESUMABLE)}


def repair_copies(conn: Conn, course_id: str) -> list[Row]:
    """Make one course equal to the portal; return the rows written by table."""
    return conn.execute(REPAIR, [course_id]).fetchall()


def count_portal(conn: Conn) -> Row:
    """Return the portal in numbers."""
    return one(conn, PORTAL)
