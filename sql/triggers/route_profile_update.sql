-- route_profile_update: carry a changed profile to every course that holds its user, also if it moved to another user
-- or got another id.
-- Fires:    AFTER UPDATE on portal.auth_userprofile, once per statement. An update that changes no replicated value
--           ends here: it takes no lock and writes no copy.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_profile_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    columns constant text[] := rollbook.replicated_columns('auth_userprofile');
    -- record: the table of a live site may have its columns in another order, and more of them.
    o record;
    n record;
    current_row portal.auth_userprofile;
    changed record;
    holders text[];
begin
    if tg_relid <> 'portal.auth_userprofile'::regclass or tg_name <> 'rollbook_route_profile_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if (select count(*) from (select from new_rows limit 2) as seen) = 1 then
        -- One row, the common case: scalars instead of sets. The columns are spelled out, as building them costs time.
        select * into o from old_rows;
        select * into n from new_rows;
        if row(o.id, o.user_id, o.name, o.meta, o.courseware, o.language, o.location,
               o.year_of_birth, o.gender, o.level_of_education, o.mailing_address, o.goals)
            is not distinct from
           row(n.id, n.user_id, n.name, n.meta, n.courseware, n.language, n.location,
               n.year_of_birth, n.gender, n.level_of_education, n.mailing_address, n.goals)
        then
            return null;
        elsif row(o.id, o.user_id) = row(n.id, n.user_id) then
            holders := array(select t.schema_name from rollbook.touch_routes(array[n.user_id]) as t);
            if holders <> '{}' then
                -- The current row: a trigger of the application may have changed it after this statement.
                select * into current_row from portal.auth_userprofile as p where p.user_id = o.user_id and p.id = o.id;
                if found then
                    perform rollbook.write_copy(holders, 'auth_userprofile', current_row, o, n);
                end if;
            end if;
            return null;
        end if;
    end if;

    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
    execute format(
        'select array_agg(n.user_id) as user_ids, '
        'array_agg(o.user_id) filter (where o.user_id is distinct from n.user_id) '
        '|| array_agg(n.user_id) filter (where o.user_id is distinct from n.user_id) as moved_ids, '
        'array_agg(o.id) filter (where o.user_id is distinct from n.user_id) as profile_ids '
        'from old_rows as o full join new_rows as n on n.id = o.id where row(%s) is distinct from row(%s)',
        'o.' || array_to_string(columns, ', o.'), 'n.' || array_to_string(columns, ', n.')
    ) into changed;
    if changed.moved_ids is not null then
        perform rollbook.settle_profiles(changed.profile_ids, changed.user_ids || changed.moved_ids);
    else
        perform rollbook.write_copies(array(
            select (t.schema_name, 'update', 'auth_userprofile', 'user_id', t.holders)::rollbook.copy_step
            from rollbook.touch_routes(changed.user_ids) as t
        ));
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_profile_update after update on portal.auth_userprofile
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_profile_update();
comment on function rollbook.route_profile_update() is
    'Trigger function: carry changed profiles to every course that holds their users.';
comment on trigger rollbook_route_profile_update on portal.auth_userprofile is
    'After profiles are updated: update their copies if a replicated value changed.';
