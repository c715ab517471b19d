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
    tables constant text[] := array(select t.table_name from rollbook.copied_tables() as t order by t.ordinal);
    target record;
    step record;
    course rollbook.course;
    found_ids bigint[];
    affected_ids bigint[] := '{}';
    drifted_ids text[] := '{}';
    result rollbook.repaired;
    results rollbook.repaired[];
    place text;
begin
    lock table portal.auth_user, portal.auth_userprofile, portal.student_courseenrollment in access share mode;
    perform from rollbook.course as c
    where case when course_ids is null then c.paused_at is null else c.course_id = any (course_ids) end
    order by c.course_id for key share;
    for target in
        select *
        from rollbook.routed_courses(course_ids) as routed
        where course_ids is not null or (routed.course).paused_at is null
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
        results := '{}';
        begin
            for step in
                select d.table_name, d.finding, array_agg(d.row_id) as row_ids
                from rollbook.differences(
                    course,
                    array(select r.user_id from rollbook.route as r where r.schemas @> array[course.schema_name::text])
                ) as d
                where d.user_id = any (affected_ids)
                group by d.table_name, d.finding
                -- Delete extra children; fix the other rows, parents first; delete extra users when nothing refers to them.
                order by
                    case when d.finding <> 'extra' then 1 when d.table_name = 'auth_user' then 2 else 0 end,
                    array_position(tables, d.table_name) * case d.finding when 'extra' then -1 else 1 end
            loop
                result := (course.course_id, step.table_name, 0, 0, 0);
                case step.finding
                    when 'extra' then
                        result.deleted := rollbook.delete_copies(course.schema_name, step.table_name, 'id', step.row_ids);
                    when 'changed' then
                        result.updated := rollbook.update_copies(course.schema_name, step.table_name, 'id', step.row_ids);
                    when 'missing' then
                        result.inserted := rollbook.put_copies(course.schema_name, step.table_name, 'id', step.row_ids);
                end case;
                results := results || result;
            end loop;
        exception when others then
            if not rollbook.is_fault(sqlstate, course.schema_name) then
                raise;
            end if;
            get stacked diagnostics place = pg_exception_context;
            perform rollbook.meet_fault(
                course.schema_name, step.table_name, sqlstate, sqlerrm, place, is_routing => false
            );
        end;

        update rollbook.route as r
        set schemas = case
            when e.user_id is null and course.on_leave = 'remove' then array_remove(r.schemas, course.schema_name::text)
            when e.user_id is not null and not r.schemas @> array[course.schema_name::text]
                then r.schemas || course.schema_name::text
            else r.schemas
        end
        from portal.auth_user as u
        left join portal.student_courseenrollment as e on e.user_id = u.id and e.course_id = course.course_id
        where u.id = r.user_id and r.user_id = any (affected_ids);
        delete from rollbook.route as r
        where r.user_id = any (affected_ids) and not exists (select from portal.auth_user as u where u.id = r.user_id);
        delete from rollbook.verification as v where v.course_id = course.course_id;

        return query
        select course.course_id, w.table_name, sum(w.inserted)::bigint, sum(w.updated)::bigint, sum(w.deleted)::bigint
        from unnest(results) as w
        group by w.table_name
        order by array_position(tables, w.table_name);
    end loop;
end $$;
comment on function rollbook.repair_copies(text[]) is
    'Make the rows of these courses'' copies (null: of all that are not paused) equal to the portal and return the '
    'rows written in each table. Raises RB008 if a copy lacks a table or column, RB020 if one cannot be written.';
