-- route_user_delete: delete every copy of a deleted user, in every course, whatever on_leave says; children first.
-- Fires:    AFTER DELETE on the person table, once per statement. The cascade has deleted the enrollments before, but
--           the route still knows the courses. The triggers of the cascaded tables run after this one and find no
--           route.
-- Locks:    a write of the users' rollbook.route rows, in user-id order; then it deletes them.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_user_delete() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    steps rollbook.copy_step[];
begin
    if tg_relid <> :'person'::regclass or tg_name <> 'rollbook_route_user_delete' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    -- Write it even if absent: an enrollment too new for this snapshot may have created one, which raises 40001.
    perform from rollbook.touch_routes(array(select o.:person_key from old_rows as o));

    with gone as (
        delete from rollbook.route as r where r.user_id = any (array(select o.:person_key from old_rows as o))
        returning r.user_id, r.schemas
    ),
    target as (
        select held.schema_name, array_agg(gone.user_id) as user_ids
        from gone, unnest(gone.schemas) as held (schema_name)
        group by held.schema_name
    )
    select
        array_agg(
            (target.schema_name, 'delete', t.table_name, t.user_column, target.user_ids)::rollbook.copy_step
            order by target.schema_name, t.ordinal desc
        )
    into steps
    from target
    cross join rollbook.copied_tables() as t;
    perform rollbook.write_copies(coalesce(steps, '{}'));
    perform set_config('rollbook.user_deletion', pg_current_xact_id()::text, true);  -- touch_routes reads it
    return null;
end $$;
create or replace trigger rollbook_route_user_delete after delete on :person
    referencing old table as old_rows
    for each statement execute function rollbook.route_user_delete();
comment on function rollbook.route_user_delete() is
    'Trigger function: delete every copy of deleted users, in every course, whatever on_leave says.';
comment on trigger rollbook_route_user_delete on :person is
    'After users are deleted: delete every copy of them in every course, whatever on_leave says.';
