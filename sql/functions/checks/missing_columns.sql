-- missing_columns: the columns that travel to a course and that its copy lacks; all of them if the table is gone.
-- A copy that lacks any of them cannot be compared, and routing to it fails.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.missing_columns(schema_name text, table_name text) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select w.column_name
        from unnest(
            rollbook.course_columns(table_name, rollbook.course_without(schema_name))
        ) with ordinality as w (column_name, position)
        where not exists (
            select from pg_attribute as a
            inner join pg_class as c on c.oid = a.attrelid
            inner join pg_namespace as n on n.oid = c.relnamespace
            where n.nspname = schema_name and c.relname = table_name
                and a.attname = w.column_name and not a.attisdropped
        )
        order by w.position
    )
$$;
comment on function rollbook.missing_columns(text, text) is
    'The replicated columns that one copied table in a course''s schema lacks; all of them if the table is gone.';
