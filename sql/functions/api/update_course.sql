-- update_course: change which columns do not travel to a course. A column that is left out stays in the copies with its
-- values, as the course's own: from the commit on nothing of Rollbook's writes it. A column that travels again gets the
-- portal's values; those that the course has written there are lost.
-- Called:   by a DBA, in psql or through `rollbook course update`, which prepares the course's server first: a course
--           on a server is changed by that command only.
-- Returns:  the rows written in each table, as repair does.
-- Locks:    see change_shape. While it waits for somebody it holds none of them for more than 100 ms: see take_turns.
-- Security: INVOKER; for members of rollbook_owner.
create or replace function rollbook.update_course(course_id text, without text[]) returns setof rollbook.repaired
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform rollbook.require_owner('update courses');
    perform rollbook.require_read_committed('update_course');
    return query
    select * from unnest(
        rollbook.take_turns(
            'the update', 'select rollbook.reshape_course($1, $2::text[])::text', course_id,
            coalesce(rollbook.left_out(without), '{}')::text
        )::rollbook.repaired[]
    );
end $$;
comment on function rollbook.update_course(text, text[]) is
    'Change which columns do not travel to a course; return the rows written in each table. A column that travels '
    'again gets the portal''s values. Raises RB006 if the course does not exist, RB009 above READ COMMITTED, RB019 if '
    'the role may not update courses, RB020 if a copy cannot be written, RB022 if it waits too long for a lock, RB028 '
    'for a column that cannot be left out.';
