-- default_group: the purpose of a default group; null for any other name.
-- Called:   by `rollbook group add`.
-- Security: INVOKER; constant.
create or replace function rollbook.default_group(group_name text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select g.description from rollbook.default_groups() as g where g.name = group_name
$$;
comment on function rollbook.default_group(text) is
    'The purpose of a default group; null for any other name.';
