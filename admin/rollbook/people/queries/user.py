"""Accounts: user, profile and activation key."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, LiteralString, TypedDict

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.referring import deleting, with_ids
from rollbook.core.rows import Row, one
from rollbook.people.fields import PROFILE_FIELDS, USER_FIELDS, names
from rollbook.people.queries.field_sql import each
from rollbook.people.queries.time_axis import UNITS, axis

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.since import Period


class Change(TypedDict):
    """A column that was changed."""

    field: str
    before: Any
    after: Any


class Belongings(TypedDict):
    """Rows that a deletion takes along; `course` None: in the portal."""

    course: str | None
    table: str
    rows: int


KEPT_IN_META = ("old_names", "old_emails")  # a new meta does not remove the history

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

USERS_TOTAL = """
select count(*) as n
from portal.auth_user as u left join portal.auth_userprofile as p on p.user_id = u.id
where {where}
"""

CONDITIONS: dict[str, LiteralString] = {
    "match": "strpos(lower(u.username || ' ' || u.email || ' ' || coalesce(p.name, '')), lower(%(match)s)) > 0",
    "course": """
        exists (
            select from portal.student_courseenrollment as e where e.user_id = u.id and e.course_id = %(course)s
        )
        """,
    "group": """
        exists (
            select from portal.student_usertestgroup_users as m
            inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id
            where m.user_id = u.id and g.name = %(group)s
        )
        """,
    "pending": """
        %(pending)s = (
            exists (select from portal.student_pendingnamechange as c where c.user_id = u.id)
            or exists (select from portal.student_pendingemailchange as c where c.user_id = u.id)
        )
        """,
    "is_active": "u.is_active = %(is_active)s",
    "is_staff": "u.is_staff = %(is_staff)s",
    "is_superuser": "u.is_superuser = %(is_superuser)s",
    "since": "u.date_joined >= %(since)s",
    "until": "u.date_joined < %(until)s",
}

# The kind of the hash, never the hash.
ACCOUNT = """
select
    id, username, first_name, last_name, email, is_active, is_staff, is_superuser, last_login, date_joined,
    rollbook.password_kind(id) as password
from portal.auth_user where id = %s
"""

PROFILE = sql.SQL("select {fields}, meta from portal.auth_userprofile where user_id = %s").format(
    fields=each(PROFILE_FIELDS, "{name}")
)

REGISTRATION = """
select state, created_at, expires_at, activated_at from rollbook.registration_status where user_id = %s
"""

PENDING_CHANGES = """
select 'email' as field, old_email as old, new_email as new, requested_at, expires_at, conflict
from rollbook.email_change_status where user_id = %(id)s
union all
select 'name', old_name, new_name, requested_at, null, null
from rollbook.name_change_status where user_id = %(id)s and state = 'pending'
"""

GROUPS = """
select g.name, g.description
from portal.student_usertestgroup_users as m inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id
where m.user_id = %s order by g.name
"""

ENROLLMENTS = """
select course_id as course, created, replicated from rollbook.enrollment_status where user_id = %s order by course_id
"""

TEST_CENTRE = """
select client_candidate_id, progress as state, uploaded_at as sent_at, confirmed_at, upload_error_message as error
from rollbook.candidate_status where user_id = %s
"""

BUNDLES = """
select source, sourced_id, origin, is_living, at from rollbook.roster_person
where user_id = %s order by source, sourced_id
"""

EXAMS = """
select
    client_authorization_id, course_id as course, exam_series_code as exam,
    eligibility_appointment_date_first as first, eligibility_appointment_date_last as last, progress as state
