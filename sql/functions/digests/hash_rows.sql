-- hash_rows: of each row of one copy, from one id up to, but without, another, the user and a 64-bit hash.
-- without:  the columns that do not travel to the course: they are left out. Never a list of what to read.
-- Called:   by `rollbook replication verify`, for ranges that differ.
-- Locks:    none.
-- Security: DEFINER, owned by rollbook_owner. As hash_ranges.
create or replace function rollbook.hash_rows(
    schema_name text, table_name text, low bigint, high bigint, without text[] default '{}'
)
returns table (id bigint, user_id bigint, hash bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        'select c.id, c.%I::bigint, %s from %s as c where c.id >= $1 and c.id < $2',
        case table_name when 'auth_user' then 'id' else 'user_id' end,
        rollbook.row_hash(schema_name, table_name, without), rollbook.copy_place(schema_name, table_name)
    ) using low, high;
end $$;
comment on function rollbook.hash_rows(text, text, bigint, bigint, text[]) is
    'Of each row of one copy with an id from low up to, but without, high: the user and a 64-bit hash of the '
    'replicated columns.';
