"""Settings of the portal and of course servers, and the room that is left in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rollbook.replication.requirements import Room, alter_system
from rollbook.system.doctor.finding import Check, Finding, attention

if TYPE_CHECKING:
    from collections.abc import Iterable

FREE = 2  # slots, senders, origins and workers that a first copy takes for a moment

# A value of the role or of the session is not the server's; one that takes a restart is pending once it is reloaded.
# `bad` null: everything but 0.
VALUES = """
select
    format('%%s is %%s: %%s', s.name, current_setting(s.name), r.why) as found,
    r.wanted || case s.context when 'postmaster' then ', after a restart' else '' end as wanted,
    format('alter system set %%s = %%L; select pg_reload_conf();', s.name, r.value) as fix
from (
    values
    ('wal_level', %(feeds)s, '{minimal,replica}', 'logical', 'logical', 'no course server can be fed'),
    ('max_slot_wal_keep_size', %(feeds)s, '{-1}', '10GB', 'a bound that the disk has room for',
     'a server that is down lets the disk fill up'),
    ('idle_replication_slot_timeout', %(feeds)s, null, '0', '0: max_slot_wal_keep_size bounds the WAL',
     'a server that is down for longer loses its slot'),
    ('wal_sender_timeout', %(feeds)s, '{0}', '1min', 'a bound', 'a server that is cut off is never noticed'),
    ('wal_receiver_timeout', %(receives)s, '{0}', '1min', 'a bound', 'a portal that is cut off is never noticed'),
    ('plan_cache_mode', %(feeds)s and not %(receives)s, '{force_custom_plan,force_generic_plan}', 'auto', 'auto',
     'routing plans each statement again, or badly'),
    ('fsync', true, '{off}', 'on', 'on', 'a crash of the machine destroys the database'),
    ('full_page_writes', true, '{off}', 'on', 'on', 'a crash of the machine destroys pages'),
    ('autovacuum', true, '{off}', 'on', 'on', 'routes and copies bloat, and in the end nothing can be written'),
    ('track_counts', true, '{off}', 'on', 'on', 'neither autovacuum nor rollbook status see what changes')
) as r (name, applies, bad, value, wanted, why)
inner join pg_settings as s on s.name = r.name
where r.applies and s.source not in ('database', 'user', 'database user', 'client', 'session')
    and case when r.bad is null then s.setting <> '0' else s.setting = any (r.bad::text[]) end
order by 1
"""

PENDING = """
select
    format('%%s was changed and waits for a restart', s.name) as found, 'a restart' as wanted,
    coalesce(
        (select 'pg_ctl restart -D ''' || replace(d.setting, '''', '''\\''''') || ''''
         from pg_settings as d where d.name = 'data_directory'),
        'systemctl restart postgresql'
    ) as fix
from pg_settings as s where s.pending_restart
"""

# About 10 locks a course; half of the table is for the others.
LOCKS = """
select
    format('the lock table has room for %%s locks; a statement over all %%s courses takes %%s', l.capacity, l.courses,
           10 * l.courses) as found,
    format('room for twice as many: max_locks_per_transaction = %%s, after a restart', w.value) as wanted,
    format('alter system set max_locks_per_transaction = %%s; select pg_reload_conf();', w.value) as fix
from (
    select
        s.sessions, s.sessions * current_setting('max_locks_per_transaction')::bigint as capacity,
        (select count(*) from rollbook.course) as courses
    from (
        select current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint
            + current_setting('max_worker_processes')::bigint as sessions
    ) as s
) as l
cross join lateral (select 64 * ceil(20.0 * l.courses / l.sessions / 64)::bigint as value) as w
where 10 * l.courses > l.capacity
"""

TIME_ZONE = """
select
    format('the time zone is %%s, the portal''s is %%s', s.reset_val, %(time_zone)s::text) as found,
    'the same: what courses compute of times differs otherwise' as wanted,
    format('alter system set timezone = %%L; select pg_reload_conf();', %(time_zone)s::text) as fix
from pg_settings as s
where s.name = 'TimeZone'  -- the session's own value is the program's
    and regexp_replace(s.reset_val, '^(Etc/)?(UTC|UCT|GMT|Zulu|Universal)$', 'UTC')
        <> regexp_replace(%(time_zone)s::text, '^(Etc/)?(UTC|UCT|GMT|Zulu|Universal)$', 'UTC')
"""

EVERYWHERE = (Check("setting", VALUES), Check("restart", PENDING))
OF_PORTAL = (*EVERYWHERE, Check("locks", LOCKS))
OF_SERVER = (*EVERYWHERE, Check("time zone", TIME_ZONE))


def room(where: str, found: Iterable[Room]) -> Iterator[Finding]:
    """Return what is too full for a first copy."""
    for each in found:
        if each.limit - each.used < FREE:
            yield attention(
                "room", where, f"{each.what}: {each.used} of {each.limit} are used",
                f"{FREE} free ones for a first copy; {each.setting} = {each.used + FREE + 8}, after a restart",
                f"{alter_system(each, each.used + FREE + 8)}; then: restart it",
            )  # fmt: skip


def asked(*, feeds: bool = False, receives: bool = False, time_zone: str = "") -> dict[str, Any]:
    """Return what the queries of a place ask with."""
    return {"feeds": feeds, "receives": receives, "time_zone": time_zone}
