-- column_list: names of columns, quoted for SQL and separated by commas, each after the alias of a table, if there is
-- one.
-- Called:   wherever a statement on a copy is built.
-- Security: INVOKER; builds text.
create or replace function rollbook.column_list(columns text[], alias text default null) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select string_agg(concat(alias || '.', quote_ident(c.name)), ', ' order by c.position)
        from unnest(columns) with ordinality as c (name, position)
    );
end $$;
comment on function rollbook.column_list(text[], text) is
    'Names of columns, quoted for SQL and separated by commas, each after the alias of a table, if one is given.';
