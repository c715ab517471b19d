-- server_grants: who owns what on a course server, and who may do what. Run last; can be run again.
--   rollbook_owner    NOLOGIN. Owns the copies, the heartbeats, the list of portals and the digests.
--   rollbook_monitor  NOLOGIN. What status and verify need: heartbeats, portals, digests. Not a row of a copy.
do $$
declare
    has_monitor constant boolean := exists (select from pg_roles as r where r.rolname = 'rollbook_monitor');
    object record;
begin
    grant create on schema rollbook to rollbook_owner;  -- who takes something over needs it, for this moment
    alter table rollbook.heartbeat owner to rollbook_owner;
    alter table rollbook.portal owner to rollbook_owner;
    for object in
        select p.oid::regprocedure::text as name, p.prosecdef from pg_proc as p
        where p.pronamespace = 'rollbook'::regnamespace
    loop
        execute format('revoke execute on function %s from public', object.name);
        execute format('grant execute on function %s to rollbook_owner', object.name);
        continue when not object.prosecdef;
        execute format('alter function %s owner to rollbook_owner', object.name);
        if has_monitor then
            execute format('grant execute on function %s to rollbook_monitor', object.name);
        end if;
    end loop;
    revoke create on schema rollbook from rollbook_owner;
    grant usage on schema rollbook to rollbook_owner;
    if has_monitor then
        grant usage on schema rollbook to rollbook_monitor;
        grant select on rollbook.heartbeat, rollbook.portal to rollbook_monitor;
    end if;
end $$;
