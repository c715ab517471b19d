-- update_copies: bring the copies of changed portal rows up to date in one course. Rows that have no copy get none.
-- Called:   by the routing of user and profile updates for sets, and by repair; the keys name the portal rows.
-- Returns:  how many rows were written.
-- Locks:    the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner, whom the copies' guard lets pass.
create or replace function rollbook.update_copies(schema_name text, table_name text, key_column text, keys bigint[])
returns bigint
language plpgsql
as $$
declare
    columns constant text[] := rollbook.replicated_columns(table_name);
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
comment on function rollbook.update_copies(text, text, text, bigint[]) is
    'Bring the copies of changed portal rows up to date in one course.';
