-- leave_courses: delete the copies of ended enrollments, and user and profile as on_leave says.
-- `keep`: user and profile stay, and the route keeps them current. `remove`: they are deleted, children first.
-- Reads current state, not events: an enrollment that exists again by now, here or elsewhere, is copied first; a user
-- who is enrolled again stays.
-- Called:   by the routing of enrollments, with the old rows as three parallel arrays.
-- Locks:    lock_courses; then touch_routes. A user without a route after that is deleted and holds no copy. It reads
--           no portal table but the one that the statement writes: a waiting TRUNCATE may hold the others.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.leave_courses(user_ids bigint[], course_ids text[], enrollment_ids bigint[])
returns void
language plpgsql
as $$
declare
    staying_ids constant bigint[] := array(
        select e.id from portal.student_courseenrollment as e where e.id = any (enrollment_ids)
    );
    target record;
    steps rollbook.copy_step[] := '{}';
begin
    perform rollbook.lock_courses(array(select distinct id.course_id from unnest(course_ids) as id (course_id)));
    perform from rollbook.touch_routes(user_ids);
    if staying_ids <> '{}' then
        perform rollbook.join_courses(staying_ids);
    end if;

    for target in
        select
            c.schema_name,
            coalesce(array_agg(leaving.enrollment_id) filter (
                where not exists (
                    select from portal.student_courseenrollment as e
                    where e.id = leaving.enrollment_id and e.course_id = c.course_id
                )
            ), '{}') as enrollment_ids,
            coalesce(array_agg(r.user_id) filter (
                where c.on_leave = 'remove'
                    and not exists (
                        select from portal.student_courseenrollment as e
                        where e.user_id = r.user_id and e.course_id = c.course_id
                    )
            ), '{}') as removed_ids
        from unnest(user_ids, course_ids, enrollment_ids) as leaving (user_id, course_id, enrollment_id)
        inner join rollbook.course as c on c.course_id = leaving.course_id
        inner join rollbook.route as r on r.user_id = leaving.user_id
        group by c.schema_name
        order by c.schema_name
    loop
        steps := array_append(steps, (
            target.schema_name, 'delete', 'student_courseenrollment', 'id', target.enrollment_ids
        )::rollbook.copy_step);
        if target.removed_ids <> '{}' then
            update rollbook.route as r set schemas = array_remove(r.schemas, target.schema_name::text)
            where r.user_id = any (target.removed_ids);
            steps := array_append(steps, (
                target.schema_name, 'delete', 'auth_userprofile', 'user_id', target.removed_ids
            )::rollbook.copy_step);
            steps := array_append(steps, (
                target.schema_name, 'delete', 'auth_user', 'id', target.removed_ids
            )::rollbook.copy_step);
        end if;
    end loop;
    perform rollbook.write_copies(steps);
end $$;
comment on function rollbook.leave_courses(bigint[], text[], bigint[]) is
    'Delete the copies of ended enrollments, and user and profile where the course''s on_leave is remove. Arguments: '
    'user ids, course IDs and enrollment ids of the old rows, in parallel.';
