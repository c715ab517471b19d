-- missing_rights: rights without which no write to the portal passes: a restore without privileges leaves them out.
-- Called:   by routing_fault and foreign_objects.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.missing_rights() returns table (object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select m.role, 'role', m.words, m.fix
    from (
        select w.role, 'does not exist' as words, format('create role %I nologin;', w.role) as fix
        from unnest(array[
            'rollbook_owner', 'rollbook_writer', 'rollbook_monitor', 'rollbook_operator', 'rollbook_application',
            'rollbook_relay'
        ]) as w (role)
        where not exists (select from pg_roles as r where r.rolname = w.role)
        union all
        select r.rolname, format('lacks USAGE on schema %s', n.nspname), 'rollbook schema grant'
        from pg_roles as r
        inner join pg_namespace as n on n.nspname in ('portal', 'rollbook')
        where r.rolname in (
                'rollbook_owner', 'rollbook_writer', 'rollbook_monitor', 'rollbook_operator', 'rollbook_application'
            )
            and not has_schema_privilege(r.oid, n.oid, 'usage')
        union all
        select distinct r.rolname, format('lacks USAGE on schema %s', n.nspname), 'rollbook schema grant'
        from rollbook.copied_tables() as t
        inner join pg_class as c on c.oid = rollbook.portal_table(t.table_name)
        inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname <> 'portal'
        -- The writer's functions name tables of schema portal: under its views where a site was adopted in place.
        inner join pg_roles as r
            on r.rolname = 'rollbook_owner' or (r.rolname = 'rollbook_writer' and starts_with(t.relation, 'portal.'))
        where not has_schema_privilege(r.oid, n.oid, 'usage')
            and (r.rolname = 'rollbook_owner' or c.oid <> to_regclass(t.relation))  -- adopted in place
        union all
        select r.rolname, format('lacks SELECT on %s', t.oid::regclass), 'rollbook schema grant'
        from pg_roles as r
        inner join pg_class as t on t.oid = rollbook.real_table(to_regclass('portal.auth_user'))
        where r.rolname = 'rollbook_owner' and t.relnamespace <> 'portal'::regnamespace
            and not has_table_privilege(r.oid, t.oid, 'select')
        union all
        select r.rolname, format('lacks %s on %s', upper(p.privilege), t.oid::regclass), 'rollbook schema grant'
        from (
            select 'rollbook_owner', c.relation, 'select' from rollbook.copied_tables() as c
            union all
            values
            ('rollbook_owner', 'rollbook.course', 'select, insert, update, delete'),
            ('rollbook_owner', 'rollbook.course_latch', 'select, insert, update, delete'),
            ('rollbook_owner', 'rollbook.route', 'select, insert, update, delete'),
            ('rollbook_owner', 'rollbook.verification', 'select, insert, update, delete'),
            ('rollbook_owner', 'rollbook.discussion_outbox', 'select, insert, update, delete'),
            ('rollbook_owner', 'rollbook.server', 'select'),
            ('rollbook_owner', 'rollbook.discussion', 'select'),
            ('rollbook_writer', 'rollbook.country', 'select'),
            ('rollbook_writer', 'rollbook.exam', 'select'),
            ('rollbook_writer', 'portal.student_testcenterregistration', 'select')
        ) as due (role, name, privileges)
        inner join pg_roles as r on r.rolname = due.role
        inner join pg_class as t on t.oid = to_regclass(due.name)
        cross join string_to_table(due.privileges, ', ') as p (privilege)
        where not has_table_privilege(r.oid, t.oid, p.privilege)
        union all
        select r.rolname, 'lacks the heartbeats: a relay cannot be fed', 'rollbook schema grant'
        from pg_roles as r
        where r.rolname = 'rollbook_relay' and not (
            has_schema_privilege(r.oid, 'rollbook', 'usage')
            and has_table_privilege(r.oid, 'rollbook.heartbeat', 'select')
        )
        union all
        select
            r.rolname, format('lacks %s on columns of %s', upper(due.privilege), t.oid::regclass),
            'rollbook schema grant'
        from (
            values
            ('portal.auth_user', 'select'),
            ('portal.student_courseenrollment', 'select'),
            ('portal.student_testcenteruser', 'select'),
            ('portal.student_testcenteruser', 'update'),
            ('portal.student_testcenterregistration', 'insert')
        ) as due (name, privilege)
        inner join pg_roles as r on r.rolname = 'rollbook_writer'
        inner join pg_class as t on t.oid = to_regclass(due.name)
        where not has_any_column_privilege(r.oid, t.oid, due.privilege)
    ) as m
    order by 1, 3
$$;
comment on function rollbook.missing_rights() is
    'Roles that are missing, and rights of rollbook_owner and rollbook_writer without which writes to the portal fail.';
