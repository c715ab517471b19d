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
    removed_ids bigint[];
    steps rollbook.copy_step[] := '{}';
begin
    if tg_relid not in (
            'portal.auth_user'::regclass, 'portal.auth_userprofile'::regclass,
            'portal.student_courseenrollment'::regclass
        )
        or tg_name <> 'rollbook_route_truncate'
    then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.require_read_committed(format('TRUNCATE of portal.%s', tg_table_name));
    perform from rollbook.course as c order by c.course_id for key share;
    perform from rollbook.route as r order by r.user_id for update;

    for course in select * from rollbook.course as c order by c.schema_name loop
        steps := steps || array(
            select (course.schema_name, 'delete', t.table_name, 'id', null)::rollbook.copy_step
            from rollbook.copied_tables() as t
            where t.table_name = tg_table_name or tg_table_name = 'auth_user'
            order by t.ordinal desc
        );
        continue when tg_table_name <> 'student_courseenrollment' or course.on_leave = 'keep';
        removed_ids := array(
            select r.user_id
            from rollbook.route as r
            where r.schemas @> array[course.schema_name::text]
                and not exists (
                    select from portal.student_courseenrollment as e
                    where e.user_id = r.user_id and e.course_id = course.course_id
                )
        );
        update rollbook.route as r set schemas = array_remove(r.schemas, course.schema_name::text)
        where r.user_id = any (removed_ids);
        steps := steps || array[
            (course.schema_name, 'delete', 'auth_userprofile', 'user_id', removed_ids)::rollbook.copy_step,
            (course.schema_name, 'delete', 'auth_user', 'id', removed_ids)::rollbook.copy_step
        ];
    end loop;
    perform rollbook.write_copies(steps);
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
