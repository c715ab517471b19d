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
    -- Everything at once: what thousands of courses have alike is written, and compared, once.
    with places as (
        select s.schema_name, coalesce($3::jsonb -> s.schema_name, '[]') as without
        from unnest($1::text[]) as s (schema_name)
    ),
    due_columns as materialized (
        select
            row_number() over () as number, p.without, t.key as table_name, w.ordinality as position, (w.value ->> 0)::name as attname, w.value ->> 1 as due, (w.value ->> 2)::boolean as is_key
        from (select distinct without from places) as p
        cross join jsonb_each($2::jsonb) as t
        cross join jsonb_array_elements(t.value) with ordinality as w
        where not p.without ?| array[w.value ->> 0, t.key || '.' || (w.value ->> 0)]
    ),
    forms as materialized (  -- of the guards of a copy
        select
            min(d.number) as number, d.without, d.table_name, max(d.attname::text) filter (where d.is_key) as key_column,
            string_agg(quote_literal(quote_ident(d.attname)), ', ' order by d.position) as arguments
        from due_columns as d
        group by d.without, d.table_name
    ),
    copies as materialized (
        select
            p.schema_name, p.without, f.number, n.oid as namespace, n.nspowner, f.table_name, f.key_column, k.oid,
            k.relowner, k.relreplident, k.relforcerowsecurity, format('%I.%I', p.schema_name, f.table_name) as name,
            (select r.oid from pg_roles as r where r.rolname = 'rollbook_owner') as owner
        from places as p
        inner join forms as f on f.without = p.without
        left join pg_namespace as n on n.nspname = p.schema_name
        left join pg_class as k on k.relnamespace = n.oid and k.relname = f.table_name and k.relkind in ('r', 'p')
    ),
    found as materialized (
        select a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attcollation
        from pg_attribute as a
        inner join (select distinct attname from due_columns) as d on d.attname = a.attname
        where not a.attisdropped
    ),
    attributes as (
        select
            unnest(held.schemas) as schema_name, d.table_name, d.attname, d.position, d.due,
            held.atttypid is null as is_absent, there.words as there
        from (
            select d.number, a.atttypid, a.atttypmod, a.attcollation, array_agg(c.schema_name) as schemas
            from copies as c
            inner join due_columns as d on d.without = c.without and d.table_name = c.table_name
            left join found as a on a.attrelid = c.oid and a.attname = d.attname
            where c.oid is not null
            group by d.number, a.atttypid, a.atttypmod, a.attcollation
        ) as held
        inner join due_columns as d on d.number = held.number
        left join pg_type as y on y.oid = held.atttypid
        cross join lateral (
            select format_type(held.atttypid, held.atttypmod)
                || coalesce(' collate ' || nullif(held.attcollation, y.typcollation)::regcollation, '') as words
        ) as there
        where held.atttypid is null or there.words <> d.due
    ),
    guards as (
        select
            unnest(held.schemas) as schema_name, unnest(held.names) as name, d.tgname, d.event, d.level, d.arguments
        from (
            select
                c.number, d.tgname, g.tgenabled, array_agg(c.schema_name) as schemas, array_agg(c.name) as names,
                array_agg(g.oid) as oids
            from copies as c
            cross join (values ('rollbook_guard_copy'::name), ('rollbook_guard_copy_update')) as d (tgname)
            left join pg_trigger as g on g.tgrelid = c.oid and g.tgname = d.tgname
            where c.oid is not null
            -- All that the definition has but the table: one of each group is written out.
            group by
                c.number, g.tgtype, d.tgname, g.tgenabled, g.tgfoid, g.tgargs, g.tgattr, g.tgdeferrable,
                g.tginitdeferred, g.tgconstraint <> 0, g.tgoldtable, g.tgnewtable, g.tgqual::text
        ) as held
        inner join forms as f on f.number = held.number
        inner join lateral (
            values
                ('rollbook_guard_copy'::name, 'BEFORE INSERT OR DELETE OR TRUNCATE', 'STATEMENT', null),
                ('rollbook_guard_copy_update', 'AFTER UPDATE', 'ROW', f.arguments)
        ) as d (tgname, event, level, arguments) on d.tgname = held.tgname
        where held.tgenabled is distinct from 'O' or pg_get_triggerdef(held.oids[1]) <> format(
            'CREATE TRIGGER %s %s ON %s FOR EACH %s WHEN ((CURRENT_USER <> ''rollbook_owner''::text)) '
            'EXECUTE FUNCTION rollbook.guard_copy(%s)', d.tgname, d.event, held.names[1], d.level, d.arguments
        )
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
        a.schema_name, format('%I.%I', a.schema_name, a.table_name), 'copy',
        'lacks ' || string_agg(quote_ident(a.attname), ', ' order by a.position),
        format('alter table %I.%I %s;', a.schema_name, a.table_name,
               string_agg(format('add column %I %s', a.attname, a.due), ', ' order by a.position))
    from attributes as a where a.is_absent and a.due is not null
    group by a.schema_name, a.table_name
    union all
    select
        a.schema_name, format('%I.%I', a.schema_name, a.table_name), 'copy',
        format('column %I is %s, in the portal it is %s', a.attname, a.there, a.due),
        case
            -- PostgreSQL changes no column that a publication lists.
            when exists (
                select from pg_publication_rel as r
                where r.prrelid = to_regclass(format('%I.%I', a.schema_name, a.table_name)) and r.prattrs is not null
            ) then format('rollbook shape column widen %I %I ''%s''', a.table_name, a.attname, a.due)
            else format('alter table %I.%I alter column %I type %s using %3$I::%5$s;', a.schema_name, a.table_name,
                        a.attname, a.due, regexp_replace(a.due, ' collate .*', ''))
        end
    from attributes as a where not a.is_absent
    union all
    select
        g.schema_name, g.name, 'copy', 'the guard is missing, disabled or not the one shipped: it may be written',
        string_agg(format(
            'drop trigger if exists %1$s on %3$s; CREATE TRIGGER %1$s %2$s ON %3$s FOR EACH %4$s '
            'WHEN ((CURRENT_USER <> ''rollbook_owner''::text)) EXECUTE FUNCTION rollbook.guard_copy(%5$s);',
            g.tgname, g.event, g.name, g.level, g.arguments
        ), ' ' order by g.tgname)
    from guards as g
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
        c.schema_name, c.name, 'copy', 'may be written bypassing the guard: ' || past.what,
        format('%s %s%s;', past.statement, c.name, past.rest)
    from copies as c
    inner join (
        select
            k.oid as relation, 'forced row security' as what, 'alter table' as statement,
            ' no force row level security' as rest
        from copies as k where k.relforcerowsecurity
        union all
        -- BEFORE, for each row, where Rollbook writes: it may change what is written. What it changes in the writes of
        -- others is the guard's. The text is longer than a name can be: no name holds it.
        select g.tgrelid, 'trigger ' || quote_ident(g.tgname), format('drop trigger %I on', g.tgname), ''
        from pg_trigger as g
        where not g.tgisinternal and g.tgtype & 3 = 3
            and strpos(
                pg_get_triggerdef(g.oid),
                ' FOR EACH ROW WHEN ((CURRENT_USER <> ''rollbook_owner''::name)) EXECUTE FUNCTION '
            ) = 0
        union all
        select r.ev_class, 'rule ' || quote_ident(r.rulename), format('drop rule %I on', r.rulename), ''
        from pg_rewrite as r
        union all
        select
            i.inhrelid, 'parent table ' || i.inhparent::regclass, 'alter table', ' no inherit ' || i.inhparent::regclass
        from pg_inherits as i
    ) as past on past.relation = c.oid
    order by 1, 2, 3, 4
$$;
comment on function rollbook.copy_differences(text[], jsonb, jsonb) is
    'What is not as shipped at the copies in these schemas: columns, types, owners, key, guard. columns: what '
    'copied_columns returns.';
