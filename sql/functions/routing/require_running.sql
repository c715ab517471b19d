-- require_running: refuse work on a course that is paused.
-- Called:   by repair and `rollbook course attach`, `detach`.
-- Raises:   RB021.
-- Security: INVOKER.
create or replace function rollbook.require_running(course_id text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    course constant rollbook.course := (
        select c from rollbook.course as c where c.course_id = require_running.course_id
    );
begin
    if course.paused_at is not null then
        raise exception 'course % is paused', course_id
            using errcode = 'RB021',
                detail = format(
                    'Since %s, by %s: %s', to_char(course.paused_at, 'YYYY-MM-DD HH24:MI:SS TZ'), course.paused_by,
                    coalesce(course.pause_reason, 'no reason given')
                ),
                hint = format(
                    'Resume it, which repairs it too: select * from rollbook.resume_course(%L); or: rollbook course '
                    'resume %s', course_id, rollbook.shell_quote(course_id)
                );
    end if;
end $$;
comment on function rollbook.require_running(text) is
    'Refuse work on a course that is paused: RB021.';
