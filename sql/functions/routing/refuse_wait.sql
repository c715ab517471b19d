-- refuse_wait: give up waiting for a lock, and name who holds it and how to end that.
-- Called:   by take_turns and pause_course.
-- Raises:   RB022.
-- Security: INVOKER: sees of other sessions what the caller may see.
create or replace function rollbook.refuse_wait(work text, course_id text, callers_timeout text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    holders text;
    remedies text;
begin
    select string_agg(b.holder, e'\n' order by b.since), string_agg(b.remedy, ' ' order by b.since)
    into holders, remedies
    from (select * from rollbook.blockers(course_id) order by since limit 5) as b;
    raise exception '% of course % waited % for a lock', work, course_id,
            case callers_timeout when '0' then '5s' else callers_timeout end
        using errcode = 'RB022',
            detail = coalesce(holders, 'Who held it is not known: it is free now, or the session is hidden.'),
            hint = coalesce(
                'Wait for it, or end it: ' || remedies || ' To wait longer: set lock_timeout = ''60s'';',
                'Try again, with a longer lock_timeout: set lock_timeout = ''60s'';'
            );
end $$;
comment on function rollbook.refuse_wait(text, text, text) is
    'Give up waiting for a lock on a course: RB022, naming the sessions that hold it.';
