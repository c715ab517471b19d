-- rename_course: give a course another ID. Schema, server, copies, the course's own data and the last verify stay; all
-- rows of the portal that carry the ID follow, in one transaction. Copies on servers get ordinary updates of their
-- enrollments. New enrollments with the old ID are refused from then on (23R55).
-- Called:   by a DBA, in psql or through `rollbook course rename`.
-- Locks:    see change_course_id. While it waits for somebody it holds none of them for more than 100 ms: take_turns.
--           Writers of the course's members wait for the work itself.
-- Security: INVOKER; for members of rollbook_owner who may change enrollments, as rollbook_operator may.
create or replace function rollbook.rename_course(course_id text, new_course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('rename courses');
    perform rollbook.require_read_committed('rename_course');
    perform rollbook.take_turns(
        'the renaming', 'select rollbook.change_course_id($1, $2)', course_id, new_course_id
    );
end $$;
comment on function rollbook.rename_course(text, text) is
    'Give a course another ID, and all rows of the portal that carry it; schema, server and copies stay. Raises RB003 '
    'for an invalid ID, RB005 if it is taken, RB006 if the course does not exist, RB009 above READ COMMITTED, RB019 if '
    'the role may not rename courses, RB022 if it waits too long for a lock, 23R55 while the course is attached, moved '
    'or detached, or if there are enrollments with the new ID.';
