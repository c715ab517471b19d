-- copy_shape: the columns of a copy as shape_statements takes them. `rollbook course update` sends the query between
-- the dollar signs to course servers.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_shape(schema_name text, table_name text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_object_agg(
        a.attname, jsonb_build_object('has_default', a.atthasdef, 'is_not_null', a.attnotnull)
    ) as shape
    from pg_attribute as a
    inner join pg_class as c on c.oid = a.attrelid and c.relname = $2::text
    inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = $1::text
    where a.attnum > 0 and not a.attisdropped
$$;
comment on function rollbook.copy_shape(text, text) is
    'The columns of one copied table: which have a default, which are NOT NULL.';
