-- route_enrollment_update: an enrollment that moves to another course or user leaves the old course and joins the new
-- one, in one commit; any other change updates the copy in place.
-- Fires:    AFTER UPDATE on portal.student_courseenrollment, once per statement.
-- Locks:    see leave_courses and join_courses.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_enrollment_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed record;
    removed record;
begin
    if tg_relid <> 'portal.student_courseenrollment'::regclass or tg_name <> 'rollbook_route_enrollment_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
    execute
        'select array_agg(n.user_id) as user_ids, array_agg(n.course_id::text) as course_ids '
        'from new_rows as n left join old_rows as o on o.id = n.id '
        'where row(o.id, o.user_id, o.course_id, o.created) '
        'is distinct from row(n.id, n.user_id, n.course_id, n.created)'
    into changed;
    if changed.user_ids is null then
        return null;
    end if;
    execute
        'select array_agg(o.user_id) as user_ids, array_agg(o.course_id::text) as course_ids, array_agg(o.id) as ids '
        'from old_rows as o where not exists ('
        'select from new_rows as n where n.id = o.id and n.user_id = o.user_id and n.course_id = o.course_id)'
    into removed;
    if removed.ids is not null then
        -- In the order of locks: tables, courses, routes. A moved enrollment has two of each.
        lock table portal.auth_user, portal.auth_userprofile in access share mode;
        perform rollbook.lock_courses(array(
            select o.course_id::text from old_rows as o union select n.course_id from new_rows as n
        ));
        perform from rollbook.touch_routes(array(
            select o.user_id from old_rows as o union select n.user_id from new_rows as n
        ));
    end if;
    perform rollbook.join_courses(changed.user_ids, changed.course_ids);
    if removed.ids is not null then
        perform rollbook.leave_courses(removed.user_ids, removed.course_ids, removed.ids);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_enrollment_update after update on portal.student_courseenrollment
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_enrollment_update();
comment on function rollbook.route_enrollment_update() is
    'Trigger function: move the copies of enrollments that change course or user; update the others in place.';
comment on trigger rollbook_route_enrollment_update on portal.student_courseenrollment is
    'After enrollments are updated: move copies to the new course or user, or update them in place.';
