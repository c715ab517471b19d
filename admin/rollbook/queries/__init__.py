"""Every statement that the program sends to the portal; what goes to course servers stands in servers/.

SQL is literal with parameters, or psycopg.sql; rows come back as dicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from rollbook.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from rollbook.db import Conn

Row = dict[str, Any]


def one(conn: Conn, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> Row:
    """Return the single row of a query that always has one."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 (such queries only)
    return row


def as_json(value: Any) -> Jsonb:  # noqa: ANN401
    """Return a value as a parameter of type jsonb; what JSON has no form for becomes text."""
    return Jsonb(value, dumps=lambda found: json.dumps(found, default=str, ensure_ascii=False))


# --- courses ----------------------------------------------------------------------------------------------------------

COURSES = """
select course_id as course, schema_name, state, on_leave, enrolled, copied_users, server, created_at as since
from rollbook.course_status
where %(match)s::text is null or strpos(lower(course_id), lower(%(match)s)) > 0
order by course_id
"""

COURSE = """
select
    s.course_id as course, s.schema_name, s.state, s.on_leave, s.server, s.enrolled, s.copied_users, s.copied_profiles,
    s.copied_enrollments, s.created_at, s.verified_at, s.verdict, s.differing_rows,
    array(select rollbook.local_objects(s.schema_name)) as local_objects
from rollbook.course_status as s
where s.course_id = %s
"""

REPLICATED = """
select t.name as table, rollbook.replicated_columns(t.name) as columns
from unnest(array['auth_user', 'auth_userprofile', 'student_courseenrollment']) as t (name)
"""


def courses(conn: Conn, match: str | None = None) -> list[Row]:
    """Return the courses: course schema_name state on_leave enrolled copied_users since. Source: course_status."""
    return conn.execute(COURSES, {"match": match}).fetchall()


def course(conn: Conn, course_id: str) -> Row:
    """Return one course with counts and what it added itself. Raises RefusedError for an unknown one."""
    known_courses(conn, [course_id])
    return one(conn, COURSE, [course_id])


def replicated(conn: Conn) -> list[Row]:
    """Return the whitelist: table, columns."""
    return conn.execute(REPLICATED).fetchall()


def known_courses(conn: Conn, course_ids: Sequence[str]) -> list[str]:
    """Return the ids as given, or all courses for none. Raises RefusedError naming the unknown and the nearest."""
    known = [row["course_id"] for row in conn.execute("select course_id from rollbook.course order by 1")]
    for course_id in course_ids:
        if course_id not in known:
            raise RefusedError(
                f"there is no course {course_id}", why=nearest(course_id, known), fix="rollbook course list"
            )
    return list(course_ids) or known


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return `the nearest is X`, or None where nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"the nearest is {near[0]}" if near else None


def create_course(conn: Conn, course_id: str, on_leave: str) -> str:
    """Make a course and return its schema. Raises RefusedError (RB003, RB005)."""
    return str(one(conn, "select rollbook.create_course(%s, %s) as name", [course_id, on_leave])["name"])


def drop_course(conn: Conn, course_id: str, *, drop_local: bool) -> None:
    """Drop a course. Raises RefusedError (RB006, RB007)."""
    conn.execute("select rollbook.drop_course(%s, %s)", [course_id, drop_local])


def course_sql(call: LiteralString, arguments: Sequence[Any]) -> str:
    """Return `select CALL` with the arguments as literals: what a dry run prints."""
    literals = [sql.Literal(argument) for argument in arguments]
    return sql.SQL("select * from {}({});\n").format(sql.SQL(call), sql.SQL(", ").join(literals)).as_string()


# --- users ------------------------------------------------------------------------------------------------------------

FIND_USERS = """
select id, username, email, lower(email) as folded
from portal.auth_user
where id = any(%(ids)s) or username = any(%(names)s)
    or (email <> '' and lower(email) = any(array(select lower(x) from unnest(%(emails)s::text[]) as x)))
"""

