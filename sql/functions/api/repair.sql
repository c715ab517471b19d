-- repair: make the copies equal to the portal: first recreate what is gone of them (schema, table, column), then write
-- the rows that differ, never a column or table of the course's own. Fixes the routes as well, so that later changes
-- reach the repaired rows. A second repair writes nothing.
-- Called:   by a DBA, as rollbook.repair('course') or rollbook.repair() for all courses that are not paused: a paused
--           course is repaired by resume_course, which no later change can slip by.
-- Returns:  course_id, table_name, inserted, updated, deleted, for each table in which it wrote a row.
-- Locks:    see restore_copies and repair_copies.
-- Security: INVOKER: what is recreated requires the caller's own rights, as create_course does.
create or replace function rollbook.repair(only_course_id text default null) returns setof rollbook.repaired
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    broken_ids text[];
    broken_id text;
begin
    if only_course_id is not null then
        perform rollbook.course_schema(only_course_id);
        perform rollbook.require_running(only_course_id);
    end if;
    broken_ids := array(
        select c.course_id
        from rollbook.course as c
        where c.paused_at is null and (only_course_id is null or c.course_id = only_course_id)
            and exists (
                select t.table_name from rollbook.copied_tables() as t
                except
                select k.table_name from rollbook.copies_of(c.schema_name, c.without) as k where k.is_sound
            )
        order by c.course_id
    );
    foreach broken_id in array broken_ids loop
        perform rollbook.take_turns('the repair', 'select rollbook.restore_copies($1)', broken_id, null);
    end loop;
    return query select * from rollbook.repair_copies(case when only_course_id is not null then array[only_course_id] end);
    foreach broken_id in array broken_ids loop
        perform rollbook.finish_copies(broken_id);
    end loop;
end $$;
comment on function rollbook.repair(text) is
    'Make the copies of one course (null: all courses that are not paused) equal to the portal and return the rows '
    'written in each table; recreate a schema, table or column that is gone. Columns and tables that a course added '
    'are left alone. Raises RB006 if the course does not exist, RB019 if the role may not recreate what is gone, '
    'RB020 if a copy cannot be written, RB021 if the course is paused.';
