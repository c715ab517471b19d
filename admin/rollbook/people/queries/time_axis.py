"""Counts by day, week or month: a row for each, also for those with nothing. Days are of UTC; weeks begin on Monday."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

# Unit -> the form of its key: ISO 8601. A week has the year of its Thursday.
UNITS = {"day": "YYYY-MM-DD", "week": 'IYYY-"W"IW', "month": "YYYY-MM"}

# The axis goes from --since, else from the first row, to --until, else with --since to now, else to the last row. An
# end in the future adds nothing. Times that are unknown (null, infinite) have a row without a key, the last.
AXIS = """
with counted as (
    select
        date_trunc({unit}, case when isfinite(c.at) then c.at end at time zone 'UTC') as part,
        {totals}
    from ({rows}) as c
    where (%(since)s::timestamptz is null or c.at >= %(since)s) and (%(until)s::timestamptz is null or c.at < %(until)s)
    group by 1
),
bound as (
    select
        coalesce(date_trunc({unit}, %(since)s::timestamptz at time zone 'UTC'), min(part)) as first,
        least(
            date_trunc({unit}, (%(until)s::timestamptz - interval '1 microsecond') at time zone 'UTC'),
            greatest(max(part), case
                when %(since)s::timestamptz is not null or %(until)s::timestamptz is not null
                then date_trunc({unit}, now() at time zone 'UTC')
            end)
        ) as last
    from counted
)
select to_char(axis.part, {form}) as key, {measures}
from bound as b
cross join lateral generate_series(b.first, b.last, {step}) as axis (part)
left join counted as c on c.part = axis.part
union all
select null, {unknown} from counted as c where c.part is null
order by key
"""


def axis(unit: str, rows: LiteralString, **totals: LiteralString) -> sql.Composed:
    """Return the query of counts over time; its parameters are since, until and those of `rows`.

    `rows` selects a time `at` and what the `totals` need: name of a column -> aggregate.
    """
    named = {name: sql.Identifier(name) for name in totals}
    return sql.SQL(AXIS).format(
        unit=sql.Literal(unit), form=sql.Literal(UNITS[unit]), rows=sql.SQL(rows),
        step=sql.SQL("{}::interval").format(f"1 {unit}"),
        totals=sql.SQL(", ").join(sql.SQL("{} as {}").format(sql.SQL(totals[name]), named[name]) for name in totals),
        measures=sql.SQL(", ").join(sql.SQL("coalesce(c.{0}, 0) as {0}").format(name) for name in named.values()),
        unknown=sql.SQL(", ").join(sql.SQL("c.{}").format(name) for name in named.values()),
    )  # fmt: skip
