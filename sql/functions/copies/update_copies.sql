-- update_copies: update the copies of changed portal rows in one course. It creates no copies.
-- Called:   by the routing of user and profile updates for several rows, and by repair; the keys name the portal rows.
-- Returns:  how many rows were written.
-- Locks:    none; the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner; the guard of the copies lets it pass.
create or replace function rollbook.update_copies(
    schema_name text, table_name text, key_column text, keys bigint[], without text[] default '{}'
) returns bigint
language plpgsql
as $$
declare
    columns constant text[] := rollbook.course_columns(table_name, without);
    copied record;
    written bigint;
begin
    select * into copied from rollbook.copied_tables() as t where t.table_name = update_copies.table_name;
    execute format(
        'update %1$I.%2$I as c set (%3$s) = row(%5$s) from %7$s as p '
        'where p.%4$I = any ($1) and c.%8$I = p.%8$I and row(%6$s) is distinct from row(%5$s)',
        schema_name, table_name, rollbook.column_list(columns), key_column, rollbook.column_list(columns, 'p'),
        rollbook.column_list(columns, 'c'), copied.source, copied.key_column
    ) using keys;
    get diagnostics written = row_count;
    return written;
end $$;
comment on function rollbook.update_copies(text, text, text, bigint[], text[]) is
    'Update the copies of portal rows, named by key, in one course where they differ; return the number written. '
    'Creates no copies.';
