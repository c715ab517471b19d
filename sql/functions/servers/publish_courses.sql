-- publish_courses: make the publication on the portal that feeds a course server list exactly the heartbeat and the
-- copies of its courses. Behind a relay that is the publication of the relay, which has the courses of all servers
-- behind it, and rollbook_relay may read them as long as they are behind a relay. The login of a server that the portal
-- feeds itself gets nothing here: see grant_course.
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
    changed integer;
    schema_left name;
begin
    changed := rollbook.publish(
        'rollbook_' || fed,
        (select coalesce(jsonb_agg(p), '[]') from rollbook.published_copies(fed, only_course_id) as p),
        (select c.schema_name from rollbook.course as c where c.course_id = only_course_id),
        (select 'rollbook_relay' from rollbook.server as s where fed in (s.through, s.moving_through) limit 1)
    );
    for schema_left in
        select n.nspname
        from rollbook.course as c
        inner join pg_namespace as n on n.nspname = c.schema_name
        where (only_course_id is null or c.course_id = only_course_id)
            and exists (select from aclexplode(n.nspacl) as a where a.grantee = 'rollbook_relay'::regrole)
            and not exists (
                select from rollbook.server as s
                where ((s.name = c.server and c.state <> 'detached') or s.name = c.moving_to)
                    and (s.through is not null or (s.moving_through is not null and not s.moving_direct))
            )
    loop
        execute format('revoke select on all tables in schema %I from rollbook_relay', schema_left);
        execute format('revoke usage on schema %I from rollbook_relay', schema_left);
    end loop;
    return changed;
end $$;
comment on function rollbook.publish_courses(text, text) is
    'Make the publication on the portal that feeds a course server, or its relay, list exactly the heartbeat and the '
    'copies of its courses, or look at one of these courses alone; return the number of tables added and dropped.';
