-- release_course: the first half of resume_course, run as rollbook_owner: end the pause, and let nobody pass who
-- believes in it. Whoever enrolls or leaves locks the course's row and waits; with a snapshot from before, it gets
-- 40001, as `resumptions` is a part of a key. Whoever changes a user or a profile writes the user's route and waits
-- likewise, and reads after that whether the course is paused.
-- Returns:  the schema.
-- Locks:    lock_course_set; FOR UPDATE on the rollbook.course row; a write of the routes that lead to the course, in
--           user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.release_course(paused_course_id text) returns name
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    paused_schema name;
begin
    perform rollbook.require_owner('resume courses');
    perform rollbook.lock_course_set(is_exclusive => true);
    paused_schema := rollbook.course_schema(paused_course_id);
    update rollbook.course as c
    set paused_at = null, paused_by = null, pause_reason = null, resumptions = c.resumptions + 1
    where c.course_id = paused_course_id;
    perform from rollbook.route as r where r.schemas @> array[paused_schema::text] order by r.user_id for update;
    update rollbook.route as r set written = r.written + 1 where r.schemas @> array[paused_schema::text];
    return paused_schema;
end $$;
comment on function rollbook.release_course(text) is
    'First half of resume_course, run as rollbook_owner: end the pause and lock the course and its routes; return the '
    'schema. Raises RB006.';
