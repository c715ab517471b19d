"""What the catalog says of the schema, to compare with what ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from rollbook.core.rows import Row, one, typed

if TYPE_CHECKING:
    from psycopg.types.json import Jsonb

    from rollbook.core.db import Conn

FOREIGN_OWNER = """
select pg_get_userbyid(n.nspowner) as owner from pg_namespace as n
where n.nspname = 'rollbook' and not pg_has_role(n.nspowner, 'usage')
"""


COLUMN_LISTS = """
select p.pubname as publication, p.schemaname as schema_name, p.tablename as table, c.course_id as course
from rollbook.server as s
inner join pg_publication_tables as p on p.pubname = 'rollbook_' || s.name and p.schemaname <> 'rollbook'
inner join rollbook.course as c on c.schema_name = p.schemaname
where not (
    p.attnames::text[] <@ rollbook.course_columns(p.tablename, c.without)
    and rollbook.course_columns(p.tablename, c.without) <@ p.attnames::text[]
)
"""


OWNER_RIGHTS = """
select rolname as role, array_remove(array[
    case when rolsuper then 'SUPERUSER' end, case when rolcanlogin then 'LOGIN' end,
    case when rolcreaterole then 'CREATEROLE' end, case when rolcreatedb then 'CREATEDB' end,
    case when rolreplication then 'REPLICATION' end, case when rolbypassrls then 'BYPASSRLS' end
], null) as rights
from pg_roles where rolname in ('rollbook_owner', 'rollbook_writer') order by rolname
"""


# Who would stop a downgrade: views and foreign keys elsewhere that need the portal's or Rollbook's tables.
# Tables of the site in schema portal, such as Django's own, are not ours.
DEPENDENTS = """
with ours as (
    select c.oid from pg_class as c
    where c.relkind in ('r', 'v') and (
        c.relnamespace = 'rollbook'::regnamespace
        or %s and c.relnamespace = 'portal'::regnamespace and c.relname in (
            'auth_user', 'auth_userprofile', 'auth_registration', 'student_courseenrollment',
            'student_courseenrollmentallowed', 'student_usertestgroup', 'student_usertestgroup_users',
            'student_pendingnamechange', 'student_pendingemailchange', 'student_testcenteruser',
            'student_testcenterregistration'
        )
    )
),
theirs (oid, fix) as (
    select r.ev_class, format('drop %%s %%s;', case v.relkind when 'm' then 'materialized view' else 'view' end,
                              r.ev_class::regclass)
    from pg_depend as d
    inner join pg_rewrite as r on r.oid = d.objid
    inner join pg_class as v on v.oid = r.ev_class
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
        and d.refobjid in (select oid from ours)
    union
    select f.conrelid, format('alter table %%s drop constraint %%I;', f.conrelid::regclass, f.conname)
    from pg_constraint as f where f.contype = 'f' and f.confrelid in (select oid from ours)
)
select c.oid::regclass::text as name, string_agg(theirs.fix, ' ') as fix
from theirs inner join pg_class as c on c.oid = theirs.oid
where c.oid not in (select oid from ours) and c.relnamespace <> 'rollbook'::regnamespace
    and c.relnamespace not in (
        select n.oid from rollbook.course as k inner join pg_namespace as n on n.nspname = k.schema_name
    )
group by 1 order by 1
"""


LOCAL_OBJECTS = """
select c.course_id || ': ' || string_agg(o.name, ', ') as words
from rollbook.course as c cross join lateral rollbook.local_objects(c.schema_name) as o (name)
group by c.course_id order by c.course_id
"""


FUNCTIONS = """
select
    p.oid::regprocedure::text as signature, p.prosrc as body, p.prosecdef as is_definer, p.proconfig as settings,
    pg_get_userbyid(p.proowner) as owner,
    (select pg_get_userbyid(n.nspowner) from pg_namespace as n where n.oid = p.pronamespace) as schema_owner,
    exists (
        select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
        where a.grantee = 0 and a.privilege_type = 'EXECUTE'
    ) as is_public
from pg_proc as p where p.pronamespace = 'rollbook'::regnamespace
"""


TRIGGERS = """
select
    format('%I.%I', n.nspname, c.relname) as table, t.tgname as name, pg_get_triggerdef(t.oid) as definition,
    t.tgenabled = 'O' as is_enabled
