-- open_course: let a course that was closed take new enrollments again.
-- Called:   by a DBA, in psql or through `rollbook course open`.
-- Returns:  whether that is new.
-- Locks:    see change_closed and close_course.
-- Security: INVOKER; for members of rollbook_owner.
create or replace function rollbook.open_course(course_id text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('open courses');
    return rollbook.take_turns(
        'opening', 'select rollbook.change_closed($1, $2::boolean)', course_id, 'false'
    )::boolean;
end $$;
comment on function rollbook.open_course(text) is
    'Open a course that was closed: it takes new enrollments again; return whether that is new. Raises RB006 if the '
    'course does not exist, RB019 if the role may not open courses, RB022 if it waits too long for a lock.';
