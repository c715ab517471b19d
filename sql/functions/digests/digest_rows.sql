-- digest_rows: a SHA-256 of the replicated columns of each row of one copy, from one id up to, but without, another
-- (null: no bound). Who compares two sides needs no right to read the copies, which hold password hashes.
-- Called:   by `rollbook replication verify`, in the portal's database and on the course server.
-- Locks:    none.
-- Security: DEFINER, owned by rollbook_owner; of schemas that belong to rollbook_owner alone, and never of a column
--           that a course has added.
create or replace function rollbook.digest_rows(schema_name text, table_name text, low bigint, high bigint)
returns table (id bigint, digest bytea)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
begin
    return query execute format(
        'select c.id, sha256(convert_to(row(%s)::text, ''UTF8'')) from %s as c '
        'where ($1 is null or c.id >= $1) and ($2 is null or c.id < $2)',
        'c.' || array_to_string(rollbook.replicated_columns(table_name), ', c.'),
        rollbook.copy_place(schema_name, table_name)
    ) using low, high;
end $$;
comment on function rollbook.digest_rows(text, text, bigint, bigint) is
    'A SHA-256 of the replicated columns of each row of one copy, with ids from low up to, but without, high; null: no '
    'bound.';
