-- repair_copies: make the rows of the copies equal to the portal. Writes only rows that differ, never a column or table
-- of the course's own. Fixes the routes as well, so that later changes reach the repaired rows.
-- Called:   by repair and reopen_course; the copies must have all their columns. null = all courses not paused.
-- Returns:  course_id, table_name, inserted, updated, deleted, for each table in which it wrote a row.
-- Raises:   RB008, RB020.
-- Locks:    KEY SHARE on the courses. It compares all of them first, then writes the rollbook.route rows of the users
--           with differences, in user-id order, and compares these users again: from then on no writer can change what
--           it compares. A concurrent writer at REPEATABLE READ raises 40001.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.repair_copies(course_ids text[]) returns setof rollbook.repaired
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    target record;
    course rollbook.course;
    found_ids bigint[];
    affected_ids bigint[] := '{}';
    drifted_ids text[] := '{}';
begin
    perform rollbook.lock_portal();
    perform from rollbook.course as c
    where case when course_ids is null then c.paused_at is null else c.course_id = any (course_ids) end
    order by c.course_id for key share;
    for target in
        select *
        from rollbook.routed_courses(array(
            select c.course_id
            from rollbook.compare(coalesce(course_ids, array(
                select c.course_id from rollbook.course as c where c.paused_at is null
            ))) as c
            where c.verdict <> 'match'
        ))
    loop
        found_ids := array(
            select d.user_id from rollbook.differences(target.course, target.routed_ids) as d
            union
            select s.user_id from rollbook.stray_routes(target.course, target.routed_ids) as s
        );
        continue when found_ids = '{}';
        affected_ids := affected_ids || found_ids;
        drifted_ids := drifted_ids || (target.course).course_id;
    end loop;
    perform from rollbook.touch_routes(affected_ids);
    -- With a snapshot older than the deletion of a user, that has made a second route beside the old one: 40001.
    perform from rollbook.route as r where r.user_id = any (affected_ids) order by r.user_id for update;

    for course in select c.* from rollbook.course as c where c.course_id = any (drifted_ids) order by c.course_id loop
        return query select * from rollbook.repair_course(course, affected_ids, by_key => false);
        delete from rollbook.verification as v where v.course_id = course.course_id;
    end loop;
end $$;
comment on function rollbook.repair_copies(text[]) is
    'Make the rows of these courses'' copies (null: of all that are not paused) equal to the portal and return the '
    'rows written in each table. Raises RB008 if a copy lacks a table or column, RB020 if one cannot be written.';
