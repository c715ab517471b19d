-- route_profile_update: carry a changed profile to every course that holds its user, also if it moved to another user
-- or got another id.
-- Rendered: from the declaration of the shape.
-- Fires:    AFTER UPDATE on the profile table, once per statement. An update that changes no replicated value ends
--           here: it takes no lock and writes no copy.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    first record;
    current_row :profile;
    changed record;
    holders text[];
begin
    if tg_relid <> :'profile'::regclass or tg_name <> 'rollbook_route_profile_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    -- One row, the common case: its keys, whether it is alone, and the columns that changed, byte by byte, as the guard
    -- compares them.
    select
        n.:profile_key as id,
        n.:profile_person as user_id,
        row(n.:profile_key, n.:profile_person) is distinct from row(o.:profile_key, o.:profile_person) as is_moved,
        (select count(*) = 1 from (select from new_rows limit 2) as seen) as is_alone,
        array_remove(array[
            :profile_changes
        ]::text[], null) as changed
    into first
    from old_rows as o cross join new_rows as n
    limit 1;
    if first.is_alone and first.changed = '{}' then
        return null;
    end if;
    if first.is_alone and not first.is_moved then
        holders := array(select t.schema_name from rollbook.touch_routes(array[first.user_id]) as t);
        if holders <> '{}' then
            -- The current row: a trigger of the application may have changed it after this statement.
            select * into current_row from :profile as p
            where p.:profile_person = first.user_id and p.:profile_key = first.id;
            if found then
                perform rollbook.write_copy(
                    holders, :'profile_name', :'profile_key', first.id, current_row, first.changed
                );
            end if;
        end if;
        return null;
    end if;

    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
    execute $query$
        select
            array_agg(n.:profile_person) as user_ids,
            array_agg(o.:profile_person) filter (where o.:profile_person is distinct from n.:profile_person)
            || array_agg(n.:profile_person) filter (where o.:profile_person is distinct from n.:profile_person)
                as moved_ids,
            array_agg(o.:profile_key) filter (where o.:profile_person is distinct from n.:profile_person) as profile_ids
        from old_rows as o
        full join new_rows as n on n.:profile_key = o.:profile_key
        where row(:profile_old) is distinct from row(:profile_new)
    $query$ into changed;
    if changed.moved_ids is not null then
        perform rollbook.settle_profiles(changed.profile_ids, changed.user_ids || changed.moved_ids);
    else
        perform rollbook.write_copies(array(
            select (t.schema_name, 'update', c.table_name, c.user_column, t.holders)::rollbook.copy_step
            from rollbook.touch_routes(changed.user_ids) as t
            inner join rollbook.copied_tables() as c on c.role = 'profile'
        ));
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_profile_update after update on :profile
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_profile_update();
comment on function rollbook.route_profile_update() is
    'Trigger function: carry changed profiles to every course that holds their users.';
comment on trigger rollbook_route_profile_update on :profile is
    'After profiles are updated: update their copies if a replicated value changed.';
