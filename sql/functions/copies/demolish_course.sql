-- demolish_course: one attempt of drop_course: take the course out of the machinery, drop its schema.
-- Called:   by take_turns.
-- Locks:    see withdraw_course; then ACCESS EXCLUSIVE on the schema's tables. Writers take them in the same order:
--           routes, then tables.
-- Security: INVOKER, as drop_course.
create or replace function rollbook.demolish_course(course_id text, drop_local boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.withdraw_course(course_id);
    local_names constant text[] := array(select rollbook.local_objects(schema_name, on_copies => false));
    reason text;
begin
    if local_names <> '{}' and drop_local is not true then
        raise exception 'course % has data of its own: %', course_id, array_to_string(local_names, ', ')
            using errcode = 'RB007',
                hint = format(
                    'Save what you need of schema %1$I, then: rollbook course delete %2$s --confirm %2$s --drop-local',
                    schema_name, rollbook.shell_quote(course_id)
                );
    end if;
    if drop_local then
        execute format('drop schema if exists %I cascade', schema_name);
        return;
    end if;
    -- RESTRICT: a view elsewhere may read the copies; PostgreSQL names it.
    execute 'drop table if exists ' || (
        select string_agg(format('%I.%I', schema_name, t.table_name), ', ') from rollbook.copied_tables() as t
    );
    execute format('drop schema if exists %I', schema_name);
exception when dependent_objects_still_exist then
    get stacked diagnostics reason = pg_exception_detail;
    raise exception 'objects outside course % depend on its copies', course_id
        using errcode = 'RB007', detail = reason, hint = 'Drop those objects, or drop the course with drop_local.';
end $$;
comment on function rollbook.demolish_course(text, boolean) is
    'One attempt of drop_course: take the course out of the machinery, drop its schema.';
