-- routing_fault: why writes to the portal are not routed, or fail: triggers that are missing or disabled, functions
-- that were replaced, session_replication_role, missing rights, columns that are gone or renamed; and courses whose
-- schema, copies, owners or guards are gone, or whose published copies have another replica identity. One look at the
-- catalog, whatever the number of courses: `rollbook status` asks it each time. `rollbook schema check` looks deeper.
-- Returns:  course_id null: the fault concerns the portal, so all courses.
-- Security: INVOKER; reads the catalog and rollbook.course.
create or replace function rollbook.routing_fault()
returns table (course_id text, object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with due (table_name, name) as (
        select t.table_name, d.name
        from rollbook.copied_tables() as t
        inner join (
            values
            ('person', 'check_account', 'portal.auth_user'),
            ('person', 'hold_courses', null),
            ('person', 'note_for_discussion_delete', 'portal.auth_user'),
            ('person', 'note_for_discussion_insert', 'portal.auth_user'),
            ('person', 'note_for_discussion_truncate', 'portal.auth_user'),
            ('person', 'note_for_discussion_update', 'portal.auth_user'),
            ('person', 'refuse_user_id_change', null),
            ('person', 'refuse_user_id_change_late', null),
            ('person', 'route_truncate', null),
            ('person', 'route_user_delete', null),
            ('person', 'route_user_update', null),
            ('profile', 'check_name', 'portal.auth_userprofile'),
            ('profile', 'refuse_year_of_birth', 'portal.auth_userprofile'),
            ('profile', 'route_profile_delete', null),
            ('profile', 'route_profile_insert', null),
            ('profile', 'route_profile_update', null),
            ('profile', 'route_truncate', null),
            ('membership', 'route_enrollment_delete', null),
            ('membership', 'route_enrollment_insert', null),
            ('membership', 'route_enrollment_update', null),
            ('membership', 'route_truncate', null)
        ) as d (role, name, only_on) on d.role = t.role and coalesce(d.only_on, t.relation) = t.relation
    ),
    triggers as (
        select
            'rollbook_' || d.name as name,
            coalesce(rollbook.portal_table(d.table_name)::text, 'portal.' || d.table_name) as table_name,
            g.tgenabled, g.tgqual,
            d.name ~ '^(route|hold|note)_' as is_routing, p.proname, p.prosecdef, p.proconfig,
            p.oid::regprocedure::text as function, starts_with(d.name, p.proname) as is_ours,
            p.pronamespace = 'rollbook'::regnamespace as is_in_schema, o.rolname as owner
        from due as d
        left join pg_trigger as g
            on g.tgrelid = rollbook.portal_table(d.table_name) and g.tgname = 'rollbook_' || d.name
        left join pg_proc as p on p.oid = g.tgfoid
        left join pg_roles as o on o.oid = p.proowner
    ),
    copies as (  -- only those with a fault, as the rest of the query reads them several times
        select
            c.course_id, c.schema_name, n.oid as namespace, n.nspowner, k.oid, k.relowner, o.oid as owner,
            g.tgenabled, u.tgenabled as update_tgenabled,
            c.server is not null and k.relreplident <> 'd' as is_unpublishable,
            format('%I.%I', c.schema_name, t.table_name) as name,
            'rollbook replication repair ' || rollbook.shell_quote(c.course_id) as repair
        from rollbook.course as c
        cross join rollbook.copied_tables() as t
        cross join (select r.oid from pg_roles as r where r.rolname = 'rollbook_owner') as o
        left join pg_namespace as n on n.nspname = c.schema_name
        left join pg_class as k on k.relnamespace = n.oid and k.relname = t.table_name
        left join pg_trigger as g on g.tgrelid = k.oid and g.tgname = 'rollbook_guard_copy'
        left join pg_trigger as u on u.tgrelid = k.oid and u.tgname = 'rollbook_guard_copy_update'
        where k.oid is null or n.nspowner <> o.oid or k.relowner <> o.oid
            or g.tgenabled is distinct from 'O' or u.tgenabled is distinct from 'O'
            or c.server is not null and k.relreplident <> 'd'
    )
    select null, format('%s on %s', t.name, t.table_name), 'trigger', 'is missing', 'rollbook schema check'
    from triggers as t where t.tgenabled is null
    union all
    select
        null, format('%s on %s', t.name, t.table_name), 'trigger',
        case t.tgenabled when 'D' then 'is disabled' else 'is enabled for replicas only, or always' end,
        format('alter table %s enable trigger %s;', t.table_name, t.name)
    from triggers as t where t.tgenabled <> 'O'
    union all
    select null, format('%s on %s', t.name, t.table_name), 'trigger', 'is not the one shipped', 'rollbook schema check'
    from triggers as t
    where not (t.is_ours and t.is_in_schema) or t.is_routing and t.tgqual is not null
    union all
    select distinct
        null, t.function, 'function', 'is not SECURITY DEFINER',
        format('alter function %s security definer;', t.function)
    from triggers as t where t.is_routing and not t.prosecdef
    union all
    select distinct
        null, t.function, 'function', format('owned by %s, not by rollbook_owner', t.owner),
        format('alter function %s owner to rollbook_owner;', t.function)
    from triggers as t where t.is_routing and t.owner <> 'rollbook_owner'
    union all
    select distinct
        null, t.function, 'function', 'the search_path is not pinned',
        format('alter function %s set search_path = pg_catalog, pg_temp;', t.function)
    from triggers as t
    where t.is_routing and t.tgenabled is not null
        and 'search_path=pg_catalog, pg_temp' <> all (coalesce(t.proconfig, '{}'))
    union all
    select null, s.object, s.kind, s.difference, s.fix from rollbook.replica_settings() as s
    union all
    select null, m.object, m.kind, m.difference, m.fix from rollbook.missing_rights() as m
    union all
    select
        null, t.relation, 'table',
        format('lacks %s: writes of it fail', string_agg(quote_ident(w.name), ', ' order by w.position)),
        'rollbook schema check'
    from rollbook.copied_tables() as t
    inner join pg_class as c on c.oid = to_regclass(t.relation)
    cross join unnest(rollbook.replicated_columns(t.table_name)) with ordinality as w (name, position)
    where not exists (
        select from pg_attribute as a where a.attrelid = c.oid and a.attname = w.name and not a.attisdropped
    )
    group by t.relation
    union all
    select distinct c.course_id, quote_ident(c.schema_name), 'schema', 'is gone', c.repair
    from copies as c where c.namespace is null
    union all
    select c.course_id, c.name, 'copy', 'is gone', c.repair
    from copies as c where c.namespace is not null and c.oid is null
    union all
    select distinct
        c.course_id, quote_ident(c.schema_name), 'schema', 'is not owned by rollbook_owner',
        format('alter schema %I owner to rollbook_owner;', c.schema_name)
    from copies as c where c.nspowner <> c.owner
    union all
    select
        c.course_id, c.name, 'copy', 'is not owned by rollbook_owner',
        format('alter table %s owner to rollbook_owner;', c.name)
    from copies as c where c.relowner <> c.owner
    union all
    select
        c.course_id, c.name, 'identity', 'the replica identity is not the primary key: changes fail, as it is published',
        format('alter table %s replica identity default;', c.name)
    from copies as c where c.is_unpublishable
    union all
    select
        c.course_id, c.name, 'guard', 'is missing or disabled: the copy may be written',
        case when c.tgenabled is null or c.update_tgenabled is null then 'rollbook schema check'
            else format('alter table %s enable trigger rollbook_guard_copy, enable trigger rollbook_guard_copy_update;',
                        c.name) end
    from copies as c
    where c.oid is not null and (c.tgenabled is distinct from 'O' or c.update_tgenabled is distinct from 'O')
    order by 1 nulls first, 2, 3, 4
$$;
comment on function rollbook.routing_fault() is
    'Why writes to the portal are not routed, or fail: one row for each fault of the portal (course_id null) or of a '
    'course, with the line that fixes it. Cheap: one look at the catalog.';
