-- request_email_change: request a new e-mail address, to be confirmed with a key that is sent there. A user has one
-- request at a time; a new one replaces it, and the old key no longer works.
-- Called:   by a web application or `rollbook email-change create`. Returns the key, a secret.
-- Raises:   23R13 for no address, or the user's present one; 23R14 for one that another user has
--           (case-insensitive); the table refuses a value that is not an e-mail address, check_email another fault.
-- Security: INVOKER.
create or replace function rollbook.request_email_change(
    asking_user_id bigint, wanted_email text, good_for interval default '7 days'
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key text;
begin
    wanted_email := rollbook.normal_email(wanted_email);
    if wanted_email is null or wanted_email = '' then
        raise exception 'Valid e-mail address required.'
            using errcode = '23R13', constraint = 'RB013', hint = 'Write name@example.org.';
    end if;
    if exists (select from portal.auth_user as u where u.id = asking_user_id and u.email = wanted_email) then
        raise exception 'Old email is the same as the new email.'
            using errcode = '23R13', constraint = 'RB013', hint = 'There is nothing to change.';
    end if;
    if exists (
        select from portal.auth_user as u where lower(u.email) = lower(wanted_email) and u.id <> asking_user_id
    ) then
        raise exception 'An account with this e-mail already exists.'
            using errcode = '23R14', constraint = 'RB014',
            hint = 'An e-mail address belongs to one account; upper and lower case are the same.';
    end if;
    insert into portal.student_pendingemailchange as c (user_id, new_email, expires_at)
    values (asking_user_id, wanted_email, now() + good_for)
    on conflict (user_id) do update
    set new_email = excluded.new_email, activation_key = excluded.activation_key, requested_at = now(),
        expires_at = excluded.expires_at
    returning c.activation_key into key;
    return key;
end $$;
comment on function rollbook.request_email_change(bigint, text, interval) is
    'Request a new e-mail address, to be confirmed with a key that is sent there.';
