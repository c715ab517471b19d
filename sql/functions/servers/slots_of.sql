-- slots_of: the logical replication slots of this database, those of servers and others. For what an alarm means see
-- slot_status. Columns that exist only from PostgreSQL 17 on are read from the row as JSON, which is null elsewhere.
-- servers:  the servers that this database feeds.
-- subscriptions: the oids of their subscriptions, in the same order; null = not known. PostgreSQL names the slot of a
--           first copy pg_<oid of the subscription>_sync_<oid of the table>_<system identifier of the server>. Where
--           servers on two clusters have the same oid it belongs to one of them, and no server is named.
-- Called:   by slot_status; `rollbook status` sends the query between the dollar signs to relays.
-- Security: INVOKER; anybody may read pg_replication_slots.
create or replace function rollbook.slots_of(servers text[], subscriptions oid[])
returns table (
    slot_name name, server text, active boolean, wal_status text, held_bytes bigint, safe_bytes bigint,
    lag_bytes bigint, inactive_since timestamptz, invalidation_reason text, alarm text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        s.slot_name,
        case when v.count = 1 then v.name end as server,
        s.active,
        s.wal_status,
        pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint as held_bytes,
        s.safe_wal_size as safe_bytes,
        -- A database that was restored has not come to where its server has.
        pg_wal_lsn_diff(
            greatest(pg_current_wal_lsn(), s.confirmed_flush_lsn), s.confirmed_flush_lsn
        )::bigint as lag_bytes,
        (to_jsonb(s) ->> 'inactive_since')::timestamptz as inactive_since,
        to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason,
        case
            when s.wal_status = 'lost' then 'lost'
            when v.count = 0 and not s.active and not s.temporary then 'foreign'
            when s.wal_status = 'unreserved' or s.safe_wal_size < keep.bytes / 4 then 'near'
            when keep.bytes < 0 and v.count > 0 then 'unbounded'
        end as alarm
    from pg_replication_slots as s
    cross join lateral (
        select pg_size_bytes(current_setting('max_slot_wal_keep_size')) as bytes
    ) as keep
    cross join lateral (
        select
            count(*) as count,
            min(e.name) as name
        from unnest($1::text[], $2::oid[]) as e (name, subscription)
        where s.slot_name = 'rollbook_' || e.name or s.slot_name ~ ('^pg_' || e.subscription || '_sync_[0-9]+_[0-9]+$')
    ) as v
    where s.slot_type = 'logical' and s.database = current_database()
$$;
comment on function rollbook.slots_of(text[], oid[]) is
    'The logical replication slots of this database, with the retained WAL and an alarm; given are the servers that it '
    'feeds, and the oids of their subscriptions.';
