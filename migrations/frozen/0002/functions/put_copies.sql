-- put_copies: make the copies of portal rows in one course: insert what is absent, update what differs.
-- Called:   on the membership path (enroll, create_course, profile insert) and by repair; the keys name the portal rows,
--           by id or by user_id. Never when a row merely changes: an upsert there would raise the dead.
-- Returns:  how many rows were written.
-- Locks:    the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner, whom the copies' guard lets pass.
create or replace function rollbook.put_copies(schema_name text, table_name text, key_column text, keys bigint[])
returns bigint
language plpgsql
as $$
declare
    columns constant text[] := rollbook.replicated_columns(table_name);
    written bigint;
begin
    execute format(
        'insert into %1$I.%2$I as c (%3$s) select %3$s from portal.%2$I where %4$I = any ($1) order by id '
        'on conflict (id) do update set (%3$s) = row(%5$s) where row(%6$s) is distinct from row(%5$s)',
        schema_name, table_name, array_to_string(columns, ', '), key_column,
        'excluded.' || array_to_string(columns, ', excluded.'),
        'c.' || array_to_string(columns, ', c.')
    ) using keys;
    get diagnostics written = row_count;
    return written;
end $$;
comment on function rollbook.put_copies(text, text, text, bigint[]) is
    'Make the copies of portal rows in one course: insert what is absent, update what differs.';
