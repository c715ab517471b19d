-- publish_courses: make the publication on the portal that feeds a course server list exactly the heartbeat and the
-- copies of its courses. Behind a relay that is the publication of the relay, which has the courses of all servers
-- behind it.
-- only_course_id: only the copies of this course are looked at, so that a change of each course in turn is not
--           quadratic; null = all of the server.
-- Called:   by `rollbook server add` and `rollbook course attach`, `detach`, `move`, after the tables exist on the
--           server; for a single course by reshape_course and finish_copies.
-- Returns:  the number of tables added and dropped.
-- Locks:    as publish.
-- Security: INVOKER, as publish.
create or replace function rollbook.publish_courses(server_name text, only_course_id text default null)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    fed constant text := coalesce(
        (select s.through from rollbook.server as s where s.name = server_name), server_name
    );
begin
    return rollbook.publish(
        'rollbook_' || fed,
        (select coalesce(jsonb_agg(p), '[]') from rollbook.published_copies(fed, only_course_id) as p),
        (select c.schema_name from rollbook.course as c where c.course_id = only_course_id)
    );
end $$;
comment on function rollbook.publish_courses(text, text) is
    'Make the publication on the portal that feeds a course server, or its relay, list exactly the heartbeat and the '
    'copies of its courses, or look at one of these courses alone; return the number of tables added and dropped.';
