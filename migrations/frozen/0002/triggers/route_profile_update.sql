-- route_profile_update: carry a changed profile to every course that holds its user. A profile that went to another
-- user or got another id is gone from the old place and new in the new one.
-- Fires:    AFTER UPDATE on portal.auth_userprofile, once per statement. An update that changes nothing ends here.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed_ids bigint[];  -- users whose profile kept its id
    moved_ids bigint[];  -- users whom a profile left or reached
    target record;
begin
    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
    execute
        'select array_agg(n.user_id) filter (where o.user_id = n.user_id), '
        'array_agg(o.user_id) filter (where n.id is null or o.user_id <> n.user_id) '
        '|| array_agg(n.user_id) filter (where o.id is null or o.user_id <> n.user_id) '
        'from old_rows as o full join new_rows as n on n.id = o.id where o is distinct from n'
    into changed_ids, moved_ids;

    for target in select * from rollbook.touch_routes(changed_ids || moved_ids) loop
        if moved_ids is not null then
            perform rollbook.delete_copies(target.schema_name, 'auth_userprofile', 'user_id', moved_ids);
            perform rollbook.put_copies(
                target.schema_name, 'auth_userprofile', 'user_id',
                array(select unnest(target.holders) intersect select unnest(moved_ids))
            );
        end if;
        if changed_ids is not null then
            perform rollbook.update_copies(target.schema_name, 'auth_userprofile', 'user_id', target.holders);
        end if;
    end loop;
    return null;
end $$;
create or replace trigger rollbook_route_profile_update after update on portal.auth_userprofile
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_profile_update();
comment on function rollbook.route_profile_update() is
    'Carry a changed profile to every course that holds its user.';
comment on trigger rollbook_route_profile_update on portal.auth_userprofile is
    'Calls rollbook.route_profile_update, which says what it does.';
