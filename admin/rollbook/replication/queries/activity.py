"""What happens in the portal: enrollments by day, and how many rows were written to the copies of each course."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

from psycopg import errors

if TYPE_CHECKING:
    from rollbook.core.db import Conn

MEMBERSHIPS = """
select t.source, exists (
    select from pg_attribute as a
    where a.attrelid = t.relation::regclass and a.attname = 'created' and a.atttypid = 'timestamptz'::regtype
) as is_dated
from rollbook.copied_tables() as t where t.role = 'membership'
"""

# The counters of PostgreSQL's statistics: no table is read, and a server that was reset begins at 0 again.
WRITTEN = """
select
    c.course_id as course,
    sum(pg_stat_get_tuples_inserted(r.oid) + pg_stat_get_tuples_updated(r.oid) + pg_stat_get_tuples_deleted(r.oid))
        ::bigint as rows
from rollbook.course as c
inner join pg_namespace as n on n.nspname = c.schema_name
inner join pg_class as r on r.relnamespace = n.oid
where r.relkind = 'r' and r.relname = any(array(select t.table_name from rollbook.copied_tables() as t))
group by c.course_id
"""


def enrollments_by_day(conn: Conn, days: int) -> Mapping[date, int]:
    """Return how many of the enrollments that there are were made on each day (UTC), the days without any too.

    The days end today; if these have none, with the newest enrollment. Empty where the table of enrollments has no
    column `created`, has no rows, or this role may not read it. The session must be in autocommit.
    """
    found = conn.execute(MEMBERSHIPS).fetchone()
    if not found or not found["is_dated"]:
        return {}
    query = f"""
        with day as (
            select (m.created at time zone 'UTC')::date as day, count(*)::integer as number
            from {found["source"]} as m where m.created <= now() group by 1
        ),
        newest as (select max(d.day) as day from day as d)
        select
            case when n.day > (now() at time zone 'UTC')::date - {days:d} then (now() at time zone 'UTC')::date
            else n.day end as last, d.day, d.number
        from day as d cross join newest as n
        """  # noqa: S608 (the source is the shape's SQL)
    try:
        rows = conn.execute(query.encode()).fetchall()
    except errors.InsufficientPrivilege:
        return {}
    if not rows:
        return {}
    numbers = {row["day"]: row["number"] for row in rows}
    first: date = rows[0]["last"] - timedelta(days=days - 1)
    return {day: numbers.get(day, 0) for day in (first + timedelta(days=n) for n in range(days))}


def rows_written(conn: Conn) -> Mapping[str, int]:
    """Return by course how many rows were written to its copies in the portal's database since statistics began."""
    return {row["course"]: row["rows"] for row in conn.execute(WRITTEN)}
