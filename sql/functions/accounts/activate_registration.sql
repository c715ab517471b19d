-- activate_registration: activate the account of a key. The key is used up, and the account is enrolled where its
-- address is allowed with auto_enroll. A caller that presents the key has proved the address.
-- Called:   by a web application or `rollbook registration activate`. Returns the user.
-- Raises:   RB012 for an unknown, used or expired key; nothing is changed then.
-- Locks:    the user row, then the registration: the order of deletions; then as enrollments do. Of two concurrent
--           calls with one key, the second finds it used.
-- Security: INVOKER: roles that may write portal.auth_registration and auth_user.
create or replace function rollbook.activate_registration(presented_key text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    registration portal.auth_registration;
begin
    perform u.id from portal.auth_user as u
    inner join portal.auth_registration as r on r.user_id = u.id
    where r.activation_key = presented_key
    for no key update of u;
    select r.* into registration from portal.auth_registration as r
    where r.activation_key = presented_key for no key update;
    if not found then
        raise exception 'no account has this activation key'
            using errcode = 'RB012', hint = 'Copy the whole key, or issue a new one: rollbook registration renew USER.';
    end if;
    if registration.activated_at is not null then
        raise exception 'this activation key was used at %', registration.activated_at
            using errcode = 'RB012', hint = 'The account is active and needs no key.';
    end if;
    if registration.expires_at <= now() then
        raise exception 'this activation key has expired: it was valid until %', registration.expires_at
            using errcode = 'RB012', hint = 'Make a new one: rollbook registration renew USER.';
    end if;
    update portal.auth_registration as r set activated_at = now() where r.id = registration.id;
    update portal.auth_user as u set is_active = true where u.id = registration.user_id and not u.is_active;
    perform rollbook.auto_enroll(registration.user_id);
    return registration.user_id;
end $$;
comment on function rollbook.activate_registration(text) is
    'Activate the account of a key; the key is used up.';
