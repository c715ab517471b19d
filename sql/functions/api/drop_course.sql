-- drop_course: remove a course from Rollbook and drop its schema. The portal's enrollments stay; a new create_course
-- would copy them again.
-- Refuses, naming them, while the schema holds columns or tables of the course's own, unless drop_local. Refuses while
-- a course server holds the course: only `rollbook course detach` can reach that server.
-- Called:   by a DBA, in psql or through `rollbook course delete`.
-- Locks:    lock_course_set; the rollbook.course row, so it waits for statements that route to the course; a write of
--           the routes that lead to it; ACCESS EXCLUSIVE on the schema's tables.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.drop_course(course_id text, drop_local boolean default false) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name name;
    server_name text;
    local_names text[];
    reason text;
begin
    perform rollbook.require_owner('drop courses');
    perform rollbook.require_read_committed('drop_course');
    perform rollbook.lock_course_set(is_exclusive => true);
    schema_name := rollbook.course_schema(course_id);
    delete from rollbook.course as c where c.course_id = drop_course.course_id returning c.server into server_name;
    if server_name is not null then
        raise exception 'course % is on server %', course_id, server_name
            using errcode = 'RB011', hint = 'rollbook course detach ' || rollbook.shell_quote(course_id);
    end if;
    local_names := array(select rollbook.local_objects(schema_name));
    if local_names <> '{}' and drop_local is not true then
        raise exception 'course % has data of its own: %', course_id, array_to_string(local_names, ', ')
            using errcode = 'RB007',
                hint = format(
                    'Save what you need of schema %1$I, then: rollbook course delete %2$s --confirm %2$s --drop-local',
                    schema_name, rollbook.shell_quote(course_id)
                );
    end if;
    perform from rollbook.route as r where r.schemas @> array[schema_name::text] order by r.user_id for update;
    update rollbook.route as r set written = r.written + 1, schemas = array_remove(r.schemas, schema_name::text)
    where r.schemas @> array[schema_name::text];
    if drop_local then
        execute format('drop schema if exists %I cascade', schema_name);
        return;
    end if;
    -- RESTRICT: a view elsewhere may read the copies; PostgreSQL names it.
    execute format(
        'drop table if exists %1$I.student_courseenrollment, %1$I.auth_userprofile, %1$I.auth_user', schema_name
    );
    execute format('drop schema if exists %I', schema_name);
exception when dependent_objects_still_exist then
    get stacked diagnostics reason = pg_exception_detail;
    raise exception 'objects outside course % depend on its copies', course_id
        using errcode = 'RB007', detail = reason, hint = 'Drop those objects, or drop the course with drop_local.';
end $$;
comment on function rollbook.drop_course(text, boolean) is
    'Drop a course and its schema; the portal''s enrollments stay. drop_local also drops tables and columns that the '
    'course added. Raises RB006 if the course does not exist, RB007 if the schema holds local objects or others '
    'depend on it, RB009 above READ COMMITTED, RB011 while a course server holds the course.';
