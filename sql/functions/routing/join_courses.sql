-- join_courses: copy users into the courses in which they are enrolled: user, then profile, then enrollment.
-- Reads current state, not events: it skips an enrollment that has been deleted meanwhile, and copies one that has
-- moved to its present course. Enrollments in courses that do not exist (yet) wait for create_course.
-- Called:   by the routing of enrollments, with the ids of new or changed enrollments, and by leave_courses.
-- Locks:    first the tables that it reads, so that a TRUNCATE of them waits before anybody holds a route; then
--           lock_courses; then a write of each user's rollbook.route row, in user-id order.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.join_courses(enrollment_ids bigint[]) returns void
language plpgsql
as $$
begin
    lock table portal.auth_user, portal.auth_userprofile in access share mode;
    perform rollbook.lock_courses(array(
        select distinct e.course_id::text from portal.student_courseenrollment as e where e.id = any (enrollment_ids)
    ));

    insert into rollbook.route as r (user_id, schemas)
    select e.user_id, array_agg(c.schema_name::text)
    from portal.student_courseenrollment as e
    inner join rollbook.course as c on c.course_id = e.course_id
    where e.id = any (enrollment_ids)
    group by e.user_id
    order by e.user_id
    on conflict (user_id) do update set
        written = r.written + 1,
        schemas = r.schemas || case
            when r.schemas && excluded.schemas
                then array(select unnest(excluded.schemas) except select unnest(r.schemas))
            else excluded.schemas  -- the common case, without a subquery a row
        end;

    perform rollbook.write_copies(array(
        select (target.schema_name, 'put', step.table_name, step.key_column, step.keys)::rollbook.copy_step
        from (
            select c.schema_name, array_agg(e.user_id) as user_ids, array_agg(e.id) as enrollment_ids
            from portal.student_courseenrollment as e
            inner join rollbook.course as c on c.course_id = e.course_id
            where e.id = any (enrollment_ids)
            group by c.schema_name
        ) as target
        cross join lateral (
            values
                (1, 'auth_user', 'id', target.user_ids),
                (2, 'auth_userprofile', 'user_id', target.user_ids),
                (3, 'student_courseenrollment', 'id', target.enrollment_ids)
        ) as step (ordinal, table_name, key_column, keys)
        order by target.schema_name, step.ordinal
    ));
end $$;
comment on function rollbook.join_courses(bigint[]) is
    'Copy the users of these enrollments into their courses: user, then profile, then enrollment.';
