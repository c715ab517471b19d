-- hash_ranges: of each range of 2^bits ids of one copy that has rows, its number, the rows, and the sum of their
-- hashes. A shift rounds down, negative ids too.
-- without:  the columns that do not travel to the course: they are left out. Never a list of what to read.
-- Called:   by `rollbook replication verify`, in the portal's database and on the course server.
-- Locks:    none.
-- Security: DEFINER, owned by rollbook_owner; of schemas that belong to rollbook_owner alone, and never of a column
--           that a course has added.
create or replace function rollbook.hash_ranges(
    schema_name text, table_name text, bits integer, without text[] default '{}'
)
returns table (range bigint, rows bigint, hash numeric)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        'select c.%I::bigint >> $1, count(*), sum(%s) from %s as c group by 1',
        (select t.key_column from rollbook.copied_tables() as t where t.table_name = hash_ranges.table_name),
        rollbook.row_hash(schema_name, table_name, without), rollbook.copy_place(schema_name, table_name)
    ) using bits;
end $$;
comment on function rollbook.hash_ranges(text, text, integer, text[]) is
    'Of each range of 2^bits ids of one copy: its number (id >> bits), its rows, and the sum of their hashes.';
