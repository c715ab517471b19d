-- choose_schema_name: the schema for a new course: `course_` and the id in lower case, every run of other characters
-- than a-z and 0-9 as one `_`, cut to 63 bytes, numbered where the name is taken, by whomever.
-- Called:   by create_course, which has taken its turn.
-- Security: INVOKER.
create or replace function rollbook.choose_schema_name(course_id text) returns name
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Collation "C": the same name on every server, and only ASCII letters have a lower case.
    slug constant text := btrim(regexp_replace(lower(course_id collate "C"), '[^a-z0-9]+', '_', 'g'), '_');
    base constant text := 'course_' || coalesce(nullif(slug, ''), '1');
    candidate text := rtrim(left(base, 63), '_');
    suffix text;
begin
    for number in 2 .. 1000000 loop
        exit when not exists (select from pg_namespace as n where n.nspname = candidate)
            and not exists (select from rollbook.course as c where c.schema_name = candidate);
        suffix := '_' || number;
        candidate := rtrim(left(base, 63 - length(suffix)), '_') || suffix;
    end loop;
    return candidate;
end $$;
comment on function rollbook.choose_schema_name(text) is
    'The schema for a new course.';
