-- choose_schema_name: choose the schema for a new course: `course_` and the ID in lower case, with each run of
-- characters other than a-z and 0-9 replaced by one `_`, cut to 63 bytes, numbered if any schema has the name.
-- Called:   by register_course, which holds lock_course_set.
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
    'Choose a free schema name for a new course: course_ and the ID in lower case, other characters as underscores, '
    'numbered if taken.';
