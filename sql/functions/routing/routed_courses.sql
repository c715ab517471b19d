-- routed_courses: the given courses (null: all), each with the users whose routes lead to it, in order. Reads the
-- routes once.
-- Called:   by verify, compare and repair.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.routed_courses(course_ids text[])
returns table (course rollbook.course, routed_ids bigint[])
language sql stable
as $$
    select c, coalesce(held.user_ids, '{}')
    from rollbook.course as c
    left join (
        select s.schema_name, array_agg(s.user_id order by s.user_id) as user_ids
        from (  -- not a join: PostgreSQL would expect few schemas, and compare each with every course
            select r.user_id, unnest(r.schemas) as schema_name from rollbook.route as r offset 0
        ) as s
        where course_ids is null
            or s.schema_name in (select w.schema_name from rollbook.course as w where w.course_id = any (course_ids))
        group by s.schema_name
    ) as held on held.schema_name = c.schema_name
    where course_ids is null or c.course_id = any (course_ids)
    order by c.course_id
$$;
comment on function rollbook.routed_courses(text[]) is
    'The given courses (null: all), each with the users whose routes lead to it.';
