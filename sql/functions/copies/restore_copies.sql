-- restore_copies: recreate what is gone of a course's copies: schema, tables, columns, and give back to rollbook_owner
-- what belongs to somebody else. Rows are for repair_copies. New tables are not published before finish_copies, so that
-- their first rows do not meet those that a course server has.
-- Called:   by repair, through take_turns, and by reopen_course.
-- Locks:    ACCESS EXCLUSIVE on tables that it changes.
-- Raises:   RB019 if the caller may not.
-- Security: INVOKER: requires the caller's own CREATE right on the database and membership in rollbook_owner.
create or replace function rollbook.restore_copies(course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.course_schema(course_id);
    foreign_object text;
begin
    if not exists (select from pg_namespace as n where n.nspname = schema_name) then
        perform rollbook.create_schema(schema_name, course_id);
    end if;
    for foreign_object in
        select format('schema %I', n.nspname)
        from pg_namespace as n
        where n.nspname = schema_name and n.nspowner <> 'rollbook_owner'::regrole
        union all
        select format('table %I.%I', n.nspname, c.relname)
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        inner join rollbook.copied_tables() as t on t.table_name = c.relname
        where n.nspname = schema_name and c.relkind = 'r' and c.relowner <> 'rollbook_owner'::regrole
    loop
        execute format('alter %s owner to rollbook_owner', foreign_object);
    end loop;
    perform rollbook.rebuild_copies(course_id);
exception when insufficient_privilege then
    raise exception 'role % may not repair schema % of course %', current_user, schema_name, course_id
        using errcode = 'RB019', detail = sqlerrm,
            hint = 'Ask a superuser, or the owner that the detail names, who must be a member of rollbook_owner.';
end $$;
comment on function rollbook.restore_copies(text) is
    'Recreate what is gone of a course''s copies: schema, tables, columns, owners. Raises RB019 if the caller may '
    'not.';
