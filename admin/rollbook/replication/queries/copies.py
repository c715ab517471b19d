"""The copies beside the portal: compare, verify, repair, and the verdicts that are recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rollbook.core.rows import Row, one, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn

COMPARE = """
select
    course_id as course, table_name as table, portal_rows, course_rows, missing, changed, extra, verdict
from rollbook.compare(%s)
"""

FINDINGS = """
select course_id as course, table_name as table, finding, row_id, columns from rollbook.verify(%s)
"""

# A verify that could not compare a course takes away no comparison: what that found, and when, still holds.
RECORD_VERIFICATION = """
with recorded as (
    insert into rollbook.verification as v (course_id, verified_at, verdict, differing_rows, run_at)
    values (%(course)s, %(at)s, %(verdict)s, %(rows)s, %(run_at)s)
    on conflict (course_id) do update
    set verified_at = excluded.verified_at, verdict = excluded.verdict, differing_rows = excluded.differing_rows,
        run_at = excluded.run_at
    where v.verified_at > statement_timestamp() or (
        v.verified_at < excluded.verified_at
        and (excluded.verdict in ('match', 'differs') or v.verdict not in ('match', 'differs'))
    )
)
update rollbook.course set state = 'ok'
where course_id = %(course)s and state in ('copying', 'unknown') and %(verdict)s = 'match'
"""

ESTIMATED = """
select c.course_id as course, 1 + coalesce(sum(greatest(k.reltuples, 0)), 0)::bigint as rows
from rollbook.course as c
inner join pg_namespace as n on n.nspname = c.schema_name
left join pg_class as k
    on k.relnamespace = n.oid and k.relkind = 'r'
    and k.relname = any (array(select t.table_name from rollbook.copied_tables() as t))
where c.course_id = any (%s)
group by c.course_id
"""

RESUMABLE = """
select course_id as course, run_at, verdict from rollbook.verification
where run_at = (select max(v.run_at) from rollbook.verification as v where v.run_at <= statement_timestamp())
"""

# A verdict of the future, from a clock that was ahead, does not count. As in course_status.
COMPARED = """
select c.course_id as course, c.created_at, v.verified_at, v.verdict, v.differing_rows, now() as observed_at
from rollbook.course as c
left join rollbook.verification as v on v.course_id = c.course_id and v.verified_at <= statement_timestamp()
order by c.course_id
"""

REPAIR = """
select table_name as table, inserted::integer, updated::integer, deleted::integer from rollbook.repair(%s)
"""

PORTAL = """
select
    current_setting('server_version') as server_version, current_database() as database,
    (select count(*) from rollbook.persons()) as users,
    (select count(*) from rollbook.memberships()) as enrollments,
    (select count(*) from rollbook.course) as courses, now() as observed_at
"""


@dataclass(frozen=True)
class Comparison:
    """One table of one course compared with the portal; the fields are the columns of `replication verify`.

    The counts are None where it could not be compared.
    """

    course: str
    table: str
    portal_rows: int | None
    course_rows: int | None
    missing: int | None
    changed: int | None
    extra: int | None
    verdict: str  # match, differs, not_comparable, unreachable
    server: str | None = None
    in_flight: int | None = 0

    @property
    def differing(self) -> int:
        """Return how many rows differ."""
        return (self.missing or 0) + (self.changed or 0) + (self.extra or 0)


@dataclass(frozen=True)
class Finding:
    """One row that differs; the fields are the columns of `replication verify --rows`."""

    course: str
    table: str
    finding: str  # missing, changed, extra
    row_id: int
    columns: list[str] | None
    server: str | None = None


@dataclass(frozen=True)
class Verified:
    """What the latest verify reported of a course, and when that run began."""

    course: str
    run_at: datetime
    verdict: str


@dataclass(frozen=True)
class Compared:
    """The last verify of a course; None: never, or repaired since."""

    course: str
    created_at: datetime
    verified_at: datetime | None
    verdict: str | None
    differing_rows: int | None
    observed_at: datetime

    @property
    def compared_at(self) -> datetime | None:
        """Return when its copies were last compared; None where the last verify could not."""
        return self.verified_at if self.verdict in ("match", "differs") else None


@dataclass
class Written:
    """How many rows of one table were written, or would be."""

    table: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def rows(self) -> int:
        """Return how many rows that is."""
        return self.inserted + self.updated + self.deleted

    def __bool__(self) -> bool:
        """Return whether any row was written."""
        return self.rows > 0


def total(*parts: Written) -> list[Written]:
    """Return the sum by table."""
    found: dict[str, Written] = {}
    for part in parts:
        known = found.setdefault(part.table, Written(part.table))
        found[part.table] = replace(
            known, inserted=known.inserted + part.inserted, updated=known.updated + part.updated,
            deleted=known.deleted + part.deleted,
        )  # fmt: skip
    return list(found.values())


def estimated_rows(conn: Conn, courses: Sequence[str]) -> dict[str, int]:
    """Return about how many rows the copies of each course have, by PostgreSQL's statistics; at least one."""
    return {row["course"]: row["rows"] for row in conn.execute(ESTIMATED, [list(courses)])}


def compare_copies(conn: Conn, course_ids: list[str]) -> list[Comparison]:
    """Return the comparison of each course and table in the portal's database."""
    return typed(Comparison, conn, COMPARE, [course_ids])


def list_differences(conn: Conn, course_id: str) -> list[Finding]:
    """Return every difference of one course in the portal's database. Raises RefusedError RB008."""
    return typed(Finding, conn, FINDINGS, [course_id])


def record_verification(
    conn: Conn, course_id: str, verdict: str, rows: int | None, at: datetime, run_at: datetime | None
) -> None:
    """Record what a verify reported of a course, unless a later one has; a course that is equal becomes `ok`."""
    found = {"course": course_id, "at": at, "verdict": verdict, "rows": rows, "run_at": run_at}
    conn.execute(RECORD_VERIFICATION, found)


def list_resumable(conn: Conn) -> dict[str, Verified]:
    """Return by course what the latest verify has reported of those that it has compared."""
    return {row.course: row for row in typed(Verified, conn, RESUMABLE)}


def list_compared(conn: Conn) -> list[Compared]:
    """Return the last verify of each course, by course."""
    return typed(Compared, conn, COMPARED)


def repair_copies(conn: Conn, course_id: str) -> list[Written]:
    """Make one course in the portal's database equal to the portal; return the rows written by table."""
    return typed(Written, conn, REPAIR, [course_id])


def count_portal(conn: Conn) -> Row:
    """Return the portal in numbers: server_version database users enrollments courses observed_at."""
    return one(conn, PORTAL)


def portal_time(conn: Conn) -> datetime:
    """Return when the portal's current transaction began."""
    at: datetime = one(conn, "select now() as at")["at"]
    return at
