-- copy_statements: the statements that make one copy's table, bare: columns, types and NOT NULL come from the portal
-- through the whitelist. No defaults, no sequences, no unique natural keys, no foreign keys of ours: a subset cannot
-- prove them, they can only block. A course may add what it likes beside the copied columns.
-- Called:   by fill_course, which runs them here, and by `rollbook course attach`, which runs them on a course server;
--           guard_statements completes the table.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_statements(schema_name text, table_name text) returns setof text
language plpgsql stable
as $$
declare
    definitions text;
begin
    select
        string_agg(
            format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
            || case when a.attcollation <> y.typcollation then ' collate ' || a.attcollation::regcollation else '' end
            || case when a.attnotnull then ' not null' else '' end,
            ', ' order by w.position
        )
    into definitions
    from unnest(rollbook.replicated_columns(table_name)) with ordinality as w (column_name, position)
    inner join pg_attribute as a
        on a.attrelid = format('portal.%I', table_name)::regclass and a.attname = w.column_name
    inner join pg_type as y on y.oid = a.atttypid;
    return next format('create table %I.%I (%s)', schema_name, table_name, definitions);
    return next format(
        'comment on table %I.%I is %L', schema_name, table_name,
        format('Copy of the rows of portal.%s that are due in this course. Written by Rollbook alone; columns that the '
               'course adds are its own.', table_name)
    );
    return query
    select format(
        'comment on column %I.%I.%I is %L', schema_name, table_name, a.attname,
        'As in the portal: ' || coalesce(col_description(a.attrelid, a.attnum), 'no comment there.')
    )
    from pg_attribute as a
    where a.attrelid = format('portal.%I', table_name)::regclass
        and a.attname = any (rollbook.replicated_columns(table_name));
end $$;
comment on function rollbook.copy_statements(text, text) is
    'The statements that make one copy''s table, bare.';
