-- column_definitions: the replicated columns of a portal table as a copy defines them, in the copy's order: type and
-- collation as in the portal, no default. NOT NULL is a column of its own.
-- Called:   by copy_statements, and by rebuild_copies for columns that are gone.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.column_definitions(table_name text)
returns table (column_name text, definition text, is_not_null boolean)
language sql stable
as $$
    select
        w.column_name,
        format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        || case when a.attcollation <> y.typcollation then ' collate ' || a.attcollation::regcollation else '' end,
        a.attnotnull
    from unnest(rollbook.replicated_columns(table_name)) with ordinality as w (column_name, position)
    inner join pg_attribute as a
        on a.attrelid = rollbook.portal_table(table_name) and a.attname = w.column_name
    inner join pg_type as y on y.oid = a.atttypid
    order by w.position
$$;
comment on function rollbook.column_definitions(text) is
    'The replicated columns of a portal table as a copy defines them: name, definition, whether NOT NULL.';
