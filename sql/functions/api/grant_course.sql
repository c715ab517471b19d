-- grant_course: let the role of a course's team read the copies in the course's schema. Never more than that: TRIGGER,
-- REFERENCES or CREATE would let the role run code as rollbook_owner.
-- local_columns: UPDATE on the columns that the course has added to its copies so far, too. A role with UPDATE on any
-- column may also lock the rows, and so hold up the portal's changes of these students.
-- Called:   by a DBA, in psql or through `rollbook course grant`. Can be called again, after new columns for instance.
-- Returns:  whether the role got a right that it did not have.
-- Security: INVOKER, because only members of rollbook_owner may grant.
create or replace function rollbook.grant_course(course_id text, role text, local_columns boolean default false)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name constant name := rollbook.course_schema(course_id);
    before constant text[] := rollbook.course_rights(schema_name, role);
    copied record;
    local_names text;
begin
    execute format('grant usage on schema %I to %I', schema_name, role);
    for copied in select * from rollbook.copied_tables() loop
        execute format('grant select on %I.%I to %I', schema_name, copied.table_name, role);
        select string_agg(quote_ident(a.attname), ', ') into local_names
        from pg_attribute as a
        where a.attrelid = format('%I.%I', schema_name, copied.table_name)::regclass
            and a.attnum > 0 and not a.attisdropped
            and a.attname <> all (rollbook.course_columns(
                copied.table_name, rollbook.course_without(schema_name)
            ));
        if local_columns and local_names is not null then
            execute format('grant update (%s) on %I.%I to %I', local_names, schema_name, copied.table_name, role);
        end if;
    end loop;
    return rollbook.course_rights(schema_name, role) <> before;
end $$;
comment on function rollbook.grant_course(text, text, boolean) is
    'Let a role read the copies of a course and, with local_columns, update the columns that the course has added; '
    'return whether that is new. Raises RB006 if the course does not exist, RB019 for a caller who may not create '
    'courses, RB023 for an unknown role or one of Rollbook''s own.';
