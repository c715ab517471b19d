"""What two databases are compared by: everything that migrations make, as the catalog spells it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

NAMESPACES = "(n.nspname in ('portal', 'rollbook') or n.nspname like 'course\\_%')"
CATALOG = f"""
select 'schema', n.nspname::text, pg_get_userbyid(n.nspowner),
    coalesce(n.nspacl, acldefault('n', n.nspowner))::text,
    obj_description(n.oid, 'pg_namespace')
from pg_namespace n where {NAMESPACES}
union all
select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid),
    pg_get_userbyid(p.proowner) || coalesce(p.proacl, acldefault('f', p.proowner))::text,
    obj_description(p.oid, 'pg_proc')
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {NAMESPACES}
union all
select 'relation ' || c.relkind::text, c.oid::regclass::text,
    concat_ws(' ', pg_get_userbyid(c.relowner), c.reloptions::text, pg_get_indexdef(i.indexrelid),
        case c.relkind when 'v' then pg_get_viewdef(c.oid) end),
    coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))::text,
    obj_description(c.oid, 'pg_class')
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_index i on i.indexrelid = c.oid
where {NAMESPACES}
union all
select 'column', c.oid::regclass::text || '.' || a.attname::text,
    concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull,
        a.attidentity::text, pg_get_expr(d.adbin, d.adrelid)),
    a.attacl::text, col_description(c.oid, a.attnum)
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where {NAMESPACES} and a.attnum > 0 and not a.attisdropped and c.relkind <> 'i'
union all
select 'constraint', coalesce(c.conrelid::regclass::text, '') || '.' || c.conname::text, pg_get_constraintdef(c.oid),
    null, obj_description(c.oid, 'pg_constraint')
from pg_constraint c join pg_namespace n on n.oid = c.connamespace where {NAMESPACES}
union all
select 'trigger', t.tgrelid::regclass::text || '.' || t.tgname::text, pg_get_triggerdef(t.oid), t.tgenabled::text,
    obj_description(t.oid, 'pg_trigger')
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
where {NAMESPACES} and not t.tgisinternal
union all
select 'type', y.oid::regtype::text, pg_get_userbyid(y.typowner), y.typacl::text, obj_description(y.oid, 'pg_type')
from pg_type y join pg_namespace n on n.oid = y.typnamespace where {NAMESPACES}
order by 1, 2, 3
"""


def catalog(db: Connection[Any]) -> dict[tuple[str, str], tuple[str | None, ...]]:
    """Every object of the portal, of Rollbook and of the courses: (kind, name) -> definition, rights, comment."""
    found = db.execute(CATALOG).fetchall()
    objects = {(kind, name): tuple(rest) for kind, name, *rest in found}
    assert len(objects) == len(found)
    return objects


def changed(
    one: dict[tuple[str, str], tuple[str | None, ...]], other: dict[tuple[str, str], tuple[str | None, ...]]
) -> list[tuple[str, str]]:
    """Return which objects are not the same in both."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
