"""Candidates for the test centre: one at a time, and in bulk from pg_temp.staged. The rules are the database's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, as_json, one
from rollbook.people.queries.enrollment import find_hits, find_seconds
from rollbook.people.queries.user import set_columns

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# What the user provides, in the order of the form.
FIELDS = (
    "first_name", "middle_name", "last_name", "suffix", "salutation", "address_1", "address_2", "address_3", "city",
    "state", "postal_code", "country", "phone", "extension", "phone_country_code", "fax", "fax_country_code",
    "company_name",
)  # fmt: skip
COLUMNS = ("user", *FIELDS)
TABLE = "student_testcenteruser"

LISTED = """
select
    c.client_candidate_id, c.username, c.name, c.country, c.progress as state, c.uploaded_at as sent_at, c.confirmed_at,
    c.upload_error_message as error, count(*) over () as total
from rollbook.candidate_status as c
where (%(state)s::text is null or c.progress = %(state)s)
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
    where s.cancelled_at is null
) as f
order by f.id, f.authorization_id nulls first, f.place
"""

# Whom the rows mean, with the record that would be stored: what is given over what stands there, or over what the
# account says of a new one. A blank leaves alone, \\N empties.
TARGET = r"""
create temporary table target on commit drop as
select s.line, h.user_id, c.id as candidate_id, u.email, n.record, n.record is distinct from n.old as is_changed
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

# Whose candidates are written, in the order of ids, so that what is found of them stays so.
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
    select t.line, t.user_id, t.candidate_id, t.is_changed, n.*
    from pg_temp.target as t
    inner join pg_temp.staged as s on s.line = t.line
    cross join lateral jsonb_to_record(t.record) as n ({typed})
),
made as (
    insert into portal.student_testcenteruser (user_id, {names})
    select w.user_id, {filled} from wanted as w where w.candidate_id is null order by w.user_id
),
changed as (
    update portal.student_testcenteruser as c set ({names}) = row({news})
    from wanted as w where c.id = w.candidate_id and w.is_changed
)
insert into pg_temp.outcome (line, outcome)
select w.line, case when w.candidate_id is null then 'created' when w.is_changed then 'changed' else 'unchanged' end
from wanted as w
""").format(
    names=sql.SQL(", ").join(map(sql.Identifier, FIELDS)),
    typed=sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in FIELDS),
    filled=sql.SQL(", ").join(sql.SQL("coalesce({}, '')").format(sql.Identifier("w", name)) for name in FIELDS),
    news=sql.SQL(", ").join(sql.Identifier("w", name) for name in FIELDS),
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
""").format(names=sql.SQL(", ").join(sql.Identifier("c", name) for name in FIELDS))


def listed(conn: Conn, limit: int | None, filters: Row) -> tuple[list[Row], int]:
    """Return candidates by id, and how many there are without the limit. `filters`: state, match."""
    found = conn.execute(LISTED, filters | {"limit": limit}).fetchall()
    return found, found[0]["total"] if found else 0


def report(conn: Conn, user: Row) -> Row:
    """Return all of a user's record: state, demographics, exams, files. Raises RefusedError where there is none."""
    shown = conn.execute(SHOWN, [user["id"]]).fetchone()
    fields = demographics(conn, user["id"])
    if shown is None or fields is None:
        raise no_candidate(user["username"])
    return {
        "candidate": shown,
        "demographics": fields,
        "authorizations": conn.execute(AUTHORIZATIONS, [user["id"]]).fetchall(),
        "files": conn.execute(HISTORY, [shown["client_candidate_id"]]).fetchall(),
    }


def no_candidate(username: str) -> RefusedError:
    """Return the error for a user without a record."""
    return RefusedError(
        f"{username} has no demographics record: is no candidate yet", fix=f"rollbook candidate create {username}"
    )


def demographics(conn: Conn, user_id: int) -> Row | None:
    """Return what a user has provided; None: is no candidate."""
    names = sql.SQL(", ").join(map(sql.Identifier, FIELDS))
    return conn.execute(
        sql.SQL("select {} from portal.student_testcenteruser where user_id = %s").format(names), [user_id]
    ).fetchone()


def create(conn: Conn, user: Row, given: Row) -> tuple[Row, list[str]]:
    """Make a user a candidate; return the record as stored, and which fields the account has filled.

    Raises RefusedError with all that is wrong, and for who is one already.
    """
    user_id = user["id"]
    if demographics(conn, user_id) is not None:
        name = user["username"]
        raise RefusedError(f"{name} is a candidate already", fix=f"rollbook candidate update {name}")
    draft = one(conn, "select rollbook.candidate_draft(%s) as draft", [user_id])["draft"]
    record = dict.fromkeys(FIELDS, "") | draft | given
    check(conn, user_id, record)  # a value that is too long meets our rule, not the column's
    names = sql.SQL(", ").join(map(sql.Identifier, FIELDS))
    statement = sql.SQL(
        "insert into portal.student_testcenteruser (user_id, {names}) values (%s, {values}) "
        "returning client_candidate_id, {names}"
    ).format(names=names, values=sql.SQL(", ").join([sql.Placeholder()] * len(FIELDS)))
    made = one(conn, statement, [user_id, *(record[name] for name in FIELDS)])
    return made, [name for name in FIELDS if name in draft and name not in given]


def check(conn: Conn, user_id: int, record: Row) -> None:
    """Raise RefusedError with all that is wrong with a record."""
    faults = conn.execute(
        "select f.field, f.problem from rollbook.candidate_faults(%s || jsonb_build_object('email', "
        "(select u.email from portal.auth_user as u where u.id = %s))) as f", [as_json(record), user_id],
    ).fetchall()  # fmt: skip
    if faults:
        raise faulty("the candidate's record", faults)


def faulty(what: str, faults: list[Row]) -> RefusedError:
    """Return the error that tells all faults of a record, a line each."""
    why = "\n".join(f"{row['field']}: {row['problem']}" for row in faults)
    return RefusedError(
        f"{what} cannot be sent to the test centre", why=why, fix="correct these fields", problems=faults
    )


def update(conn: Conn, user_id: int, given: Row) -> list[Row]:
    """Set fields of a candidate and return what changed: field, before, after. No change writes nothing.

    Raises RefusedError (RB016) with all that is wrong.
    """
    old = demographics(conn, user_id)
    wanted = one(conn, "select rollbook.trimmed_record(%s) as record", [as_json(given)])["record"]
    if any((old or {})[name] != value for name, value in wanted.items()):
        check(conn, user_id, (old or {}) | wanted)
    return set_columns(conn, TABLE, "user_id", user_id, wanted)


def faults(conn: Conn) -> list[Row]:
    """Return all that is wrong with what is stored: candidate username authorization field problem."""
    return conn.execute(CHECK).fetchall()


def find_wrong(conn: Conn) -> None:
    """Note in pg_temp.problem what is wrong with the staged candidates."""
    find_hits(conn)
    conn.execute(LOCK)
    find_seconds(conn)
    conn.execute(TARGET, {"fields": list(FIELDS)})
    conn.execute(WRONG)


def apply(conn: Conn) -> None:
    """Make and change the staged candidates; note in pg_temp.outcome what was done to each."""
    conn.execute(APPLY)


def export(conn: Conn, *, state: str | None, match: str | None, limit: int | None) -> list[Row]:
    """Return candidates as an import reads them."""
    return conn.execute(EXPORT, {"state": state, "match": match, "limit": limit}).fetchall()