from rollbook.authorization_status where user_id = %s order by id
"""

CREATE = sql.SQL("""
with account as (
    insert into portal.auth_user (username, email, is_active, password, {user_fields})
    values (%(username)s, %(email)s, %(is_active)s, %(password)s, {user_values})
    returning id, username, email, is_active
),
profile as (
    insert into portal.auth_userprofile (user_id, meta, {profile_fields})
    select id, %(meta)s, {profile_values} from account
),
registration as (
    insert into portal.auth_registration (user_id, activation_key, activated_at)
    select id, %(activation_key)s, case when is_active then now() end from account
)
select id, username, email, is_active, 'created' as outcome from account
""").format(
    user_fields=each(USER_FIELDS, "{name}"), user_values=each(USER_FIELDS, "{value}"),
    profile_fields=each(PROFILE_FIELDS, "{name}"), profile_values=each(PROFILE_FIELDS, "{value}"),
)  # fmt: skip

# The key of an active account is not needed any more; a blocked account must not be opened with its key.
ACTIVATE = """
with active as (
    update portal.auth_user set is_active = true where id = any(%(ids)s) and not is_active returning id
),
spent as (
    update portal.auth_registration as r set activated_at = now()
    from active as a where r.user_id = a.id and r.activated_at is null
)
select id from active
"""

DEACTIVATE = """
with blocked as (
    update portal.auth_user set is_active = false where id = any(%(ids)s) and is_active returning id
),
dead as (
    update portal.auth_registration as r set expires_at = now()
    from blocked as b where r.user_id = b.id and r.activated_at is null and r.expires_at > now()
)
select id from blocked
"""

AUTO_ENROLL = "select user_id, course_id from rollbook.auto_enroll_users(%s::bigint[])"

AUTO_ENROLLED = """
insert into pg_temp.written (kind, object, outcome, user_id, course_id, after)
select 'enrollment', u.username, 'created', e.user_id, e.course_id, jsonb_build_object('id', e.id)
from unnest(%s::bigint[], %s::text[]) as a (user_id, course_id)
inner join portal.student_courseenrollment as e on e.user_id = a.user_id and e.course_id = a.course_id
inner join portal.auth_user as u on u.id = e.user_id
"""

COUNT: dict[str, LiteralString] = {
    "": """
        select count(*) as users, count(*) filter (where is_active) as active from portal.auth_user
        where (%(since)s::timestamptz is null or date_joined >= %(since)s)
            and (%(until)s::timestamptz is null or date_joined < %(until)s)
        """,
    "course": """
        select e.course_id as key, count(*) as users, count(*) filter (where u.is_active) as active
        from portal.student_courseenrollment as e inner join portal.auth_user as u on u.id = e.user_id
        where (%(since)s::timestamptz is null or u.date_joined >= %(since)s)
            and (%(until)s::timestamptz is null or u.date_joined < %(until)s)
        group by 1 order by 2 desc, 1
        """,
    "country": """
        select t.country as key, count(*) as users, count(*) filter (where u.is_active) as active
        from portal.student_testcenteruser as t inner join portal.auth_user as u on u.id = t.user_id
        where (%(since)s::timestamptz is null or u.date_joined >= %(since)s)
            and (%(until)s::timestamptz is null or u.date_joined < %(until)s)
        group by 1 order by 2 desc, 1
        """,
}
JOINED_AT = "select date_joined as at, is_active from portal.auth_user"

# What goes with a user: the foreign keys that cascade, one level and two, and the copies.
BELONGINGS = """
with portal_rows (position, name, rows) as (
    select 1, 'auth_user', count(*) from portal.auth_user where id = %(id)s
    union all
    select 2, 'auth_userprofile', count(*) from portal.auth_userprofile where user_id = %(id)s
    union all
    select 3, 'auth_registration', count(*) from portal.auth_registration where user_id = %(id)s
    union all
    select 4, 'student_courseenrollment', count(*) from portal.student_courseenrollment where user_id = %(id)s
    union all
    select 5, 'student_usertestgroup_users', count(*) from portal.student_usertestgroup_users where user_id = %(id)s
    union all
    select 6, 'student_pendingnamechange', count(*) from portal.student_pendingnamechange where user_id = %(id)s
    union all
    select 7, 'student_pendingemailchange', count(*) from portal.student_pendingemailchange where user_id = %(id)s
    union all
    select 8, 'student_testcenteruser', count(*) from portal.student_testcenteruser where user_id = %(id)s
    union all
    select 9, 'student_testcenterregistration', count(*)
    from portal.student_testcenterregistration as r
    inner join portal.student_testcenteruser as t on t.id = r.testcenter_user_id
    where t.user_id = %(id)s
    union all
    select 10, 'name_decision', count(*) from rollbook.name_decision where user_id = %(id)s
    union all
    select 11, 'roster_person', count(*) from rollbook.roster_person where user_id = %(id)s
),
copies as (
    select c.course_id, held.position, held.name
    from rollbook.user_copies(%(id)s) as c
    cross join lateral (
        values (1, 'auth_user', c.user_copy), (2, 'auth_userprofile', c.profile_copy),
            (3, 'student_courseenrollment', c.enrollment_copy)
    ) as held (position, name, state)
    where held.state not in ('missing', 'none')
)
select course, "table", rows
from (
    select null as course, name as "table", rows, position from portal_rows where rows > 0
    union all
    select course_id, name, 1, position from copies
) as found
order by course nulls first, position
"""


def listed(conn: Conn, limit: int | None, filters: Row) -> tuple[list[Row], int]:
    """Return users by id, and the total without the limit. `filters` are of CONDITIONS; None does not filter."""
    parts = [sql.SQL(CONDITIONS[name]) for name, wanted in filters.items() if wanted is not None]
    where = sql.SQL(" and ").join([sql.SQL("true"), *parts])
    found = conn.execute(sql.SQL(USERS).format(where=where), filters | {"limit": limit}).fetchall()
    if limit is None or len(found) < limit:
        return found, len(found)
    total = conn.execute(sql.SQL(USERS_TOTAL).format(where=where), filters).fetchone()
    return found, total["n"] if total else len(found)


def known_group(conn: Conn, name: str) -> None:
    """Raise RefusedError unless there is a group of this name."""
    if not one(conn, "select exists (select from portal.student_usertestgroup where name = %s) as yes", [name])["yes"]:
        raise RefusedError(f"there is no group {name}", fix="rollbook group list")


def report(conn: Conn, user_id: int) -> Row:
    """Return what the portal knows of a user, without a secret and its copies. No profile or registration: None."""
    return {
        "account": account(conn, user_id),
        "profile": conn.execute(PROFILE, [user_id]).fetchone(),
        "registration": conn.execute(REGISTRATION, [user_id]).fetchone(),
        "pending_changes": conn.execute(PENDING_CHANGES, {"id": user_id}).fetchall(),
        "groups": conn.execute(GROUPS, [user_id]).fetchall(),
        "enrollments": conn.execute(ENROLLMENTS, [user_id]).fetchall(),
        "test_centre": conn.execute(TEST_CENTRE, [user_id]).fetchone(),
        "exams": conn.execute(EXAMS, [user_id]).fetchall(),
        "bundles": bundles(conn, user_id),
    }


def bundles(conn: Conn, user_id: int) -> list[Row]:
    """Return the persons of bundles that are linked to a user: source sourced_id origin at. A monitor may not."""
    if not one(conn, "select has_table_privilege('rollbook.roster_person', 'select') as may")["may"]:
        return []
    return conn.execute(BUNDLES, [user_id]).fetchall()


def account(conn: Conn, user_id: int) -> Row:
    """Return the account; of the password only its kind."""
    return one(conn, ACCOUNT, [user_id])


def create(conn: Conn, values: Row) -> Row:
    """Create an account: user, profile and activation key; the key of an active one is marked as used.

    `values` has each field, username, email, is_active, meta (text), and the secrets password and activation_key.
    """
    return one(conn, CREATE, values)  # type: ignore[arg-type]


def update(conn: Conn, user_id: int, values: Row, rationale: str) -> list[Change]:
    """Set fields of user and profile and return what changed. No change writes nothing.

    A new address and a new name leave the old one in the profile's meta, with `rationale` for the name.
    """
    user_fields = ("username", *names(USER_FIELDS))
    profile_fields = [name for name in names(PROFILE_FIELDS) if name != "name"]
    changes = set_columns(conn, "auth_user", "id", user_id, {k: v for k, v in values.items() if k in user_fields})
    place = sql.Identifier("portal", "auth_user")
    if "email" in values:
        old = one(conn, sql.SQL("select email from {} where id = %s for no key update").format(place), [user_id])
        if one(conn, "select rollbook.change_email(%s, %s) as done", [user_id, values["email"]])["done"]:
            changes.append(Change(field="email", before=old["email"], after=values["email"]))
    if "meta" in values:
        changes += set_meta(conn, user_id, values["meta"])
    if "name" in values:
        before = locked(conn, "auth_userprofile", "user_id", user_id)
        call = "select rollbook.change_name(%s, %s, %s) as done"
        if one(conn, call, [user_id, values["name"], rationale])["done"]:
            changes.append(Change(field="name", before=before["name"], after=values["name"]))
    profile = {k: v for k, v in values.items() if k in profile_fields}
    return changes + set_columns(conn, "auth_userprofile", "user_id", user_id, profile)


def locked(conn: Conn, table: str, key: str, user_id: int) -> Row:
    """Return a row of a user, locked. Raises RefusedError where there is none."""
    statement = sql.SQL("select * from {} where {} = %s for no key update")
    row = conn.execute(statement.format(sql.Identifier("portal", table), sql.Identifier(key)), [user_id]).fetchone()
    if row is None:
        raise RefusedError("this user has no profile", fix="insert one into portal.auth_userprofile")
    return row


def set_columns(conn: Conn, table: str, key: str, user_id: int, wanted: Row) -> list[Change]:
    """Set columns of one row and return what changed."""
    if not wanted:
        return []
    old = locked(conn, table, key, user_id)
    changed = {name: value for name, value in wanted.items() if name not in old or old[name] != value}
    if changed:  # PostgreSQL refuses a column that is gone
        sets = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changed)
        statement = sql.SQL("update {} set {} where {} = %s")
        place = sql.Identifier("portal", table)
        conn.execute(statement.format(place, sets, sql.Identifier(key)), [*changed.values(), user_id])
    return [Change(field=name, before=old[name], after=value) for name, value in changed.items()]


def set_meta(conn: Conn, user_id: int, wanted: Row) -> list[Change]:
    """Set the profile's meta, which keeps the old names and addresses; return what changed."""
    old = locked(conn, "auth_userprofile", "user_id", user_id)["meta"]
    before = json.loads(old or "{}")
    content = wanted | {name: before[name] for name in KEPT_IN_META if name in before and name not in wanted}
    if json.dumps(content, sort_keys=True) == json.dumps(before, sort_keys=True):
        return []
    text = json.dumps(content, ensure_ascii=False) if content else ""
    return set_columns(conn, "auth_userprofile", "user_id", user_id, {"meta": text})


