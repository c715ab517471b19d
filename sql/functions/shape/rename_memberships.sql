-- rename_memberships: give every row of the portal that carries a course's ID its new one: enrollments, the allowed
-- list, exams, authorizations, and what bundles remember.
-- Rendered: from the declaration of the shape.
-- Called:   by change_course_id, between the two halves of the renaming.
-- Locks:    these rows; see route_enrollment_update.
-- Security: INVOKER: the caller writes these tables, and the site's triggers on them run with the caller's rights.
create or replace function rollbook.rename_memberships(old_course_id text, new_course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update :membership as m set :membership_course = cast(new_course_id as :membership_course_type)
    where m.:membership_course operator(pg_catalog.=) cast(old_course_id as :membership_course_type);
    update portal.student_courseenrollmentallowed as a set course_id = new_course_id where a.course_id = old_course_id;
    update rollbook.exam as e set course_id = new_course_id where e.course_id = old_course_id;
    update portal.student_testcenterregistration as r set course_id = new_course_id where r.course_id = old_course_id;
    update rollbook.roster_enrollment as r set course_id = new_course_id where r.course_id = old_course_id;
end $$;
comment on function rollbook.rename_memberships(text, text) is
    'Give every row of the portal that carries a course''s ID its new one.';