NEAR_USERS = "select username from portal.auth_user where lower(username) like %s order by username limit 2000"


def kind_of(token: str) -> tuple[str | None, str]:
    """Return what a USER is named by (id, username, email; None: either of the last two) and the name itself."""
    kind, colon, value = token.partition(":")
    return (kind, value) if colon and kind in ("id", "username", "email") else (None, token)


def find_users(conn: Conn, tokens: Sequence[str]) -> list[Row]:
    """Return id, username and email of each USER: a username, an e-mail, id:N, username:X or email:X.

    All or nothing. Raises RefusedError for one that is unknown, or that fits two users.
    """
    kinds: dict[str, list[Any]] = {"ids": [], "names": [], "emails": []}
    for kind, value in map(kind_of, tokens):
        if kind == "id" and value.isdecimal() and len(value) < 19:  # a bigint
            kinds["ids"].append(int(value))
        if kind in ("username", None):
            kinds["names"].append(value)
        if kind in ("email", None):
            kinds["emails"].append(value)
    found = conn.execute(FIND_USERS, kinds).fetchall()
    by: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        for key in (("id", str(row["id"])), ("username", row["username"]), ("email", row["folded"])):
            if key[1]:
                by.setdefault(key, []).append(row)
    chosen: dict[int, Row] = {}
    for token in tokens:
        kind, value = kind_of(token)
        hits: dict[int, Row] = {}
        for key in (("id", value.lstrip("0")), ("username", value), ("email", value.lower())):
            if kind == key[0] or (kind is None and key[0] != "id"):
                hits |= {row["id"]: row for row in by.get(key, [])}
        if not hits:
            near = conn.execute(NEAR_USERS, [token[:1].lower() + "%"]).fetchall()
            why = nearest(token, (row["username"] for row in near))
            raise RefusedError(f"there is no user {token}", why=why, fix="rollbook user list --match TEXT")
        if len(hits) > 1:
            both = ", ".join(
                f"id:{row['id']} ({row['username']}, {row['email']})" for row in found if row["id"] in hits
            )
            raise RefusedError(f"{token} fits several users", why=both, fix="name one as id:N, username:X or email:X")
        chosen |= hits
    return list(chosen.values())


# --- enrollments ------------------------------------------------------------------------------------------------------

ENROLL = """
insert into portal.student_courseenrollment (user_id, course_id)
select id, %(course)s from unnest(%(ids)s::bigint[]) as id order by id
on conflict (user_id, course_id) do nothing
returning user_id
"""

LEAVE = """
delete from portal.student_courseenrollment where course_id = %(course)s and user_id = any(%(ids)s) returning user_id
"""

ENROLLMENTS = """
select course_id as course, username, email, created, replicated
from rollbook.enrollment_status
where (%(course)s::text is null or course_id = %(course)s) and (%(user_id)s::bigint is null or user_id = %(user_id)s)
    and (%(match)s::text is null or strpos(lower(username || ' ' || email), lower(%(match)s)) > 0)
order by id
limit %(limit)s
"""

ENROLLMENTS_TOTAL = """
select count(*) as n
from portal.student_courseenrollment as e inner join portal.auth_user as u on u.id = e.user_id
where (%(course)s::text is null or e.course_id = %(course)s) and (%(user_id)s::bigint is null or u.id = %(user_id)s)
    and (%(match)s::text is null or strpos(lower(u.username || ' ' || u.email), lower(%(match)s)) > 0)
"""

COUNT_ENROLLMENTS: dict[str, LiteralString] = {
    "": """
        select count(*) as enrollments from portal.student_courseenrollment
        where %(course)s::text is null or course_id = %(course)s
        """,
    "course": """
        select course_id as key, count(*) as enrollments from portal.student_courseenrollment
        where %(course)s::text is null or course_id = %(course)s group by 1 order by 2 desc, 1
        """,
    "day": """
        select to_char(created at time zone 'UTC', 'YYYY-MM-DD') as key, count(*) as enrollments
        from portal.student_courseenrollment
        where %(course)s::text is null or course_id = %(course)s group by 1 order by 1
        """,
}


