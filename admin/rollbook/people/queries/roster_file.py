"""What the status words and dates of a OneRoster bundle mean, in columns beside what was read into pg_temp.roster_*."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.rows import one

if TYPE_CHECKING:
    from datetime import date

    from rollbook.core.db import Conn

MANIFEST = """
select distinct lower(btrim(propertyname)) as name, coalesce(lower(btrim(value)), '') as value
from pg_temp.roster_manifest where propertyname is not null order by 1, 2
"""

# Only active or a blank is active: a word that nobody knows takes access away until it is corrected.
ENDS = sql.SQL("""
add column is_ended boolean generated always as (
    coalesce(lower(btrim(status)) not in ('active', ''), false)
) stored
""")

# A day, or the day of a time as it is written; null for what is neither.
DAY = sql.SQL("""
add column {day} date generated always as (
    case
        when {text} !~ (
            '^[1-9][0-9]{{3}}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])'
            || '(?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.][0-9]+)?)? ?(?:Z|[+-][0-9]{{2}}:?(?:[0-9]{{2}})?)?)?$'
        )
            then null
        when substr({text}, 9, 2)::integer <= extract(
                day from make_date(substr({text}, 1, 4)::integer, substr({text}, 6, 2)::integer, 1)
                + interval '1 month' - interval '1 day'
            )
            then make_date(substr({text}, 1, 4)::integer, substr({text}, 6, 2)::integer, substr({text}, 9, 2)::integer)
    end
) stored
""")

# The time zone of the database, or of its server: the session has another one.
TODAY = """
select (now() at time zone s.reset_val)::date as today from pg_settings as s where s.name = 'TimeZone'
"""


def manifest(conn: Conn) -> list[tuple[str, str]]:
    """Return the properties of the manifest: name, value, in lower case."""
    return [(row["name"], row["value"]) for row in conn.execute(MANIFEST)]


def add_meanings(conn: Conn, table: LiteralString, *, has_dates: bool) -> None:
    """Add to a file's table `is_ended`, and with dates `begin_date` and `end_date`: null where it is blank or wrong."""
    days = (("begin_date", "begindate"), ("end_date", "enddate")) if has_dates else ()
    columns = [ENDS, *(DAY.format(day=sql.Identifier(day), text=sql.Identifier(text)) for day, text in days)]
    conn.execute(  # in one statement: each rewrites the table
        sql.SQL("alter table {} {}").format(sql.Identifier("pg_temp", table), sql.SQL(", ").join(columns))
    )


def today(conn: Conn) -> date:
    """Return the date in the time zone of the database."""
    found: date = one(conn, TODAY)["today"]
    return found
