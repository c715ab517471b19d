-- local_objects: what a course added to its schema: columns of the copies, tables, views, sequences, functions, types;
-- and on the copies indexes, constraints, triggers and policies. A phrase for each, so that a refusal can name it.
-- on_copies: false leaves out the last four: they hold no data and go with the copies.
-- Called:   by demolish_course and commands. `rollbook course detach` sends the query between the dollar signs to
--           course servers, of whose functions it calls replicated_columns and copied_tables alone.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.local_objects(schema_name text, on_copies boolean default true) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with own as (
        select
            c.oid, c.relname, c.relkind, rollbook.replicated_columns(c.relname) as columns,
            rollbook.replicated_columns(c.relname) is not null and c.relkind = 'r' as is_copy
        from pg_class as c
        where c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = $1::text)
    )
    select format('column %s.%s', c.relname, a.attname)
    from own as c
    inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.is_copy and a.attname <> all (c.columns)
    union all
    select format('%s %s', case c.relkind when 'v' then 'view' when 'm' then 'materialized view'
                               when 'S' then 'sequence' when 'f' then 'foreign table' when 'c' then 'type'
                               else 'table' end, c.relname)
    from own as c
    where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c') and c.columns is null
    union all
    select format('function %s', p.oid::regprocedure)
    from pg_proc as p
    where p.pronamespace = (select n.oid from pg_namespace as n where n.nspname = $1::text)
    union all
    select format('type %s', y.typname)
    from pg_type as y
    where y.typnamespace = (select n.oid from pg_namespace as n where n.nspname = $1::text)
        and y.typtype in ('d', 'e', 'r')
    union all
    select format('index %s on %s', x.relname, c.relname)
    from own as c
    inner join pg_index as i on i.indrelid = c.oid
    inner join pg_class as x on x.oid = i.indexrelid
    where $2::boolean and c.is_copy
        and not exists (select from pg_constraint as d where d.conindid = i.indexrelid and d.conrelid = c.oid)
        -- The one that guard_statements creates.
        and x.relname not in (
            select format('%s_%s_idx', t.table_name, t.index_column)
            from rollbook.copied_tables() as t where t.table_name = c.relname
        )
    union all
    select format('constraint %s on %s', d.conname, c.relname)
    from own as c
    inner join pg_constraint as d on d.conrelid = c.oid
    where $2::boolean and c.is_copy and d.contype in ('c', 'f', 'u', 'x')
    union all
    select format('trigger %s on %s', g.tgname, c.relname)
    from own as c
    inner join pg_trigger as g
        on g.tgrelid = c.oid and not g.tgisinternal
        and g.tgname not in ('rollbook_guard_copy', 'rollbook_guard_copy_update')
    where $2::boolean and c.is_copy
    union all
    select format('policy %s on %s', p.polname, c.relname)
    from own as c
    inner join pg_policy as p on p.polrelid = c.oid
    where $2::boolean and c.is_copy
    order by 1
$$;
comment on function rollbook.local_objects(text, boolean) is
    'List what a course added to its schema, as phrases: columns of the copies, tables, views, sequences, functions, '
    'types; unless on_copies is false, also indexes, constraints, triggers and policies of the copies.';
