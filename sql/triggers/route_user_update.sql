-- route_user_update: carry a changed user to every course that holds a copy, and to no other; another e-mail address
-- also makes their candidate's record due.
-- Fires:    AFTER UPDATE on portal.auth_user, once per statement. An update that changes no replicated value ends here:
--           it takes no lock and writes no copy.
-- Locks:    a write of each changed user's rollbook.route row, in user-id order (touch_routes says why); then the
--           candidates' rows.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_user_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    columns constant text[] := rollbook.replicated_columns('auth_user');
    -- record: the table of a live site may have its columns in another order, and more of them.
    o record;
    n record;
    current_row portal.auth_user;
    user_ids bigint[];
    renewed_ids bigint[];
    holders text[];
begin
    if tg_relid <> 'portal.auth_user'::regclass or tg_name <> 'rollbook_route_user_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if (select count(*) from (select from new_rows limit 2) as seen) <> 1 then
        -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
        execute format(
            'select array_agg(o.id), array_agg(o.id) filter (where o.email is distinct from n.email) '
            'from old_rows as o inner join new_rows as n on n.id = o.id where row(%s) is distinct from row(%s)',
            'o.' || array_to_string(columns, ', o.'), 'n.' || array_to_string(columns, ', n.')
        ) into user_ids, renewed_ids;
        perform rollbook.write_copies(array(
            select (t.schema_name, 'update', 'auth_user', 'id', t.holders)::rollbook.copy_step
            from rollbook.touch_routes(user_ids) as t
        ));
        if renewed_ids is not null then
            perform rollbook.renew_candidates(renewed_ids);
        end if;
        return null;
    end if;

    -- One row, the common case: scalars instead of sets. The columns are spelled out, as building them costs time.
    select * into o from old_rows;
    select * into n from new_rows;
    if row(o.username, o.first_name, o.last_name, o.email, o.password,
           o.is_staff, o.is_active, o.is_superuser, o.last_login, o.date_joined)
        is not distinct from
       row(n.username, n.first_name, n.last_name, n.email, n.password,
           n.is_staff, n.is_active, n.is_superuser, n.last_login, n.date_joined)
    then
        return null;
    end if;
    insert into rollbook.route as r (user_id) values (n.id)
    on conflict (user_id) do update set written = r.written + 1
    returning r.schemas into holders;
    if holders <> '{}' then
        -- The current row: a trigger of the application may have changed it after this statement.
        select * into current_row from portal.auth_user as u where u.id = n.id;
        if found then
            perform rollbook.write_copy(holders, 'auth_user', current_row, o, n);
        end if;
    end if;
    if o.email is distinct from n.email then
        perform rollbook.renew_candidates(array[n.id]);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_user_update after update on portal.auth_user
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_user_update();
comment on function rollbook.route_user_update() is
    'Trigger function: carry changed users to every course that holds a copy of them.';
comment on trigger rollbook_route_user_update on portal.auth_user is
    'After users are updated: update their copies if a replicated value changed.';
