-- portal_identity: who this portal is. A clone or an upgraded cluster has another identity; a standby has the same one,
-- and a later timeline once it is promoted. So has a portal that was restored to a point in time.
-- Called:   by beat, and by the `rollbook` commands that read or change course servers.
-- Returns:  cluster and database, such as 7345.../16384, and the timeline on which this cluster writes. Not that of
--           pg_control_checkpoint, which stays the old one until the first checkpoint after a promotion is complete.
-- Security: INVOKER; anybody may read this.
create or replace function rollbook.portal_identity() returns table (identity text, timeline integer)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        (pg_control_system()).system_identifier || '/' || d.oid,
        ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
    from pg_database as d where d.datname = current_database()
$$;
comment on function rollbook.portal_identity() is
    'Who this portal is: cluster and database, and the timeline on which the cluster writes.';
