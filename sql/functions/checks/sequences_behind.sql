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
            d.objid::regclass::text as name, d.refobjid::regclass::text as table_name,
            quote_ident(a.attname) as attname
        from pg_depend as d
        inner join pg_class as s on s.oid = d.objid
        inner join pg_class as c on c.oid = d.refobjid and c.relkind in ('r', 'p')
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = d.refobjsubid
        inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname in ('portal', 'rollbook')
        where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
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