def activate(conn: Conn, user_ids: list[int]) -> tuple[set[int], dict[int, int]]:
    """Activate accounts, mark their keys as used, and enroll those that became active where their address is allowed.

    Return the users that became active, and the number of new enrollments of each.
    """
    lock(conn, user_ids)
    active = {row["id"] for row in conn.execute(ACTIVATE, {"ids": user_ids})}
    return active, dict.fromkeys(active, 0) | auto_enroll(conn, sorted(active))


def auto_enroll(conn: Conn, user_ids: list[int]) -> dict[int, int]:
    """Enroll users where their addresses are allowed with auto_enroll; return the number of new enrollments by user.

    Each is recorded in pg_temp.written.
    """
    found = conn.execute(AUTO_ENROLL, [user_ids]).fetchall()
    conn.execute(AUTO_ENROLLED, [[row["user_id"] for row in found], [row["course_id"] for row in found]])
    return Counter(row["user_id"] for row in found)


def deactivate(conn: Conn, user_ids: list[int]) -> set[int]:
    """Block accounts and let their unused keys expire; return the users that were active."""
    lock(conn, user_ids)
    return {row["id"] for row in conn.execute(DEACTIVATE, {"ids": user_ids})}


def lock(conn: Conn, user_ids: list[int]) -> None:
    """Lock rows of users in the order of their ids, as everybody does."""
    conn.execute("select from portal.auth_user where id = any(%s) order by id for no key update", [user_ids])


