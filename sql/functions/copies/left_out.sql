-- left_out: check a list of columns that shall not travel; return it sorted, each column once; null for null. A column
-- is listed by its name, or as TABLE.COLUMN where two tables have one of that name; TABLE.COLUMN is always accepted.
-- Called:   by create_course, update_course and `rollbook shape without`.
-- Raises:   RB028 for a column that is unknown, for a key, and for a name that two tables have.
-- Security: INVOKER.
create or replace function rollbook.left_out(without text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    given text;
    found_columns text[] := '{}';
    known jsonb;  -- in order: name, as TABLE.COLUMN, as it is listed, whether it is a key
    named record;
begin
    if without is null then
        return null;
    end if;
    select jsonb_agg(to_jsonb(c) order by c.ordinal, c.position) into known
    from (
        select
            w.name, t.table_name || '.' || w.name as qualified, t.ordinal, w.position,
            case when count(*) over (partition by w.name) > 1 then t.table_name || '.' else '' end || w.name as listed,
            w.name in (t.key_column, t.user_column, t.course_column) is true as is_key
        from rollbook.copied_tables() as t
        cross join unnest(rollbook.replicated_columns(t.table_name)) with ordinality as w (name, position)
    ) as c;
    foreach given in array without loop
        select count(*) as number, array_agg(c.listed) filter (where not c.is_key) as columns into named
        from jsonb_to_recordset(known) as c (name text, qualified text, listed text, is_key boolean)
        where given in (c.name, c.qualified);
        if named.number = 0 then
            raise exception 'there is no copied column %', coalesce(given, 'null')
                using errcode = 'RB028', hint = 'Columns that can be left out: ' || (
                    select string_agg(c.value ->> 'listed', ', ' order by c.ordinality)
                    from jsonb_array_elements(known) with ordinality as c
                    where not (c.value -> 'is_key')::boolean
                ) || '.';
        end if;
        if named.columns is null then
            raise exception 'column % is a key and always travels', given
                using errcode = 'RB028', hint = 'Leave it away from the list.';
        end if;
        if cardinality(named.columns) > 1 then
            raise exception 'more than one table has a column %', given
                using errcode = 'RB028', hint = 'Name the table: ' || array_to_string(named.columns, ' or ') || '.';
        end if;
        found_columns := found_columns || named.columns;
    end loop;
    return array(select distinct c.name from unnest(found_columns) as c (name) order by c.name);
end $$;
comment on function rollbook.left_out(text[]) is
    'Check a list of columns that shall not travel and return it sorted. Raises RB028 for an unknown column, a key, or '
    'a name that two tables have.';
