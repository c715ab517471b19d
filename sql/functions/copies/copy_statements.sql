-- copy_statements: the statements that create the bare table of one copy: columns, types and NOT NULL come from the
-- portal through the whitelist. No defaults, no sequences, no unique natural keys, no foreign keys: a subset of the
-- rows cannot guarantee them, so they could only block. A course may add columns of its own.
-- Called:   by fill_course, which executes them on the portal, and by `rollbook course attach`, which executes them on
--           a course server; guard_statements completes the table.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_statements(schema_name text, table_name text) returns setof text
language plpgsql stable
as $$
declare
    definitions text;
begin
    select string_agg(d.definition || case when d.is_not_null then ' not null' else '' end, ', ')
    into definitions
    from rollbook.column_definitions(table_name, rollbook.course_without(schema_name)) as d;
    return next format('create table %I.%I (%s)', schema_name, table_name, definitions);
    return next format(
        'comment on table %I.%I is %L', schema_name, table_name,
        format('Copy of the rows of %s that are due in this course. Only Rollbook writes it; the course may '
               'add columns of its own.',
               (select t.relation from rollbook.copied_tables() as t where t.table_name = copy_statements.table_name))
    );
    return query
    select format(
        'comment on column %I.%I.%I is %L', schema_name, table_name, a.attname,
        case when a.attname = any (rollbook.course_columns(table_name, rollbook.course_without(schema_name)))
            then 'As in the portal: ' else 'The course''s own, does not travel. In the portal: ' end
        || coalesce(col_description(a.attrelid, a.attnum), 'no comment there.')
    )
    from pg_attribute as a
    where a.attrelid = rollbook.portal_table(table_name)
        and a.attname = any (rollbook.replicated_columns(table_name));
end $$;
comment on function rollbook.copy_statements(text, text) is
    'The statements that create one copied table in a course''s schema, without key, index and guard.';
