-- replica_settings: where session_replication_role is replica by a setting of the server, the database or a role: the
-- sessions that get it write without triggers, so the portal's writes are not routed and guards are silent.
-- Called:   by routing_fault and foreign_objects. `rollbook schema check` sends the query between the dollar signs to
--           course servers.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.replica_settings() returns table (object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        case when s.setrole = 0 then 'database ' || quote_ident(d.datname)
            else 'role ' || s.setrole::regrole end as object,
        'setting' as kind, 'session_replication_role = replica: its sessions write without triggers' as difference,
        case when s.setrole = 0 and s.setdatabase = 0 then 'alter role all reset session_replication_role;'
            when s.setrole = 0 then format('alter database %I reset session_replication_role;', d.datname)
            when s.setdatabase = 0 then format('alter role %s reset session_replication_role;', s.setrole::regrole)
            else format('alter role %s in database %I reset session_replication_role;', s.setrole::regrole, d.datname)
        end as fix
    from pg_db_role_setting as s
    inner join pg_database as d on d.datname = current_database() and s.setdatabase in (0, d.oid)
    where lower(array_to_string(s.setconfig, ' ')) ~ '\msession_replication_role=''?replica'
    union all
    select
        'server', 'setting',
        'session_replication_role = replica in ' || s.source || ': all sessions write without triggers',
        'alter system set session_replication_role = origin; select pg_reload_conf();'
    from pg_settings as s
    where s.name = 'session_replication_role' and s.setting = 'replica'
        and s.source in ('configuration file', 'command line')
    order by 1
$$;
comment on function rollbook.replica_settings() is
    'Roles, databases or servers whose sessions write without triggers: session_replication_role = replica.';
