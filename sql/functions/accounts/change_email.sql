-- change_email: give a user another address; the old one is kept in the profile's meta, under old_emails, as
-- [old address, time]. A change of capitals alone is a change. A pending change to the same address is done with.
-- Called:   by `rollbook user update --email` and confirm_email_change. Returns whether anything changed.
-- Raises:   23505 if the address is another user's, whatever the capitals.
-- Locks:    the user row, then the profile: the order in which accounts are written everywhere.
-- Security: INVOKER.
create or replace function rollbook.change_email(changed_user_id bigint, new_email text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    old_email text;
begin
    select u.email into old_email from portal.auth_user as u where u.id = changed_user_id for no key update;
    if old_email = new_email then
        return false;
    end if;
    update portal.auth_user as u set email = new_email where u.id = changed_user_id;
    update portal.auth_userprofile as p
    set meta = rollbook.add_to_meta(
        p.meta, 'old_emails', jsonb_build_array(old_email, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
    )
    where p.user_id = changed_user_id;
    delete from portal.student_pendingemailchange as c
    where c.user_id = changed_user_id and lower(c.new_email) = lower(change_email.new_email);
    return true;
end $$;
comment on function rollbook.change_email(bigint, text) is
    'Give a user another address; the old one is kept in the profile''s meta.';
