-- foreign_objects: everything in the catalog of this database that is not as shipped or not ours, each with the line
-- for psql (or for a shell: rollbook ...) that fixes it. `rollbook schema check` adds what needs the shipped files:
-- bodies of functions, views, triggers, the portal's tables.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.foreign_objects() returns table (object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with courses (schemas) as (select coalesce(array_agg(c.schema_name::text), '{}') from rollbook.course as c),
    columns (known) as (select rollbook.copied_columns()),
    site (relations) as (
        select array_agg(t.relation)
        from rollbook.copied_tables() as t
        inner join pg_class as c on c.oid = to_regclass(t.relation) and c.relnamespace <> 'portal'::regnamespace
    )
    select
        f.object, f.kind, f.difference,
        coalesce(f.fix, (select 'rollbook replication repair ' || rollbook.shell_quote(c.course_id)
                         from rollbook.course as c where c.schema_name = f.schema_name))
    from courses, columns, rollbook.copy_differences(schemas, known, rollbook.left_out_columns()) as f
    union all
    select f.object, f.kind, f.difference, f.fix
    from courses, columns, site, rollbook.foreign_rights(schemas || '{portal,rollbook}', known, relations) as f
    union all
    select f.object, f.kind, f.difference, f.fix
    from courses, columns, site, rollbook.foreign_code(schemas || '{portal,rollbook}', known, relations) as f
    union all
    select f.object, f.kind, f.difference, f.fix from rollbook.replica_settings() as f
    union all
    select f.object, f.kind, f.difference, f.fix from rollbook.missing_rights() as f
    union all
    select f.object, f.kind, f.difference, f.fix from rollbook.sequences_behind() as f
$$;
comment on function rollbook.foreign_objects() is
    'Everything in the catalog of this database that is not as shipped or not ours, with the line that fixes it.';
