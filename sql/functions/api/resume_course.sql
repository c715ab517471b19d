-- resume_course: end the pause of a course: recreate what is gone of its copies, repair and verify them. From the
-- commit on they are written again. If anything of it fails, the course stays paused.
-- Called:   by a DBA, in psql or through `rollbook course resume`, which repairs the course's server too. A course that
--           is not paused is repaired alike.
-- Returns:  the rows written in each table, as repair does.
-- Locks:    see release_course. While it waits for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER: what is recreated requires the caller's own rights, as create_course does.
create or replace function rollbook.resume_course(course_id text) returns setof rollbook.repaired
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('resume courses');
    perform rollbook.require_read_committed('resume_course');
    return query
    select * from unnest(
        rollbook.take_turns(
            'resuming', 'select rollbook.reopen_course($1)::text', course_id, null
        )::rollbook.repaired[]
    );
end $$;
comment on function rollbook.resume_course(text) is
    'End the pause of a course: repair and verify its copies, which are written again from the commit on; return the '
    'rows written in each table. Raises RB006 if the course does not exist, RB009 above READ COMMITTED, RB019 if the '
    'role may not, RB020 if a copy cannot be written, RB022 if it waits too long for a lock.';
