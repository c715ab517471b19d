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
    written bigint;
begin
    execute format(
        'update %1$I.%2$I as c set (%3$s) = row(%5$s) from portal.%2$I as p '
        'where p.%4$I = any ($1) and c.id = p.id and row(%6$s) is distinct from row(%5$s)',
        schema_name, table_name, array_to_string(columns, ', '), key_column,
        'p.' || array_to_string(columns, ', p.'),
        'c.' || array_to_string(columns, ', c.')
    ) using keys;
    get diagnostics written = row_count;
    return written;
end $$;
comment on function rollbook.update_copies(text, text, text, bigint[], text[]) is
    'Update the copies of portal rows, named by key, in one course where they differ; return the number written. '
    'Creates no copies.';
