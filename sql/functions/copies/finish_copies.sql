-- finish_copies: what restore_copies leaves for later, when the rows are repaired: NOT NULL of columns that came back,
-- and the publications of its course servers, which lost the tables that were gone.
-- Called:   by repair, reopen_course and reshape_course.
-- Security: INVOKER: publish_courses requires the caller's rights; the course's tables are rollbook_owner's.
create or replace function rollbook.finish_copies(course_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    course constant rollbook.course := (select c from rollbook.course as c where c.course_id = finish_copies.course_id);
    statement text;
begin
    for statement in
        select w.words
        from rollbook.copied_tables() as t
        cross join rollbook.shape_statements(
            course.schema_name, t.table_name, course.without,
            rollbook.copy_shape(course.schema_name, t.table_name), is_final => true
        ) as w (words)
        order by t.ordinal
    loop
        execute statement;
    end loop;
    perform rollbook.publish_courses(s.name, course.course_id)
    from unnest(array[course.server, course.moving_to]) as s (name)
    where s.name is not null;
end $$;
comment on function rollbook.finish_copies(text) is
    'Complete copies that were recreated, when their rows are repaired: NOT NULL, and the server''s publication.';
