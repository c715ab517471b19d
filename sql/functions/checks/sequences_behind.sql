-- sequences_behind: sequences of the portal's and Rollbook's tables whose next value is taken: an insert fails on the
-- primary key. Loads with ids of their own and restores of data alone leave them so. Also sequences that have given
-- their last number, or that the largest id is beyond: those of a smaller type than their column.
-- only_taken: only where the very next insert fails.
-- Called:   by foreign_objects; by `rollbook status`, of what fails now.
-- Returns:  nothing for a table or sequence that the caller may not read.
-- Security: INVOKER.
create or replace function rollbook.sequences_behind(only_taken boolean default false)
returns table (object text, kind text, difference text, fix text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    counter record;
    newest bigint;
    upcoming numeric;  -- of a sequence at its end beyond any bigint
    is_taken boolean;
begin
    for counter in
        select
            given.seqrelid::regclass::text as name, c.oid::regclass::text as table_name,
            quote_ident(a.attname) as attname, given.seqmax, a.atttypid
        from pg_sequence as given  -- of which there are few, where there are many tables
        cross join lateral (
            select d.refobjid as oid, d.refobjsubid as attnum from pg_depend as d
            where d.classid = 'pg_class'::regclass and d.objid = given.seqrelid
                and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
            union  -- a sequence that no column owns
            select e.adrelid, e.adnum from pg_depend as d
            inner join pg_attrdef as e on e.oid = d.objid
            where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = given.seqrelid
        ) as q
        inner join pg_class as c on c.oid = q.oid
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = q.attnum and not a.attisdropped
        where c.relkind in ('r', 'p')
            and (c.relnamespace in ('rollbook'::regnamespace, 'portal'::regnamespace)
                 or exists (  -- under a view of schema portal where a site was adopted in place
                     select from pg_depend as d
                     inner join pg_rewrite as w on w.oid = d.objid
                     inner join pg_class as v on v.oid = w.ev_class
                     where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                         and d.refobjid = c.oid and v.relnamespace = 'portal'::regnamespace
                         and rollbook.real_table(v.oid) = c.oid
                 )
                 or c.oid in (select rollbook.portal_table(t.table_name) from rollbook.copied_tables() as t))
            and has_sequence_privilege(given.seqrelid, 'select')
            and has_column_privilege(c.oid, a.attnum, 'select')
        order by 1
    loop
        execute format(
            'select (select max(%s) from %s), s.last_value::numeric + s.is_called::integer from %s as s',
            counter.attname, counter.table_name, counter.name
        ) into newest, upcoming;
        if upcoming > counter.seqmax or newest > counter.seqmax then
            return query select
                counter.name, 'sequence', format('gives no number above %s: inserts fail', counter.seqmax),
                concat_ws(
                    ' ',
                    format('alter sequence %s as %s no maxvalue;', counter.name, counter.atttypid::regtype),
                    format('select setval(%L, (select max(%s) from %s));',
                           counter.name, counter.attname, counter.table_name)
                )
            where not only_taken or upcoming > counter.seqmax;
            continue;
        end if;
        continue when newest is null or upcoming > newest;
        execute format('select exists (select from %s where %s = $1)', counter.table_name, counter.attname)
        into is_taken using upcoming::bigint;
        continue when only_taken and not is_taken;
        return query values (
            counter.name, 'sequence',
            format('gives %s next, but %s has %s already: inserts fail', upcoming, counter.table_name, newest),
            format('select setval(%L, (select max(%s) from %s));', counter.name, counter.attname, counter.table_name)
        );
    end loop;
end $$;
comment on function rollbook.sequences_behind(boolean) is
    'Sequences of the portal''s and Rollbook''s tables that give a value next that is not above the largest id; '
    'with only_taken those whose next value is taken.';
