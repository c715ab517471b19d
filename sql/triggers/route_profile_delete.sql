-- route_profile_delete: delete the copies of a deleted profile. The user and the enrollment stay.
-- Fires:    AFTER DELETE on portal.auth_userprofile, once per statement. After a cascade from auth_user there is
--           nothing left to do: route_user_delete was here before.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_delete() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.settle_profiles(
        array(select o.id from old_rows as o), array(select o.user_id from old_rows as o)
    );
    return null;
end $$;
create or replace trigger rollbook_route_profile_delete after delete on portal.auth_userprofile
    referencing old table as old_rows
    for each statement execute function rollbook.route_profile_delete();
comment on function rollbook.route_profile_delete() is
    'Delete the copies of a deleted profile.';
comment on trigger rollbook_route_profile_delete on portal.auth_userprofile is
    'Calls rollbook.route_profile_delete, which says what it does.';
