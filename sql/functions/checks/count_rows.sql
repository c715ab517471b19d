-- count_rows: count the rows of one copy in a course; null if the table is gone or cannot be read.
-- Called:   by the view course_status.
-- Security: DEFINER, owned by rollbook_owner: a monitor may count rows without a right to read them.
create or replace function rollbook.count_rows(schema_name text, table_name text) returns bigint
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    counted bigint;
begin
    if rollbook.copy_fault(schema_name, table_name) is null
        and exists (select from rollbook.course as c where c.schema_name = count_rows.schema_name)
        and rollbook.replicated_columns(table_name) is not null
    then
        execute format('select count(*) from %I.%I', schema_name, table_name) into counted;
    end if;
    return counted;
end $$;
comment on function rollbook.count_rows(text, text) is
    'Count the rows of one copied table in a course''s schema; null if the table is gone or not a copy.';
