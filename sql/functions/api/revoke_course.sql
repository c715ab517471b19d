-- revoke_course: take a role's rights on a course's schema and its copies, whoever granted them in the owner's name.
-- Called:   by a DBA, in psql or through `rollbook course revoke`.
-- Returns:  whether the role had any.
-- Security: INVOKER, as grant_course.
create or replace function rollbook.revoke_course(course_id text, role text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.course_schema(course_id);
    before constant text[] := rollbook.course_rights(schema_name, role);
    copied record;
begin
    for copied in select * from rollbook.copied_tables() loop
        execute format('revoke all on %I.%I from %I', schema_name, copied.table_name, role);
    end loop;
    execute format('revoke all on schema %I from %I', schema_name, role);
    return rollbook.course_rights(schema_name, role) <> before;
end $$;
comment on function rollbook.revoke_course(text, text) is
    'Take all rights of a role on a course''s schema and its copies; return whether it had any. Raises RB006 if the '
    'course does not exist, RB019 for a caller who may not create courses, RB023 for an unknown role or one of '
    'Rollbook''s own.';
