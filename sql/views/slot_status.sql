-- slot_status: the logical replication slots of this database: owner, retained WAL and remaining headroom.
-- alarm: `lost` only a resync helps · `unbounded` max_slot_wal_keep_size is -1, so a server that is down fills the
-- portal's disk · `near` less than a quarter of that limit is left, or PostgreSQL calls the slot unreserved · `foreign`
-- the slot is inactive and belongs to no course server of Rollbook, so perhaps nobody will ever read it · null
-- otherwise.
-- Columns that exist only from PostgreSQL 17 on are read from the row as JSON, which is null elsewhere.
-- Security: the rights of its owner, rollbook_owner.
create or replace view rollbook.slot_status as
select
    s.slot_name,
    v.name as server,
    s.active,
    s.wal_status,
    pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint as held_bytes,
    s.safe_wal_size as safe_bytes,
    pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint as lag_bytes,
    (to_jsonb(s) ->> 'inactive_since')::timestamptz as inactive_since,
    to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason,
    case
        when s.wal_status = 'lost' then 'lost'
        when v.name is null and not s.active and not s.temporary then 'foreign'
        when s.wal_status = 'unreserved' or s.safe_wal_size < keep.bytes / 4 then 'near'
        when keep.bytes < 0 and v.name is not null then 'unbounded'
    end as alarm
from pg_replication_slots as s
cross join lateral (
    select pg_size_bytes(current_setting('max_slot_wal_keep_size')) as bytes
) as keep
left join rollbook.server as v on s.slot_name = 'rollbook_' || v.name
where s.slot_type = 'logical' and s.database = current_database();
comment on view rollbook.slot_status is
    'The logical replication slots of this database: owner, retained WAL and remaining headroom.';
comment on column rollbook.slot_status.slot_name is 'The name of the slot.';
comment on column rollbook.slot_status.server is 'The course server that reads it; null = not a slot of Rollbook.';
comment on column rollbook.slot_status.active is 'Whether a connection reads it now.';
comment on column rollbook.slot_status.wal_status is
    'reserved, extended, unreserved or lost, as PostgreSQL reports it.';
comment on column rollbook.slot_status.held_bytes is 'WAL that the portal retains for it, in bytes.';
comment on column rollbook.slot_status.safe_bytes is
    'WAL that can still be written before the slot is lost, in bytes; null = unlimited, or lost.';
comment on column rollbook.slot_status.lag_bytes is 'WAL that the server has not confirmed yet, in bytes.';
comment on column rollbook.slot_status.inactive_since is 'Since when no connection reads it; from PostgreSQL 17 on.';
comment on column rollbook.slot_status.invalidation_reason is 'Why it was lost; from PostgreSQL 17 on.';
comment on column rollbook.slot_status.alarm is 'lost, near, unbounded or foreign; null = no alarm.';
