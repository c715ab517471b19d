-- close_course: let a course take no new enrollments, by whatever path: 23R53. Copies stay current, and whoever is
-- enrolled can leave. It waits for enrollments that are under way: after its commit none becomes visible any more.
-- Called:   by a DBA, in psql or through `rollbook course close`.
-- Returns:  whether that is new.
-- Locks:    see change_closed. While it waits for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER; for members of rollbook_owner.
create or replace function rollbook.close_course(course_id text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('close courses');
    return rollbook.take_turns(
        'closing', 'select rollbook.change_closed($1, $2::boolean)', course_id, 'true'
    )::boolean;
end $$;
comment on function rollbook.close_course(text) is
    'Close a course: new enrollments are refused with 23R53, copies stay current; return whether that is new. Raises '
    'RB006 if the course does not exist, RB019 if the role may not close courses, RB022 if it waits too long for a '
    'lock.';
