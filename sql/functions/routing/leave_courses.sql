-- leave_courses: delete the copies of ended enrollments, and user and profile as on_leave says.
-- `keep`: user and profile stay, and the route keeps them current. `remove`: they are deleted, children first.
-- Reads current state, not events: a user who is enrolled again by now stays, and that enrollment is copied first. So
-- stays a user who has another enrollment in the course, where the table allows several.
-- Looks enrollments up by user and course, as join_courses does.
-- Rendered: from the declaration of the shape. memberships_of() would be parsed at each planning.
-- Called:   by the routing of enrollments, with the old rows as three parallel arrays.
-- Locks:    lock_courses; then touch_routes. A user without a route after that is deleted and holds no copy. It reads
--           no portal table but the one that the statement writes: a waiting TRUNCATE may hold the others.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.leave_courses(user_ids bigint[], course_ids text[], enrollment_ids bigint[])
returns void
language plpgsql
as $$
declare
    courses constant rollbook.course[] := rollbook.lock_courses(
        array(select distinct id.course_id from unnest(course_ids) as id (course_id))
    );
    target record;
    is_back boolean := false;
    steps rollbook.copy_step[] := '{}';
begin
    perform from rollbook.touch_routes(user_ids);
    for target in
        select
            c.schema_name,
            c.on_leave,
            bool_or(e.:membership_key is not null) as is_back,
            array_agg(r.user_id) filter (where e.:membership_key is null) as left_ids,
            -- Enrolled under another id too, or again. The old id may be somebody else's by now.
            array_agg(leaving.enrollment_id) filter (
                where case when e.:membership_key <> leaving.enrollment_id then not exists (
                    select from (select * from :membership where :membership_condition) as taken
                    where taken.:membership_key = leaving.enrollment_id
                        and taken.:membership_course = cast(c.course_id as :membership_course_type)
                ) end
            ) as replaced_ids
        from unnest(user_ids, course_ids, enrollment_ids) as leaving (user_id, course_id, enrollment_id)
        inner join unnest(courses) as c on c.course_id = leaving.course_id
        inner join rollbook.route as r on r.user_id = leaving.user_id
        left join (select * from :membership where :membership_condition) as e
            on e.:membership_person = leaving.user_id
            and e.:membership_course = cast(c.course_id as :membership_course_type)
        group by c.schema_name, c.on_leave
        order by c.schema_name
    loop
        is_back := is_back or target.is_back;
        if target.replaced_ids is not null then
            steps := steps || array(
                select (target.schema_name, 'delete', t.table_name, t.key_column, target.replaced_ids)::rollbook.copy_step
                from rollbook.copied_tables() as t where t.role = 'membership'
            );
        end if;
        continue when target.left_ids is null;
        steps := steps || array(
            select (target.schema_name, 'delete', t.table_name, t.user_column, target.left_ids)::rollbook.copy_step
            from rollbook.copied_tables() as t
            where t.role = 'membership' or target.on_leave = 'remove'
            order by t.ordinal desc
        );
        if target.on_leave = 'remove' then
            update rollbook.route as r set schemas = array_remove(r.schemas, target.schema_name::text)
            where r.user_id = any (target.left_ids);
        end if;
    end loop;
    if is_back then
        perform rollbook.join_courses(user_ids, course_ids);
    end if;
    perform rollbook.write_copies(steps);
end $$;
comment on function rollbook.leave_courses(bigint[], text[], bigint[]) is
    'Delete the copies of ended enrollments, and user and profile where the course''s on_leave is remove. Arguments: '
    'user ids, course IDs and enrollment ids of the old rows, in parallel.';
