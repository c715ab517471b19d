-- update_copy: update one copy in one course from the given portal row. For a single row it takes a third of the time
-- of update_copies.
-- Called:   by the routing of a single changed user or profile. A row of nulls, for a deleted row, updates nothing.
-- Locks:    none; the caller has written the user's route.
-- Security: INVOKER, called with the rights of rollbook_owner; the guard of the copies lets it pass.
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
    'Update one copy in one course from the given portal row; a row of nulls updates nothing.';
