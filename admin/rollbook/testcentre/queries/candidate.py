"""Candidates for the test centre: one at a time, and in bulk from pg_temp.staged. The rules are SQL functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, as_json, one
from rollbook.core.shell import quoted
from rollbook.core.users import User
from rollbook.people.queries.names import find_hits, find_repeated_users
from rollbook.people.queries.user import Change, set_columns
from rollbook.testcentre.exchange_file import FIELD_NAMES

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COLUMNS = ("user", *FIELD_NAMES)
NAMES = sql.SQL(", ").join(map(sql.Identifier, FIELD_NAMES))
TABLE = "student_testcenteruser"

LISTED = """
select
    c.client_candidate_id, c.username, c.name, c.country, c.progress as state, c.uploaded_at as sent_at, c.confirmed_at,
    c.upload_error_message as error, count(*) over () as total
from rollbook.candidate_status as c
where (%(state)s::text is null or c.progress = %(state)s)
    and (%(since)s::timestamptz is null or c.uploaded_at >= %(since)s)
    and (%(until)s::timestamptz is null or c.uploaded_at < %(until)s)
    and (
        %(match)s::text is null or strpos(
            lower(concat_ws(' ', c.client_candidate_id, c.username, c.email, c.name, c.first_name, c.last_name)),
            lower(%(match)s)
        ) > 0
    )
order by c.id
limit %(limit)s
"""

SHOWN = """
select
    client_candidate_id, username, email, candidate_id, progress as state, demographics_status, upload_error_message,
    uploaded_at, processed_at, confirmed_at, created_at, updated_at, user_updated_at
from rollbook.candidate_status where user_id = %s
"""

AUTHORIZATIONS = """
select client_authorization_id, course_id as course, exam_series_code as exam, progress as state, status
from rollbook.authorization_status where user_id = %s order by id
"""

HISTORY = """
select f.id as batch, f.at, f.name as file, r.outcome, r.status, r.message
from rollbook.exchange_row as r inner join rollbook.exchange_file as f on f.id = r.file_id
where r.key = %s
order by f.id, r.line
"""

CHECK = """
select f.candidate, f.username, f.authorization_id as authorization, f.field, f.problem
from (
    select s.client_candidate_id as candidate, s.username, null as authorization_id, p.place, p.field, p.problem, s.id
    from rollbook.candidate_status as s
    cross join lateral rollbook.candidate_faults(to_jsonb(s)) with ordinality as p (field, problem, place)
    union all
    select s.client_candidate_id, s.username, s.client_authorization_id, p.place, p.field, p.problem,
        s.testcenter_user_id
    from rollbook.authorization_status as s
    cross join lateral rollbook.authorization_faults(to_jsonb(s)) with ordinality as p (field, problem, place)
    where s.cancelled_at is null or (s.needs_uploading and p.field = 'client_authorization_id')
) as f
order by f.id, f.authorization_id nulls first, f.place
"""

# The users of the rows, with the record that would be stored: the given fields over the stored ones, or over the draft
# from the account for a new candidate. A blank field keeps a value, \\N empties it.
TARGET = r"""
create temporary table target on commit drop as
select
    s.line, h.user_id, c.id as candidate_id, u.username, u.email, n.old, n.record,
    n.record is distinct from n.old as is_changed
