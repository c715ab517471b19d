-- join_courses: copy users into the courses they have enrolled in: user, then profile, then enrollment.
-- Called:   by the routing of enrollments with the new rows as three parallel arrays. Enrollments in courses that do
--           not exist (yet) are passed over; create_course copies them.
-- Locks:    lock_courses; then a write of each user's rollbook.route row, in user-id order.
--           First of all the tables that are read, so that a TRUNCATE of them waits before anybody holds a route.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.join_courses(user_ids bigint[], course_ids text[], enrollment_ids bigint[])
returns void
language plpgsql
as $$
declare
    target record;
begin
    lock table portal.auth_user, portal.auth_userprofile in access share mode;
    perform rollbook.lock_courses(array(select distinct id.course_id from unnest(course_ids) as id (course_id)));

    insert into rollbook.route as r (user_id, schemas)
    select joining.user_id, array_agg(c.schema_name::text)
    from unnest(user_ids, course_ids) as joining (user_id, course_id)
    inner join rollbook.course as c on c.course_id = joining.course_id
    group by joining.user_id
    order by joining.user_id
    on conflict (user_id) do update set
        written = r.written + 1,
        schemas = r.schemas || case
            when r.schemas && excluded.schemas
                then array(select unnest(excluded.schemas) except select unnest(r.schemas))
            else excluded.schemas  -- the common case, without a subquery a row
        end;

    for target in
        select
            c.schema_name,
            array_agg(joining.user_id) as user_ids,
            array_agg(joining.enrollment_id) as enrollment_ids
        from unnest(user_ids, course_ids, enrollment_ids) as joining (user_id, course_id, enrollment_id)
        inner join rollbook.course as c on c.course_id = joining.course_id
        group by c.schema_name
        order by c.schema_name
    loop
        perform rollbook.put_copies(target.schema_name, 'auth_user', 'id', target.user_ids);
        perform rollbook.put_copies(target.schema_name, 'auth_userprofile', 'user_id', target.user_ids);
        perform rollbook.put_copies(target.schema_name, 'student_courseenrollment', 'id', target.enrollment_ids);
    end loop;
end $$;
comment on function rollbook.join_courses(bigint[], text[], bigint[]) is
    'Copy users into the courses they have enrolled in: user, then profile, then enrollment.';
