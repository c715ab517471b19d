"""The shape of what is copied, as the courses have it: what each leaves out, and what is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb

from rollbook.core.rows import one, typed
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COURSES = """
select
    c.course_id as course, c.schema_name::text as schema_name,
    case when c.state <> 'detached' then c.server end as server,
    s.through as relay,
    array_remove(array[case when c.state <> 'detached' then c.server end, c.moving_to], null) as fed,
    array(
        select distinct h.name
        from rollbook.server as o cross join unnest(array[o.name, o.through, o.moving_through]) as h (name)
        where o.name in (s.name, c.moving_to) and h.name is not null
    ) as hosts,
    num_nonnulls(c.moving_to, c.leaving) > 0 as is_moving,
    c.paused_at is not null as is_paused, c.without, c.due
from rollbook.course as c
left join rollbook.server as s on s.name = c.server and c.state <> 'detached'
order by c.course_id
"""

COPY_SHAPES = """
select
    n.nspname::text as schema_name, c.relname::text as table,
    jsonb_object_agg(
        a.attname, jsonb_build_object('has_default', a.atthasdef, 'is_not_null', a.attnotnull)
    ) as columns
from jsonb_to_recordset(%s) as asked (schema_name text, table_name text)
inner join pg_namespace as n on n.nspname = asked.schema_name
inner join pg_class as c on c.relnamespace = n.oid and c.relname = asked.table_name and c.relkind = 'r'
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
group by 1, 2
"""

STATEMENTS = """
select s.schema_name, w.words
from rows from (
    jsonb_to_recordset(%s) as (schema_name text, table_name text, without text[], columns jsonb)
) with ordinality as s (schema_name, table_name, without, columns, number)
cross join rollbook.shape_statements(s.schema_name, s.table_name, s.without, s.columns, %s) as w (words)
order by s.number
"""

COLUMN_NAMES = """
select a.attname::text as name
from pg_attribute as a
inner join pg_class as c on c.oid = a.attrelid and c.relname = %s
inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = %s
where a.attnum > 0 and not a.attisdropped
"""


class Column(NamedTuple):
    """A column of a copied table."""

    table: str
    name: str

    def __str__(self) -> str:
        """Return it as lists of columns have it."""
        return f"{self.table}.{self.name}"


@dataclass(frozen=True)
class CourseShape:
    """What a change of the shape needs to know of a course."""

    course: str
    schema_name: str
    server: str | None  # that is fed
    relay: str | None  # that feeds its server
    fed: list[str]  # all servers that get it: two while it moves
    hosts: list[str]  # all servers that hold its copies: these, and their relays
    is_moving: bool  # on two servers
    is_paused: bool
    without: list[str]
    due: list[str]  # what a change of the shape still has to bring: TABLE.COLUMN, or `condition`


@dataclass(frozen=True)
class CopyShape:
    """The columns of one copy: {"email": {"has_default": false, "is_not_null": true}, ...}."""

    schema_name: str
    table: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """A change of the shape that was begun and not finished."""

    change: str  # rename, drop, add, where or widen
    table: str
    column: str | None
    becomes: str | None  # the new name, the condition or the type
    courses: int  # which it has not reached yet, where that is recorded

    @property
    def name(self) -> str:
        """Return what it is about."""
        return self.table if self.column is None else f"{self.table}.{self.column}"

    @property
    def words(self) -> str:
        """Return what is not finished."""
        reached = f"{self.courses} course{'' if self.courses == 1 else 's'}"
        left = f"{reached} {'misses' if self.courses == 1 else 'miss'} its changes"
        return {
            "rename": f"it is not {self.becomes} everywhere yet" + (f": {left} until then" if self.courses else ""),
            "drop": "it has not left all copies yet",
            "add": f"it has not come to all courses yet: {left}",
            "where": f"the condition has not reached {reached} yet",
            "widen": f"it is not {self.becomes} everywhere yet",
        }[self.change]

    @property
    def fix(self) -> str:
        """Return the command that goes on with it."""
        return command(self.change, self.table, self.column, self.becomes)


def command(change: str, table: str, column: str | None, becomes: str | None) -> str:
    """Return the command of a change of the shape: rename, drop, add, where or widen."""
    if change == "where":
        return f"rollbook shape where {quoted(becomes or '')}"
    given = [table, *(each for each in (column, becomes) if each is not None)]
    yes = " --yes" if change == "drop" else ""
    return f"rollbook shape column {change} {' '.join(map(quoted, given))}{yes}"


def list_courses(conn: Conn) -> list[CourseShape]:
    """Return all courses, by id."""
    return typed(CourseShape, conn, COURSES)


def copy_shapes(conn: Conn, tables: Mapping[str, Sequence[str]]) -> list[CopyShape]:
    """Return the columns of these copies, by schema; those that are gone are left out."""
    asked = [{"schema_name": schema, "table_name": name} for schema, names in tables.items() for name in names]
    return typed(CopyShape, conn, COPY_SHAPES, [Jsonb(asked)])


def shape_statements(
    conn: Conn, found: Sequence[CopyShape], without: Mapping[str, Sequence[str]], *, is_final: bool
) -> dict[str, list[str]]:
    """Return by schema the statements that give copies their form: see rollbook.shape_statements."""
    asked = [
        {"schema_name": copy.schema_name, "table_name": copy.table, "without": list(without[copy.schema_name]),
         "columns": copy.columns}
        for copy in found
    ]  # fmt: skip
    statements: dict[str, list[str]] = {}
    for row in conn.execute(STATEMENTS, [Jsonb(asked), is_final]):
        statements.setdefault(row["schema_name"], []).append(row["words"])
    return statements


def column_names(conn: Conn, schema_name: str, table: str) -> list[str]:
    """Return the columns that a copy has; none if it is gone."""
    return [row["name"] for row in conn.execute(COLUMN_NAMES, [table, schema_name])]


def settle(conn: Conn, course_id: str, brought: Sequence[str]) -> None:
    """Record that a course has got what was due to it."""
    if brought:
        query = "update rollbook.course set due = array(select d from unnest(due) as d where d <> all (%s::text[])) "
        conn.execute(query + "where course_id = %s", [list(brought), course_id])


def add_due(conn: Conn, course_id: str, columns: Sequence[str]) -> None:
    """Record what a course is to get later."""
    query = "update rollbook.course set due = array(select distinct d from unnest(due || %s::text[]) as d order by d) "
    conn.execute(query + "where course_id = %s", [list(columns), course_id])


def repair(conn: Conn, course_id: str) -> int:
    """Make the copies of a course equal to the portal; return the rows written."""
    query = "select coalesce(sum(inserted + updated + deleted), 0)::bigint as rows from rollbook.repair(%s)"
    return int(one(conn, query, [course_id])["rows"])


# --- what is under way ------------------------------------------------------------------------------------------------

CONDITION = "condition"  # in rollbook.course.due: rows are to be compared, as the condition has changed

# Who changes the shape holds a lock; see changing().
UNFINISHED = """
with shape as (select s.leaving, s.renamed, s.widening from rollbook.shape as s),
due as (
    select d.name, count(*)::integer as courses
    from rollbook.course as c cross join unnest(c.due) as d (name) where c.due <> '{}' group by 1
),
renames as (
    select
        split_part(r.key, '.', 1) as table_name, r.value as old_name,
        substr(r.key, strpos(r.key, '.') + 1) as new_name, r.key as new_text,
        split_part(r.key, '.', 1) || '.' || r.value as old_text
    from shape as s cross join jsonb_each_text(s.renamed) as r
),
found as (
    select
        'rename' as change, r.table_name, r.old_name as column_name, r.new_name as becomes,
        (select coalesce(sum(d.courses), 0)::integer from due as d where d.name in (r.old_text, r.new_text)) as courses
    from renames as r cross join shape as s
    where r.new_text <> all (s.leaving)
        and (r.old_text = any (s.leaving) or exists (select from due as d where d.name in (r.old_text, r.new_text)))
    union all
    select 'drop', split_part(l.name, '.', 1), substr(l.name, strpos(l.name, '.') + 1), null, 0
    from shape as s cross join unnest(s.leaving) as l (name)
    where not exists (select from renames as r where r.old_text = l.name)
    union all
    select 'add', split_part(d.name, '.', 1), substr(d.name, strpos(d.name, '.') + 1), null, d.courses
    from due as d cross join shape as s
    where d.name <> 'condition' and d.name <> all (s.leaving)
        and not exists (select from renames as r where d.name in (r.old_text, r.new_text))
    union all
    select 'where', t.table_name, null, t.condition, d.courses
    from due as d inner join rollbook.shape_table as t on t.role = 'membership' where d.name = 'condition'
    union all
    select 'widen', split_part(w.key, '.', 1), substr(w.key, strpos(w.key, '.') + 1), w.value, 0
    from shape as s cross join jsonb_each_text(s.widening) as w
    where exists (
        select from rollbook.copied_tables() as t
        where split_part(w.key, '.', 1) = t.table_name
            and substr(w.key, strpos(w.key, '.') + 1) = any (rollbook.replicated_columns(t.table_name))
    )
)
select f.change, f.table_name as table, f.column_name as column, f.becomes, f.courses
from found as f
where not exists (
    select from pg_locks as l
    inner join pg_database as b on b.oid = l.database and b.datname = current_database()
    where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
        and (l.classid::bigint << 32) | l.objid::bigint = hashtext('rollbook shape')::bigint
)
order by 1, 2, 3
"""

PRESENT = """
select n.nspname::text as schema_name, c.relname::text as table, a.attname::text as name
from jsonb_to_recordset(%s) as asked (table_name text, name text)
inner join pg_class as c on c.relname = asked.table_name and c.relkind = 'r'
inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = any (%s)
inner join pg_attribute as a
    on a.attrelid = c.oid and a.attname = asked.name and a.attnum > 0 and not a.attisdropped
