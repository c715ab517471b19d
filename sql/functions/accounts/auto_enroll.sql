-- auto_enroll: enroll a user in the courses where the address is allowed with auto_enroll, whatever its capitals.
-- Called:   by activate_registration and `rollbook user activate`. Returns how many enrollments were new.
-- Security: INVOKER.
create or replace function rollbook.auto_enroll(new_user_id bigint) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    added integer;
begin
    insert into portal.student_courseenrollment (user_id, course_id)
    select distinct u.id, a.course_id
    from portal.auth_user as u
    inner join portal.student_courseenrollmentallowed as a on lower(a.email) = lower(u.email) and a.auto_enroll
    where u.id = new_user_id
    order by a.course_id
    on conflict (user_id, course_id) do nothing;
    get diagnostics added = row_count;
    return added;
end $$;
comment on function rollbook.auto_enroll(bigint) is
    'Enroll a user in the courses where the address is allowed with auto_enroll.';
