-- copies_of: the copies that a course should have: each with its table, if there is one, and whether rollbook_owner can
-- read and write it: it owns the table and its schema, and no column that travels is gone. copy_fault says what is not.
-- PostgreSQL puts the body in place of the call, as with memberships(): so its names are qualified.
-- Called:   by course_status and copies_at_fault, for every course.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copies_of(schema_name name, without text[])
returns table (table_name text, role text, relation oid, is_sound boolean)
language sql stable
as $$
    select
        t.table_name, t.role, k.oid,
        k.relkind = 'r' and k.relowner = n.nspowner
        and n.nspowner = (select r.oid from pg_catalog.pg_roles as r where r.rolname = 'rollbook_owner')
        and (
            select pg_catalog.count(*) = pg_catalog.cardinality(due.columns)
            from pg_catalog.pg_attribute as a
            where a.attrelid = k.oid and a.attname = any (due.columns) and not a.attisdropped
        )
    from pg_catalog.pg_namespace as n
    cross join rollbook.copied_tables() as t
    cross join lateral (
        select case
            when $2 = '{}' then rollbook.replicated_columns(t.table_name)
            else rollbook.course_columns(t.table_name, $2)
        end::name[] as columns
        offset 0  -- once
    ) as due
    inner join pg_catalog.pg_class as k on k.relnamespace = n.oid and k.relname = t.table_name
    where n.nspname = $1
    offset 0
$$;
comment on function rollbook.copies_of(name, text[]) is
    'The copies of a course that are there, and whether rollbook_owner can read and write each.';