order by 1, 2, 3
"""

LEAVE_OUT = """
update rollbook.course as c
set
    without = array(select distinct w from unnest(c.without || %(entries)s::text[]) as w order by w),
    due = array(
        select distinct d from unnest(c.due || array(
            select t.name from unnest(%(columns)s::text[], %(entries)s::text[]) as t (name, entry)
            where t.entry <> all (c.without)
        )) as d order by d
    )
where not c.without @> %(entries)s::text[]
"""

LEAVE_OUT_OF_NEW = """
update rollbook.shape set without = array(select distinct w from unnest(without || %s::text[]) as w order by w)
"""

SWAP = """
update rollbook.course as c
set without = array(
    select distinct w from unnest(array_append(array_remove(c.without, %(old)s), %(new)s)) as w order by w
)
where %(old)s = any (c.without)
"""

REMOVE = """
update rollbook.course as c
set
    without = array(select w from unnest(c.without) as w where w <> all (%(entries)s::text[])),
    due = array(select d from unnest(c.due) as d where d <> all (%(columns)s::text[]))
where c.without && %(entries)s::text[] or c.due && %(columns)s::text[]
"""


def present(conn: Conn, columns: Sequence[Column], schemas: Sequence[str]) -> list[tuple[str, Column]]:
    """Return which of these columns the copies in these schemas have: schema, column."""
    asked = Jsonb([{"table_name": column.table, "name": column.name} for column in columns])
    return [
        (row["schema_name"], Column(row["table"], row["name"])) for row in conn.execute(PRESENT, [asked, list(schemas)])
    ]


def leave_out(conn: Conn, columns: Sequence[str], entries: Sequence[str]) -> None:
    """Let all courses leave out columns that none has yet, until it is their turn; `entries`: as lists have them."""
    conn.execute(LEAVE_OUT, {"columns": list(columns), "entries": list(entries)})


def leave_out_too(conn: Conn, old: str, new: str) -> None:
    """Let courses and new courses leave out a second name of a column that they leave out."""
    for place in ("course", "shape"):
        conn.execute(
            sql.SQL(
                "update rollbook.{} set without = array_append(without, {new}) "
                "where {old} = any (without) and {new} <> all (without)"
            ).format(sql.Identifier(place), old=old, new=new)
        )


def leave_out_of_new(conn: Conn, columns: Sequence[str]) -> None:
    """Let courses that are made meanwhile leave columns out that are leaving."""
    conn.execute(LEAVE_OUT_OF_NEW, [list(columns)])


def replace_left_out(conn: Conn, old: str, new: str) -> None:
    """Give a column another name in the lists of all courses and of new ones."""
    conn.execute(SWAP, {"old": old, "new": new})
    conn.execute("update rollbook.shape set without = array_replace(without, %s, %s)", [old, new])


def remove_left_out(conn: Conn, entries: Sequence[str], columns: Sequence[str]) -> None:
    """Forget columns that are no longer declared, in the lists of all courses and of new ones."""
    given = {"entries": [*entries, *columns], "columns": list(columns)}
    conn.execute(REMOVE, given)
    conn.execute(
        "update rollbook.shape set without = array(select w from unnest(without) as w where w <> all (%(entries)s)), "
        "leaving = array(select w from unnest(leaving) as w where w <> all (%(columns)s))", given,
    )  # fmt: skip


def clear_due(conn: Conn, course_ids: Sequence[str], columns: Sequence[str]) -> None:
    """Let courses keep leaving columns out: they have columns of their own with these names."""
    conn.execute(
        "update rollbook.course as c set due = array(select w from unnest(c.due) as w where w <> all (%s)) "
        "where c.course_id = any (%s)", [list(columns), list(course_ids)],
    )  # fmt: skip


def travelling(conn: Conn, columns: Sequence[str]) -> bool:
    """Return whether a course does not leave all of these columns out."""
    query = "select exists (select from rollbook.course where not without @> %s::text[]) as found"
    return bool(one(conn, query, [list(columns)])["found"])


def leaving(conn: Conn) -> list[str]:
    """Return the columns that are leaving, as TABLE.COLUMN."""
    return list(one(conn, "select leaving from rollbook.shape")["leaving"])


def record_leaving(conn: Conn, columns: Sequence[str], entries: Sequence[str]) -> None:
    """Record that columns are leaving; new courses leave them out. `entries`: as lists have them."""
    conn.execute(
        "update rollbook.shape set leaving = array(select distinct w from unnest(leaving || %s::text[]) as w)",
        [list(columns)],
    )
    leave_out_of_new(conn, entries)


def renamed(conn: Conn) -> dict[str, str]:
    """Return by TABLE.COLUMN the names that columns had, while copies may still have these."""
    return dict(one(conn, "select renamed from rollbook.shape")["renamed"])


def record_renamed(conn: Conn, old: Column, new: Column, entry: str) -> None:
    """Record that a column has another name, which the copies have not got yet; new courses get it."""
    conn.execute(
        "update rollbook.shape set without = array_remove(without, %(entry)s), "
        "leaving = array_remove(leaving, %(old)s) where %(old)s = any (leaving)", {"entry": entry, "old": str(old)},
    )  # fmt: skip
    conn.execute("update rollbook.course set due = array_replace(due, %s, %s)", [str(old), str(new)])
    conn.execute(
        "update rollbook.shape set renamed = renamed || jsonb_build_object(%s::text, %s::text)", [str(new), old.name]
    )


def forget_renamed(conn: Conn) -> None:
    """Forget the old names when no course needs them, and no rename has begun."""
    conn.execute(
        "update rollbook.shape as s set renamed = '{}' "
        "where s.renamed <> '{}' and not exists (select from rollbook.course where due <> '{}') and not exists ("
        "select from jsonb_each_text(s.renamed) as r "
        "where split_part(r.key, '.', 1) || '.' || r.value = any (s.leaving))"
    )


def record_renaming(conn: Conn, old: Column, new: Column) -> None:
    """Record which name a column is to get, before the first course leaves it out."""
    forget_renaming(conn, [old])
    conn.execute(
        "update rollbook.shape set renamed = renamed || jsonb_build_object(%s::text, %s::text)", [str(new), old.name]
    )


def forget_renaming(conn: Conn, columns: Sequence[Column]) -> None:
    """Forget which names columns were to get."""
    conn.execute(
        "update rollbook.shape as s set renamed = (select coalesce(jsonb_object_agg(r.key, r.value), '{}') "
        "from jsonb_each_text(s.renamed) as r where split_part(r.key, '.', 1) || '.' || r.value <> all (%s))",
        [[str(column) for column in columns]],
    )


def keep_name(conn: Conn, column: Column, entry: str) -> None:
    """Record that a column keeps its name after all, if it was to get another, and goes to new courses again."""
    conn.execute(
        "update rollbook.shape as s set leaving = array_remove(s.leaving, %(old)s), "
        "without = array_remove(s.without, %(entry)s) where %(old)s = any (s.leaving) and exists ("
        "select from jsonb_each_text(s.renamed) as r where split_part(r.key, '.', 1) || '.' || r.value = %(old)s)",
        {"old": str(column), "entry": entry},
    )
    forget_renaming(conn, [column])


def record_widening(conn: Conn, column: Column, kind: str | None) -> None:
    """Record the type that a column is to have everywhere; None: it has it."""
    conn.execute("update rollbook.shape set widening = widening - %s::text", [str(column)])
    if kind is not None:
        conn.execute(
            "update rollbook.shape set widening = widening || jsonb_build_object(%s::text, %s::text)",
            [str(column), kind],
        )


def unfinished(conn: Conn) -> list[Unfinished]:
    """Return the changes of the shape that were begun and not finished; none while a command works on one."""
    return typed(Unfinished, conn, UNFINISHED)


def may_read(conn: Conn, relation: str, column: str) -> bool:
    """Return whether the routing may read a column; the view of an adopted site, which lacks it yet, as a whole."""
    query = """
        select coalesce(
            (
                select has_column_privilege('rollbook_owner', a.attrelid, a.attnum, 'select') from pg_attribute as a
                where a.attrelid = %s::regclass and a.attname = %s
            ),
            has_table_privilege('rollbook_owner', %s::text, 'select')
        ) as may
    """
    return bool(one(conn, query, [relation, column, relation])["may"])


def attribute_names(conn: Conn, relation: str) -> list[str]:
    """Return the columns of a relation."""
    query = (
        "select attname::text as name from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped"
    )
    return [row["name"] for row in conn.execute(query, [relation])]


def is_in_condition(conn: Conn, condition: str, column: str) -> bool:
    """Return whether a condition names a column."""
    found = one(conn, "select quote_ident(%s) = any (rollbook.condition_names(%s)) as found", [column, condition])
    return bool(found["found"])


def require_right(conn: Conn) -> None:
    """Raise the server's 42501 for a role that may not change the shape."""
    conn.execute("update rollbook.shape set only_one = only_one")


