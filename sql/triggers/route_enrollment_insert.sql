-- route_enrollment_insert: copy newly enrolled users into their courses, however many rows a statement inserts.
-- Fires:    AFTER INSERT on the membership table, once per statement (also COPY, MERGE and upsert).
-- Raises:   23R53 for a course that is closed.
-- Locks:    see join_courses.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_enrollment_insert() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
-- A column of the condition may have the name of a variable.
declare
    added record;
begin
    if tg_relid <> :'membership'::regclass or tg_name <> 'rollbook_route_enrollment_insert' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    select array_agg(n.:membership_person) as user_ids, array_agg(n.:membership_course::text) as course_ids
    into added
    from new_rows as n
    where :membership_condition;
    if added.user_ids is not null then
        perform rollbook.join_courses(added.user_ids, added.course_ids, added.course_ids);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_enrollment_insert after insert on :membership
    referencing new table as new_rows
    for each statement execute function rollbook.route_enrollment_insert();
comment on function rollbook.route_enrollment_insert() is
    'Trigger function: copy newly enrolled users into their courses.';
comment on trigger rollbook_route_enrollment_insert on :membership is
    'After enrollments are inserted: copy user, profile and enrollment into their courses.';
