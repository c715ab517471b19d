-- portal_table: the real table behind the name of a copied table, or behind another name of schema portal: see
-- real_table. Null if there is none.
-- Called:   by checks and by what makes tables; not by the routing, as it looks into the catalog.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.portal_table(table_name text) returns regclass
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select rollbook.real_table(to_regclass(coalesce(
        (select t.relation from rollbook.copied_tables() as t where t.table_name = portal_table.table_name),
        format('portal.%I', portal_table.table_name)
    )))
$$;
comment on function rollbook.portal_table(text) is
    'The real table behind the name of a copied table, or of schema portal: itself, or the site''s under a view.';
