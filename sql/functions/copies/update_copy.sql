-- update_copy: bring one copy up to date in one course, from the portal's row as scalars: a third of the time that
-- update_copies takes for one row.
-- Called:   by the routing of a single changed user or profile. A row of nulls, for one that is gone, updates nothing.
-- Locks:    the caller has written the user's route.
-- Security: INVOKER, called with the rights of rollbook_owner, whom the copies' guard lets pass.
create or replace function rollbook.update_copy(schema_name text, table_name text, portal_row anyelement) returns void
language plpgsql
as $$
declare
    columns constant text[] := rollbook.replicated_columns(table_name);
begin
    execute format(
        'update %I.%I set (%s) = row(%s) where id = ($1).id',
        schema_name, table_name, array_to_string(columns, ', '), '($1).' || array_to_string(columns, ', ($1).')
    ) using portal_row;
end $$;
comment on function rollbook.update_copy(text, text, anyelement) is
    'Bring one copy up to date in one course, from the portal''s row as scalars.';
