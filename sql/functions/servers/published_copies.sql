-- published_copies: what the publication of a server is to list, the heartbeat apart: the copies of its attached
-- courses and of those that move to it; of a relay those of all servers behind it, each course once.
-- only_course_id: the copies of this course alone; null = all.
-- Called:   by publish_courses, and by the `rollbook` commands that publish on a relay.
-- Security: INVOKER.
create or replace function rollbook.published_copies(server_name text, only_course_id text default null)
returns table (schema_name text, table_name text, columns text[])
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select c.schema_name::text, t.table_name, rollbook.course_columns(t.table_name, c.without)
    from rollbook.course as c
    cross join rollbook.copied_tables() as t
    where (only_course_id is null or c.course_id = only_course_id)
        and exists (
            select from rollbook.server as s
            where (server_name in (s.name, s.through) or (server_name = s.moving_through and not s.moving_direct))
                and ((s.name = c.server and c.state <> 'detached') or s.name = c.moving_to)
        )
$$;
comment on function rollbook.published_copies(text, text) is
    'What the publication of a server is to list: the copies of its courses, or of a relay those of all servers behind '
    'it.';
