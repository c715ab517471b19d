-- memberships: who is a member of which course: the rows of the membership table that count. PostgreSQL puts the body
-- in place of the call, so it costs nothing, and no view depends on a column's type. The ids have the table's types,
-- so that its indexes serve.
-- Called:   wherever the routing, the checks and the views ask who is enrolled.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.memberships()
returns table (
    id portal.student_courseenrollment.id%type,  -- noqa: LT01
    user_id portal.student_courseenrollment.user_id%type,  -- noqa: LT01
    course_id portal.student_courseenrollment.course_id%type  -- noqa: LT01
)
language sql stable
as $$
    select m.id, m.user_id, m.course_id from portal.student_courseenrollment as m
$$;
comment on function rollbook.memberships() is
    'Who is a member of which course: the rows of the membership table that count.';