def enroll(conn: Conn, course_id: str, user_ids: list[int]) -> set[int]:
    """Enroll users and return those who were not yet."""
    return {row["user_id"] for row in conn.execute(ENROLL, {"course": course_id, "ids": user_ids})}


def leave(conn: Conn, course_id: str, user_ids: list[int]) -> set[int]:
    """End enrollments and return the users who had one."""
    return {row["user_id"] for row in conn.execute(LEAVE, {"course": course_id, "ids": user_ids})}


def enrollments(
    conn: Conn, *, course: str | None, user_id: int | None, match: str | None, limit: int | None
) -> tuple[list[Row], int]:
    """Return enrollments by id, and how many there are without the limit."""
    parameters = {"course": course, "user_id": user_id, "match": match, "limit": limit}
    found = conn.execute(ENROLLMENTS, parameters).fetchall()
    full = limit is not None and len(found) == limit
    return found, one(conn, ENROLLMENTS_TOTAL, parameters)["n"] if full else len(found)  # type: ignore[arg-type]


def count_enrollments(conn: Conn, course: str | None, by: str | None) -> list[Row]:
    """Return how many enrollments there are: all, by course, or by day (UTC)."""
    return conn.execute(COUNT_ENROLLMENTS[by or ""], {"course": course}).fetchall()


# --- replication ------------------------------------------------------------------------------------------------------

COMPARE = """
select
    course_id as course, table_name as table, portal_rows, course_rows, missing, changed, extra, verdict
from rollbook.compare(%s)
"""

FINDINGS = """
select course_id as course, table_name as table, finding, row_id, columns from rollbook.verify(%s)
"""

NOTE_VERIFICATION = """
with noted as (
    insert into rollbook.verification as v (course_id, verified_at, verdict, differing_rows, run_at)
    values (%(course)s, %(at)s, %(verdict)s, %(rows)s, %(run_at)s)
    on conflict (course_id) do update
    set verified_at = excluded.verified_at, verdict = excluded.verdict, differing_rows = excluded.differing_rows,
        run_at = excluded.run_at
    where v.verified_at < excluded.verified_at
)
update rollbook.course set state = 'ok'
where course_id = %(course)s and state in ('copying', 'unknown') and %(verdict)s = 'match'
"""

RESUMABLE = """
select course_id as course, run_at, verdict from rollbook.verification
where run_at = (select max(v.run_at) from rollbook.verification as v)
"""

REPAIR = """
select course_id as course, table_name as table, inserted, updated, deleted from rollbook.repair(%s)
"""

PORTAL = """
select
    current_setting('server_version') as server_version, current_database() as database,
    (select count(*) from portal.auth_user) as users,
    (select count(*) from portal.student_courseenrollment) as enrollments,
    (select count(*) from rollbook.course) as courses, now() as observed_at
"""


def compare(conn: Conn, course_ids: list[str]) -> list[Row]:
    """Return a row for each course and table: portal_rows course_rows missing changed extra verdict."""
    return conn.execute(COMPARE, [course_ids]).fetchall()


def findings(conn: Conn, course_id: str) -> list[Row]:
    """Return every difference of one course: table, finding, row_id, columns. Raises RefusedError RB008."""
    return conn.execute(FINDINGS, [course_id]).fetchall()


def note_verification(conn: Conn, course_id: str, at: Any, verdict: str, rows: int | None, run_at: Any) -> None:  # noqa: ANN401
    """Note what a verify said of a course, unless a later one has spoken; an equal one is `ok` again."""
    found = {"course": course_id, "at": at, "verdict": verdict, "rows": rows, "run_at": run_at}
    conn.execute(NOTE_VERIFICATION, found)


