"""What nobody looks at for months: heartbeats, comparisons, old transactions, WAL, its archive, standbys."""

from __future__ import annotations

from rollbook.system.doctor.finding import MONITOR, Check

OLD = "1 hour"  # from where on a transaction is in the way

HEARTBEAT = """
select
    coalesce(
        format('the last heartbeat is of %%s UTC', to_char(max(h.sent_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI')),
        'no heartbeat was sent'
    ) as found,
    'one an hour, as cron sends it: the slots of idle servers advance by it' as wanted,
    'select rollbook.beat();' as fix
from rollbook.heartbeat as h
having %(feeds)s and coalesce(max(h.sent_at), '-infinity') < clock_timestamp() - interval '1 hour'
"""

COMPARED = """
select
    format('%%s of %%s courses were not compared for 8 days, such as %%s', count(*) filter (where k.is_old), count(*),
           min(c.course_id) filter (where k.is_old)) as found,
    'rollbook replication verify once a week: drift shows nowhere else' as wanted,
    case when count(*) filter (where k.is_old) between 1 and 20 and bool_or(not k.is_old)
        then 'rollbook replication verify '
            || string_agg(rollbook.shell_quote(c.course_id), ' ' order by c.course_id) filter (where k.is_old)
        else 'rollbook replication verify' end as fix
from rollbook.course as c
left join rollbook.verification as v on v.course_id = c.course_id
cross join lateral (
    select coalesce(v.verified_at, '-infinity') < now() - interval '8 days' and c.created_at < now() - interval '1 day'
        as is_old
) as k
where c.schema_name = any (%(schemas)s) and c.paused_at is null
having bool_or(k.is_old)
"""

TRANSACTIONS = """
select
    format('transaction %%L is prepared since %%s UTC: it holds locks and WAL', p.gid,
           to_char(p.prepared at time zone 'UTC', 'YYYY-MM-DD HH24:MI')) as found,
    'committed or rolled back within an hour' as wanted,
    format('rollback prepared %%1$L; or: commit prepared %%1$L;', p.gid) as fix
from pg_prepared_xacts as p
where p.database = current_database() and p.prepared < clock_timestamp() - %(old)s::interval
union all
select
    format('a transaction of %%I (pid %%s) has been open since %%s UTC', a.usename, a.pid,
           to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI')),
    'within an hour: new streams and first copies wait for it', format('select pg_terminate_backend(%%s);', a.pid)
from pg_stat_activity as a
where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
    and a.xact_start < clock_timestamp() - %(old)s::interval
order by 1
"""

# What SQL cannot see is how much room the disk has.
WAL = """
select
    format('pg_wal holds %%s, and should not grow beyond %%s', pg_size_pretty(w.held), pg_size_pretty(w.bound))
        as found,
    'max_wal_size and what slots and standbys may hold; the disk has more: df -h' as wanted,
    'checkpoint;' as fix
from (
    select
        (select sum(f.size) from pg_ls_waldir() as f)::bigint as held,
        pg_size_bytes(current_setting('max_wal_size')) + greatest(
            pg_size_bytes(current_setting('wal_keep_size')),
            nullif(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1)
        ) + 2 * pg_size_bytes(current_setting('wal_segment_size')) as bound,
        pg_size_bytes(current_setting('max_slot_wal_keep_size')) < 0
            and exists (select from pg_replication_slots) as is_unbounded
) as w
where not w.is_unbounded and w.held > w.bound
"""

ARCHIVE = """
select
    format('the archive lacks %%s since %%s UTC, and pg_wal grows', a.last_failed_wal,
           to_char(a.last_failed_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI')) as found,
    'an archive_command that works, as the server''s log has its errors' as wanted,
    coalesce((
        select format('cd ''%%s'' && %%s', d.setting,
                      replace(replace(current_setting('archive_command'), '%%p', 'pg_wal/' || a.last_failed_wal),
                              '%%f', a.last_failed_wal))
        from pg_settings as d where d.name = 'data_directory' and current_setting('archive_command') <> ''
    ), 'grep archive_command the log of the server') as fix
from pg_stat_archiver as a
where a.last_failed_time > coalesce(a.last_archived_time, '-infinity')
"""

# From 17 on slots can follow to a standby, of the portal or of a relay. Needs to see which connection is a standby's.
# `servers`: those that this database feeds.
STANDBYS = """
with standbys as (
    select s.slot_name from pg_stat_replication as r
    left join pg_replication_slots as s on s.active_pid = r.pid and s.slot_type = 'physical'
    where r.state = 'streaming' and not exists (
        select from pg_replication_slots as l where l.active_pid = r.pid and l.slot_type = 'logical'
    )
)
select
    format('slot %%s does not follow to a standby: after a promotion its server must be resynced', s.slot_name)
        as found,
    'failover = true' as wanted,
    format('on server %%1$s: alter subscription %%2$I disable; alter subscription %%2$I set (failover = true); '
           'alter subscription %%2$I enable;', v.name, s.slot_name) as fix
from jsonb_to_recordset(%(servers)s) as v (name text, is_moving boolean)
inner join pg_replication_slots as s on s.slot_name = 'rollbook_' || v.name and s.database = current_database()
where not v.is_moving and exists (select from standbys) and to_jsonb(s) ->> 'failover' = 'false'
union all
select
    'a server can get ahead of the standby: synchronized_standby_slots is empty',
    'the slot of each standby that may be promoted',
    format('alter system set synchronized_standby_slots = %%L; select pg_reload_conf();',
           (select string_agg(y.slot_name, ', ') from standbys as y where y.slot_name is not null))
where %(feeds)s and exists (select from standbys as y where y.slot_name is not null)
    and current_setting('synchronized_standby_slots', true) = ''
order by 1
"""

# The order of texts changed with the operating system: an index of texts may have lost rows.
COLLATION = """
select
    format('the texts of the database are sorted by version %%s of its collation, the system has %%s', d.datcollversion,
           pg_database_collation_actual_version(d.oid)) as found,
    'the same: indexes of texts lose rows otherwise' as wanted,
    format('reindex database %%1$I; alter database %%1$I refresh collation version;', d.datname) as fix
from pg_database as d
where d.datname = current_database() and d.datcollversion <> pg_database_collation_actual_version(d.oid)
"""

EVERYWHERE = (
    Check("transaction", TRANSACTIONS, of_sessions=True), Check("WAL", WAL, MONITOR), Check("archive", ARCHIVE),
    Check("collation", COLLATION),
)  # fmt: skip
OF_SOURCE = (Check("standby", STANDBYS, of_sessions=True),)
OF_PORTAL = (*EVERYWHERE, Check("heartbeat", HEARTBEAT), Check("verify", COMPARED), *OF_SOURCE)
