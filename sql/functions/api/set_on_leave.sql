-- set_on_leave: change what happens to the copies of user and profile when an enrollment ends.
-- keep to remove: the copies of those who left before are removed too, with what the course wrote into its own columns
--           of them: a course holds what its policy says. What its own foreign keys still need is refused, and nothing
--           changes.
-- remove to keep: whoever leaves from now on stays. Copies that were removed do not come back.
-- Called:   by a DBA, in psql or through `rollbook course update --on-leave`, which asks first.
-- Returns:  the rows written in each table, as repair does.
-- Locks:    see change_on_leave. While it waits for somebody it holds none of them for more than 100 ms: take_turns.
-- Security: INVOKER; for members of rollbook_owner.
create or replace function rollbook.set_on_leave(course_id text, on_leave text) returns setof rollbook.repaired
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('update courses');
    perform rollbook.require_read_committed('set_on_leave');
    if on_leave is null or on_leave not in ('keep', 'remove') then
        raise exception 'on_leave must be "keep" or "remove", not "%"', on_leave
            using errcode = 'RB003', hint = 'keep: user and profile stay and stay current. remove: they are deleted.';
    end if;
    return query
    select * from unnest(
        rollbook.take_turns(
            'the update', 'select rollbook.change_on_leave($1, $2)::text', course_id, on_leave
        )::rollbook.repaired[]
    );
end $$;
comment on function rollbook.set_on_leave(text, text) is
    'Change what happens to user and profile copies when an enrollment ends: keep or remove. remove also removes those '
    'of users who left before; return the rows written in each table. Raises RB003 for another word, RB006 if the '
    'course does not exist, RB009 above READ COMMITTED, RB019 if the role may not update courses, RB020 or 23R04 if a '
    'copy cannot be removed, RB022 if it waits too long for a lock.';
