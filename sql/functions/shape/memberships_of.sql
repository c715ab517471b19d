-- memberships_of: the members of one course. As memberships(), with the course's ID in the type of the column, so that
-- its index serves.
-- Rendered: from the declaration of the shape.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.memberships_of(course_id text)
returns table (
    id :membership.:membership_key%type,  -- noqa: LT01
    user_id :membership.:membership_person%type  -- noqa: LT01
)
language sql stable
as $$
    select m.:membership_key, m.:membership_person
    from :membership as m
    where m.:membership_course operator(pg_catalog.=) cast($1 as :membership_course_type) and :membership_condition
$$;
comment on function rollbook.memberships_of(text) is 'The members of one course.';
