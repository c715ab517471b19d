-- begin_rename: the first half of rename_course, run as rollbook_owner: give the course its new ID and open it, as its
-- enrollments come to the new ID next.
-- Called:   by change_course_id.
-- Returns:  since when it was closed; null = it was open.
-- Raises:   RB003, RB005, RB006, RB019, 23R55 while a command changes its place or if the new ID has enrollments.
-- Locks:    see claim_course_id; FOR UPDATE on the rollbook.course row.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.begin_rename(old_course_id text, new_course_id text) returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    course rollbook.course;
begin
    perform rollbook.require_owner('rename courses');
    perform rollbook.course_schema(old_course_id);
    perform rollbook.claim_course_id(new_course_id);
    select c.* into course from rollbook.course as c where c.course_id = old_course_id for update;
    if course.state <> 'ok' or num_nonnulls(course.moving_to, course.leaving) > 0 then
        raise exception 'course % is being attached, moved or detached', old_course_id
            using errcode = '23R55', constraint = 'RB055',
                hint = 'Finish that first: rollbook status names the command.';
    end if;
    if exists (select from rollbook.memberships_of(new_course_id)) then
        raise exception 'there are enrollments in % already', new_course_id
            using errcode = '23R55', constraint = 'RB055', hint = 'Delete them, or choose another ID.';
    end if;
    update rollbook.course as c
    set course_id = new_course_id, resumptions = c.resumptions + 1, closed_at = null,
        former_ids = c.former_ids || old_course_id
    where c.course_id = old_course_id;
    execute format(
        'comment on schema %I is %L', course.schema_name, format('Rollbook: copies for course %s.', new_course_id)
    );
    return course.closed_at;
end $$;
comment on function rollbook.begin_rename(text, text) is
    'First half of rename_course: give the course its new ID, and open it; return since when it was closed. Raises '
    'RB003, RB005, RB006, RB019, 23R55.';
