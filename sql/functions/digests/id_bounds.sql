-- id_bounds: every n-th id of one copy, in order: where ranges of n rows begin.
-- Called:   by `rollbook replication verify`.
-- Locks:    none.
-- Security: DEFINER, owned by rollbook_owner. As digest_rows.
create or replace function rollbook.id_bounds(schema_name text, table_name text, every integer) returns setof bigint
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        'select r.id from (select c.id, row_number() over (order by c.id) as n from %s as c) as r '
        'where mod(r.n, $1) = 0 order by r.id',
        rollbook.copy_place(schema_name, table_name)
    ) using every;
end $$;
comment on function rollbook.id_bounds(text, text, integer) is
    'Every n-th id of one copy, in order: where ranges of n rows begin.';