def resumable(conn: Conn) -> dict[str, Row]:
    """Return by course what the latest verify has said of those it has compared, and the time at which it began."""
    return {row["course"]: row for row in conn.execute(RESUMABLE)}


def repair(conn: Conn, course_id: str) -> list[Row]:
    """Make one course equal to the portal; return the rows written by table."""
    return conn.execute(REPAIR, [course_id]).fetchall()


def portal(conn: Conn) -> Row:
    """Return the portal in numbers."""
    return one(conn, PORTAL)


# --- course servers ---------------------------------------------------------------------------------------------------

PLACE = """
with forgotten as (
    delete from rollbook.verification where course_id = any(%(ids)s)
)
update rollbook.course set server = %(server)s, state = %(state)s where course_id = any(%(ids)s)
"""


def checked_server_name(name: str) -> str:
    """Return a name that a slot can bear. Raises UsageError."""
    import re

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise UsageError(
            f"{name} cannot name a server", why="its slot bears the name: a to z first, then a to z, 0 to 9 and _, "
            "at most 40", fix="choose another name, such as east",
        )  # fmt: skip
    return name


def note_server(conn: Conn, name: str, admin_dsn: str, subscription_dsn: str, identity: str) -> None:
    """Note a new server: from here on whatever is made for it can be found and removed."""
    conn.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) values (%s, %s, %s, %s)",
        [name, admin_dsn, subscription_dsn, identity],
    )


def take_over(conn: Conn, name: str, admin_dsn: str, subscription_dsn: str, identity: str) -> None:
    """Note that this database feeds the server now, and by which routes."""
    conn.execute(
        "update rollbook.server set admin_dsn = %s, subscription_dsn = %s, portal_identity = %s where name = %s",
        [admin_dsn, subscription_dsn, identity, name],
    )


def place(conn: Conn, course_ids: Sequence[str], server: str | None, state: str) -> None:
    """Note which server holds these courses, and how far that has come."""
    conn.execute(PLACE, {"ids": list(course_ids), "server": server, "state": state})


def pause_server(conn: Conn, name: str, *, paused: bool) -> None:
    """Note that an operator holds a server's stream, or lets it go."""
    conn.execute(
        "update rollbook.server set paused_at = case when %s then coalesce(paused_at, now()) end where name = %s",
        [paused, name],
    )


def check_position(conn: Conn, lsn: str) -> None:
    """Raise UsageError for what is no LSN, RefusedError for one that the portal has not reached itself."""
    from psycopg import DataError

    try:
        reached = one(conn, "select %s::pg_lsn <= pg_current_wal_insert_lsn() as yes", [lsn])["yes"]
    except DataError:
        raise UsageError(f"{lsn} is no LSN", fix="write it like 0/16B3748, or `now`") from None
    if not reached:
        raise RefusedError(f"the portal itself has not reached {lsn}", fix="select pg_current_wal_lsn() on the portal")


def wal_is_unbounded(conn: Conn) -> bool:
    """Say whether the portal keeps WAL for a server that is down until the disk is full."""
    return bool(one(conn, "select current_setting('max_slot_wal_keep_size') = '-1' as unbounded")["unbounded"])


# --- history ----------------------------------------------------------------------------------------------------------

NOTE_HISTORY = """
insert into rollbook.history (actor, command, reason, object, outcome, before, after, user_id, course_id)
select
    %(actor)s, %(command)s, %(reason)s, e.object, e.outcome, e.before, e.after, e.user_id, e.course_id
from jsonb_to_recordset(%(entries)s) as e (
    object text, outcome text, before jsonb, after jsonb, user_id bigint, course_id text
)
"""

HISTORY = """
select h.id, h.at, h.actor, h.role, h.command, h.object, h.outcome, h.reason
from rollbook.history as h
where (%(user_id)s::bigint is null or h.user_id = %(user_id)s)
    and (%(course)s::text is null or h.course_id = %(course)s)
    and (%(actor)s::text is null or h.actor = %(actor)s)
    and (%(command)s::text is null or h.command = %(command)s or starts_with(h.command, %(command)s || ' '))
    and (%(since)s::timestamptz is null or h.at >= %(since)s)
    and (%(match)s::text is null or strpos(lower(h.object || ' ' || coalesce(h.reason, '')), lower(%(match)s)) > 0)
order by h.id desc
limit %(limit)s
"""

