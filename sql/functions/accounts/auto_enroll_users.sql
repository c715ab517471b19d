-- auto_enroll_users: enroll users in the courses where their addresses are allowed with auto_enroll (case-insensitive).
-- Called:   by auto_enroll, `rollbook user activate` and `rollbook user import`. Returns the new enrollments.
-- Security: INVOKER.
create or replace function rollbook.auto_enroll_users(user_ids bigint[])
returns table (user_id bigint, course_id text)
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into portal.student_courseenrollment (user_id, course_id)
    select distinct u.id, a.course_id
    from portal.auth_user as u
    inner join portal.student_courseenrollmentallowed as a on lower(a.email) = lower(u.email) and a.auto_enroll
    where u.id = any(user_ids)
    order by u.id, a.course_id
    on conflict (user_id, course_id) do nothing
    returning user_id, course_id
$$;
comment on function rollbook.auto_enroll_users(bigint[]) is
    'Enroll users in the courses where their addresses are allowed with auto_enroll.';
