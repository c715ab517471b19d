-- left_out_columns: by schema, the columns that do not travel to a course, where there are any, as one document that a
-- check can take to a course server: {"course_x": ["last_login"], ...}.
-- Called:   by foreign_objects, and by the commands for the questions to course servers.
-- Security: INVOKER.
create or replace function rollbook.left_out_columns() returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(c.schema_name, to_jsonb(c.without)), '{}')
    from rollbook.course as c where c.without <> '{}'
$$;
comment on function rollbook.left_out_columns() is
    'The columns that do not travel to a course, by schema, where there are any.';
