-- copy_place: a copy's name, quoted for SQL; refuse whatever is not a copy of ours.
-- Called:   by row_hash, hash_ranges, hash_rows, digest_rows and digest_columns, inside which the caller's rights are
--           rollbook_owner's.
-- Raises:   RB006.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copy_place(schema_name text, table_name text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if rollbook.replicated_columns(table_name) is null or schema_name = 'rollbook' or not exists (
        select from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = schema_name and c.relname = table_name and c.relkind = 'r'
            and pg_get_userbyid(n.nspowner) = 'rollbook_owner' and pg_get_userbyid(c.relowner) = 'rollbook_owner'
    ) then
        raise exception '%.% is not a copy of a course', schema_name, table_name
            using errcode = 'RB006', hint = 'See rollbook.course_status, or `rollbook course list`.';
    end if;
    return format('%I.%I', schema_name, table_name);
end $$;
comment on function rollbook.copy_place(text, text) is
    'The name of one copy, quoted for SQL. Raises RB006 for whatever is not a copy of a course.';
