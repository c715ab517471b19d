-- change_course_id: one attempt of rename_course. The course's row first: that waits for enrollments under way, and
-- later ones wait for the commit and meet refuse_former. Then the portal's rows, in one statement each table: the
-- routing updates the copies in place, as the schema stays.
-- Called:   by take_turns.
-- Locks:    see begin_rename and rename_memberships. Enrollments come after the course here: of a leave that meets it,
--           this one gives way.
-- Security: INVOKER, as rename_course: see rename_memberships.
create or replace function rollbook.change_course_id(old_course_id text, new_course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    closed_at constant timestamptz := rollbook.begin_rename(old_course_id, new_course_id);
begin
    perform rollbook.rename_memberships(old_course_id, new_course_id);
    perform rollbook.end_rename(old_course_id, new_course_id, closed_at);
end $$;
comment on function rollbook.change_course_id(text, text) is
    'One attempt of rename_course: the course, and every row that carries its ID.';
