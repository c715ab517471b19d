-- auto_enroll: auto_enroll_users for one user.
-- Called:   by activate_registration. Returns how many enrollments were new.
-- Security: INVOKER.
create or replace function rollbook.auto_enroll(new_user_id bigint) returns integer
language sql
set search_path = pg_catalog, pg_temp
as $$
    select count(*)::integer from rollbook.auto_enroll_users(array[new_user_id])
$$;
comment on function rollbook.auto_enroll(bigint) is
    'Enroll a user in the courses where the address is allowed with auto_enroll.';
