-- repair_users: make the rows of some users in the copies of some courses equal to the portal, and no others'. It finds
-- them by key, as compare_users. A user that the portal does not have loses the copies that are left.
-- Called:   by a DBA, and by `rollbook replication repair --user`. What is gone of a course (a table, a column) is for
--           repair. The last verdict of a course stays: it may be about other users.
-- Returns:  course_id, table_name, inserted, updated, deleted, for each table in which it wrote a row.
-- Raises:   RB006, RB008, RB020, RB021.
-- Locks:    KEY SHARE on the courses; the rollbook.route rows of the users with differences, in user-id order, before
--           it compares them again: as repair_copies.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.repair_users(user_ids bigint[], course_ids text[]) returns setof rollbook.repaired
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    course rollbook.course;
    wanted text;
    affected_ids bigint[];
    drifted_ids text[];
begin
    foreach wanted in array course_ids loop
        perform rollbook.course_schema(wanted);
        perform rollbook.require_running(wanted);
    end loop;
    perform rollbook.lock_portal();
    perform from rollbook.course as c where c.course_id = any (course_ids) order by c.course_id for key share;
    select array_agg(distinct f.user_id), array_agg(distinct f.course_id), min(f.course_id) filter (
        where f.finding = 'not_comparable'
    )
    into affected_ids, drifted_ids, wanted
    from rollbook.compare_users(user_ids, course_ids) as f
    where f.finding <> 'ok';
    if wanted is not null then
        raise exception 'course % cannot be compared: a table or column of its copies is gone', wanted
            using errcode = 'RB008', hint = format('Recreate it: select * from rollbook.repair(%L);', wanted);
    end if;
    perform from rollbook.touch_routes(affected_ids);
    perform from rollbook.route as r where r.user_id = any (affected_ids) order by r.user_id for update;
    for course in select c.* from rollbook.course as c where c.course_id = any (drifted_ids) order by c.course_id loop
        return query select * from rollbook.repair_course(course, affected_ids, by_key => true);
    end loop;
end $$;
comment on function rollbook.repair_users(bigint[], text[]) is
    'Make the rows of these users in the copies of these courses equal to the portal, and no others; return the rows '
    'written in each table. Raises RB006 if a course does not exist, RB008 if a copy lacks a table or column, RB020 if '
    'one cannot be written, RB021 if a course is paused.';
