-- create_course: make a course's schema with its three copies, copy the students already enrolled, return the schema.
-- All or nothing. From its commit on every enrollment in this id is copied.
-- Called:   by a DBA, in psql or through `rollbook course create`.
-- Locks:    see register_course and fill_course; enrollments in this id wait for the commit.
-- Security: INVOKER, because making a schema takes the caller's right to CREATE in the database and to act for
--           rollbook_owner, who will own it; the rest runs as rollbook_owner.
create or replace function rollbook.create_course(course_id text, on_leave text default 'keep') returns name
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.register_course(course_id, on_leave);
begin
    execute format('create schema %I authorization rollbook_owner', schema_name);
    execute format(
        'comment on schema %I is %L', schema_name, format('Rollbook: copies for course %s.', course_id)
    );
    perform rollbook.fill_course(course_id);
    return schema_name;
end $$;
comment on function rollbook.create_course(text, text) is
    'Make a course''s schema with its three copies, copy the students already enrolled, return the schema.';
