-- auto_enroll_users: enroll users in the courses where their addresses are allowed with auto_enroll (case-insensitive).
-- A course that is closed is left out, so that the account becomes active all the same; its list keeps the address.
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
        and not exists (select from rollbook.course as c where c.course_id = a.course_id and c.closed_at is not null)
    order by u.id, a.course_id
    on conflict (user_id, course_id) do nothing
    returning user_id, course_id
$$;
comment on function rollbook.auto_enroll_users(bigint[]) is
    'Enroll users in the courses where their addresses are allowed with auto_enroll, but for courses that are '
    'closed.';
