-- sequences_behind: sequences of the portal's and Rollbook's tables whose next value is taken: an insert fails on the
-- primary key. Loads with ids of their own and restores of data alone leave them so.
-- Called:   by foreign_objects.
-- Returns:  nothing for a table or sequence that the caller may not read.
-- Security: INVOKER.
create or replace function rollbook.sequences_behind() returns table (object text, kind text, difference text, fix text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    counter record;
    newest bigint;
    upcoming bigint;
begin
    for counter in
        select
            s.oid::regclass::text as name, c.oid::regclass::text as table_name,
            quote_ident(a.attname) as attname
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        cross join lateral (
            select d.objid as oid from pg_depend as d
            where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                and d.refobjid = c.oid and d.refobjsubid = a.attnum and d.deptype in ('a', 'i')
            union  -- a sequence that no column owns
            select d.refobjid from pg_attrdef as e
            inner join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = e.oid
                and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid
            where e.adrelid = c.oid and e.adnum = a.attnum
        ) as q
        inner join pg_class as s on s.oid = q.oid
        where c.relkind in ('r', 'p')
            and (c.relnamespace = 'rollbook'::regnamespace
                 or c.oid in (select rollbook.real_table(p.oid) from pg_class as p
                              where p.relnamespace = 'portal'::regnamespace)
                 or c.oid in (select rollbook.portal_table(t.table_name) from rollbook.copied_tables() as t))
            and case s.relkind when 'S' then has_sequence_privilege(s.oid, 'select') else false end
            and has_column_privilege(c.oid, a.attnum, 'select')
        order by 1
    loop
        execute format('select max(%s) from %s', counter.attname, counter.table_name) into newest;
        execute format('select last_value + is_called::integer from %s', counter.name) into upcoming;
        continue when newest is null or upcoming > newest;
        return query values (
            counter.name, 'sequence',
            format('gives %s next, but %s has %s already: inserts fail', upcoming, counter.table_name, newest),
            format('select setval(%L, (select max(%s) from %s));', counter.name, counter.attname, counter.table_name)
        );
    end loop;
end $$;
comment on function rollbook.sequences_behind() is
    'Sequences of the portal''s and Rollbook''s tables that give a value next that is not above the largest id.';
