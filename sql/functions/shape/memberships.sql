-- memberships: who is a member of which course: the rows of the membership table that count. PostgreSQL puts the body
-- in place of the call, so it costs nothing, and no view depends on a column's type. The ids have the table's types,
-- so that its indexes serve.
-- Rendered: from the declaration of the shape.
-- Called:   wherever the routing, the checks and the views ask who is enrolled.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.memberships()
returns table (
    id :membership.:membership_key%type,  -- noqa: LT01
    user_id :membership.:membership_person%type,  -- noqa: LT01
    course_id text
)
language sql stable
as $$
    select m.:membership_key, m.:membership_person, m.:membership_course::text
    from :membership as m
    where :membership_condition
$$;
comment on function rollbook.memberships() is
    'Who is a member of which course: the rows of the membership table that count.';
