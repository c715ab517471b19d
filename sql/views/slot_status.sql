-- slot_status: the logical replication slots of this database: owner, retained WAL and remaining headroom.
-- alarm: `lost` only a resync helps · `unbounded` max_slot_wal_keep_size is -1, so a server that is down fills the
-- portal's disk · `near` less than a quarter of that limit is left, or PostgreSQL calls the slot unreserved · `foreign`
-- the slot is inactive and belongs to no course server of Rollbook, so perhaps nobody will ever read it; that of a
-- first copy belongs to its server · null
-- otherwise.
-- Security: the rights of its owner, rollbook_owner. Of a server that moves behind a relay, or away from one, the
-- portal may have a slot for a while.
create or replace view rollbook.slot_status as
select
    s.slot_name,
    s.server,
    s.active,
    s.wal_status,
    s.held_bytes,
    s.safe_bytes,
    s.lag_bytes,
    s.inactive_since,
    s.invalidation_reason,
    s.alarm
from rollbook.slots_of(
    array(select v.name from rollbook.server as v order by v.name),
    array(select v.subscription from rollbook.server as v order by v.name)
) as s;
comment on view rollbook.slot_status is
    'The logical replication slots of this database: owner, retained WAL and remaining headroom.';
comment on column rollbook.slot_status.slot_name is 'The name of the slot.';
comment on column rollbook.slot_status.server is
    'The course server that reads it, as its stream or for a first copy; null = not a slot of Rollbook, or one of a '
    'first copy to one of several servers.';
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