def default_without(conn: Conn) -> list[str]:
    """Return what new courses leave out."""
    return list(one(conn, "select without from rollbook.shape")["without"])


def real_table(conn: Conn, relation: str) -> str:
    """Return the table behind a relation, quoted for SQL: itself, or that of a site that was adopted in place."""
    query = """
        select coalesce((
            select d.refobjid::regclass
            from pg_rewrite as r
            inner join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            inner join pg_class as t
                on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid and t.relkind in ('r', 'p')
            where r.ev_class = c.oid limit 1
        ), c.oid::regclass)::text as name
        from pg_class as c where c.oid = %s::regclass
    """
    return str(one(conn, query, [relation])["name"])


def of_other_type(conn: Conn, column: Column, kind: str, schemas: Sequence[str]) -> list[str]:
    """Return the schemas whose copy has a column with another type."""
    query = """
        select n.nspname::text as schema_name
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = any (%s)
        inner join pg_attribute as a on a.attrelid = c.oid and a.attname = %s and not a.attisdropped
        where c.relname = %s and c.relkind = 'r' and format_type(a.atttypid, a.atttypmod) <> %s
        order by 1
    """
    found = conn.execute(query, [list(schemas), column.name, column.table, kind])
    return [row["schema_name"] for row in found]


def publications(conn: Conn, place: str) -> list[str]:
    """Return the publications of servers that list a copy, given as SQL has it."""
    query = """
        select p.pubname::text as name
        from pg_publication_rel as r inner join pg_publication as p on p.oid = r.prpubid
        where r.prrelid = to_regclass(%s) and starts_with(p.pubname, 'rollbook_')
        order by 1
    """
    return [row["name"] for row in conn.execute(query, [place])]


def repair_all_later(conn: Conn) -> None:
    """Record that the rows of all courses are to be compared."""
    conn.execute(
        "update rollbook.course set due = array_append(due, %(condition)s) where %(condition)s <> all (due)",
        {"condition": CONDITION},
    )


def is_view(conn: Conn, relation: str) -> bool:
    """Return whether a relation is a view: on the table of a site that was adopted in place."""
    query = "select relkind = 'v' as is_view from pg_class where oid = %s::regclass"
    return bool(one(conn, query, [relation])["is_view"])


def count_due(conn: Conn) -> dict[str, int]:
    """Return by table how many courses a change of the shape has not reached yet."""
    query = """
        select t.table_name as table, count(*) as courses
        from rollbook.copied_tables() as t
        inner join rollbook.course as c on exists (
            select from unnest(c.due) as d where starts_with(d, t.table_name || '.') or
                d = 'condition' and t.role = 'membership'
        )
        group by 1
    """
    return {row["table"]: row["courses"] for row in conn.execute(query)}
