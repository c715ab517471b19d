-- real_table: the table behind a relation: itself, or the site's table under a view of schema portal where a site was
-- adopted in place. Null if there is none.
-- Called:   by checks and by what makes tables, also through portal_table.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.real_table(relation regclass) returns regclass
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
    where c.relkind in ('r', 'p', 'v') and c.oid = relation
$$;
comment on function rollbook.real_table(regclass) is
    'The table behind a relation: itself, or the site''s under a view of schema portal.';
