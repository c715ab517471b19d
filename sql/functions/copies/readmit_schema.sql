-- readmit_schema: one attempt of readmit: give schema and copies to rollbook_owner, record the course, recreate what
-- its copies lack, give them today's guard, make them current and end the pause.
-- Called:   by take_turns.
-- Locks:    see readmit_course and reopen_course.
-- Security: INVOKER, as readmit: the schema may be the caller's.
create or replace function rollbook.readmit_schema(course_id text, kept jsonb) returns rollbook.repaired[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
begin
    for statement in
        select format('alter schema %I owner to rollbook_owner', kept ->> 'schema_name')
        where to_regnamespace(quote_ident(kept ->> 'schema_name')) is not null
        union all
        select format('alter table %s owner to rollbook_owner', c.relation)
        from rollbook.copied_tables() as t
        cross join to_regclass(format('%I.%I', kept ->> 'schema_name', t.table_name)) as c (relation)
        where c.relation is not null
    loop
        execute statement;
    end loop;
    perform rollbook.readmit_course(course_id, kept);
    perform rollbook.restore_copies(course_id);
    for statement in
        select g.words
        from rollbook.copied_tables() as t
        cross join rollbook.guard_statements(kept ->> 'schema_name', t.table_name) as g (words)
        where starts_with(g.words, 'create or replace trigger')
        order by t.ordinal
    loop
        execute statement;
    end loop;
    return rollbook.reopen_course(course_id);
end $$;
comment on function rollbook.readmit_schema(text, jsonb) is
    'One attempt of readmit: record the course, make its copies current and end the pause.';
