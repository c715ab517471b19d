-- column_definitions: the replicated columns of a portal table as a copy defines them, in the copy's order: type and
-- collation as in the portal. NOT NULL is a column of its own. A column that the course leaves out is the course's: it
-- has the portal's default, or else no NOT NULL, so that a row can come without it. The others have no default.
-- Called:   by copy_statements, and by rebuild_copies for columns that are gone.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.column_definitions(table_name text, without text[])
returns table (column_name text, definition text, is_not_null boolean)
language sql stable
as $$
    select
        w.column_name,
        format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        || case when a.attcollation <> y.typcollation then ' collate ' || a.attcollation::regcollation else '' end
        || coalesce(own.default_words, ''),
        a.attnotnull and (w.is_copied or own.default_words is not null)
    from (
        select r.name, r.position, r.name = any (rollbook.course_columns(table_name, without))
        from unnest(rollbook.replicated_columns(table_name)) with ordinality as r (name, position)
    ) as w (column_name, position, is_copied)
    inner join pg_attribute as a
        on a.attrelid = rollbook.portal_table(table_name) and a.attname = w.column_name
    inner join pg_type as y on y.oid = a.atttypid
    left join lateral (
        select ' default ' || pg_get_expr(d.adbin, d.adrelid)
        from pg_attrdef as d
        where d.adrelid = a.attrelid and d.adnum = a.attnum and not w.is_copied
    ) as own (default_words) on true
    order by w.position
$$;
comment on function rollbook.column_definitions(text, text[]) is
    'The replicated columns of a portal table as a copy defines them: name, definition, whether NOT NULL.';