def set_flags(conn: Conn, user_ids: list[int], flags: Row) -> dict[int, list[Change]]:
    """Set is_staff and is_superuser; return what changed, by user."""
    lock(conn, user_ids)
    return {user_id: set_columns(conn, "auth_user", "id", user_id, flags) for user_id in sorted(user_ids)}


def password(conn: Conn, user_id: int) -> str:
    """Return the stored hash, a secret: to compare with, never to show."""
    return str(one(conn, "select password from portal.auth_user where id = %s", [user_id])["password"])


def set_password(conn: Conn, user_id: int, stored: str) -> None:
    """Set the hash."""
    conn.execute("update portal.auth_user set password = %s where id = %s", [stored, user_id])


def belongings(conn: Conn, user_id: int) -> list[Belongings]:
    """Return what a deletion takes along, the portal first."""
    found = conn.execute(BELONGINGS, {"id": user_id})
    return [Belongings(course=row["course"], table=row["table"], rows=row["rows"]) for row in found]


def delete(conn: Conn, user_id: int) -> None:
    """Delete a user with all that belongs to it.

    Raises RefusedError: 23R04 if a course refuses to delete a copy; if other tables of the database refer to the user.
    """
    with deleting(conn, "this user", "auth_user", with_ids([user_id])):
        conn.execute("delete from portal.auth_user where id = %s", [user_id])


def count(conn: Conn, by: str | None, period: Period) -> list[Row]:
    """Return how many users joined in a period, and how many of them are active.

    All, or by course, by country of the candidate record, or by day, week or month of joining (UTC).
    """
    if by in UNITS:
        query = axis(by, JOINED_AT, users="count(*)", active="count(*) filter (where c.is_active)")
        return conn.execute(query, {**period}).fetchall()
    return conn.execute(COUNT[by or ""], {**period}).fetchall()
