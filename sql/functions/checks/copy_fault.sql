-- copy_fault: why one copy of a course can be neither read nor written by rollbook_owner, as a phrase; null if it can.
-- Called:   by repair, differences, compare and user_copies, and by `rollbook status`.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_fault(schema_name text, table_name text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when n.oid is null then format('schema %I is gone', schema_name)
        when n.nspowner <> o.oid then format('schema %I belongs to %s', schema_name, n.nspowner::regrole)
        when c.oid is null then format('table %I.%I is gone', schema_name, table_name)
        when c.relkind <> 'r' then format('%I.%I is not a table', schema_name, table_name)
        when c.relowner <> o.oid then format('table %I.%I belongs to %s', schema_name, table_name, c.relowner::regrole)
        when absent.columns <> '{}'
            then format('%I.%I lacks %s', schema_name, table_name, array_to_string(absent.columns, ', '))
    end
    from pg_roles as o
    left join pg_namespace as n on n.nspname = schema_name
    left join pg_class as c on c.relnamespace = n.oid and c.relname = table_name
    cross join lateral (select rollbook.missing_columns(schema_name, table_name) as columns) as absent
    where o.rolname = 'rollbook_owner'
$$;
comment on function rollbook.copy_fault(text, text) is
    'Why one copy of a course can be neither read nor written by rollbook_owner; null if it can.';
