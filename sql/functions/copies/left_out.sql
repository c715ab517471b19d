-- left_out: check a list of columns that shall not travel; return it sorted, each column once; null for null. All
-- copied columns have different names, the keys apart; `auth_userprofile.meta` is accepted for `meta`.
-- Called:   by create_course, update_course and `rollbook shape without`.
-- Raises:   RB028 for a column that is unknown, or a key.
-- Security: INVOKER.
create or replace function rollbook.left_out(without text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    given text;
    found_columns text[] := '{}';
    wanted text;
    is_key boolean;
begin
    if without is null then
        return null;
    end if;
    foreach given in array without loop
        select c.name, c.name in (t.key_column, t.user_column, t.course_column) is true into wanted, is_key
        from rollbook.copied_tables() as t
        cross join unnest(rollbook.replicated_columns(t.table_name)) as c (name)
        where given = c.name or given = t.table_name || '.' || c.name
        order by 2
        limit 1;
        if not found then
            raise exception 'there is no copied column %', coalesce(given, 'null')
                using errcode = 'RB028', hint = 'Columns that can be left out: ' || (
                    select string_agg(c.name, ', ' order by t.ordinal, c.position)
                    from rollbook.copied_tables() as t
                    cross join unnest(rollbook.replicated_columns(t.table_name)) with ordinality as c (name, position)
                    where c.name in (t.key_column, t.user_column, t.course_column) is not true
                ) || '.';
        end if;
        if is_key then
            raise exception 'column % is a key and always travels', given
                using errcode = 'RB028', hint = 'Leave it away from the list.';
        end if;
        found_columns := found_columns || wanted;
    end loop;
    return array(select distinct c.name from unnest(found_columns) as c (name) order by c.name);
end $$;
comment on function rollbook.left_out(text[]) is
    'Check a list of columns that shall not travel and return it sorted. Raises RB028 for an unknown column or a key.';
