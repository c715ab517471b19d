-- copies_of: the copies that a course should have: each with its table, if there is one, and whether rollbook_owner can
-- read and write it: it owns the table and its schema, and no column that travels is gone. copy_fault says what is not.
-- PostgreSQL puts the body in place of the call, as with memberships(): so its names are qualified.
-- Called:   by course_status and copies_at_fault, for every course.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copies_of(schema_name name, without text[])
returns table (table_name text, role text, relation oid, is_sound boolean)
language sql stable
as $$
    with due as materialized (  -- once, not for every course
        select t.table_name, t.role, rollbook.replicated_columns(t.table_name)::name[] as columns
        from rollbook.copied_tables() as t
    )
    select
        due.table_name, due.role, k.oid,
        k.relkind = 'r' and k.relowner = n.nspowner
        and n.nspowner = (select r.oid from pg_catalog.pg_roles as r where r.rolname = 'rollbook_owner')
        and array(
            select a.attname from pg_catalog.pg_attribute as a
            where a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped
        ) operator(pg_catalog.@>) case
            when $2 = '{}' then due.columns else rollbook.course_columns(due.table_name, $2)::name[]
        end
    from pg_catalog.pg_namespace as n
    cross join due
    inner join pg_catalog.pg_class as k on k.relnamespace = n.oid and k.relname = due.table_name
    where n.nspname = $1
    offset 0
$$;
comment on function rollbook.copies_of(name, text[]) is
    'The copies of a course that are there, and whether rollbook_owner can read and write each.';
