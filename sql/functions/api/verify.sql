-- verify: compare every copy with the portal, row by row and column by column, and list the differences. No row means
-- no difference.
-- Called:   by a DBA, as rollbook.verify('course') or rollbook.verify() for all courses.
-- Returns:  course_id, table_name, finding (missing, changed, extra), row_id, and for changed rows exactly the columns
--           that differ.
-- Locks:    none; it reads the snapshot of the calling statement, so concurrent writers cause no false difference.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.verify(only_course_id text default null) returns setof rollbook.finding
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    asked_ids constant text[] := case when only_course_id is not null then array[only_course_id] end;
    target record;
begin
    if only_course_id is not null then
        perform rollbook.course_schema(only_course_id);
    end if;
    -- Counting costs less than listing, and most courses are equal.
    for target in
        select r.*
        from rollbook.routed_courses(array(
            select c.course_id from rollbook.compare(asked_ids) as c where c.verdict <> 'match'
        )) as r
    loop
        return query
        select (target.course).course_id, d.table_name, d.finding, d.row_id, d.columns
        from rollbook.differences(target.course, target.routed_ids) as d
        order by d.table_name, d.row_id;
        return query
        select (target.course).course_id, 'route', s.finding, s.user_id, null::text[]
        from rollbook.stray_routes(target.course, target.routed_ids) as s
        order by s.user_id;
    end loop;
end $$;
comment on function rollbook.verify(text) is
    'Compare the copies of one course (null: all courses) with the portal and return a row for each difference: '
    'missing, changed (with the columns) or extra. No row means no difference. Raises RB006 if the course does not '
    'exist, RB008 if a copy lacks a table or column.';