HISTORY_ENTRY = """
select id, at, actor, role, command, object, outcome, reason, user_id, course_id as course, before, after
from rollbook.history where id = %s
"""


def note_history(conn: Conn, command: str, actor: str, reason: str | None, entries: list[Row]) -> None:
    """Note writes: object outcome before after user_id course_id. Values that JSON has no form for become text."""
    content = as_json(entries)
    conn.execute(NOTE_HISTORY, {"command": command, "actor": actor, "reason": reason, "entries": content})


def history(conn: Conn, **filters: Any) -> list[Row]:  # noqa: ANN401
    """Return the history, the newest first: id at actor role command object outcome reason."""
    return conn.execute(HISTORY, filters).fetchall()


def history_entry(conn: Conn, number: int) -> Row:
    """Return one entry with before and after. Raises RefusedError for an unknown one."""
    row = conn.execute(HISTORY_ENTRY, [number]).fetchone()
    if row is None:
        raise RefusedError(f"there is no history entry {number}", fix="rollbook history list")
    return row


# --- the schema itself ------------------------------------------------------------------------------------------------

FUNCTIONS = """
select
    p.proname as name, p.prosrc as body, p.prosecdef as is_definer, p.proconfig as settings,
    pg_get_userbyid(p.proowner) as owner,
    exists (
        select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
        where a.grantee = 0 and a.privilege_type = 'EXECUTE'
    ) as is_public
from pg_proc as p where p.pronamespace = 'rollbook'::regnamespace
"""

TRIGGERS = """
select
    t.tgrelid::regclass::text as table, t.tgname as name, pg_get_triggerdef(t.oid) as definition,
    t.tgenabled = 'O' as is_enabled
from pg_trigger as t
inner join pg_class as c on c.oid = t.tgrelid and c.relnamespace = 'portal'::regnamespace
where not t.tgisinternal
"""

GUARDED_COPIES = """
select
    c.schema_name, t.name as table, rollbook.missing_columns(c.schema_name, t.name) as missing_columns,
    (
        select g.tgenabled = 'O' and pg_get_triggerdef(g.oid) = format(
            'CREATE TRIGGER rollbook_guard_copy BEFORE INSERT OR DELETE OR UPDATE OF %s OR TRUNCATE ON %I.%I '
            'FOR EACH STATEMENT WHEN ((CURRENT_USER <> ''rollbook_owner''::name)) '
            'EXECUTE FUNCTION rollbook.guard_copy()',
            array_to_string(rollbook.replicated_columns(t.name), ', '), c.schema_name, t.name
        )
        from pg_trigger as g where g.tgrelid = k.oid and g.tgname = 'rollbook_guard_copy'
    ) is true as is_guarded,
    array(
        select 'forced row security' where k.relforcerowsecurity
        union all
        select 'trigger ' || g.tgname from pg_trigger as g
        where g.tgrelid = k.oid and not g.tgisinternal and g.tgtype & 3 = 3  -- BEFORE, for each row
        union all
        select 'rule ' || r.rulename from pg_rewrite as r where r.ev_class = k.oid
        union all
        select 'a parent table' from pg_inherits as i where i.inhrelid = k.oid
    ) as bypasses,
    array(
        select distinct case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end
        from aclexplode(k.relacl) as a where a.privilege_type = 'TRIGGER' and a.grantee <> k.relowner
    ) as trigger_grantees
from rollbook.course as c
cross join unnest(array['auth_user', 'auth_userprofile', 'student_courseenrollment']) as t (name)
left join pg_namespace as n on n.nspname = c.schema_name
left join pg_class as k on k.relnamespace = n.oid and k.relname = t.name
order by c.schema_name, t.name
"""