from pg_trigger as t
inner join pg_class as c on c.oid = t.tgrelid
inner join pg_namespace as n on n.oid = c.relnamespace
where not t.tgisinternal and t.tgrelid in (
    -- By themselves where a shape has another table of the same name.
    select rollbook.real_table(p.oid) from pg_class as p
    where p.relnamespace = 'portal'::regnamespace and p.relkind in ('r', 'p', 'v')
    union
    select to_regclass(s.relation) from rollbook.shape_table as s
)
"""


MEMBERS = """
select m.member::regrole::text as member
from pg_auth_members as m
inner join pg_roles as r on r.oid = m.roleid and r.rolname = 'rollbook_owner'
where m.member <> (select n.nspowner from pg_namespace as n where n.nspname = 'rollbook')
    -- From 16 on whoever makes a role is a member by ADMIN alone, and may not act for it.
    and coalesce((to_jsonb(m) ->> 'inherit_option')::boolean or (to_jsonb(m) ->> 'set_option')::boolean, true)
group by m.member order by 1
"""


def foreign_owner(conn: Conn) -> str | None:
    """Return the owner of schema rollbook, None where this session may act for it."""
    row = conn.execute(FOREIGN_OWNER).fetchone()
    return str(row["owner"]) if row else None


@dataclass(frozen=True)
class Difference:
    """What is foreign or not as shipped; the fields are the columns of `schema check`."""

    object: str
    kind: str
    difference: str
    fix: str | None  # a line for psql, or one that begins with `rollbook`, for a shell


def wrong_column_lists(conn: Conn) -> list[Row]:
    """Return published copies that do not list exactly the replicated columns: publication schema_name table course."""
    return conn.execute(COLUMN_LISTS).fetchall()


def owner_rights(conn: Conn) -> dict[str, list[str]]:
    """Return the attributes that the owners of definer functions have and should not have: role -> attributes."""
    return {row["role"]: row["rights"] for row in conn.execute(OWNER_RIGHTS) if row["rights"]}


def list_dependents(conn: Conn, *, portal: bool) -> list[tuple[str, str]]:
    """Return the site's views and tables that depend on Rollbook's tables (and the portal's), each with its remedy."""
    return [(row["name"], row["fix"]) for row in conn.execute(DEPENDENTS, [portal])]


def list_local_objects(conn: Conn) -> list[str]:
    """Return for each course that added something what that is, in words."""
    return [row["words"] for row in conn.execute(LOCAL_OBJECTS)]


def list_functions(conn: Conn) -> list[Row]:
    """Return the functions of schema rollbook: signature body is_definer settings owner schema_owner is_public."""
    return conn.execute(FUNCTIONS).fetchall()


def function_names(conn: Conn, signatures: Sequence[str]) -> dict[str, str]:
    """Return functions as the server spells them (`text, integer` is `text,integer`), one that is gone as given."""
    query: LiteralString = """
        select s.given, coalesce(to_regprocedure(s.given)::text, s.given) as found
        from unnest(%s::text[]) as s (given)"""
    return {row["given"]: row["found"] for row in conn.execute(query, [list(signatures)])}


def list_triggers(conn: Conn) -> list[Row]:
    """Return the triggers on the portal's tables: table name definition is_enabled."""
    return conn.execute(TRIGGERS).fetchall()


def view_definitions(conn: Conn, name: str, query: str) -> tuple[str, str | None]:
    """Return a shipped query as this server spells it as a view, and the view that is there (None: gone).

    Raises psycopg.errors.UndefinedColumn, UndefinedTable or UndefinedFunction; the transaction goes on.
    """
    with conn.transaction():
        conn.execute(f"create or replace temporary view rollbook_checked as {query}".encode())
    definition: LiteralString = "select pg_get_viewdef(to_regclass(%s)) as text"
    shipped, there = (one(conn, definition, [view])["text"] for view in ("pg_temp.rollbook_checked", name))
    conn.execute("drop view pg_temp.rollbook_checked")
    return shipped, there


def copied_columns(conn: Conn) -> Jsonb:
    """Return the replicated columns by table, with their types: what a server is asked with."""
    from psycopg.types.json import Jsonb

    return Jsonb(one(conn, "select rollbook.copied_columns() as known")["known"])


def left_out_columns(conn: Conn) -> Jsonb:
    """Return by schema the columns that do not travel to a course."""
    from psycopg.types.json import Jsonb

    return Jsonb(one(conn, "select rollbook.left_out_columns() as known")["known"])


def foreign_objects(conn: Conn) -> list[Difference]:
    """Return what the catalog alone shows to be foreign or not as shipped."""
    return typed(Difference, conn, "select object, kind, difference, fix from rollbook.foreign_objects()")


def owner_members(conn: Conn) -> list[str]:
    """Return the roles that may act for rollbook_owner by a grant, the migrating role apart."""
    return [row["member"] for row in conn.execute(MEMBERS)]
