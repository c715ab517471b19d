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
    assigned constant text := rollbook.column_list(columns);
    copied record;
    source text;
    written bigint;
begin
    select * into copied from rollbook.copied_tables() as t where t.table_name = put_copies.table_name;
    source := format(
        'insert into %1$I.%2$I as c (%3$s) select %3$s from %4$s as p where p.%5$I = any ($1)',
        schema_name, table_name, assigned, copied.source, key_column
    );
    if copied.role = 'membership' and key_column = copied.user_column then
        source := source || format(' and p.%I = %L', copied.course_column, rollbook.course_of(schema_name));
    end if;
    if current_setting('transaction_isolation') = 'serializable' then
        -- Reads no copy: whoever reads the page of an index into which others insert is refused.
        execute source || format(
            ' on conflict (%4$I) do update set (%1$s) = row(%2$s) where row(%3$s) is distinct from row(%2$s)',
            assigned, rollbook.column_list(columns, 'excluded'), rollbook.column_list(columns, 'c'), copied.key_column
        ) using keys;
        get diagnostics written = row_count;
        return written;
    end if;
    -- ON CONFLICT doubles the cost of a row, and with the routes written nobody else can insert the same row.
    execute source || format(
        ' and not exists (select from %1$I.%2$I as c where c.%3$I = p.%3$I)', schema_name, table_name, copied.key_column
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
