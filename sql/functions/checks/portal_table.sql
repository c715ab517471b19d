-- portal_table: the real table behind the name of a copied table, or behind another name of schema portal: itself, or
-- the site's table under the view where a site was adopted in place. Null if there is none.
-- Called:   by checks and by what makes tables; not by the routing, as it looks into the catalog.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.portal_table(table_name text) returns regclass
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case c.relkind
        when 'v' then (
            select d.refobjid::regclass
            from pg_rewrite as r
            inner join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            inner join pg_class as t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid
            where r.ev_class = c.oid and t.relkind in ('r', 'p')
            limit 1
        )
        else c.oid::regclass
    end
    from pg_class as c
    where c.relkind in ('r', 'p', 'v') and c.oid = to_regclass(coalesce(
        (select t.relation from rollbook.copied_tables() as t where t.table_name = portal_table.table_name),
        format('portal.%I', portal_table.table_name)
    ))
$$;
comment on function rollbook.portal_table(text) is
    'The real table behind the name of a copied table, or of schema portal: itself, or the site''s under a view.';
