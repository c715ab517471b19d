-- digest_columns: of the rows of one copy with these ids, the user, the version (xmin, which shows whether a row was
-- written between two reads) and a SHA-256 of each replicated column, in their order; null for null.
-- without:  the columns that do not travel to the course: they are left out. Never a list of what to read.
-- Called:   by `rollbook replication verify --rows` and `--user`, for rows whose hashes differ.
-- Locks:    none.
-- Security: DEFINER, owned by rollbook_owner. As hash_ranges.
create or replace function rollbook.digest_columns(
    schema_name text, table_name text, ids bigint[], without text[] default '{}'
)
returns table (id bigint, user_id bigint, version text, digests bytea[])
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
declare
    copied record;
begin
    select * into copied from rollbook.copied_tables() as t where t.table_name = digest_columns.table_name;
    return query execute format(
        'select c.%1$I::bigint, c.%2$I::bigint, c.xmin::text, array[%3$s] from %4$s as c where c.%1$I = any ($1)',
        copied.key_column, copied.user_column, (
            select string_agg(format('sha256(convert_to(c.%I::text, ''UTF8''))', w.name), ', ' order by w.position)
            from unnest(rollbook.course_columns(table_name, without)) with ordinality as w (name, position)
        ),
        rollbook.copy_place(schema_name, table_name)
    ) using ids;
end $$;
comment on function rollbook.digest_columns(text, text, bigint[], text[]) is
    'Of the rows of one copy with these ids: the user, the version (xmin) and a SHA-256 of each replicated column.';
