-- shape_statements: the statements that give the copy of a course, here or on its server, the form that it has when the
-- course leaves out these columns.
-- found:    what its columns are now: {"email": {"has_default": false, "is_not_null": true}, ...}.
-- is_final: false: only what makes a row acceptable both with and without the columns that change, and the guard: a
--           column that is left out gets the portal's default, or else loses NOT NULL; one that travels again is
--           added if it is gone. Then the stream may change. true: what is left when the rows are equal: a column that
--           travels loses its default and gets NOT NULL as in the portal.
-- Called:   by reshape_course, finish_copies and `rollbook course update`.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.shape_statements(
    schema_name text, table_name text, without text[], found jsonb, is_final boolean
) returns setof text
language sql stable
as $$
    with attributes as (
        select
            a.attname, a.attnotnull, found -> a.attname::text as there,
            a.attname = any (rollbook.course_columns(table_name, without)) as is_copied,
            (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d
             where d.adrelid = a.attrelid and d.adnum = a.attnum) as default_words
        from pg_attribute as a
        where a.attrelid = rollbook.portal_table(table_name)
            and a.attname = any (rollbook.replicated_columns(table_name))
            and not exists (
                select from rollbook.copied_tables() as t
                where t.table_name = shape_statements.table_name
                    and a.attname in (t.key_column, t.user_column, t.course_column)
            )
    ),
    actions (words) as (
        select format('alter %I set default %s', a.attname, a.default_words)
        from attributes as a
        where not is_final and not a.is_copied and a.default_words is not null
            and not (a.there ->> 'has_default')::boolean
        union all
        select format('alter %I drop not null', a.attname)
        from attributes as a
        where not is_final and not a.is_copied and a.default_words is null and (a.there ->> 'is_not_null')::boolean
        union all
        select 'add column ' || d.definition
        from attributes as a
        inner join rollbook.column_definitions(table_name, array(select o.attname::text from attributes as o)) as d
            on d.column_name = a.attname
        where not is_final and a.is_copied and a.there is null
        union all
        select format('alter %I drop default', a.attname)
        from attributes as a where is_final and a.is_copied and (a.there ->> 'has_default')::boolean
        union all
        select format('alter %I set not null', a.attname)
        from attributes as a
        where is_final and a.is_copied and a.attnotnull and not (a.there ->> 'is_not_null')::boolean
    )
    select format('alter table %I.%I %s', schema_name, table_name, string_agg(w.words, ', ' order by w.words))
    from actions as w
    having count(*) > 0
    union all
    select g.words
    from rollbook.guard_statements(schema_name, table_name, without) as g (words)
    where not is_final and g.words ~ '^create or replace trigger'
$$;
comment on function rollbook.shape_statements(text, text, text[], jsonb, boolean) is
    'The statements that give one copied table of a course the form that it has when these columns are left out.';
