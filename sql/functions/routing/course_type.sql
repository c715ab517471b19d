-- course_type: the type of the column that holds the course of a membership, for a cast: so its index serves.
-- Called:   by due_rows, register_course and put_copies.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.course_type() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format_type(a.atttypid, a.atttypmod)
    from rollbook.copied_tables() as t
    inner join pg_attribute as a on a.attrelid = to_regclass(t.relation) and a.attname = t.course_column
    where t.role = 'membership'
$$;
comment on function rollbook.course_type() is 'The type of the column that holds the course of a membership.';
