-- route_truncate: TRUNCATE of a replicated portal table acts like DELETE of all its rows. It deletes the copies instead
-- of truncating them: readers of a course see either all rows or none, and the course's own foreign keys hold.
-- Fires:    AFTER TRUNCATE on portal.auth_user, auth_userprofile and student_courseenrollment, once for each. At READ
--           COMMITTED only: at other levels it would not see all rows that it must delete.
-- Locks:    KEY SHARE on every course, then every route, in user-id order. TRUNCATE itself locks the portal table.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_truncate() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    course rollbook.course;
    user_ids bigint[];
    enrollment_ids bigint[];
begin
    if tg_relid <> all (array['portal.auth_user', 'portal.auth_userprofile', 'portal.student_courseenrollment']::regclass[])
        or tg_name <> 'rollbook_route_truncate'
    then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.require_read_committed(format('TRUNCATE of portal.%s', tg_table_name));
    perform from rollbook.course as c order by c.course_id for key share;
    perform from rollbook.route as r order by r.user_id for update;

    for course in select * from rollbook.course as c order by c.schema_name loop
        if tg_table_name = 'student_courseenrollment' then
            execute format(
                'select array_agg(user_id), array_agg(id) from %I.student_courseenrollment', course.schema_name
            ) into user_ids, enrollment_ids;
            if enrollment_ids is not null then
                perform rollbook.leave_courses(
                    user_ids, array_fill(course.course_id, array[cardinality(user_ids)]), enrollment_ids
                );
            end if;
        elsif tg_table_name = 'auth_userprofile' then
            execute format('select array_agg(user_id) from %I.auth_userprofile', course.schema_name) into user_ids;
            perform rollbook.delete_copies(course.schema_name, 'auth_userprofile', 'user_id', user_ids);
        else
            execute format('select array_agg(id) from %I.auth_user', course.schema_name) into user_ids;
            perform rollbook.delete_copies(course.schema_name, 'student_courseenrollment', 'user_id', user_ids);
            perform rollbook.delete_copies(course.schema_name, 'auth_userprofile', 'user_id', user_ids);
            perform rollbook.delete_copies(course.schema_name, 'auth_user', 'id', user_ids);
        end if;
    end loop;
    if tg_table_name = 'auth_user' then
        delete from rollbook.route;
    else
        update rollbook.route set written = written + 1;
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_truncate after truncate on portal.auth_user
    for each statement execute function rollbook.route_truncate();
create or replace trigger rollbook_route_truncate after truncate on portal.auth_userprofile
    for each statement execute function rollbook.route_truncate();
create or replace trigger rollbook_route_truncate after truncate on portal.student_courseenrollment
    for each statement execute function rollbook.route_truncate();
comment on function rollbook.route_truncate() is
    'Trigger function: make TRUNCATE of a replicated portal table act like DELETE of all its rows. Raises RB009 above '
    'READ COMMITTED.';
comment on trigger rollbook_route_truncate on portal.auth_user is
    'After TRUNCATE of all users: delete every copy in every course.';
comment on trigger rollbook_route_truncate on portal.auth_userprofile is
    'After TRUNCATE of all profiles: delete their copies in every course.';
comment on trigger rollbook_route_truncate on portal.student_courseenrollment is
    'After TRUNCATE of all enrollments: act as if each had been deleted.';
