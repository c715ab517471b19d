-- route_profile_insert: copy a new profile to every course that holds its user, also if the user enrolled before.
-- Fires:    AFTER INSERT on the profile table, once per statement.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_insert() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_relid <> :'profile'::regclass or tg_name <> 'rollbook_route_profile_insert' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.settle_profiles('{}', array(select n.:profile_person from new_rows as n));
    return null;
end $$;
create or replace trigger rollbook_route_profile_insert after insert on :profile
    referencing new table as new_rows
    for each statement execute function rollbook.route_profile_insert();
comment on function rollbook.route_profile_insert() is
    'Trigger function: copy new profiles to every course that holds their users.';
comment on trigger rollbook_route_profile_insert on :profile is
    'After profiles are inserted: copy them to every course that holds their users.';
