-- route_enrollment_delete: delete the copies of ended enrollments, and of their users where the course's on_leave is
-- `remove`.
-- Fires:    AFTER DELETE on the membership table, once per statement, also by cascade from auth_user.
-- Locks:    see leave_courses.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_enrollment_delete() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
-- A column of the condition may have the name of a variable.
declare
    removed record;
begin
    if tg_relid <> :'membership'::regclass or tg_name <> 'rollbook_route_enrollment_delete' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    select
        array_agg(o.:membership_person) as user_ids,
        array_agg(o.:membership_course::text) as course_ids,
        array_agg(o.:membership_key) as ids
    into removed
    from old_rows as o
    where :membership_condition;
    if removed.ids is not null then
        perform rollbook.leave_courses(removed.user_ids, removed.course_ids, removed.ids);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_enrollment_delete after delete on :membership
    referencing old table as old_rows
    for each statement execute function rollbook.route_enrollment_delete();
comment on function rollbook.route_enrollment_delete() is
    'Trigger function: delete the copies of ended enrollments, and of their users where the course''s on_leave is '
    'remove.';
comment on trigger rollbook_route_enrollment_delete on :membership is
    'After enrollments are deleted: delete their copies, and user and profile where on_leave is remove.';
