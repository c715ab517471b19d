-- obstacle_fix: the statement that removes what refuses a row of a copy: a trigger, a constraint, a unique index or the
-- NOT NULL of a column, all of the course's own; a replica identity without the key; a right that rollbook_owner lacks.
-- Null if the error does not lead to one of them. The key of the copy is none: a row with the same key is in the way.
-- place, constraint_name, column_name: what the error reports; place is its context.
-- firing:   pg_trigger.tgenabled of the triggers that fire: {O,A}; {R,A} where a subscription applies changes.
-- Called:   by meet_fault. The commands send the query between the dollar signs to course servers, of whose functions
--           it calls copied_tables alone.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.obstacle_fix(
    schema_name text, table_name text, state text, place text, constraint_name text, column_name text, firing text[]
) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with copy as (
        select
            c.oid, c.relnamespace, c.relowner, c.relreplident, c.relrowsecurity, c.relforcerowsecurity, n.nspname,
            format('%I.%I', n.nspname, c.relname) as name, o.oid as owner,
            (
                select a.attnum::text from pg_attribute as a
                where a.attrelid = c.oid and not a.attisdropped and a.attname = coalesce(
                    (select t.key_column from rollbook.copied_tables() as t where t.table_name = c.relname), 'beat'
                )
            ) as key,
            (select t.key_column from rollbook.copied_tables() as t where t.table_name = c.relname) as key_column
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        left join pg_roles as o on o.rolname = 'rollbook_owner'
        where n.nspname = $1::text and c.relname = $2::text
    ),
    triggers as (
        select format('alter table %s disable trigger %I', k.name, g.tgname) as fix
        from copy as k
        inner join pg_trigger as g
            on g.tgrelid = k.oid and not g.tgisinternal
            and g.tgname not in ('rollbook_guard_copy', 'rollbook_guard_copy_update')
        inner join pg_proc as p on p.oid = g.tgfoid
        inner join pg_namespace as n on n.oid = p.pronamespace
        where g.tgenabled = any ($7::text[]) and (
            strpos($4::text, format('function %I.%I() ', n.nspname, p.proname)) > 0
            or strpos($4::text, format('function %I() ', p.proname)) > 0
            or strpos($4::text, format('function "%s"', p.proname)) > 0
        )
        order by g.tgname
    ),
    constraints as (
        select
            case when d.contypid = 0
                then format('alter table %I.%I drop constraint %I', n.nspname, c.relname, d.conname)
                else format('alter domain %s drop constraint %I', d.contypid::regtype, d.conname) end as fix
        from copy as k
        inner join pg_constraint as d on d.conname = $5::text and (
            d.conrelid <> 0 and (d.connamespace = k.relnamespace or d.confrelid = k.oid)
            or exists (select from pg_attribute as a where a.attrelid = k.oid and a.atttypid = d.contypid)
        )
        left join pg_class as c on c.oid = d.conrelid
        left join pg_namespace as n on n.oid = c.relnamespace
        left join pg_index as i on i.indexrelid = d.conindid and i.indrelid = k.oid
        where i.indkey::text is distinct from k.key or d.contype = 'f'
        order by d.conrelid = k.oid desc
    ),
    indexes as (
        select format('drop index %I.%I', k.nspname, x.relname) as fix
        from copy as k
        inner join pg_index as i on i.indrelid = k.oid and i.indkey::text <> k.key
        inner join pg_class as x on x.oid = i.indexrelid and x.relname = $5::text
    ),
    columns as (
        select format('alter table %s alter column %I drop not null', k.name, a.attname) as fix
        from copy as k
        inner join pg_attribute as a on a.attrelid = k.oid and a.attname = $6::text and a.attnotnull
        where $3::text = '23502'
    ),
    identities as (
        select case
            when k.relreplident <> 'd' then format('alter table %s replica identity default', k.name)
            else format('alter table %s add primary key (%I)', k.name, k.key_column) end as fix
        from copy as k
        where $3::text in ('55000', '42P10') and (
            k.relreplident <> 'd' or not exists (select from pg_index as i where i.indrelid = k.oid and i.indisprimary)
        )
    ),
    rights as (
        select 1 as rank, format('alter table %s owner to rollbook_owner', k.name) as fix
        from copy as k where k.relowner <> k.owner
        union all
        select 2, format('grant all on schema %I to rollbook_owner', k.nspname)
        from copy as k where not has_schema_privilege(k.owner, k.relnamespace, 'usage')
        union all
        select 3, format('grant all on table %s to rollbook_owner', k.name)
        from copy as k, unnest('{select,insert,update,delete}'::text[]) as r (privilege)
        group by k.oid, k.name
        having not bool_and(has_table_privilege(k.owner, k.oid, r.privilege))
        union all
        select 4, format('grant usage on sequence %I.%I to rollbook_owner', n.nspname, s.relname)
        from copy as k
        inner join pg_attrdef as f on f.adrelid = k.oid
        inner join pg_depend as d
            on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
        inner join pg_class as s on s.oid = d.refobjid and s.relkind = 'S'
        inner join pg_namespace as n on n.oid = s.relnamespace
        where not has_sequence_privilege(k.owner, s.oid, 'usage')
        union all
        select 5, format('alter table %s no force row level security', k.name)
        from copy as k where k.relrowsecurity and k.relforcerowsecurity
        union all
        select 6, format('alter table %s disable row level security', k.name)
        from copy as k
        where k.relrowsecurity and current_setting('server_version_num')::integer < 160000 and 'R' = any ($7::text[])
    )
    select coalesce(
        (select t.fix from triggers as t limit 1),
        (select c.fix from columns as c),
        (select c.fix from constraints as c limit 1),
        (select i.fix from indexes as i),
        (select i.fix from identities as i),
        (select string_agg(r.fix, '; ' order by r.rank, r.fix) from rights as r where $3::text = '42501')
    )
$$;
comment on function rollbook.obstacle_fix(text, text, text, text, text, text, text[]) is
    'The statement that removes what refuses a row of a copy, such as a unique index of the course''s own; null if the '
    'error does not lead to one.';
