-- reshape_course: one attempt of update_course: change the columns that travel to a course, in its copies and in what
-- its servers are sent, and fill those that travel again. A paused course is filled by resume_course.
-- Called:   by take_turns.
-- Locks:    see change_shape.
-- Security: INVOKER, as update_course: publish_courses requires the caller's rights.
create or replace function rollbook.reshape_course(course_id text, without text[]) returns rollbook.repaired[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    must_fill constant boolean := rollbook.change_shape(course_id, without);
    course constant rollbook.course := (select c from rollbook.course as c where c.course_id = reshape_course.course_id);
    results rollbook.repaired[];
begin
    -- Before the rows: they then travel with the new columns.
    perform rollbook.publish_courses(s.name, course.course_id)
    from unnest(array[course.server, course.moving_to]) as s (name)
    where s.name is not null;
    if course.paused_at is not null then
        return '{}';
    end if;
    if must_fill then
        results := array(select r from rollbook.repair_copies(array[course.course_id]) as r);
    end if;
    perform rollbook.finish_copies(course.course_id);
    return coalesce(results, '{}');
end $$;
comment on function rollbook.reshape_course(text, text[]) is
    'One attempt of update_course: change the columns that travel to a course, and fill those that travel again.';