from pg_temp.staged as s
inner join pg_temp.hit as h on h.line = s.line
inner join portal.auth_user as u on u.id = h.user_id
left join portal.student_testcenteruser as c on c.user_id = h.user_id
cross join lateral (
    select o.old, rollbook.trimmed_record(o.old || coalesce(g.given, '{}')) as record
    from (
        select case when c.id is null then rollbook.candidate_draft(u.id) else o.old end as old
        from (
            select jsonb_object_agg(f.key, f.value) as old from jsonb_each(to_jsonb(c)) as f
            where f.key = any(%(fields)s)
        ) as o
    ) as o
    cross join (
        select jsonb_object_agg(f.key, case when f.value = '\N' then '' else f.value end) as given
        from jsonb_each_text(to_jsonb(s)) as f
        where f.key = any(%(fields)s) and f.value is not null
    ) as g
) as n
where not exists (select from pg_temp.problem as p where p.line = s.line)
"""

# The candidates that will be written, in id order, so that they do not change after they were checked.
LOCK = """
select from portal.student_testcenteruser as c
where c.user_id in (select h.user_id from pg_temp.hit as h) order by c.id for no key update
"""

WRONG = """
insert into pg_temp.problem (line, column_name, value, reason)
select t.line, f.field, t.record ->> f.field, f.problem
from pg_temp.target as t
cross join lateral rollbook.candidate_faults(t.record || jsonb_build_object('email', t.email)) as f
where t.is_changed or t.candidate_id is null
"""

APPLY = sql.SQL("""
with wanted as (
    select t.line, t.user_id, t.candidate_id, t.username, t.is_changed, t.old, t.record, n.*
    from pg_temp.target as t
    inner join pg_temp.staged as s on s.line = t.line
    cross join lateral jsonb_to_record(t.record) as n ({typed})
),
made as (
    insert into portal.student_testcenteruser (user_id, {names})
    select w.user_id, {filled} from wanted as w where w.candidate_id is null order by w.user_id
    returning user_id, client_candidate_id
),
changed as (
    update portal.student_testcenteruser as c set ({names}) = row({news})
    from wanted as w where c.id = w.candidate_id and w.is_changed
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, before, after)
    select
        'candidate', w.username, 'created', w.user_id, null, (
            select jsonb_object_agg(f.key, f.value) from jsonb_each(w.record) as f where f.value <> '""'
        ) || jsonb_build_object('client_candidate_id', m.client_candidate_id)
    from made as m inner join wanted as w on w.user_id = m.user_id
    union all
    select 'candidate', w.username, 'changed', w.user_id, d.before, d.after
    from wanted as w
    cross join lateral (
        select jsonb_object_agg(f.key, f.value) as after, jsonb_object_agg(f.key, w.old -> f.key) as before
        from jsonb_each(w.record) as f where f.value is distinct from w.old -> f.key
    ) as d
    where w.candidate_id is not null and w.is_changed
)
insert into pg_temp.outcome (line, outcome)
select w.line, case when w.candidate_id is null then 'created' when w.is_changed then 'changed' else 'unchanged' end
from wanted as w
""").format(
    names=NAMES,
    typed=sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in FIELD_NAMES),
    filled=sql.SQL(", ").join(sql.SQL("coalesce({}, '')").format(sql.Identifier("w", name)) for name in FIELD_NAMES),
    news=sql.SQL(", ").join(sql.Identifier("w", name) for name in FIELD_NAMES),
)

EXPORT = sql.SQL("""
select c.username as "user", {names} from rollbook.candidate_status as c
where (%(state)s::text is null or c.progress = %(state)s)
    and (
        %(match)s::text is null or strpos(
            lower(concat_ws(' ', c.client_candidate_id, c.username, c.email, c.name, c.first_name, c.last_name)),
            lower(%(match)s)
        ) > 0
    )
order by c.id
limit %(limit)s
""").format(names=sql.SQL(", ").join(sql.Identifier("c", name) for name in FIELD_NAMES))


@dataclass(frozen=True)
class Created:
    """A new candidate: our id, the fields as stored, and the names of those that came from the account."""

    client_candidate_id: str
    record: dict[str, str]
    from_account: list[str]


def listed(conn: Conn, limit: int | None, filters: Row) -> tuple[list[Row], int]:
    """Return candidates by id, and how many there are without the limit. `filters`: state, match."""
    found = conn.execute(LISTED, filters | {"limit": limit}).fetchall()
    return found, found[0]["total"] if found else 0


def report(conn: Conn, user: User) -> Row:
    """Return a candidate: state, record, authorizations, files. Raises RefusedError if the user is not a candidate."""
    shown = conn.execute(SHOWN, [user["id"]]).fetchone()
    fields = demographics(conn, user["id"])
    if shown is None or fields is None:
        raise not_a_candidate(user["username"])
    return {
        "candidate": shown,
        "demographics": fields,
        "authorizations": conn.execute(AUTHORIZATIONS, [user["id"]]).fetchall(),
        "files": conn.execute(HISTORY, [shown["client_candidate_id"]]).fetchall(),
    }


def not_a_candidate(username: str) -> RefusedError:
    """Return the error for a user without a record."""
    return RefusedError(f"{username} is not a candidate yet", fix=f"rollbook candidate create {quoted(username)}")


def demographics(conn: Conn, user_id: int) -> Row | None:
    """Return a candidate's fields, None if the user is not a candidate."""
    return conn.execute(
        sql.SQL("select {} from portal.student_testcenteruser where user_id = %s").format(NAMES), [user_id]
    ).fetchone()


