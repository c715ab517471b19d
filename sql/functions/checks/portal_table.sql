-- portal_table: the real table behind a name of schema portal: itself, or the site's table under the view where a site
-- was adopted in place. Null if there is none.
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
    inner join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'portal' and c.relname = table_name and c.relkind in ('r', 'p', 'v')
$$;
comment on function rollbook.portal_table(text) is
    'The table behind a name of schema portal: itself, or the site''s own under the view. Null if there is none.';
