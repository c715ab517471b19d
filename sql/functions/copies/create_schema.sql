-- create_schema: create the schema of a course.
-- Called:   by build_course, and by restore_copies where a schema is gone.
-- Raises:   RB019 if the caller may not.
-- Security: INVOKER: requires the caller's own CREATE right on the database and membership in rollbook_owner.
create or replace function rollbook.create_schema(schema_name text, course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create schema %I authorization rollbook_owner', schema_name);
    execute format(
        'comment on schema %I is %L', schema_name, format('Rollbook: copies for course %s.', course_id)
    );
exception when insufficient_privilege then
    raise exception 'role % may not create schema % of course %', current_user, schema_name, course_id
        using errcode = 'RB019', detail = sqlerrm, hint = format(
            'Ask a DBA: grant create on database %I to %I; grant rollbook_owner to %I;', current_database(),
            current_user, current_user
        );
end $$;
comment on function rollbook.create_schema(text, text) is
    'Create the schema of a course, owned by rollbook_owner. Raises RB019 if the caller may not.';
