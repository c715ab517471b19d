-- refuse_former: refuse new enrollments with an ID that a renamed course had: the writer does not know the new one yet,
-- and the enrollment would be in no course.
-- Called:   by join_courses, for statements with an ID of an unknown course.
-- Raises:   23R55.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.refuse_former(course_ids text[]) returns void
language plpgsql
as $$
declare
    renamed record;
begin
    select f.id, c.course_id into renamed
    from rollbook.course as c cross join unnest(c.former_ids) as f (id)
    where f.id = any (course_ids)
    order by f.id limit 1;
    if found then
        raise exception 'course % was renamed: it is course % now', renamed.id, renamed.course_id
            using errcode = '23R55', constraint = 'RB055', hint = 'Enroll with the ID that the course has now.';
    end if;
end $$;
comment on function rollbook.refuse_former(text[]) is
    'Refuse new enrollments with an ID that a renamed course had: 23R55.';
