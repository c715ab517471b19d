-- course_schema: return the schema of a course; refuse an unknown course.
-- Security: INVOKER.
create or replace function rollbook.course_schema(course_id text) returns name
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_name name;
begin
    select c.schema_name into found_name from rollbook.course as c where c.course_id = course_schema.course_id;
    if not found then
        raise exception 'there is no course %', coalesce(course_id, 'null')
            using errcode = 'RB006', hint = 'See rollbook.course_status, or `rollbook course list`.';
    end if;
    return found_name;
end $$;
comment on function rollbook.course_schema(text) is
    'Return the schema that holds the copies of a course. Raises RB006 if the course does not exist.';
