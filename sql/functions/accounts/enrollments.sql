-- enrollments: the enrollments, for views. As rollbook.account it is put in place of the call, and keeps views
-- independent of the columns. The ids have the table's own types, so that its indexes serve.
-- Called:   by the views.
-- Security: INVOKER.
create or replace function rollbook.enrollments()
returns table (
    id portal.student_courseenrollment.id%type,  -- noqa: LT01
    user_id portal.student_courseenrollment.user_id%type,  -- noqa: LT01
    course_id varchar, created timestamptz
)
language sql stable
as $$
    select e.id, e.user_id, e.course_id, e.created from portal.student_courseenrollment as e
$$;
comment on function rollbook.enrollments() is
    'The enrollments; no view depends on the columns'' types.';
