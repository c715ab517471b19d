-- roles: the roles of the cluster that Rollbook names. Part of revision 0002, and of `rollbook schema grant`: it can be
-- run again. Locks: nothing. Roles belong to the cluster: another database may have made them already.
do $$
declare
    wanted text;
    missing text[] := '{}';
begin
    foreach wanted in array array[
        'rollbook_owner', 'rollbook_writer', 'rollbook_monitor', 'rollbook_operator', 'rollbook_application',
        'rollbook_relay'
    ] loop
        continue when exists (select from pg_roles as r where r.rolname = wanted);
        begin
            execute format('create role %I nologin', wanted);
        exception
            when duplicate_object or unique_violation then
                null;  -- another database made it meanwhile
            when insufficient_privilege then
                missing := missing || wanted;
        end;
    end loop;
    if missing <> '{}' then
        raise exception 'role % may not create roles, and these are missing: %', current_user,
                array_to_string(missing, ', ')
            using errcode = 'RB010', hint = 'Have a superuser run: '
                || (select string_agg(format('create role %I nologin; ', m), '') from unnest(missing) as m)
                || format(
                    'grant rollbook_monitor to rollbook_operator; grant rollbook_owner, rollbook_writer to %I;',
                    current_user
                );
    end if;
    if exists (
        select from pg_roles as r
        where r.rolname in ('rollbook_owner', 'rollbook_writer')
            and (r.rolsuper or r.rolcanlogin or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolreplication)
    ) then
        raise exception 'rollbook_owner and rollbook_writer must have no attributes of their own'
            using errcode = 'RB010', hint = (
                select string_agg(
                    format('alter role %I nosuperuser nologin nocreaterole nocreatedb noreplication nobypassrls;', owner),
                    ' '
                )
                from unnest(array['rollbook_owner', 'rollbook_writer']) as owner
            );
    end if;
end $$;
do $$
declare
    owner text;
begin
    foreach owner in array array['rollbook_owner', 'rollbook_writer'] loop
        -- From 16 on whoever makes a role is a member of it, but may not act for it.
        if not pg_has_role(current_user, owner,
                           case when current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end)
        then
            execute format('grant %I to %I', owner, current_user);
        end if;
    end loop;
exception when insufficient_privilege then
    raise exception 'role % may not act for rollbook_owner and rollbook_writer, which another database has made',
            current_user
        using errcode = 'RB010',
            hint = format('Have a superuser run: grant rollbook_owner, rollbook_writer to %I;', current_user);
end $$;
