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
declare
    copied record;
begin
    select * into copied from rollbook.copied_tables() as t where t.table_name = hash_rows.table_name;
    return query execute format(
        'select c.%1$I::bigint, c.%2$I::bigint, %3$s from %4$s as c where c.%1$I >= $1 and c.%1$I < $2',
        copied.key_column, copied.user_column,
        rollbook.row_hash(schema_name, table_name, without), rollbook.copy_place(schema_name, table_name)
    ) using low, high;
end $$;
comment on function rollbook.hash_rows(text, text, bigint, bigint, text[]) is
    'Of each row of one copy with an id from low up to, but without, high: the user and a 64-bit hash of the '
    'replicated columns.';
