-- take_turns: execute a statement that locks what the portal's writers need, and never make them wait for long. Each
-- lock is waited for 100 ms; then everything that the attempt locked and wrote is undone, others go on, and it starts
-- again, until lock_timeout has passed (5 s if it is 0). The locks are thus never held while somebody is waited for.
-- Attempts queue for their turn, so that none starves; nothing else needs that lock.
-- Called:   by create_course, drop_course and resume_course. $1 of the statement is the course ID, $2 the option.
-- Returns:  what the statement returns, as text.
-- Raises:   RB022, naming the sessions that hold the locks.
-- Security: INVOKER: sees of other sessions what the caller may see.
create or replace function rollbook.take_turns(work text, statement text, course_id text, option text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- The caller's lock_timeout, in ms.
    patience constant integer := coalesce(
        (select nullif(s.setting::integer, 0) from pg_settings as s where s.name = 'lock_timeout'), 5000
    );
    callers_timeout constant text := current_setting('lock_timeout');
    deadline constant timestamptz := clock_timestamp() + patience * interval '1 ms';
    remaining integer;
    result text;
begin
    loop
        remaining := ceil(extract(epoch from deadline - clock_timestamp()) * 1000);
        begin
            perform set_config('lock_timeout', greatest(remaining, 1) || 'ms', true);
            lock table rollbook.course_set in share update exclusive mode;
            perform set_config('lock_timeout', least(patience, 100) || 'ms', true);
            execute statement into result using course_id, option;
            perform set_config('lock_timeout', callers_timeout, true);
            return result;
        exception when lock_not_available then
            null;  -- everything is undone, the setting too
        end;
        if clock_timestamp() >= deadline then
            perform rollbook.refuse_wait(work, course_id, callers_timeout);
        end if;
        perform pg_sleep(0.02);
    end loop;
end $$;
comment on function rollbook.take_turns(text, text, text, text) is
    'Execute a statement on a course that locks what the portal''s writers need, in attempts that hold no lock while '
    'they wait for another for more than 100 ms. Raises RB022 when lock_timeout (5 s if it is 0) has passed.';