COLUMN_LISTS = """
select p.pubname as publication, p.schemaname as schema_name, p.tablename as table
from rollbook.server as s
inner join pg_publication_tables as p on p.pubname = 'rollbook_' || s.name and p.schemaname <> 'rollbook'
where p.attnames::text[] is distinct from rollbook.replicated_columns(p.tablename)
"""

OWNER_RIGHTS = """
select array_remove(array[
    case when rolsuper then 'SUPERUSER' end, case when rolcanlogin then 'LOGIN' end,
    case when rolcreaterole then 'CREATEROLE' end, case when rolcreatedb then 'CREATEDB' end,
    case when rolreplication then 'REPLICATION' end, case when rolbypassrls then 'BYPASSRLS' end
], null) as rights
from pg_roles where rolname = 'rollbook_owner'
"""

# Who would stop a downgrade: views and foreign keys elsewhere that need the portal's or Rollbook's tables.
DEPENDENTS = """
with ours as (
    select c.oid from pg_class as c
    where c.relnamespace in ('portal'::regnamespace, 'rollbook'::regnamespace) and c.relkind in ('r', 'v')
),
theirs (oid) as (
    select r.ev_class from pg_depend as d inner join pg_rewrite as r on r.oid = d.objid
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
        and d.refobjid in (select oid from ours)
    union
    select f.conrelid from pg_constraint as f where f.contype = 'f' and f.confrelid in (select oid from ours)
)
select c.oid::regclass::text as name
from theirs inner join pg_class as c on c.oid = theirs.oid
where c.oid not in (select oid from ours)
    and c.relnamespace::regnamespace::text not in (select quote_ident(k.schema_name) from rollbook.course as k)
order by 1
"""

LOCAL_OBJECTS = """
select c.course_id || ': ' || string_agg(o.name, ', ') as words
from rollbook.course as c cross join lateral rollbook.local_objects(c.schema_name) as o (name)
group by c.course_id order by c.course_id
"""


def wrong_column_lists(conn: Conn) -> list[Row]:
    """Return published copies that do not list exactly the replicated columns: publication schema_name table."""
    return conn.execute(COLUMN_LISTS).fetchall()


def owner_rights(conn: Conn) -> list[str]:
    """Return the attributes of rollbook_owner that it should not have."""
    return list(one(conn, OWNER_RIGHTS)["rights"])


def dependents(conn: Conn) -> list[str]:
    """Return views and tables elsewhere that depend on the portal's or Rollbook's tables."""
    return [row["name"] for row in conn.execute(DEPENDENTS)]


def local_objects(conn: Conn) -> list[str]:
    """Return for each course that added something what that is, in words."""
    return [row["words"] for row in conn.execute(LOCAL_OBJECTS)]


def functions(conn: Conn) -> list[Row]:
    """Return the functions of schema rollbook: name body is_definer settings owner is_public."""
    return conn.execute(FUNCTIONS).fetchall()


def triggers(conn: Conn) -> list[Row]:
    """Return the triggers on the portal's tables: table name definition is_enabled."""
    return conn.execute(TRIGGERS).fetchall()


def view_definitions(conn: Conn, name: str, query: str) -> tuple[str, str | None]:
    """Return a shipped query as this server spells it as a view, and the view that is there (None: gone)."""
    conn.execute(f"create or replace temporary view rollbook_checked as {query}".encode())
    definition: LiteralString = "select pg_get_viewdef(to_regclass(%s)) as text"
    shipped, there = (one(conn, definition, [view])["text"] for view in ("pg_temp.rollbook_checked", name))
    conn.execute("drop view pg_temp.rollbook_checked")
    return shipped, there


def copies(conn: Conn) -> list[Row]:
    """Return every course's copies: schema_name, table, missing_columns, is_guarded, bypasses, trigger_grantees."""
    return conn.execute(GUARDED_COPIES).fetchall()
