-- route_enrollment_update: an enrollment that moves to another course or user leaves the old course and joins the new
-- one, in one commit; any other change updates the copy in place. A row counts only while the condition of the shape is
-- true: if that changes, the user joins or leaves.
-- Rendered: from the declaration of the shape.
-- Fires:    AFTER UPDATE on the membership table, once per statement. An update that changes no replicated value of a
--           member ends here.
-- Raises:   23R53 for a row that begins to count in a course that is closed, comes to it or gets another user there.
-- Locks:    see leave_courses and join_courses.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.route_enrollment_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
-- A column of the condition may have the name of a variable.
declare
    -- record: the table of a live site may have its columns in another order, and more of them.
    o record;
    n record;
    joining record;
    leaving record;
begin
    if tg_relid <> :'membership'::regclass or tg_name <> 'rollbook_route_enrollment_update' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if (select count(*) from (select from new_rows limit 2) as seen) = 1 then
        -- One row, the common case: scalars instead of sets. A row that does not count is null.
        select * into o from old_rows where :membership_condition;
        select * into n from new_rows where :membership_condition;
        if row(:membership_old) is not distinct from row(:membership_new) then
            return null;
        end if;
        select
            array[n.:membership_person] as user_ids,
            array[n.:membership_course::text] as course_ids,
            case when row(o.:membership_person, o.:membership_course)
                is distinct from row(n.:membership_person, n.:membership_course)
                then array[n.:membership_course::text] end as new_course_ids
        into joining
        where n.:membership_key is not null;
        select
            array[o.:membership_person] as user_ids,
            array[o.:membership_course::text] as course_ids,
            array[o.:membership_key] as ids
        into leaving
        where o.:membership_key is not null
            and row(o.:membership_key, o.:membership_person, o.:membership_course)
            is distinct from row(n.:membership_key, n.:membership_person, n.:membership_course);
    else
        -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session.
        execute $query$
            select
                array_agg(n.:membership_person) as user_ids,
                array_agg(n.:membership_course::text) as course_ids,
                array_agg(n.:membership_course::text) filter (
                    where row(o.:membership_person, o.:membership_course)
                        is distinct from row(n.:membership_person, n.:membership_course)
                ) as new_course_ids
            from (select * from new_rows where :membership_condition) as n
            left join (select * from old_rows where :membership_condition) as o
                on o.:membership_key = n.:membership_key
            where row(:membership_old) is distinct from row(:membership_new)
        $query$ into joining;
        execute $query$
            select
                array_agg(o.:membership_person) as user_ids,
                array_agg(o.:membership_course::text) as course_ids,
                array_agg(o.:membership_key) as ids
            from (select * from old_rows where :membership_condition) as o
            where not exists (
                select from (select * from new_rows where :membership_condition) as n
                where n.:membership_key = o.:membership_key
                    and n.:membership_person = o.:membership_person
                    and n.:membership_course = o.:membership_course
            )
        $query$ into leaving;
    end if;

    if joining.user_ids is not null and leaving.user_ids is not null then
        -- In the order of locks: tables, courses, routes. A moved enrollment has two of each.
        perform rollbook.lock_portal();
        perform rollbook.lock_courses(array(select unnest(leaving.course_ids) union select unnest(joining.course_ids)));
        perform from rollbook.touch_routes(array(
            select unnest(leaving.user_ids)::bigint union select unnest(joining.user_ids)
        ));
    end if;
    if joining.user_ids is not null then
        perform rollbook.join_courses(joining.user_ids, joining.course_ids, joining.new_course_ids);
    end if;
    if leaving.user_ids is not null then
        perform rollbook.leave_courses(leaving.user_ids, leaving.course_ids, leaving.ids);
    end if;
    return null;
end $$;
create or replace trigger rollbook_route_enrollment_update after update on :membership
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.route_enrollment_update();
comment on function rollbook.route_enrollment_update() is
    'Trigger function: move the copies of enrollments that change course or user; update the others in place.';
comment on trigger rollbook_route_enrollment_update on :membership is
    'After enrollments are updated: move copies to the new course or user, or update them in place.';
