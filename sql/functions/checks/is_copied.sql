-- is_copied: whether the copy of an enrollment is in its course; null if the course does not exist.
-- Called:   by the view enrollment_status.
-- Security: DEFINER, owned by rollbook_owner: a monitor may ask without a right to read the copies.
create or replace function rollbook.is_copied(course_id text, enrollment_id bigint) returns boolean
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    holder text;
    membership record;
    found_copy boolean;
begin
    select c.schema_name into holder from rollbook.course as c where c.course_id = is_copied.course_id;
    select t.table_name, t.key_column into membership from rollbook.copied_tables() as t where t.role = 'membership';
    if exists (
        select from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = holder and c.relname = membership.table_name
            and n.nspowner = 'rollbook_owner'::regrole and c.relowner = n.nspowner
    ) then
        execute format(
            'select exists (select from %I.%I where %I = $1)', holder, membership.table_name, membership.key_column
        ) into found_copy using enrollment_id;
    end if;
    return found_copy;
end $$;
comment on function rollbook.is_copied(text, bigint) is
    'Whether the copy of an enrollment is in its course; null if the course does not exist.';