def create(conn: Conn, user: User, given: dict[str, str]) -> Created:
    """Make a user a candidate; fields that are not given come from the account.

    Raises RefusedError with all faults, or if the user is a candidate already.
    """
    user_id = user["id"]
    if demographics(conn, user_id) is not None:
        name = user["username"]
        raise RefusedError(f"{name} is a candidate already", fix=f"rollbook candidate update {quoted(name)}")
    draft = one(conn, "select rollbook.candidate_draft(%s) as draft", [user_id])["draft"]
    record = dict.fromkeys(FIELD_NAMES, "") | draft | trimmed(conn, given)
    check(conn, user_id, record)  # before the insert, so that a long value gets this message and not the column's error
    statement = sql.SQL(
        "insert into portal.student_testcenteruser (user_id, {names}) values (%s, {values}) "
        "returning client_candidate_id, {names}"
    ).format(names=NAMES, values=sql.SQL(", ").join([sql.Placeholder()] * len(FIELD_NAMES)))
    stored = one(conn, statement, [user_id, *(record[name] for name in FIELD_NAMES)])
    key = stored.pop("client_candidate_id")
    return Created(key, stored, [name for name in FIELD_NAMES if name in draft and name not in given])


def trimmed(conn: Conn, given: Row) -> Row:
    """Return fields as they are stored."""
    record: Row = one(conn, "select rollbook.trimmed_record(%s) as record", [as_json(given)])["record"]
    return record


def check(conn: Conn, user_id: int, record: Row) -> None:
    """Raise RefusedError with all faults of a record."""
    faults = conn.execute(
        "select f.field, f.problem from rollbook.candidate_faults(%s || jsonb_build_object('email', "
        "(select u.email from portal.auth_user as u where u.id = %s))) as f", [as_json(record), user_id],
    ).fetchall()  # fmt: skip
    if faults:
        raise faulty("the candidate's record", faults)


def faulty(what: str, faults: list[Row]) -> RefusedError:
    """Return the error that lists all faults of a record, a line each."""
    why = "\n".join(f"{row['field']}: {row['problem']}" for row in faults)
    return RefusedError(
        f"{what} cannot be sent to the test centre", why=why, fix="correct these fields", problems=faults
    )


def update(conn: Conn, user_id: int, given: Row) -> list[Change]:
    """Set fields of a candidate; return the changes: field before after. Without a change nothing is written.

    Raises RefusedError with all faults.
    """
    old = demographics(conn, user_id)
    wanted = trimmed(conn, given)
    if any((old or {})[name] != value for name, value in wanted.items()):
        check(conn, user_id, (old or {}) | wanted)
    return set_columns(conn, TABLE, "user_id", user_id, wanted)


def faults(conn: Conn) -> list[Row]:
    """Return all faults of stored records: candidate username authorization field problem."""
    return conn.execute(CHECK).fetchall()


def find_wrong(conn: Conn) -> None:
    """Record the faults of the staged candidates in pg_temp.problem."""
    find_hits(conn)
    conn.execute(LOCK)
    find_repeated_users(conn)
    conn.execute(TARGET, {"fields": list(FIELD_NAMES)})
    conn.execute(WRONG)


def apply(conn: Conn) -> None:
    """Create and change the staged candidates; record the outcome of each in pg_temp.outcome."""
    conn.execute(APPLY)


def export(conn: Conn, *, state: str | None, match: str | None, limit: int | None) -> list[Row]:
    """Return candidates as an import reads them, by id."""
    return conn.execute(EXPORT, {"state": state, "match": match, "limit": limit}).fetchall()
