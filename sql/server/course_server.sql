-- course_server: what Rollbook needs in the database of a course server before it holds a course: the roles, the place
-- where heartbeats arrive, and, from the files of sql/ that `build.prepare` runs after this one, the guard and the
-- digests. `server_grants.sql` comes last, then the comment on the schema, with the version. Can be run again.
-- Called:   by `rollbook server add`, `course attach` and `replication resync`, on the server, in one transaction.
-- Security: whoever is named in --admin-dsn, who owns the schema; rollbook_owner owns the copies, the heartbeats and
--           the digests, and may create nothing here.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['rollbook_owner', 'rollbook_monitor', 'rollbook_subscriber'] loop
        continue when exists (select from pg_roles as r where r.rolname = wanted);
        begin
            execute format('create role %I nologin', wanted);
        exception
            when duplicate_object or unique_violation then
                null;  -- roles belong to the cluster: another database there has Rollbook too
            when insufficient_privilege then
                if wanted = 'rollbook_owner' then
                    raise;
                end if;  -- without the others, whoever is named in --admin-dsn looks, and nobody subscribes here
        end;
    end loop;
end $$;
do $$
begin
    if exists (
        select from pg_roles as r
        where r.rolname = 'rollbook_owner'
            and (r.rolsuper or r.rolcanlogin or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolreplication)
    ) then
        raise exception 'there is a role rollbook_owner with rights of its own'
            using errcode = 'RB010', hint =
                'alter role rollbook_owner nosuperuser nologin nocreaterole nocreatedb noreplication nobypassrls';
    end if;
    -- From 16 on who makes a role is a member of it, but may not act for it.
    if not pg_has_role(current_user, 'rollbook_owner',
                       case when current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end)
    then
        execute format('grant rollbook_owner to %I', current_user);
    end if;
exception when insufficient_privilege then
    raise exception 'role % may not act for rollbook_owner on this server', current_user
        using errcode = 'RB010', hint = format('Have a superuser run there: grant rollbook_owner to %I', current_user);
end $$;
create schema if not exists rollbook;
create table if not exists rollbook.heartbeat (
    beat bigint primary key,
    sent_at timestamptz not null,
    lsn pg_lsn not null,
    portal_identity text not null,
    timeline integer not null
);
comment on table rollbook.heartbeat is
    'Heartbeats of the portal that have arrived here. All that it committed before the newest has arrived too.';
comment on column rollbook.heartbeat.beat is 'Its number.';
comment on column rollbook.heartbeat.sent_at is 'When the portal sent it, by the portal''s clock.';
comment on column rollbook.heartbeat.lsn is 'Where the portal''s WAL ended then.';
comment on column rollbook.heartbeat.portal_identity is 'The cluster and database that sent it.';
comment on column rollbook.heartbeat.timeline is 'The timeline of that cluster.';
-- In two steps: heartbeats that are here already have not arrived now. The portal does not send this column, and apply
-- fills it with its default.
alter table rollbook.heartbeat add column if not exists arrived_at timestamptz;
alter table rollbook.heartbeat alter column arrived_at set default clock_timestamp();
comment on column rollbook.heartbeat.arrived_at is
    'When it was applied, by the clock of this server. Not for heartbeats that came with a first copy.';
create table if not exists rollbook.portal (
    identity text primary key,
    timeline integer not null,
    is_current boolean not null,
    since timestamptz not null default clock_timestamp()
);
comment on table rollbook.portal is
    'The portals whose commands have changed this server. An old primary, or a portal that was replaced, is refused.';
comment on column rollbook.portal.identity is 'The cluster and database.';
comment on column rollbook.portal.timeline is 'The newest timeline of that cluster.';
comment on column rollbook.portal.is_current is 'Whether it was the last one.';
comment on column rollbook.portal.since is 'Time at which it was first seen on that timeline, or became the last one.';
