-- foreign_code: code of others that runs with our rights when Rollbook writes or reads its tables, by defaults,
-- generated columns, checks, domains, indexes, statistics, policies, rules, triggers, event triggers; and foreign keys
-- whose check may call it. Whoever owns a function, a domain, or a relation that a policy reads can change it later,
-- and so run anything as rollbook_owner. An owner is trusted who may act for rollbook_owner anyway (superusers, the
-- role that migrates), or is rollbook_writer.
-- The walk begins at what others own, so it is short where there is little. It follows pg_depend upwards: through
-- operators, operator classes, types, domains and views, to the parts of our tables. What the body of a function calls
-- is not in the catalog: a trusted function that calls one of others is not found.
-- schemas:  course schemas, and rollbook and portal where their tables are ours.
-- columns:  what copied_columns returns: its keys are the tables that are copies in a course's schema.
-- relations: the tables outside schema portal that are copied. Whoever owns one is trusted with it.
-- Called:   by foreign_objects. `rollbook schema check` sends the query between the dollar signs to course servers,
--           which have no functions of ours: so it calls none.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.foreign_code(schemas text[], columns jsonb, relations text[])
returns table (schema_name text, object text, kind text, difference text, fix text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive trusted (oid) as (
        select r.oid from pg_roles as r
        where r.rolsuper or r.rolname = 'rollbook_writer'
            or exists (
                select from pg_roles as o
                where o.rolname = 'rollbook_owner' and pg_has_role(
                    r.oid, o.oid, case when current_setting('server_version_num')::integer < 160000 then 'member'
                        else 'usage, set, member with admin option' end  -- by ADMIN it may grant itself the others
                )
            )
            or r.oid = (
                select n.nspowner from pg_namespace as n where n.nspname = 'portal' and 'portal' = any ($1::text[])
            )
            or to_regclass('public.rollbook_adoption') is not null and exists (  -- the role of a site that was adopted
                select from pg_class as c
                where c.relnamespace = to_regnamespace('portal') and c.relkind = 'r' and c.relowner = r.oid
            )
            or r.oid in (select c.relowner from pg_class as c
                         where c.oid = any (array(select to_regclass(s.name) from unnest($3::text[]) as s (name))))
    ),
    tables as (
        select
            c.oid, n.nspname, c.relkind,
            -- Of the portal's tables rollbook_owner reads some and rollbook_writer writes some.
            case when n.nspname = 'portal' then 'rollbook_writer' else 'rollbook_owner' end as runs_as,
            n.nspname <> 'portal' or exists (
                select from pg_roles as w where w.rolname = 'rollbook_writer'
                    and has_any_column_privilege(w.oid, c.oid, 'insert, update')
            ) as is_written
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = any ($1::text[]) and c.relkind in ('r', 'p')
            and (n.nspname in ('portal', 'rollbook') or $2::jsonb ? c.relname::text)
        union  -- rollbook_owner reads them, and nobody of ours writes them
        select c.oid, n.nspname, c.relkind, 'rollbook_owner', false
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where c.oid = any (array(select to_regclass(s.name) from unnest($3::text[]) as s (name)))
    ),
    reached (oid, nspname, runs_as, is_written) as (  -- with the tables to which a foreign key carries a write
        select t.oid, t.nspname, t.runs_as, t.is_written from tables as t
        union
        select f.conrelid, r.nspname, r.runs_as, true
        from reached as r inner join pg_constraint as f on f.confrelid = r.oid and f.contype = 'f'
        where r.is_written and f.conrelid not in (select t.oid from tables as t)
    ),
    theirs (classid, oid, words) as (
        select
            'pg_proc'::regclass::oid, p.oid,
            format('runs %s, which %s owns', p.oid::regprocedure, p.proowner::regrole)
        from pg_proc as p where p.oid >= 16384 and p.proowner not in (select t.oid from trusted as t)
        union all
        select
            'pg_type'::regclass, y.oid,
            format('uses domain %s, to which %s may add checks', y.oid::regtype, y.typowner::regrole)
        from pg_type as y where y.typtype = 'd' and y.typowner not in (select t.oid from trusted as t)
        union all
        select 'pg_class'::regclass, c.oid, format('reads %s, which %s owns', c.oid::regclass, c.relowner::regrole)
        from pg_class as c
        where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.oid >= 16384
            and c.relowner not in (select t.oid from trusted as t) and c.oid not in (select t.oid from tables as t)
    ),
    walk (classid, objid, objsubid, origin) as (
        select t.classid, t.oid, 0, t.oid from theirs as t
        union
        select step.classid, step.objid, step.objsubid, w.origin
        from walk as w
        cross join lateral (
            select d.classid, d.objid, d.objsubid
            from pg_depend as d
            where d.refclassid = w.classid and d.refobjid = w.objid
                -- From a relation only its row type goes on, and what reads all of it.
                and (w.classid <> 'pg_class'::regclass or d.classid = 'pg_type'::regclass
                     or w.objsubid = 0 and d.classid in ('pg_policy'::regclass, 'pg_rewrite'::regclass))
            union all  -- from a part to its whole
            select 'pg_class'::regclass, r.ev_class, 0 from pg_rewrite as r
            where w.classid = 'pg_rewrite'::regclass and r.oid = w.objid and r.ev_type = '1'
            union all
            select 'pg_type'::regclass, c.contypid, 0 from pg_constraint as c
            where w.classid = 'pg_constraint'::regclass and c.oid = w.objid and c.contypid <> 0
            union all
            select 'pg_opfamily'::regclass, m.amprocfamily, 0 from pg_amproc as m
            where w.classid = 'pg_amproc'::regclass and m.oid = w.objid
            union all
            select 'pg_opfamily'::regclass, m.amopfamily, 0 from pg_amop as m
            where w.classid = 'pg_amop'::regclass and m.oid = w.objid
        ) as step
    ),
    parts (origin, relation, name, kind, fix) as (
        select
            w.origin, d.adrelid, format('%I on %s', a.attname, d.adrelid::regclass),
            case a.attgenerated when '' then 'default' else 'generated column' end,
            format('alter table %s alter column %I drop %s;', d.adrelid::regclass, a.attname,
                   case a.attgenerated when '' then 'default' else 'expression' end)
        from walk as w
        inner join pg_attrdef as d on w.classid = 'pg_attrdef'::regclass and d.oid = w.objid
        inner join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
        union
        select
            w.origin, c.conrelid, format('%I on %s', c.conname, c.conrelid::regclass), 'constraint',
            format('alter table %s drop constraint %I;', c.conrelid::regclass, c.conname)
        from walk as w
        inner join pg_constraint as c on w.classid = 'pg_constraint'::regclass and c.oid = w.objid and c.conrelid <> 0
        union
        select
            w.origin, i.indrelid, format('%s on %s', coalesce(quote_ident(c.conname), i.indexrelid::regclass::text),
                                         i.indrelid::regclass),
            case when c.oid is null then 'index' else 'constraint' end,
            case when c.oid is null then format('drop index %s;', i.indexrelid::regclass)
                else format('alter table %s drop constraint %I;', i.indrelid::regclass, c.conname) end
        from walk as w
        inner join pg_index as i on w.classid = 'pg_class'::regclass and i.indexrelid = w.objid
        left join pg_constraint as c
            on c.conindid = i.indexrelid and c.conrelid = i.indrelid and c.contype in ('p', 'u', 'x')
        union
        select
            w.origin, a.attrelid, format('%I on %s', a.attname, a.attrelid::regclass), 'column type',
            format('alter table %s alter column %I type %s using %2$I::%3$s;', a.attrelid::regclass, a.attname,
                   (with recursive base (oid, basetype, typmod) as (
                        select y.oid, y.typbasetype, y.typtypmod from pg_type as y where y.oid = a.atttypid
                        union all
                        select y.oid, y.typbasetype, case y.typtypmod when -1 then b.typmod else y.typtypmod end
                        from base as b inner join pg_type as y on y.oid = b.basetype
                    )
                    select case when b.oid = a.atttypid then 'text' else format_type(b.oid, b.typmod) end
                    from base as b where b.basetype = 0))
        from walk as w
        inner join pg_class as c on w.classid = 'pg_class'::regclass and c.oid = w.objid and c.relkind in ('r', 'p')
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = w.objsubid and a.attnum > 0
        union
        select
            w.origin, g.tgrelid, format('%I on %s', g.tgname, g.tgrelid::regclass), 'trigger',
            format('drop trigger %I on %s;', g.tgname, g.tgrelid::regclass)
        from walk as w
        inner join pg_trigger as g on w.classid = 'pg_trigger'::regclass and g.oid = w.objid and not g.tgisinternal
        union
        select
            w.origin, p.polrelid, format('%I on %s', p.polname, p.polrelid::regclass), 'policy',
            format('drop policy %I on %s;', p.polname, p.polrelid::regclass)
        from walk as w inner join pg_policy as p on w.classid = 'pg_policy'::regclass and p.oid = w.objid
        union
        select
            w.origin, r.ev_class, format('%I on %s', r.rulename, r.ev_class::regclass), 'rule',
            format('drop rule %I on %s;', r.rulename, r.ev_class::regclass)
        from walk as w
        inner join pg_rewrite as r on w.classid = 'pg_rewrite'::regclass and r.oid = w.objid and r.ev_type <> '1'
        union
        select
            w.origin, s.stxrelid, format('%I.%I on %s', n.nspname, s.stxname, s.stxrelid::regclass), 'statistics',
            format('drop statistics %I.%I;', n.nspname, s.stxname)
        from walk as w
        inner join pg_statistic_ext as s on w.classid = 'pg_statistic_ext'::regclass and s.oid = w.objid
        inner join pg_namespace as n on n.oid = s.stxnamespace
        union
        select w.origin, null, quote_ident(e.evtname), 'event trigger', format('drop event trigger %I;', e.evtname)
        from walk as w
        inner join pg_event_trigger as e
            on w.classid = 'pg_event_trigger'::regclass and e.oid = w.objid and e.evtenabled <> 'D'
    )
    select
        r.nspname::text as schema_name, p.name as object, p.kind,
        string_agg(o.words, ', and ' order by o.words) || ', as '
        || case when p.relation is null then 'whoever makes courses'
            when p.kind = 'policy' then 'whoever reads the table' else min(r.runs_as) end as difference,
        p.fix
    from parts as p
    inner join theirs as o on o.oid = p.origin
    left join reached as r on r.oid = p.relation and (r.is_written or p.kind = 'policy')
    where p.relation is null or r.oid is not null
    group by r.nspname, p.name, p.kind, p.fix, p.relation
    union
    select
        t.nspname::text, format('%I on %s', f.conname, f.conrelid::regclass), 'foreign key',
        format('its check runs as the owner of %s: %s', f.confrelid::regclass, why.words),
        format('alter table %s drop constraint %I;', f.conrelid::regclass, f.conname)
    from tables as t
    inner join pg_constraint as f on f.confrelid = t.oid and f.contype = 'f' and t.nspname = any ($1::text[])
    inner join pg_class as c on c.oid = f.conrelid
    cross join lateral (
        select string_agg(w.words, ', and ' order by w.words) as words
        from (
            select format('column %I is of type %s', a.attname, a.atttypid::regtype) as words
            from pg_attribute as a where a.attrelid = c.oid and a.attnum = any (f.conkey) and a.atttypid >= 16384
            union all
            select format('%s owns the other table', c.relowner::regrole)
            where t.nspname not in ('portal', 'rollbook') and c.relowner not in (select o.oid from trusted as o)
        ) as w
    ) as why
    where why.words is not null
    order by 2, 3, 4
$$;
comment on function rollbook.foreign_code(text[], jsonb, text[]) is
    'Code of others that runs with our rights when Rollbook writes or reads its tables, found through pg_depend. '
    'columns: what copied_columns returns.';
