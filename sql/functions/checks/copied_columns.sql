-- copied_columns: the replicated columns with the types that the portal has now, as one document that a check can take
-- to a course server: {"auth_user": [["id", "bigint", true], ...], ...}: name, type, whether it is the primary key. The
-- type of a column that the portal lacks is null.
-- Called:   by foreign_objects, and by `rollbook schema check` for the questions to course servers.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.copied_columns() returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_object_agg(t.table_name, (
        select jsonb_agg(
            jsonb_build_array(w.name, format_type(a.atttypid, a.atttypmod)
                              || coalesce(' collate ' || nullif(a.attcollation, y.typcollation)::regcollation, ''),
                              w.name = t.key_column)
            order by w.position
        )
        from unnest(rollbook.replicated_columns(t.table_name)) with ordinality as w (name, position)
        left join pg_attribute as a
            on a.attrelid = to_regclass(t.relation) and a.attname = w.name and not a.attisdropped
        left join pg_type as y on y.oid = a.atttypid
    ))
    from rollbook.copied_tables() as t
$$;
comment on function rollbook.copied_columns() is
    'The replicated columns by table, each with the type that the portal has now.';
