-- build_course: one attempt of create_course: record the course, create its schema, create and fill the copies.
-- Called:   by take_turns.
-- Locks:    see register_course and fill_course.
-- Security: INVOKER, as create_course.
create or replace function rollbook.build_course(course_id text, on_leave text, without text[]) returns name
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.register_course(course_id, on_leave, without);
begin
    perform rollbook.create_schema(schema_name, course_id);
    perform rollbook.fill_course(course_id);
    return schema_name;
end $$;
comment on function rollbook.build_course(text, text, text[]) is
    'One attempt of create_course: record the course, create its schema, create and fill the copies.';
