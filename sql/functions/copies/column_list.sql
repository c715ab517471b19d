-- column_list: names of columns, quoted for SQL and separated by commas, each after the alias of a table, if there is
-- one.
-- Called:   wherever a statement on a copy is built.
-- Security: INVOKER; builds text. No search_path of its own: routing calls it for each copy.
create or replace function rollbook.column_list(columns text[], alias text default null) returns text
language plpgsql immutable parallel safe
as $$
begin
    if strpos(array_to_string(columns, ''), '"') > 0 then
        columns := array(
            select replace(c.name, '"', '""') from unnest(columns) with ordinality as c (name, position)
            order by c.position
        );
    end if;
    -- Quoted as a whole: to ask of each name whether it needs it takes eight times as long.
    return coalesce(alias || '."', '"')
        || array_to_string(columns, coalesce('", ' || alias || '."', '", "')) || '"';
end $$;
comment on function rollbook.column_list(text[], text) is
    'Names of columns, quoted for SQL and separated by commas, each after the alias of a table, if one is given.';
