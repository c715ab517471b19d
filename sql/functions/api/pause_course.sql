-- pause_course: put a course in quarantine: its routes are kept and go on being written, its copies are not, and the
-- portal's statements do not see it, even if its schema is gone. A second call changes the reason only.
-- Called:   by a DBA, in psql or through `rollbook course pause`. A statement that already waits for a lock in the
--           course goes on waiting.
-- Locks:    the course's rollbook.course row: it waits for resume_course and drop_course, for 5 s or the caller's
--           lock_timeout.
-- Security: INVOKER; for members of rollbook_owner.
create or replace function rollbook.pause_course(course_id text, reason text default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    callers_timeout constant text := current_setting('lock_timeout');
begin
    perform rollbook.require_owner('pause courses');
    perform rollbook.course_schema(course_id);
    perform set_config('lock_timeout', case callers_timeout when '0' then '5s' else callers_timeout end, true);
    update rollbook.course as c
    set paused_at = coalesce(c.paused_at, clock_timestamp()), paused_by = coalesce(c.paused_by, current_user),
        pause_reason = coalesce(reason, c.pause_reason)
    where c.course_id = pause_course.course_id;
    perform set_config('lock_timeout', callers_timeout, true);
exception when lock_not_available then
    perform rollbook.refuse_wait('pausing', course_id, callers_timeout);
end $$;
comment on function rollbook.pause_course(text, text) is
    'Pause a course: its routes are kept, its copies are no longer written, and the portal goes on without it, until '
    'resume_course. Raises RB006 if the course does not exist, RB019 if the role may not pause courses, RB022 if it '
    'waits too long for a lock.';
