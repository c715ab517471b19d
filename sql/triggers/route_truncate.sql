-- route_truncate: TRUNCATE of a replicated portal table acts like DELETE of all its rows. It deletes the copies instead
-- of truncating them: readers of a course see either all rows or none, and the course's own foreign keys hold.
-- Fires:    AFTER TRUNCATE on each of the copied tables. At READ COMMITTED only: at other levels it would not see all
--           rows that it must delete.
-- Locks:    KEY SHARE on every course, then every route, in user-id order. TRUNCATE itself locks the portal table.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_truncate() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    truncated_role text;
    course rollbook.course;
    removed_ids bigint[];
    steps rollbook.copy_step[] := '{}';
begin
    select t.role into truncated_role
    from rollbook.copied_tables() as t where rollbook.portal_table(t.table_name) = tg_relid;
    if truncated_role is null or tg_name <> 'rollbook_route_truncate' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.require_read_committed(format('TRUNCATE of %s', tg_relid::regclass));
    perform from rollbook.course as c order by c.course_id for key share;
    perform from rollbook.route as r order by r.user_id for update;

    for course in select * from rollbook.course as c order by c.schema_name loop
        steps := steps || array(
            select (course.schema_name, 'delete', t.table_name, t.key_column, null)::rollbook.copy_step
            from rollbook.copied_tables() as t
            where t.role = truncated_role or truncated_role = 'person'
            order by t.ordinal desc
        );
        continue when truncated_role <> 'membership' or course.on_leave = 'keep';
        removed_ids := array(
            select r.user_id
            from rollbook.route as r
            where r.schemas @> array[course.schema_name::text]
                and not exists (
                    select from rollbook.memberships() as m
                    where m.user_id = r.user_id and m.course_id = course.course_id
                )
        );
        update rollbook.route as r set schemas = array_remove(r.schemas, course.schema_name::text)
        where r.user_id = any (removed_ids);
        steps := steps || array(
            select (course.schema_name, 'delete', t.table_name, t.user_column, removed_ids)::rollbook.copy_step
            from rollbook.copied_tables() as t
            where t.role <> 'membership'
            order by t.ordinal desc
        );
    end loop;
    perform rollbook.write_copies(steps);
    if truncated_role = 'person' then
        delete from rollbook.route;
    else
        update rollbook.route set written = written + 1;
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_truncate after truncate on :person
    for each statement execute function rollbook.route_truncate();
create or replace trigger rollbook_route_truncate after truncate on :profile
    for each statement execute function rollbook.route_truncate();
create or replace trigger rollbook_route_truncate after truncate on :membership
    for each statement execute function rollbook.route_truncate();
comment on function rollbook.route_truncate() is
    'Trigger function: make TRUNCATE of a replicated portal table act like DELETE of all its rows. Raises RB009 above '
    'READ COMMITTED.';
comment on trigger rollbook_route_truncate on :person is
    'After TRUNCATE of all users: delete every copy in every course.';
comment on trigger rollbook_route_truncate on :profile is
    'After TRUNCATE of all profiles: delete their copies in every course.';
comment on trigger rollbook_route_truncate on :membership is
    'After TRUNCATE of all enrollments: act as if each had been deleted.';
