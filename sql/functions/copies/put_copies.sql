-- put_copies: copy portal rows into one course: insert those that are absent, update those that differ.
-- Called:   when a user joins a course (enroll, profile insert) and by repair; the keys name the portal rows, by id or
--           by user_id, which for enrollments means the users' enrollments in this course. Never when a row merely
--           changes: an upsert there would bring deleted copies back.
-- Returns:  how many rows were written.
-- Locks:    none; the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner; the guard of the copies lets it pass.
create or replace function rollbook.put_copies(
    schema_name text, table_name text, key_column text, keys bigint[], without text[] default '{}'
) returns bigint
language plpgsql
as $$
declare
    columns constant text[] := rollbook.course_columns(table_name, without);
    assigned constant text := array_to_string(columns, ', ');
    source constant text := format(
        'insert into %1$I.%2$I as c (%3$s) select %4$s from portal.%2$I as p where p.%5$I = any ($1)',
        schema_name, table_name, assigned, 'p.' || array_to_string(columns, ', p.'), key_column
    ) || case
        when table_name = 'student_courseenrollment' and key_column = 'user_id'
            then format(' and p.course_id = %L', rollbook.course_of(schema_name))
        else ''
    end;
    written bigint;
begin
    if current_setting('transaction_isolation') = 'serializable' then
        -- Reads no copy: whoever reads the page of an index into which others insert is refused.
        execute source || format(
            ' on conflict (id) do update set (%s) = row(%s) where row(%s) is distinct from row(%2$s)',
            assigned, 'excluded.' || array_to_string(columns, ', excluded.'), 'c.' || array_to_string(columns, ', c.')
        ) using keys;
        get diagnostics written = row_count;
        return written;
    end if;
    -- ON CONFLICT doubles the cost of a row, and with the routes written nobody else can insert the same row.
    execute source || format(
        ' and not exists (select from %I.%I as c where c.id = p.id)', schema_name, table_name
    ) using keys;
    get diagnostics written = row_count;
    if written < cardinality(keys) then
        written := written + rollbook.update_copies(schema_name, table_name, key_column, keys, without);
    end if;
    return written;
end $$;
comment on function rollbook.put_copies(text, text, text, bigint[], text[]) is
    'Copy portal rows, named by key, into one course: insert those that are absent, update those that differ; return '
    'the number written.';
