-- refuse_closed: refuse a new enrollment in a course that is closed.
-- Called:   by join_courses.
-- Raises:   23R53.
-- Security: INVOKER.
create or replace function rollbook.refuse_closed(course rollbook.course) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'course % is closed: it takes no new enrollments', course.course_id
        using errcode = '23R53', constraint = 'RB053',
            detail = format(
                'Since %s, by %s.', to_char(course.closed_at, 'YYYY-MM-DD HH24:MI:SS TZ'), course.closed_by
            ),
            hint = format('rollbook course open %s', rollbook.shell_quote(course.course_id));
end $$;
comment on function rollbook.refuse_closed(rollbook.course) is
    'Refuse a new enrollment in a course that is closed: 23R53.';
