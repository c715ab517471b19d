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
        select s.schema_name, array_agg(r.user_id order by r.user_id) as user_ids
        from rollbook.route as r, unnest(r.schemas) as s (schema_name)
        where course_ids is null
            or s.schema_name in (select w.schema_name from rollbook.course as w where w.course_id = any (course_ids))
        group by s.schema_name
    ) as held on held.schema_name = c.schema_name
    where course_ids is null or c.course_id = any (course_ids)
    order by c.course_id
$$;
comment on function rollbook.routed_courses(text[]) is
    'The given courses (null: all), each with the users whose routes lead to it.';
