-- copy_differences: what is not as shipped at the copies in these schemas: schema, tables, columns and their types,
-- owners, key and replica identity, guard, and what bypasses the guard.
-- columns:  what copied_columns returns.
-- left_out: by schema, the columns that do not travel to it, where there are any: they are the course's own.
-- Called:   by foreign_objects. `rollbook schema check` sends the query between the dollar signs to course servers,
--           which have no functions of ours: so it calls none.
-- Returns:  the fix of a schema or table that is gone is null: it depends on the course.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_differences(schemas text[], columns jsonb, left_out jsonb)
returns table (schema_name text, object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with copies as (
        select
            s.schema_name, due.key_column, n.oid as namespace, n.nspowner, t.key as table_name, k.oid, k.relowner,
            k.relreplident, k.relforcerowsecurity, due.columns, format('%I.%I', s.schema_name, t.key) as name,
            (select r.oid from pg_roles as r where r.rolname = 'rollbook_owner') as owner
        from unnest($1::text[]) as s (schema_name)
        cross join jsonb_each($2::jsonb) as t
        cross join lateral (
            select
                coalesce(jsonb_agg(w.value order by w.ordinality), '[]') as columns,
                max(w.value ->> 0) filter (where (w.value ->> 2)::boolean) as key_column
            from jsonb_array_elements(t.value) with ordinality as w
            where not coalesce($3::jsonb -> s.schema_name ? (w.value ->> 0), false)
        ) as due
        left join pg_namespace as n on n.nspname = s.schema_name
        left join pg_class as k on k.relnamespace = n.oid and k.relname = t.key and k.relkind in ('r', 'p')
    ),
    attributes as (
        select
            c.schema_name, c.oid, c.name, w.value ->> 0 as attname, w.value ->> 1 as due, a.attnum,
            format_type(a.atttypid, a.atttypmod)
            || coalesce(' collate ' || nullif(a.attcollation, y.typcollation)::regcollation, '') as there
        from copies as c
        cross join jsonb_array_elements(c.columns) as w
        left join pg_attribute as a on a.attrelid = c.oid and a.attname = w.value ->> 0 and not a.attisdropped
        left join pg_type as y on y.oid = a.atttypid
        where c.oid is not null
    ),
    guards as (
        select
            c.schema_name, c.name, d.tgname, g.tgenabled, pg_get_triggerdef(g.oid) as there,
            format(
                'CREATE TRIGGER %s %s ON %s FOR EACH %s WHEN ((CURRENT_USER <> ''rollbook_owner''::name)) '
                'EXECUTE FUNCTION rollbook.guard_copy(%s)', d.tgname, d.event, c.name, d.level, d.arguments
            ) as due
        from copies as c
        cross join lateral (
            values
                ('rollbook_guard_copy', 'BEFORE INSERT OR DELETE OR TRUNCATE', 'STATEMENT', null),
                ('rollbook_guard_copy_update', 'AFTER UPDATE', 'ROW', (
                    select string_agg(quote_literal(quote_ident(w.value ->> 0)), ', ' order by w.ordinality)
                    from jsonb_array_elements(c.columns) with ordinality as w
                ))
        ) as d (tgname, event, level, arguments)
        left join pg_trigger as g on g.tgrelid = c.oid and g.tgname = d.tgname
        where c.oid is not null
    )
    select distinct
        c.schema_name, quote_ident(c.schema_name) as object, 'schema' as kind, 'is gone' as difference, null as fix
    from copies as c where c.namespace is null
    union all
    select distinct
        c.schema_name, quote_ident(c.schema_name), 'schema',
        format('owned by %s, not by rollbook_owner', c.nspowner::regrole),
        format('alter schema %I owner to rollbook_owner;', c.schema_name)
    from copies as c where c.nspowner is distinct from c.owner and c.namespace is not null
    union all
    select c.schema_name, c.name, 'copy', 'is gone: it lacks all columns', null
    from copies as c where c.namespace is not null and c.oid is null
    union all
    select
        c.schema_name, c.name, 'copy', format('owned by %s, not by rollbook_owner', c.relowner::regrole),
        format('alter table %s owner to rollbook_owner;', c.name)
    from copies as c where c.relowner is distinct from c.owner and c.oid is not null
    union all
    select
        a.schema_name, a.name, 'copy', 'lacks ' || string_agg(quote_ident(a.attname), ', '),
        format('alter table %s %s;', a.name, string_agg(format('add column %I %s', a.attname, a.due), ', '))
    from attributes as a where a.attnum is null and a.due is not null
    group by a.schema_name, a.name
    union all
    select
        a.schema_name, a.name, 'copy', format('column %I is %s, in the portal it is %s', a.attname, a.there, a.due),
        format('alter table %s alter column %I type %s using %2$I::%4$s;',
               a.name, a.attname, a.due, regexp_replace(a.due, ' collate .*', ''))
    from attributes as a where a.there <> a.due
    union all
    select
        g.schema_name, g.name, 'copy', 'the guard is missing, disabled or not the one shipped: it may be written',
        string_agg(format('drop trigger if exists %s on %s; %s;', g.tgname, g.name, g.due), ' ' order by g.tgname)
    from guards as g where g.tgenabled is distinct from 'O' or g.there <> g.due
    group by g.schema_name, g.name
    union all
    select
        c.schema_name, c.name, 'copy', 'the primary key is not ' || quote_ident(c.key_column),
        format('alter table %s %sadd primary key (%I);', c.name,
               (select format('drop constraint %I, ', p.conname) from pg_constraint as p
                where p.conrelid = c.oid and p.contype = 'p'), c.key_column)
    from copies as c
    where c.oid is not null and not exists (
        select from pg_index as i
        inner join pg_attribute as a on a.attrelid = i.indrelid and a.attname = c.key_column
        where i.indrelid = c.oid and i.indisprimary and i.indkey::text = a.attnum::text
    )
    union all
    select
        c.schema_name, c.name, 'copy', 'the replica identity is not the primary key',
        format('alter table %s replica identity default;', c.name)
    from copies as c where c.relreplident <> 'd'
    union all
    select
        c.schema_name, c.name, 'copy', 'may be written bypassing the guard: ' || past.what, past.fix
    from copies as c
    cross join lateral (
        select 'forced row security' as what, format('alter table %s no force row level security;', c.name) as fix
        where c.relforcerowsecurity
        union all
        -- BEFORE, for each row, where Rollbook writes: it may change what is written. What it changes in the writes of
        -- others is the guard's. The text is longer than a name can be: no name holds it.
        select 'trigger ' || quote_ident(g.tgname), format('drop trigger %I on %s;', g.tgname, c.name)
        from pg_trigger as g
        where g.tgrelid = c.oid and not g.tgisinternal and g.tgtype & 3 = 3
            and strpos(
                pg_get_triggerdef(g.oid),
                ' FOR EACH ROW WHEN ((CURRENT_USER <> ''rollbook_owner''::name)) EXECUTE FUNCTION '
            ) = 0
        union all
        select 'rule ' || quote_ident(r.rulename), format('drop rule %I on %s;', r.rulename, c.name)
        from pg_rewrite as r where r.ev_class = c.oid
        union all
        select
            'parent table ' || i.inhparent::regclass,
            format('alter table %s no inherit %s;', c.name, i.inhparent::regclass)
        from pg_inherits as i where i.inhrelid = c.oid
    ) as past
    order by 1, 2, 3, 4
$$;
comment on function rollbook.copy_differences(text[], jsonb, jsonb) is
    'What is not as shipped at the copies in these schemas: columns, types, owners, key, guard. columns: what '
    'copied_columns returns.';
