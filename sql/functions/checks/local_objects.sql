-- local_objects: what a course added to its schema: columns of the copies, tables, views, sequences, functions, types.
-- Returns a phrase for each, so that a refusal can name it. Indexes and triggers on the copies do not count: they hold
-- no data.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.local_objects(schema_name text) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format('column %s.%s', c.relname, a.attname)
    from pg_class as c
    inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = schema_name)
        and c.relkind = 'r'
        and a.attname <> all (rollbook.replicated_columns(c.relname))
    union all
    select format('%s %s', case c.relkind when 'v' then 'view' when 'm' then 'materialized view'
                               when 'S' then 'sequence' when 'f' then 'foreign table' when 'c' then 'type'
                               else 'table' end, c.relname)
    from pg_class as c
    where c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = schema_name)
        and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
        and rollbook.replicated_columns(c.relname) is null
    union all
    select format('function %s', p.oid::regprocedure)
    from pg_proc as p
    where p.pronamespace = (select n.oid from pg_namespace as n where n.nspname = schema_name)
    union all
    select format('type %s', y.typname)
    from pg_type as y
    where y.typnamespace = (select n.oid from pg_namespace as n where n.nspname = schema_name)
        and y.typtype in ('d', 'e', 'r')
    order by 1
$$;
comment on function rollbook.local_objects(text) is
    'List what a course added to its schema, as phrases: columns of the copies, tables, views, sequences, functions, '
    'types.';
