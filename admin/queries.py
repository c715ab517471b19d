"""Every statement that the program sends. SQL is literal with parameters, or psycopg.sql; rows come back as dicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from admin.errors import RefusedError

if TYPE_CHECKING:
    from admin.db import Conn

Row = dict[str, Any]

USER_FIELDS = ("username", "first_name", "last_name", "email")
PROFILE_FIELDS = (
    "name", "language", "location", "year_of_birth", "gender", "level_of_education", "mailing_address", "goals",
)  # fmt: skip


def one(conn: Conn, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> Row:
    """Return the single row of a query that always has one."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 (such queries only)
    return row


# --- courses ----------------------------------------------------------------------------------------------------------

COURSES = """
select course_id as course, schema_name, state, on_leave, enrolled, copied_users, created_at as since
from rollbook.course_status
where %(match)s::text is null or strpos(lower(course_id), lower(%(match)s)) > 0
order by course_id
"""

COURSE = """
select
    s.course_id as course, s.schema_name, s.state, s.on_leave, s.enrolled, s.copied_users, s.copied_profiles,
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

USERS = """
select
    u.id, u.username, u.email, p.name, u.is_active, u.is_staff, u.is_superuser, u.date_joined, u.last_login,
    (select count(*) from portal.student_courseenrollment as e where e.user_id = u.id) as courses
from portal.auth_user as u
left join portal.auth_userprofile as p on p.user_id = u.id
where {where}
order by u.id
limit %(limit)s
"""

ACCOUNT = """
select id, username, first_name, last_name, email, is_active, is_staff, is_superuser, last_login, date_joined
from portal.auth_user where id = %s
"""

PROFILE = """
select name, language, location, year_of_birth, gender, level_of_education, mailing_address, goals, courseware, meta
from portal.auth_userprofile where user_id = %s
"""

COPIES = """
select course_id as course, is_enrolled, user_copy, profile_copy, enrollment_copy
from rollbook.user_copies(%s) order by course_id
"""

ENROLLMENTS_OF = """
select course_id as course, created, replicated from rollbook.enrollment_status where user_id = %s order by course_id
"""

CREATE_USER = """
with account as (
    insert into portal.auth_user (username, email, first_name, last_name, is_active)
    values (%(username)s, %(email)s, %(first_name)s, %(last_name)s, %(is_active)s)
    returning id, username, email, is_active
),
profile as (
    insert into portal.auth_userprofile
        (user_id, name, language, location, year_of_birth, gender, level_of_education, mailing_address, goals)
    select
        id, %(name)s, %(language)s, %(location)s, %(year_of_birth)s, %(gender)s, %(level_of_education)s,
        %(mailing_address)s, %(goals)s
    from account
),
registration as (
    insert into portal.auth_registration (user_id, activation_key) select id, %(activation_key)s from account
)
select id, username, email, is_active, 'created' as outcome from account
"""

COUNT_USERS: dict[str, LiteralString] = {
    "": "select count(*) as users, count(*) filter (where is_active) as active from portal.auth_user",
    "course": """
        select e.course_id as key, count(*) as users, count(*) filter (where u.is_active) as active
        from portal.student_courseenrollment as e inner join portal.auth_user as u on u.id = e.user_id
        group by 1 order by 2 desc, 1
        """,
    "month": """
        select to_char(date_joined at time zone 'UTC', 'YYYY-MM') as key, count(*) as users,
            count(*) filter (where is_active) as active
        from portal.auth_user group by 1 order by 1
        """,
}


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
    chosen: list[Row] = []
    for token in tokens:
        kind, value = kind_of(token)
        hits = [
            row
            for row in found
            if (kind == "id" and str(row["id"]) == value.lstrip("0"))
            or (kind in ("username", None) and row["username"] == value)
            or (kind in ("email", None) and row["email"] and row["folded"] == value.lower())
        ]
        if not hits:
            near = conn.execute(NEAR_USERS, [token[:1].lower() + "%"]).fetchall()
            why = nearest(token, (row["username"] for row in near))
            raise RefusedError(f"there is no user {token}", why=why, fix="rollbook user list --match TEXT")
        if len(hits) > 1:
            both = ", ".join(f"id:{row['id']} ({row['username']}, {row['email']})" for row in hits)
            raise RefusedError(f"{token} fits several users", why=both, fix="name one as id:N, username:X or email:X")
        chosen += [row for row in hits if row["id"] not in {done["id"] for done in chosen}]
    return chosen


def users(
    conn: Conn, *, match: str | None, course: str | None, limit: int | None, flags: dict[str, bool]
) -> tuple[list[Row], int]:
    """Return users by id, and how many there are without the limit. `flags` are columns that must be true or false."""
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if match is not None:
        conditions.append(
            sql.SQL("strpos(lower(u.username || ' ' || u.email || ' ' || coalesce(p.name, '')), lower(%(match)s)) > 0")
        )
    if course is not None:
        conditions.append(
            sql.SQL(
                "exists (select from portal.student_courseenrollment as e "
                "where e.user_id = u.id and e.course_id = %(course)s)"
            )
        )
    for name, wanted in flags.items():
        conditions.append(sql.SQL("u.{} = {}").format(sql.Identifier(name), sql.Literal(wanted)))
    where = sql.SQL(" and ").join(conditions)
    parameters = {"match": match, "course": course, "limit": limit}
    found = conn.execute(sql.SQL(USERS).format(where=where), parameters).fetchall()
    if limit is None or len(found) < limit:
        return found, len(found)
    counted = sql.SQL(
        "select count(*) as n from portal.auth_user as u "
        "left join portal.auth_userprofile as p on p.user_id = u.id where {}"
    ).format(where)
    total = conn.execute(counted, parameters).fetchone()
    return found, total["n"] if total else len(found)


def user_report(conn: Conn, user_id: int) -> Row:
    """Return everything known of a user: account, profile (None: none), enrollments, copies by course."""
    return {
        "account": one(conn, ACCOUNT, [user_id]),
        "profile": conn.execute(PROFILE, [user_id]).fetchone(),
        "enrollments": conn.execute(ENROLLMENTS_OF, [user_id]).fetchall(),
        "copies": conn.execute(COPIES, [user_id]).fetchall(),
    }


def create_user(conn: Conn, values: Row) -> Row:
    """Make an account: user, profile and activation key, all or nothing. The password is unusable."""
    return one(conn, CREATE_USER, values)  # type: ignore[arg-type]


def update_user(conn: Conn, user_id: int, values: Row) -> list[Row]:
    """Set columns of user or profile and return what changed: field, before, after. No change writes nothing."""
    changes: list[Row] = []
    for table, key, fields in (
        ("auth_user", "id", USER_FIELDS),
        ("auth_userprofile", "user_id", PROFILE_FIELDS),
    ):
        wanted = {name: value for name, value in values.items() if name in fields}
        if not wanted:
            continue
        place = {"table": sql.Identifier("portal", table), "key": sql.Identifier(key)}
        before = conn.execute(
            sql.SQL("select * from {table} where {key} = %s for no key update").format(**place), [user_id]
        )
        old = before.fetchone()
        if old is None:
            raise RefusedError("this user has no profile", fix="insert one into portal.auth_userprofile")
        changed = {name: value for name, value in wanted.items() if old[name] != value}
        if changed:
            sets = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changed)
            statement = sql.SQL("update {table} set {sets} where {key} = %s").format(sets=sets, **place)
            conn.execute(statement, [*changed.values(), user_id])
        changes += [{"field": name, "before": old[name], "after": value} for name, value in changed.items()]
    return changes


def count_users(conn: Conn, by: str | None) -> list[Row]:
    """Return users and active users: all, or by course or by month of joining (UTC)."""
    return conn.execute(COUNT_USERS[by or ""]).fetchall()


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
insert into rollbook.verification as v (course_id, verified_at, verdict, differing_rows)
values (%(course)s, %(at)s, %(verdict)s, %(rows)s)
on conflict (course_id) do update
set verified_at = excluded.verified_at, verdict = excluded.verdict, differing_rows = excluded.differing_rows
where v.verified_at < excluded.verified_at
"""

