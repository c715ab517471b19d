-- guard_statements: the statements that complete a copy: the portal's key as its primary key, a plain index for looking
-- up users (the course may add others), and the two triggers of the guard.
-- Called:   by fill_course, which executes them after the inserts, because building an index once is faster than
--           growing it; and by `rollbook course attach`, which executes them on a course server.
-- condition: with a text constant, as PostgreSQL reads the condition again for each statement: a name has 64 bytes.
-- without:  null = what the course leaves out now.
-- Security: INVOKER.
create or replace function rollbook.guard_statements(schema_name text, table_name text, without text[] default null)
returns setof text
language sql stable
as $$
    select statement.words
    from rollbook.copied_tables() as t
    cross join lateral (
        values
            (case when t.index_column is not null
                then format('create index on %I.%I (%I)', schema_name, table_name, t.index_column) end),
            (format('alter table %I.%I add primary key (%I)', schema_name, table_name, t.key_column)),
            (format(
                'create trigger rollbook_guard_copy before insert or delete or truncate on %I.%I '
                'for each statement when (current_user <> ''rollbook_owner''::text) execute function rollbook.guard_copy()',
                schema_name, table_name
            )),
            (format(
                'comment on trigger rollbook_guard_copy on %I.%I is %L', schema_name, table_name,
                'Refuse with 23R01 to insert or delete rows; only Rollbook may. Calls rollbook.guard_copy.'
            )),
            (format(
                'create or replace trigger rollbook_guard_copy_update after update on %I.%I '
                'for each row when (current_user <> ''rollbook_owner''::text) execute function rollbook.guard_copy(%s)',
                schema_name, table_name,
                (select string_agg(quote_literal(quote_ident(c)), ', ')
                 from unnest(rollbook.course_columns(
                     table_name, coalesce(without, rollbook.course_without(schema_name))
                 )) as c)
            )),
            (format(
                'comment on trigger rollbook_guard_copy_update on %I.%I is %L', schema_name, table_name,
                'Refuse with 23R01 to change replicated values; only Rollbook may. Calls rollbook.guard_copy.'
            ))
    ) as statement (words)
    where t.table_name = guard_statements.table_name and statement.words is not null
$$;
comment on function rollbook.guard_statements(text, text, text[]) is
    'The statements that complete one copied table in a course''s schema: primary key, index and guard.';
