-- put_copies: copy portal rows into one course: insert those that are absent, update those that differ.
-- Called:   when a user joins a course (enroll, create_course, profile insert) and by repair; the keys name the portal
--           rows, by id or by user_id. Never when a row merely changes: an upsert there would bring deleted copies
--           back.
-- Returns:  how many rows were written.
-- Locks:    none; the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner; the guard of the copies lets it pass.
create or replace function rollbook.put_copies(schema_name text, table_name text, key_column text, keys bigint[])
returns bigint
language plpgsql
as $$
declare
    columns constant text[] := rollbook.replicated_columns(table_name);
    written bigint;
begin
    -- Not ON CONFLICT: it doubles the cost of a row, and with the routes written nobody else can insert the same row.
    execute format(
        'insert into %1$I.%2$I (%3$s) select %4$s from portal.%2$I as p '
        'where p.%5$I = any ($1) and not exists (select from %1$I.%2$I as c where c.id = p.id)',
        schema_name, table_name, array_to_string(columns, ', '), 'p.' || array_to_string(columns, ', p.'), key_column
    ) using keys;
    get diagnostics written = row_count;
    if written < cardinality(keys) then
        written := written + rollbook.update_copies(schema_name, table_name, key_column, keys);
    end if;
    return written;
end $$;
comment on function rollbook.put_copies(text, text, text, bigint[]) is
    'Copy portal rows, named by key, into one course: insert those that are absent, update those that differ; return '
    'the number written.';
