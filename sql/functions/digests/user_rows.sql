-- user_rows: the ids of the rows of these users in the copies here: in these schemas, or (null) in all. Looks each copy
-- up by its user; a schema that is not a copy of ours, and one that has lost its keys, is skipped.
-- Called:   by `rollbook replication verify --user` and `user show`, on course servers; by compare_users.
-- Locks:    none but ACCESS SHARE on each copy, about 9 locks a schema: give it a few hundred schemas at once.
-- Security: DEFINER, owned by rollbook_owner. As hash_ranges.
create or replace function rollbook.user_rows(user_ids bigint[], schema_names text[] default null)
returns table (schema_name text, table_name text, id bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    copied record;
begin
    for copied in
        select n.nspname, c.relname, t.key_column, t.user_column
        from pg_namespace as n
        inner join pg_class as c on c.relnamespace = n.oid and c.relkind = 'r'
        inner join rollbook.copied_tables() as t on t.table_name = c.relname
        where (schema_names is null or n.nspname = any (schema_names)) and n.nspname <> 'rollbook'
            and pg_get_userbyid(n.nspowner) = 'rollbook_owner' and pg_get_userbyid(c.relowner) = 'rollbook_owner'
            and (
                select count(*) from pg_attribute as a
                where a.attrelid = c.oid and a.attname in (t.key_column, t.user_column) and not a.attisdropped
            ) = case t.user_column when t.key_column then 1 else 2 end
        order by n.nspname, c.relname
    loop
        return query execute format(
            'select %1$L, %2$L, c.%3$I::bigint from %1$I.%2$I as c where c.%4$I = any ($1)',
            copied.nspname, copied.relname, copied.key_column, copied.user_column
        ) using user_ids;
    end loop;
end $$;
comment on function rollbook.user_rows(bigint[], text[]) is
    'The ids of the rows of these users in the copies here: in these schemas, or (null) in all.';
