-- confirm_email_change: confirm the change of e-mail address that has a key. The account gets the new address, the
-- profile's meta keeps the old one, and the request is removed. A caller that presents the key has proved the address.
-- Called:   by a web application or `rollbook email-change confirm`. Returns the user.
-- Raises:   RB012 for an unknown or expired key; 23R14 if another user has the address now. Nothing is
--           changed then, and the request stays.
-- Locks:    the user row, then the request, then the profile: the order of deletions and of change_email. Of two
--           concurrent calls with one key, the second finds it gone.
-- Security: INVOKER.
create or replace function rollbook.confirm_email_change(presented_key text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    request portal.student_pendingemailchange;
    violated text;
begin
    perform u.id from portal.auth_user as u
    where u.id = (select c.user_id from portal.student_pendingemailchange as c where c.activation_key = presented_key)
    for no key update;
    select c.* into request from portal.student_pendingemailchange as c
    where c.activation_key = presented_key for update;
    if not found then
        raise exception 'Invalid key'
            using errcode = 'RB012', detail = 'No change of address has this key: it may be used, or replaced.',
            hint = 'Copy the whole key, or request the change again.';
    end if;
    if request.expires_at <= now() then
        raise exception 'Invalid key'
            using errcode = 'RB012',
            detail = format('This key has expired: it was valid until %s.', request.expires_at),
            hint = 'Request the change again.';
    end if;
    perform rollbook.change_email(request.user_id, request.new_email);
    delete from portal.student_pendingemailchange as c where c.id = request.id;
    return request.user_id;
exception when unique_violation then
    get stacked diagnostics violated = constraint_name;
    if violated <> 'auth_user_email_key' then
        raise;
    end if;
    raise exception 'Could not change e-mail'
        using errcode = '23R14', constraint = 'RB014', detail = 'An account with this e-mail already exists.',
        hint = 'Request a change to another address.';
end $$;
comment on function rollbook.confirm_email_change(text) is
    'Confirm the change of e-mail address that has a key: the account gets the new address.';
