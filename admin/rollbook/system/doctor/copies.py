"""What a course has added to its copies, here or on a server, that stops what is copied."""

from __future__ import annotations

from rollbook.system.doctor.finding import Check

# columns: what rollbook.copied_columns returns; left_out: by schema, the columns that are the course's own there.
COPIES = """
copies as (
    select
        c.oid, n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname) as name,
        array(
            select a.attnum from pg_attribute as a
            inner join jsonb_array_elements(t.value) as w on w.value ->> 0 = a.attname
            where a.attrelid = c.oid and not a.attisdropped and not coalesce(
                %(left_out)s::jsonb -> n.nspname::text ?| array[a.attname::text, c.relname || '.' || a.attname], false
            )
        ) as copied,
        (
            select a.attnum from pg_attribute as a
            inner join jsonb_array_elements(t.value) as w on w.value ->> 0 = a.attname and (w.value ->> 2)::boolean
            where a.attrelid = c.oid and not a.attisdropped
        ) as key
    from pg_namespace as n
    inner join pg_class as c on c.relnamespace = n.oid and c.relkind = 'r'
    inner join jsonb_each(%(columns)s::jsonb) as t on t.key = c.relname
    where n.nspname = any (%(schemas)s)
)
"""

# An index with the key in it cannot meet a second row. One with a column of the course's own, nullable and without a
# default, or in its condition, is of rows of the course's own.
UNIQUE = (
    "with "  # noqa: S608 (constants)
    + COPIES
    + """
select
    case when d.condeferrable and %(receives)s
        then format('unique constraint %%I on %%s is deferrable: the worker does not check it, and duplicates arrive',
                    d.conname, c.name)
        else format('%%s %%I on %%s can refuse a row: %%s', case when i.indisexclusion then 'exclusion constraint'
                        when d.oid is null then 'unique index' else 'unique constraint' end,
                    coalesce(d.conname, x.relname), c.name,
                    case when %(receives)s then 'the stream of the server stops'
                        else 'the portal''s statement fails' end)
    end as found,
    'an index that is not unique, or is unique for rows of the course''s own' as wanted,
    case when d.oid is null then format('drop index %%I.%%I;', c.nspname, x.relname)
        else format('alter table %%s drop constraint %%I;', c.name, d.conname) end as fix
from copies as c
inner join pg_index as i on i.indrelid = c.oid and (i.indisunique or i.indisexclusion) and not i.indisprimary
inner join pg_class as x on x.oid = i.indexrelid
left join pg_constraint as d on d.conindid = i.indexrelid and d.conrelid = c.oid and d.contype in ('u', 'x')
where not c.key = any (i.indkey::smallint[]) and not exists (
    select from pg_attribute as a
    where a.attrelid = c.oid and a.attnum > 0 and a.attnum <> all (c.copied) and case
        when a.attnum = any (i.indkey::smallint[])
            then not a.attnotnull and not a.atthasdef
                and not coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
        else exists (  -- of the condition, or of an expression
            select from pg_depend as p
            where p.classid = 'pg_class'::regclass and p.objid = i.indexrelid
                and p.refclassid = 'pg_class'::regclass and p.refobjid = c.oid and p.refobjsubid = a.attnum
        )
    end
)
order by 1
"""
)

CONSTRAINTS = (
    "with "  # noqa: S608 (constants)
    + COPIES
    + """
select
    format('%%s %%I on %%s can refuse a row: %%s', case d.contype when 'c' then 'check' else 'foreign key' end,
           d.conname, c.name,
           case when %(receives)s then 'the stream of the server stops' else 'the portal''s statement fails' end)
        as found,
    'constraints of the course''s own columns alone' as wanted,
    format('alter table %%s drop constraint %%I;', c.name, d.conname) as fix
from copies as c
inner join pg_constraint as d on d.conrelid = c.oid
    and (d.contype = 'c' or d.contype = 'f' and not %(receives)s) and d.conkey && c.copied
where d.contype = 'f' or not d.conkey && array(
    select a.attnum from pg_attribute as a
    where a.attrelid = c.oid and a.attnum > 0 and a.attnum <> all (c.copied) and not a.attnotnull and not a.atthasdef
)
union all
select
    format('column %%I of %%s is NOT NULL and has no default: no row of the portal can be stored', a.attname, c.name),
    'a default, or no NOT NULL', format('alter table %%s alter column %%I drop not null;', c.name, a.attname)
from copies as c
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where a.attnum <> all (c.copied) and a.attnotnull and not a.atthasdef and a.attidentity = ''
union all
select
    format('foreign key %%I of %%s refuses that the portal deletes a row of %%s', d.conname, d.conrelid::regclass,
           c.name),
    'on delete cascade or set null',
    format('alter table %%s drop constraint %%I, add constraint %%2$I %%3$s on delete cascade;', d.conrelid::regclass,
           d.conname, regexp_replace(pg_get_constraintdef(d.oid), ' (ON DELETE|DEFERRABLE|NOT VALID).*$', ''))
from copies as c
inner join pg_constraint as d on d.confrelid = c.oid and d.contype = 'f' and d.confdeltype in ('a', 'r')
where not %(receives)s
union all
select
    format('column %%I of %%s %%s: what the portal sends does not go in', a.attname, c.name,
           case when a.attgenerated <> '' then 'is generated' when a.attidentity <> '' then 'is an identity'
               else 'takes its default from a sequence' end),
    'a plain column', format('alter table %%s alter column %%I drop %%s;', c.name, a.attname,
           case when a.attgenerated <> '' then 'expression' when a.attidentity <> '' then 'identity' else 'default' end)
from copies as c
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (c.copied)
left join pg_attrdef as f on f.adrelid = c.oid and f.adnum = a.attnum
where a.attgenerated <> '' or a.attidentity <> '' or pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\\('
order by 1
"""
)

# A worker fires row triggers alone; a first copy fires those of statements, too. Both have an empty search_path.
TRIGGERS = (
    "with "
    + COPIES
    + """
select
    case when g.tgtype & 1 = 0
        then format('trigger %%I on %%s is for statements: it fires on the first copy, and never on changes', g.tgname,
                    c.name)
        else format('trigger %%I on %%s calls %%s, which has no search_path: there it finds no name without a schema',
                    g.tgname, c.name, p.oid::regprocedure) end as found,
    case when g.tgtype & 1 = 0 then 'a row trigger' else 'a search_path of the function''s own' end as wanted,
    case when g.tgtype & 1 = 0 then format('alter table %%s disable trigger %%I;', c.name, g.tgname)
        else format('alter function %%s set search_path = %%I, pg_temp;', p.oid::regprocedure, c.nspname) end as fix
from copies as c
inner join pg_trigger as g on g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('A', 'R')
inner join pg_proc as p on p.oid = g.tgfoid
inner join pg_language as l on l.oid = p.prolang and l.lanname <> 'c' and l.lanname <> 'internal'
where g.tgtype & 1 = 0 or not exists (
    select from unnest(p.proconfig) as s (setting) where starts_with(s.setting, 'search_path=')
)
order by 1
"""
)

EVERYWHERE = (Check("unique index", UNIQUE), Check("constraint", CONSTRAINTS))
OF_SERVER = (*EVERYWHERE, Check("trigger", TRIGGERS))
