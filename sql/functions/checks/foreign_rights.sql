-- foreign_rights: what lets somebody else act as the owner of our tables, or hides their rows: grants of TRIGGER and
-- REFERENCES, grants of EXECUTE, owners, inheritance children, row security.
-- schemas:  course schemas, and rollbook and portal where their tables are ours.
-- columns:  what copied_columns returns: its keys are the tables that are copies in a course's schema.
-- relations: the tables outside schema portal that are copied. They are a live site's: its own owners and rights stay,
--           what hides rows from Rollbook does not.
-- Called:   by foreign_objects. `rollbook schema check` sends the query between the dollar signs to course servers,
--           which have no functions of ours: so it calls none.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.foreign_rights(schemas text[], columns jsonb, relations text[])
returns table (schema_name text, object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with tables as (
        select
            c.oid, c.relowner, c.relacl, c.relkind, c.relrowsecurity, n.nspname, c.oid::regclass::text as name,
            case when c.oid in (to_regclass('rollbook.heartbeat'), to_regclass('rollbook.portal'))
                then (select r.oid from pg_roles as r where r.rolname = 'rollbook_owner') else n.nspowner end as owner
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = any ($1::text[])
            and (c.relkind in ('r', 'p', 'v') and n.nspname in ('portal', 'rollbook')
                 or c.relkind in ('r', 'p') and $2::jsonb ? c.relname::text)
    ),
    sources as (  -- what is copied: its rows must all be seen
        select t.oid, t.relkind, t.relrowsecurity, t.nspname, t.name from tables as t where t.nspname = 'portal'
        union all
        select c.oid, c.relkind, c.relrowsecurity, n.nspname, c.oid::regclass::text
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where c.oid = any (array(select to_regclass(s.name) from unnest($3::text[]) as s (name)))
    ),
    grants as (
        select t.oid, a.grantee, a.grantor, a.privilege_type, lower(a.privilege_type) as revoked
        from tables as t, aclexplode(t.relacl) as a
        union
        select
            c.attrelid, a.grantee, a.grantor, a.privilege_type, format('%s (%I)', lower(a.privilege_type), c.attname)
        from tables as t
        inner join pg_attribute as c on c.attrelid = t.oid and c.attacl is not null
        cross join aclexplode(c.attacl) as a
    ),
    functions as (
        select
            p.oid::regprocedure::text as name, p.proowner, a.grantee, a.grantor,
            p.prorettype = 'trigger'::regtype as is_trigger
        from pg_proc as p
        inner join pg_namespace as n on n.oid = p.pronamespace and n.nspname = 'rollbook'
        cross join aclexplode(p.proacl) as a
        where 'rollbook' = any ($1::text[]) and a.grantee not in (0, p.proowner)
            and (p.prorettype = 'trigger'::regtype or p.prosecdef and p.provolatile = 'v')
            and not exists (
                select from pg_roles as r
                where r.oid = a.grantee
                    -- docs/monitoring.md grants it to a monitor that measures the lag
                    and (p.proname = 'beat' and pg_has_role(r.oid, 'rollbook_monitor', 'usage')
                         or r.rolname in ('rollbook_monitor', 'rollbook_operator', 'rollbook_application')
                         and p.prorettype <> 'trigger'::regtype
                         or r.rolname = 'rollbook_owner' and p.proname in ('guard_copy', 'renew_candidates'))
            )
    ),
    found (schema_name, object, kind, difference, grantor, owner, fix) as (
        select
            t.nspname::text, t.name, 'grant',
            format('%s may %s', case g.grantee when 0 then 'PUBLIC' else g.grantee::regrole::text end,
                   string_agg(
                       distinct case g.privilege_type
                       when 'TRIGGER' then 'add triggers, which run as the role that writes it'
                       else 'reference it: foreign keys are checked as its owner' end, ', and may ')),
            g.grantor, t.relowner,
            format('revoke %s on %s from %s cascade;', string_agg(distinct g.revoked, ', '), t.name,
                   case g.grantee when 0 then 'public' else g.grantee::regrole::text end)
        from tables as t inner join grants as g on g.oid = t.oid
        where g.privilege_type in ('TRIGGER', 'REFERENCES') and g.grantee <> t.relowner
        group by t.nspname, t.name, g.grantee, g.grantor, t.relowner
        union all
        select
            'rollbook', f.name, 'grant',
            format('%s may execute it, which %s', f.grantee::regrole,
                   case when f.is_trigger then 'lets triggers of their own call it' else 'writes as its owner' end),
            f.grantor, f.proowner, format('revoke execute on function %s from %s cascade;', f.name, f.grantee::regrole)
        from functions as f
        union all
        select
            n.nspname::text, n.nspname::text, 'grant',
            format('%s may create objects in it',
                   case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end),
            a.grantor, n.nspowner,
            format('revoke create on schema rollbook from %s cascade;',
                   case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
        from pg_namespace as n, aclexplode(n.nspacl) as a
        where n.nspname = 'rollbook' and 'rollbook' = any ($1::text[]) and a.privilege_type = 'CREATE'
            and a.grantee <> n.nspowner
        union all
        select
            d.schema_name, coalesce(d.schema_name, 'every schema'), 'default privileges',
            format('%s will get %s on tables that rollbook_owner makes', d.grantee, d.privileges), null, null,
            format('alter default privileges for role rollbook_owner %srevoke trigger, references on tables from %s;',
                   'in schema ' || quote_ident(d.schema_name) || ' ', d.grantee)
        from (
            select
                n.nspname::text as schema_name, string_agg(a.privilege_type, ', ' order by 1) as privileges,
                case a.grantee when 0 then 'public' else a.grantee::regrole::text end as grantee
            from pg_default_acl as d
            inner join pg_roles as r on r.oid = d.defaclrole and r.rolname = 'rollbook_owner'
            left join pg_namespace as n on n.oid = d.defaclnamespace
            cross join aclexplode(d.defaclacl) as a
            where d.defaclobjtype = 'r' and a.privilege_type in ('TRIGGER', 'REFERENCES') and a.grantee <> d.defaclrole
            group by n.nspname, a.grantee
        ) as d
        union all
        select
            t.nspname::text, t.name, case t.relkind when 'v' then 'view' else 'table' end,
            format('owned by %s, not by %s', t.relowner::regrole, t.owner::regrole), null, null,
            format('alter %s %s owner to %s;', case t.relkind when 'v' then 'view' else 'table' end, t.name,
                   t.owner::regrole)
        from tables as t
        where t.relowner <> t.owner  -- the tables of an adopted site stay the site's
            and (t.nspname = 'rollbook' or t.nspname = 'portal' and to_regclass('public.rollbook_adoption') is null)
        union all
        select
            t.nspname::text, t.name, 'table',
            format('%s inherits from it: its rows are seen twice', i.inhrelid::regclass), null, null,
            format('alter table %s no inherit %s;', i.inhrelid::regclass, t.name)
        from (
            select t.oid, t.relkind, t.nspname, t.name from tables as t
            union
            select s.oid, s.relkind, s.nspname, s.name from sources as s
        ) as t
        inner join pg_inherits as i on i.inhparent = t.oid
        where t.relkind = 'r'
        union all
        select
            t.nspname::text, format('%I on %s', p.polname, t.name), 'policy',
            'is restrictive: it hides rows from Rollbook', null, null,
            case when t.nspname = 'portal' then format('drop policy %I on %s;', p.polname, t.name)
                else format('alter policy %I on %s using ((%s) or current_user = ''rollbook_owner'');',
                            p.polname, t.name, pg_get_expr(p.polqual, p.polrelid)) end
        from sources as t
        inner join pg_policy as p on p.polrelid = t.oid and not p.polpermissive
        where exists (
                select from pg_roles as r, unnest(p.polroles) as a (role)
                where r.rolname in ('rollbook_owner', 'rollbook_writer')
                    and (a.role = 0 or pg_has_role(r.oid, a.role, 'usage'))
                    and (t.nspname = 'portal' or r.rolname = 'rollbook_owner')
            )
            and (t.nspname = 'portal'
                 or p.polcmd in ('r', '*')
                 and right(pg_get_expr(p.polqual, p.polrelid), 44) <> ' OR (CURRENT_USER = ''rollbook_owner''::name))')
        union all
        select
            t.nspname::text, t.name, 'table', 'row security is on, and no policy shows every row to ' || r.rolname,
            null, null, 'rollbook schema grant'
        from sources as t
        inner join pg_roles as r on r.rolname in ('rollbook_owner', 'rollbook_writer')
        where t.relrowsecurity and has_any_column_privilege(r.oid, t.oid, 'select')
            and not exists (
                select from pg_policy as p
                where p.polrelid = t.oid and p.polpermissive and r.oid = any (p.polroles) and p.polcmd in ('r', '*')
                    and pg_get_expr(p.polqual, p.polrelid) = 'true'
            )
        union all
        select
            t.nspname::text, t.name, 'table', 'row security is on: it hides rows from Rollbook', null, null,
            format('alter table %s disable row level security;', t.name)
        from tables as t where t.nspname = 'rollbook' and t.relrowsecurity
    )
    select
        f.schema_name, f.object, f.kind, f.difference,
        -- What another grantee has passed on, only that grantee can take back.
        case when f.grantor <> f.owner then format('set role %s; %s reset role;', f.grantor::regrole, f.fix)
        else f.fix end as fix
    from found as f
    order by 2, 3, 4
$$;
comment on function rollbook.foreign_rights(text[], jsonb, text[]) is
    'Grants, owners and policies at our tables that let somebody else act as their owner, or hide their rows. columns: '
    'what copied_columns returns.';
