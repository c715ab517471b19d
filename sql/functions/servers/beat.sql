-- beat: write one heartbeat, which travels to every course server as the copies do. Once it arrives there, everything
-- committed before it has arrived too; until then its age is the lag in seconds.
-- Called:   by the `rollbook` commands that read course servers; by cron where nobody runs them for long: a heartbeat
--           also advances the slots of idle servers. Run it alone in its transaction: others wait for its commit, up to
--           5 s.
-- Returns:  the heartbeat.
-- Locks:    rollbook.heartbeat SHARE ROW EXCLUSIVE until commit: heartbeats commit in the order of their numbers, so a
--           gap on a server is a loss. The newest 2,000 stay.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.beat() returns rollbook.heartbeat
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    result rollbook.heartbeat;
begin
    lock table rollbook.heartbeat in share row exclusive mode;
    insert into rollbook.heartbeat (beat, sent_at, lsn, portal_identity, timeline)
    select
        (select coalesce(max(h.beat), 0) + 1 from rollbook.heartbeat as h), clock_timestamp(),
        pg_current_wal_insert_lsn(), p.identity, p.timeline
    from rollbook.portal_identity() as p
    returning * into result;
    delete from rollbook.heartbeat as h where h.beat <= result.beat - 2000;
    return result;
end $$;
comment on function rollbook.beat() is
    'Send one heartbeat to every course server and return it. Run it alone in its transaction; it waits up to 5 s for '
    'another heartbeat to commit.';
