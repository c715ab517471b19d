-- drop_course: remove a course from Rollbook and drop its schema. The portal's enrollments stay; a new create_course
-- would copy them again.
-- Refuses, naming them, while the schema holds columns or tables of the course's own, unless drop_local. Refuses while
-- a course server holds the course: only `rollbook course detach` can reach that server.
-- Called:   by a DBA, in psql or through `rollbook course delete`.
-- Locks:    see withdraw_course; then ACCESS EXCLUSIVE on the schema's tables, so it waits for their readers. While it
--           waits for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER: the caller's rights drop what does not belong to rollbook_owner (any more).
create or replace function rollbook.drop_course(course_id text, drop_local boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('drop courses');
    perform rollbook.require_read_committed('drop_course');
    perform rollbook.take_turns(
        'the removal', 'select rollbook.demolish_course($1, $2::boolean)', course_id, drop_local::text
    );
end $$;
comment on function rollbook.drop_course(text, boolean) is
    'Drop a course and its schema; the portal''s enrollments stay. drop_local also drops tables and columns that the '
    'course added. Raises RB006 if the course does not exist, RB007 if the schema holds local objects or others '
    'depend on it, RB009 above READ COMMITTED, RB011 while a course server holds the course, RB019 if the role may '
    'not drop courses, RB022 if it waits too long for a lock.';
