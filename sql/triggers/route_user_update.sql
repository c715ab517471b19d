-- route_user_update: carry a changed user to every course that holds a copy, and to no other; another e-mail address
-- also makes their candidate's record due.
-- Rendered: from the declaration of the shape.
-- Fires:    AFTER UPDATE on the person table, once per statement. An update that changes no replicated value ends
--           here: it takes no lock and writes no copy.
-- Locks:    a write of each changed user's rollbook.route row, in user-id order (touch_routes says why); then the
--           candidates' rows.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_user_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    first record;
    current record;
    user_ids bigint[];
    renewed_ids bigint[];
begin
    if tg_relid <> :'person'::regclass or tg_name <> 'rollbook_route_user_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    -- One row, the common case: its key, whether it is alone, and the columns that changed, byte by byte, as the guard
    -- compares them.
    select
        n.:person_key as user_id,
        (select count(*) = 1 from (select from new_rows limit 2) as seen) as is_alone,
        array_remove(array[
            :person_changes
        ]::text[], null) as changed,
        :person_email_changes as is_renewed
    into first
    from old_rows as o cross join new_rows as n
    limit 1;
    if first.is_alone then
        if first.changed = '{}' then
            return null;
        end if;
        -- The current row: a trigger of the application may have changed it after this statement.
        insert into rollbook.route as r (user_id) values (first.user_id)
        on conflict (user_id) do update set written = r.written + 1
        returning
            r.schemas,
            case when r.schemas <> '{}' then (select u from :person as u where u.:person_key = first.user_id) end as person
        into current;
        if (current.person).:person_key is not null then
            perform rollbook.write_copy(
                current.schemas, :'person_name', :'person_key', first.user_id, current.person, first.changed
            );
        end if;
        if first.is_renewed then
            perform rollbook.renew_candidates(array[first.user_id]);
        end if;
        return null;
    end if;

    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
    execute $query$
        select array_agg(n.:person_key), array_agg(n.:person_key) filter (where :person_email_changes)
        from old_rows as o
        inner join new_rows as n on n.:person_key = o.:person_key
        where row(:person_old) is distinct from row(:person_new)
    $query$ into user_ids, renewed_ids;
    perform rollbook.write_copies(array(
        select (t.schema_name, 'update', c.table_name, c.user_column, t.holders)::rollbook.copy_step
        from rollbook.touch_routes(user_ids) as t
        inner join rollbook.copied_tables() as c on c.role = 'person'
    ));
    if renewed_ids is not null then
        perform rollbook.renew_candidates(renewed_ids);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_user_update after update on :person
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_user_update();
comment on function rollbook.route_user_update() is
    'Trigger function: carry changed users to every course that holds a copy of them.';
comment on trigger rollbook_route_user_update on :person is
    'After users are updated: update their copies if a replicated value changed.';
