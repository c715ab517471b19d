"""The erasure of the history: entries of a time, or what names a person in them. The fact of it is an entry too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.rows import typed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rollbook.core.db import Conn

# Without names and values: who did what when stays, of a merge both ids, by which later entries are found.
CLEARED = sql.SQL("""
    object = case
        when h.user_id is not null then 'id:' || h.user_id when strpos(h.object, '@') > 0 then '(erased)' else h.object
    end,
    before = case when h.outcome = 'merged' then jsonb_build_object('id', h.before -> 'id') end,
    after = case when h.outcome = 'merged' then jsonb_build_object('id', h.after -> 'id') end,
    reason = null, kind = null, erased_at = now()
""")

# Entries of erasures have no names, and are what shows that one was done.
OLDER = sql.SQL("""
with gone as (
    delete from rollbook.history as h
    where h.at < %(before)s and h.outcome not in ('erased', 'merged') and not %(keep_entries)s
    returning h.id, h.at, h.outcome
),
cleared as (
    update rollbook.history as h set {cleared}
    where h.at < %(before)s and h.outcome <> 'erased' and h.erased_at is null
        and (%(keep_entries)s or h.outcome = 'merged')
    returning h.id, h.at, h.outcome
)
select
    e.outcome, count(*) as entries, count(*) filter (where e.was in ('imported', 'undone')) as batches,
    min(e.at) as oldest, max(e.at) as newest
from (
    select 'removed' as outcome, g.at, g.outcome as was from gone as g
    union all
    select 'cleared', c.at, c.outcome from cleared as c
) as e
group by e.outcome order by e.outcome desc
""").format(cleared=CLEARED)

OF_USERS = sql.SQL("""
update rollbook.history as h set {cleared}
where h.user_id = any(%(ids)s) and h.outcome <> 'erased' and h.erased_at is null
""").format(cleared=CLEARED)


@dataclass(frozen=True)
class Erased:
    """What an erasure did to entries: `removed`, or `cleared` of names and values; `batches`: imports among them."""

    outcome: str
    entries: int
    batches: int
    oldest: datetime
    newest: datetime


def erase_older(conn: Conn, before: datetime, *, keep_entries: bool) -> list[Erased]:
    """Remove the entries before a time, or take names and values out of them. A batch is of one time: it goes whole."""
    return typed(Erased, conn, OLDER, {"before": before, "keep_entries": keep_entries})


def clear_users(conn: Conn, user_ids: Sequence[int]) -> int:
    """Take names and values out of the entries about these users; return how many."""
    return conn.execute(OF_USERS, {"ids": list(user_ids)}).rowcount
