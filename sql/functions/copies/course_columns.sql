-- course_columns: the columns of a portal table that travel to a course, in the copy's order: the whitelist without
-- those that the course leaves out. `without` has names of columns, or TABLE.COLUMN where two tables have a column of
-- that name. The keys always travel; a name that is not replicated has no effect.
-- Called:   wherever a statement on a copy is built; on course servers by the digests, which take `without` instead of
--           a list of columns: so nobody reads a column that a course has added.
-- Security: INVOKER; constant.
create or replace function rollbook.course_columns(table_name text, without text[]) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if without = '{}' then
        return rollbook.replicated_columns(table_name);
    end if;
    return (
        select array_agg(w.name order by w.position)
        from unnest(rollbook.replicated_columns(table_name)) with ordinality as w (name, position)
        where w.name <> all (without) and table_name || '.' || w.name <> all (without) or exists (
            select from rollbook.copied_tables() as t
            where t.table_name = course_columns.table_name
                and w.name in (t.key_column, t.user_column, t.course_column)
        )
    );
end $$;
comment on function rollbook.course_columns(text, text[]) is
    'The columns of a portal table that travel to a course which leaves these out; null for a table that is not '
    'replicated.';
