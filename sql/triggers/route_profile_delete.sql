-- route_profile_delete: delete the copies of a deleted profile. User and enrollment stay.
-- Fires:    AFTER DELETE on the profile table, once per statement. After a cascade from auth_user nothing is left
--           to do: route_user_delete has run before.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_delete() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_relid <> :'profile'::regclass or tg_name <> 'rollbook_route_profile_delete' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.settle_profiles(
        array(select o.:profile_key from old_rows as o), array(select o.:profile_person from old_rows as o)
    );
    return null;
end $$;
create or replace trigger rollbook_route_profile_delete after delete on :profile
    referencing old table as old_rows
    for each statement execute function rollbook.route_profile_delete();
comment on function rollbook.route_profile_delete() is
    'Trigger function: delete the copies of deleted profiles; user and enrollment stay.';
comment on trigger rollbook_route_profile_delete on :profile is
    'After profiles are deleted: delete their copies in every course.';
