-- memberships_of: the members of one course. As memberships(), with the course's ID in the type of the column, so that
-- its index serves.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.memberships_of(course_id text)
returns table (
    id portal.student_courseenrollment.id%type,  -- noqa: LT01
    user_id portal.student_courseenrollment.user_id%type  -- noqa: LT01
)
language sql stable
as $$
    select m.id, m.user_id from portal.student_courseenrollment as m where m.course_id operator(pg_catalog.=) $1::text
$$;
comment on function rollbook.memberships_of(text) is 'The members of one course.';
