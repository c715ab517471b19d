-- rebuild_copies: the second half of restore_copies, run as rollbook_owner: recreate the tables and columns that are
-- gone, with key and guard. A column comes back without NOT NULL; finish_copies adds it when the rows are repaired.
-- Raises:   RB008 if a copy has lost its key: nothing tells whose the rows are.
-- Locks:    ACCESS EXCLUSIVE on tables that it changes.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.rebuild_copies(course_id text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant text := rollbook.course_schema(course_id);
    copied record;
    absent text[];
    statement text;
begin
    perform rollbook.require_owner('repair courses');
    for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
        absent := rollbook.missing_columns(schema_name, copied.table_name);
        if to_regclass(format('%I.%I', schema_name, copied.table_name)) is null then
            for statement in
                select rollbook.copy_statements(schema_name, copied.table_name)
                union all
                select rollbook.guard_statements(schema_name, copied.table_name)
            loop
                execute statement;
            end loop;
        elsif copied.key_column = any (absent) then
            raise exception 'course % cannot be repaired: %.% has lost its %', course_id, schema_name,
                    copied.table_name, copied.key_column
                using errcode = 'RB008', hint = format(
                    'Save the columns that the course added, then: drop table %I.%I; and repair the course again.',
                    schema_name, copied.table_name
                );
        elsif absent <> '{}' then
            for statement in
                select format('alter table %I.%I add column %s', schema_name, copied.table_name, d.definition)
                from rollbook.column_definitions(copied.table_name, rollbook.course_without(schema_name)) as d
                where d.column_name = any (absent)
                union all
                select g.words
                from rollbook.guard_statements(schema_name, copied.table_name) as g (words)
                cross join substring(g.words from 'rollbook_guard_[a-z_]+') as guard (name)
                where guard.name is not null and not exists (
                    select from pg_trigger as t
                    where t.tgrelid = format('%I.%I', schema_name, copied.table_name)::regclass
                        and t.tgname = guard.name
                )
            loop
                execute statement;
            end loop;
        end if;
    end loop;
end $$;
comment on function rollbook.rebuild_copies(text) is
    'Second half of restore_copies, run as rollbook_owner: recreate the tables and columns that are gone. Raises '
    'RB008 if a copy has lost its key.';
