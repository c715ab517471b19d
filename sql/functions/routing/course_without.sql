-- course_without: the columns that do not travel to the course of a schema; none for other schemas.
-- Called:   by what builds and checks copies. The routing gets them from courses_apart.
-- Security: INVOKER.
create or replace function rollbook.course_without(schema_name text) returns text[]
language sql stable
as $$
    select coalesce(
        (select c.without from rollbook.course as c where c.schema_name = course_without.schema_name::name), '{}'
    )
$$;
comment on function rollbook.course_without(text) is 'The columns that do not travel to the course of a schema.';
