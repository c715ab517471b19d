-- change_closed: one attempt of close_course or open_course. The write of `resumptions`, a part of a key, waits for
-- every enrollment in the course that is under way, and makes later ones wait: they then see whether the course is
-- closed, or, with a snapshot from before, get 40001. So after the commit of close_course no new enrollment becomes
-- visible.
-- Called:   by take_turns.
-- Returns:  whether that is new.
-- Locks:    FOR UPDATE on the rollbook.course row.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.change_closed(changed_course_id text, closed boolean) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner(case when closed then 'close courses' else 'open courses' end);
    perform rollbook.course_schema(changed_course_id);
    update rollbook.course as c
    set closed_at = case when closed then clock_timestamp() end, closed_by = case when closed then session_user end,
        resumptions = c.resumptions + 1
    where c.course_id = changed_course_id and (c.closed_at is not null) <> closed;
    return found;
end $$;
comment on function rollbook.change_closed(text, boolean) is
    'One attempt of close_course or open_course; return whether that is new. Raises RB006, RB019.';
