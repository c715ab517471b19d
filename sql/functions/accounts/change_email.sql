-- change_email: change_emails for one user.
-- Called:   by `rollbook user update --email` and confirm_email_change. Returns whether anything changed.
-- Security: INVOKER.
create or replace function rollbook.change_email(changed_user_id bigint, new_email text) returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$
    select count(*) > 0 from rollbook.change_emails(array[changed_user_id], array[new_email])
$$;
comment on function rollbook.change_email(bigint, text) is
    'Give a user another e-mail address; the old one is kept in the profile''s meta.';