REPAIR = """
select course_id as course, table_name as table, inserted, updated, deleted from rollbook.repair(%s)
"""

STATUS = """
select
    s.course_id as course, 'schema ' || s.schema_name as target, 'schema' as kind, s.state,
    0 as lag_bytes, 0 as lag_seconds, 0 as pending_changes, null::int as oldest_pending_seconds, 0 as error_count,
    s.verified_at, s.verdict, s.differing_rows, now() as observed_at
from rollbook.course_status as s
where %(ids)s::text[] is null or s.course_id = any(%(ids)s)
order by case s.state when 'broken' then 0 when 'drifted' then 1 when 'ok' then 9 else 5 end, s.course_id
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


def note_verification(conn: Conn, course_id: str, at: Any, verdict: str, rows: int | None) -> None:  # noqa: ANN401
    """Note what a verify said of a course, unless a later one has spoken."""
    conn.execute(NOTE_VERIFICATION, {"course": course_id, "at": at, "verdict": verdict, "rows": rows})


def repair(conn: Conn, course_id: str) -> list[Row]:
    """Make one course equal to the portal; return the rows written by table."""
    return conn.execute(REPAIR, [course_id]).fetchall()


def status(conn: Conn, course_ids: list[str] | None) -> list[Row]:
    """Return the state of each course, the worst first. Lag in bytes and seconds; 0 for copies in this database."""
    return conn.execute(STATUS, {"ids": course_ids}).fetchall()


def portal(conn: Conn) -> Row:
    """Return the portal in numbers."""
    return one(conn, PORTAL)


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
