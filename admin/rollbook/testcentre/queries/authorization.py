"""Authorizations to sit an exam: one at a time, and in bulk from pg_temp.staged. The rules are SQL functions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, as_json, one
from rollbook.core.users import User
from rollbook.people.queries.names import find_hits
from rollbook.people.queries.user import Change, set_columns
from rollbook.testcentre.queries.candidate import HISTORY, faulty, not_a_candidate
from rollbook.testcentre.queries.exam import undefined, unknown_course

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn

FIRST, LAST = "eligibility_appointment_date_first", "eligibility_appointment_date_last"
COLUMNS = ("user", "course_id", "exam_series_code", FIRST, LAST, "accommodation_code", "accommodation_request")
TABLE = "student_testcenterregistration"

LISTED = """
select
    a.client_authorization_id, a.username, a.course_id as course, a.exam_series_code as exam,
    a.eligibility_appointment_date_first as first, a.eligibility_appointment_date_last as last,
    lower(a.accommodation_status) as accommodation, a.progress as state, a.uploaded_at as sent_at, a.confirmed_at,
    a.upload_error_message as error, count(*) over () as total
from rollbook.authorization_status as a
where (%(course)s::text is null or a.course_id = %(course)s)
    and (%(exam)s::text is null or a.exam_series_code = %(exam)s)
    and (%(state)s::text is null or a.progress = %(state)s)
    and (
        %(accommodation)s::text is null
        or (lower(a.accommodation_status) = %(accommodation)s and a.cancelled_at is null)
    )
    and (%(since)s::timestamptz is null or a.uploaded_at >= %(since)s)
    and (%(until)s::timestamptz is null or a.uploaded_at < %(until)s)
    and (
        %(match)s::text is null
        or strpos(lower(a.username || ' ' || a.client_authorization_id), lower(%(match)s)) > 0
    )
order by a.id
limit %(limit)s
"""

SHOWN = """
select
    client_authorization_id, username, client_candidate_id, course_id as course, exam_series_code as exam,
    eligibility_appointment_date_first as first, eligibility_appointment_date_last as last,
    accommodation_request, accommodation_code, accommodation_names, accommodation_status, authorization_id,
    progress as state, status, demographics_status, registration_status, upload_error_message, transaction_type,
    uploaded_at, processed_at, confirmed_at, accepted_at, cancelled_at, created_at, updated_at, user_updated_at
from rollbook.authorization_status where client_authorization_id = %s
"""

FOUND = """
select
    a.id, a.client_authorization_id, a.user_id, a.username, a.course_id as course, a.exam_series_code as exam,
    a.cancelled_at is not null as is_cancelled, a.uploaded_at is not null as was_sent,
    a.eligibility_appointment_date_first, a.eligibility_appointment_date_last, a.accommodation_code,
    a.accommodation_request
from rollbook.authorization_status as a
where a.client_authorization_id = any(%(ids)s)
order by array_position(%(ids)s, a.client_authorization_id::text)
"""

# Everything to check before an authorization is created. The exam's definition may be missing.
BASIS = """
select
    c.id as candidate_id,
    (
        select a.client_authorization_id from portal.student_testcenterregistration as a
        where a.testcenter_user_id = c.id and a.course_id = %(course)s and a.exam_series_code = %(exam)s
            and a.cancelled_at is null
    ) as existing,
    exists (
        select from portal.student_courseenrollment as e where e.user_id = %(user)s and e.course_id = %(course)s
    ) as is_enrolled,
    x.is_open, (x.first_appointment at time zone 'UTC')::date as first,
    (x.last_appointment at time zone 'UTC')::date as last
from (select 1) as o
left join portal.student_testcenteruser as c on c.user_id = %(user)s
left join rollbook.exam_status as x on x.course_id = %(course)s and x.exam_series_code = %(exam)s
"""

CREATE = """
insert into portal.student_testcenterregistration (
    testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
    eligibility_appointment_date_last, accommodation_code, accommodation_request
)
values (
    %(candidate_id)s, %(course_id)s, %(exam_series_code)s, %(eligibility_appointment_date_first)s,
    %(eligibility_appointment_date_last)s, %(accommodation_code)s, %(accommodation_request)s
)
returning
    client_authorization_id, course_id as course, exam_series_code as exam,
    eligibility_appointment_date_first as first, eligibility_appointment_date_last as last, accommodation_code
"""

CANCEL = """
update portal.student_testcenterregistration as r
set cancelled_at = now()
from (
    select id from portal.student_testcenterregistration where id = any(%s) and cancelled_at is null
    order by id for no key update
) as t
where r.id = t.id
returning r.id
"""

# --- files ------------------------------------------------------------------------------------------------------------

DATES = f"select distinct d from pg_temp.staged as s, unnest(array[s.{FIRST}, s.{LAST}]) as d where d is not null"  # noqa: S608 (names)

TRIM = """
update pg_temp.staged set course_id = btrim(course_id), exam_series_code = btrim(exam_series_code)
where course_id <> btrim(course_id) or exam_series_code <> btrim(exam_series_code)
"""

WRONG_DATES = """
insert into pg_temp.problem (line, column_name, value, reason)
select s.line, f.name, f.value, 'not a date in the format YYYY-MM-DD'
from pg_temp.staged as s
cross join lateral (
    values ('eligibility_appointment_date_first', s.eligibility_appointment_date_first),
        ('eligibility_appointment_date_last', s.eligibility_appointment_date_last)
) as f (name, value)
where f.value = any(%s) and not exists (
    select from pg_temp.problem as p where p.line = s.line and p.column_name is null
)
"""

LOCK = """
select from portal.student_testcenterregistration as r
inner join portal.student_testcenteruser as c on c.id = r.testcenter_user_id
where c.user_id in (select h.user_id from pg_temp.hit as h) order by r.id for no key update of r
"""

# The given fields over the stored ones, or over the exam's dates for a new authorization. A blank field keeps a value,
# \\N empties it.
TARGET = r"""
create temporary table target on commit drop as
select
    s.line, h.user_id, c.id as candidate_id, r.id as authorization_id, r.client_authorization_id, n.old, n.record,
    n.record is distinct from n.old as is_changed
from pg_temp.staged as s
inner join pg_temp.hit as h on h.line = s.line
left join portal.student_testcenteruser as c on c.user_id = h.user_id
left join portal.student_testcenterregistration as r
    on r.testcenter_user_id = c.id and r.cancelled_at is null
        -- Not `=`: the planner would use the index on the course, and all rows may be of one course.
        and row(r.course_id, r.exam_series_code) is not distinct from row(s.course_id, s.exam_series_code)
left join rollbook.exam as x on x.course_id = s.course_id and x.exam_series_code = s.exam_series_code
cross join lateral (
    select o.old, rollbook.trimmed_record(o.old || coalesce(g.given, '{}')) as record
    from (
        select case
            when r.id is null then jsonb_build_object(
                'eligibility_appointment_date_first', (x.first_appointment at time zone 'UTC')::date,
                'eligibility_appointment_date_last', (x.last_appointment at time zone 'UTC')::date,
                'accommodation_code', '', 'accommodation_request', ''
            )
            else (
                select jsonb_object_agg(f.key, f.value) from jsonb_each(to_jsonb(r)) as f where f.key = any(%(fields)s)
            )
        end as old
    ) as o
    cross join (
        select jsonb_object_agg(f.key, case
            when f.value = '\N' then '' when f.key like '%%date%%' then left(f.value, 10) else f.value
        end) as given
        from jsonb_each_text(to_jsonb(s)) as f
        where f.key = any(%(fields)s) and f.value is not null
    ) as g
) as n
where not exists (select from pg_temp.problem as p where p.line = s.line)
"""

WRONG = """
insert into pg_temp.problem (line, column_name, value, reason)
select t.line, 'user', s."user", 'is not a candidate yet'
from pg_temp.target as t inner join pg_temp.staged as s on s.line = t.line
where t.candidate_id is null
union all
select t.line, f.field, t.record ->> f.field, f.problem
from pg_temp.target as t
cross join lateral rollbook.authorization_faults(t.record) as f
where (t.is_changed or t.authorization_id is null)
    and not (
        f.problem like '% must be specified'
        and exists (select from pg_temp.problem as p where p.line = t.line and p.column_name = 'exam_series_code')
    )
"""

# Without a definition of the exam a row must have the dates.
UNDEFINED = """
insert into pg_temp.problem (line, column_name, value, reason)
select t.line, 'exam_series_code', t.record ->> 'exam_series_code', %(reason)s
from pg_temp.target as t
where t.authorization_id is null and t.candidate_id is not null
    and (t.record ->> 'exam_series_code') <> '' and (t.record ->> 'course_id') <> ''
    and (t.record ->> %(first)s is null or t.record ->> %(last)s is null)
    and not exists (
        select from rollbook.exam as x
        where x.course_id = t.record ->> 'course_id' and x.exam_series_code = t.record ->> 'exam_series_code'
    )
"""

UNDEFINED_NAMES = """
select distinct t.record ->> 'course_id' as course, t.record ->> 'exam_series_code' as exam
from pg_temp.problem as p inner join pg_temp.target as t on t.line = p.line
where p.column_name = 'exam_series_code' and p.reason = %s
limit 100
"""

ADD_HINT = """
update pg_temp.problem as p set reason = p.reason || '; ' || %(hint)s
from pg_temp.target as t
where t.line = p.line and p.column_name = 'exam_series_code' and p.reason = %(reason)s
    and t.record ->> 'course_id' = %(course)s and t.record ->> 'exam_series_code' = %(exam)s
"""

REPEATED = """
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'exam_series_code', d.exam_series_code, format('the same user and exam as on line %s', d.first)
from (
    select s.line, s.exam_series_code,
        min(s.line) over (partition by h.user_id, s.course_id, s.exam_series_code) as first
    from pg_temp.staged as s inner join pg_temp.hit as h on h.line = s.line
) as d
where d.line > d.first and not exists (select from pg_temp.problem as p where p.line = d.line)
"""

APPLY = """
with wanted as (
    select
        t.line, t.user_id, t.candidate_id, t.authorization_id, t.client_authorization_id, t.is_changed, t.old, t.record,
        n.*
    from pg_temp.target as t
    inner join pg_temp.staged as s on s.line = t.line
    cross join lateral jsonb_to_record(t.record) as n (
        course_id text, exam_series_code text, eligibility_appointment_date_first date,
        eligibility_appointment_date_last date, accommodation_code text, accommodation_request text
    )
),
made as (
    insert into portal.student_testcenterregistration (
        testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
        eligibility_appointment_date_last, accommodation_code, accommodation_request
    )
    select
        w.candidate_id, w.course_id, w.exam_series_code, w.eligibility_appointment_date_first,
        w.eligibility_appointment_date_last, w.accommodation_code, w.accommodation_request
    from wanted as w where w.authorization_id is null order by w.line
    returning testcenter_user_id, course_id, exam_series_code, client_authorization_id
),
changed as (
    update portal.student_testcenterregistration as r
    set eligibility_appointment_date_first = w.eligibility_appointment_date_first,
        eligibility_appointment_date_last = w.eligibility_appointment_date_last,
        accommodation_code = w.accommodation_code, accommodation_request = w.accommodation_request
    from wanted as w where r.id = w.authorization_id and w.is_changed
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after)
    select 'authorization', m.client_authorization_id, 'created', w.user_id, m.course_id, null, w.record
    from made as m
    inner join wanted as w
        on w.candidate_id = m.testcenter_user_id and w.course_id = m.course_id
        and w.exam_series_code = m.exam_series_code and w.authorization_id is null
    union all
    select 'authorization', w.client_authorization_id, 'changed', w.user_id, w.course_id, d.before, d.after
    from wanted as w
    cross join lateral (
        select jsonb_object_agg(f.key, f.value) as after, jsonb_object_agg(f.key, w.old -> f.key) as before
        from jsonb_each(w.record) as f where f.value is distinct from w.old -> f.key
    ) as d
    where w.authorization_id is not null and w.is_changed
)
insert into pg_temp.outcome (line, outcome)
select w.line,
    case when w.authorization_id is null then 'created' when w.is_changed then 'changed' else 'unchanged' end
from wanted as w
"""

EXPORT = """
select
    a.username as "user", a.course_id, a.exam_series_code, a.eligibility_appointment_date_first,
    a.eligibility_appointment_date_last, a.accommodation_code, a.accommodation_request
from rollbook.authorization_status as a
where a.cancelled_at is null
    and (%(course)s::text is null or a.course_id = %(course)s)
    and (%(exam)s::text is null or a.exam_series_code = %(exam)s)
    and (
        %(match)s::text is null
        or strpos(lower(a.username || ' ' || a.client_authorization_id), lower(%(match)s)) > 0
    )
order by a.id
limit %(limit)s
"""


@dataclass(frozen=True)
class Authorization:
    """An authorization with the fields that can be changed. `was_sent`: an export has sent it to the test centre."""

    id: int
    client_authorization_id: str
    user_id: int
    username: str
    course: str
    exam: str
    is_cancelled: bool
    was_sent: bool
    eligibility_appointment_date_first: date
    eligibility_appointment_date_last: date
    accommodation_code: str
    accommodation_request: str


def listed(conn: Conn, limit: int | None, filters: Row) -> tuple[list[Row], int]:
    """Return authorizations by id, and how many there are without the limit.

    `filters`: course, exam, state, accommodation, match.
    """
    found = conn.execute(LISTED, filters | {"limit": limit}).fetchall()
    return found, found[0]["total"] if found else 0


def report(conn: Conn, key: str) -> Row:
    """Return an authorization with its states and files. Raises RefusedError for an unknown one."""
    find(conn, [key])
    return {"authorization": one(conn, SHOWN, [key]), "files": conn.execute(HISTORY, [key]).fetchall()}


def find(conn: Conn, keys: Sequence[str]) -> list[Authorization]:
    """Return authorizations by client_authorization_id, each once. Raises RefusedError for an unknown one."""
    with conn.cursor(row_factory=class_row(Authorization)) as cursor:
        found = cursor.execute(FOUND, {"ids": list(dict.fromkeys(keys))}).fetchall()
    known = {row.client_authorization_id for row in found}
    for key in keys:
        if key not in known:
            raise RefusedError(f"there is no authorization {key}", fix="rollbook authorization list --match TEXT")
    return found


def current_exam(conn: Conn, course_id: str) -> str:
    """Return the only current exam of a course. Raises RefusedError if there is none, or more than one."""
    query = "select exam_series_code as code from rollbook.exam_status where course_id = %s and is_current order by 1"
    codes = [row["code"] for row in conn.execute(query, [course_id])]
    if len(codes) == 1:
        return str(codes[0])
    count = "several current exams" if codes else "no current exam"
    raise RefusedError(
        f"course {course_id} has {count}", why=", ".join(codes) or unknown_course(conn, course_id),
        fix="name one with --exam; rollbook exam list shows them",
    )  # fmt: skip


def create(conn: Conn, user: User, record: Row) -> tuple[Row, list[str]]:
    """Authorize a candidate for an exam; return the authorization, and remarks for staff.

    Dates that are None come from the exam's definition. Raises RefusedError with all faults, if the user is not a
    candidate, or has an authorization for the exam already.
    """
    course, exam = record["course_id"].strip(), record["exam_series_code"].strip()
    basis = one(conn, BASIS, {"user": user["id"], "course": course, "exam": exam})  # type: ignore[arg-type]
    if basis["candidate_id"] is None:
        raise not_a_candidate(user["username"])
    if basis["existing"]:
        raise RefusedError(
            f"{user['username']} already has an authorization for exam {exam} of {course}: {basis['existing']}",
            fix=f"rollbook authorization update {basis['existing']}, or cancel it first",
        )
    wanted = record | {
        FIRST: record[FIRST] or basis["first"], LAST: record[LAST] or basis["last"],
        "candidate_id": basis["candidate_id"],
    }  # fmt: skip
    is_undefined = basis["is_open"] is None and bool(course and exam)
    hint = undefined(conn, course, exam) if is_undefined else None
    if is_undefined and not (wanted[FIRST] and wanted[LAST]):
        raise RefusedError(
            f"there is no exam {exam} of {course}", why=hint,
            fix="rollbook exam list shows the exams; for one that is not defined give --first and --last",
        )  # fmt: skip
    check(conn, wanted)
    return one(conn, CREATE, wanted), list(remarks(basis, user["username"], course, exam, hint))  # type: ignore[arg-type]


def remarks(basis: Row, username: str, course: str, exam: str, hint: str | None) -> Sequence[str]:
    """Return what staff may do, but may have done by mistake; `hint` on an exam that is not defined."""
    found = []
    if basis["is_open"] is None:
        found.append(
            f"exam {exam} of {course} is not defined here: the given dates are used" + (f"; {hint}" if hint else "")
        )
    elif not basis["is_open"]:
        found.append(f"registration for exam {exam} is not open to students")
    if not basis["is_enrolled"]:
        found.append(f"{username} is not enrolled in {course}")
    return found


def check(conn: Conn, record: Row) -> None:
    """Raise RefusedError with all faults of an authorization."""
    faults = conn.execute("select * from rollbook.authorization_faults(%s)", [as_json(record)]).fetchall()
    if faults:
        raise faulty("the authorization", faults)


def update(conn: Conn, found: Authorization, given: Row) -> list[Change]:
    """Set fields of an authorization; return the changes: field before after. Without a change nothing is written.

    Raises RefusedError with all faults, or for a cancelled one.
    """
    key = found.client_authorization_id
    if found.is_cancelled:
        raise RefusedError(f"{key} was cancelled", fix="create a new one: rollbook authorization create")
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    wanted = given | one(conn, "select rollbook.trimmed_record(%s) as record", [as_json(texts)])["record"]
    if any(getattr(found, name) != value for name, value in wanted.items()):
        record = {"course_id": found.course, "exam_series_code": found.exam} | asdict(found) | wanted
        del record["client_authorization_id"]  # an old one may break the rules, and stays
        check(conn, record)
    return set_columns(conn, TABLE, "id", found.id, wanted)


def cancel(conn: Conn, numbers: Sequence[int]) -> set[int]:
    """Cancel authorizations by id; return the ids of those that were not cancelled before."""
    return {row["id"] for row in conn.execute(CANCEL, [list(numbers)])}


def find_wrong(conn: Conn) -> None:
    """Record the faults of the staged authorizations in pg_temp.problem."""
    conn.execute(TRIM)
    find_hits(conn)
    wrong = [row["d"] for row in conn.execute(DATES) if not is_date(row["d"])]
    conn.execute(WRONG_DATES, [wrong])
    conn.execute(LOCK)
    conn.execute(REPEATED)
    conn.execute(TARGET, {"fields": list(COLUMNS[1:])})
    reason = "there is no such exam of the course, and the row has no dates"
    conn.execute(UNDEFINED, {"reason": reason, "first": FIRST, "last": LAST})
    for row in conn.execute(UNDEFINED_NAMES, [reason]).fetchall():
        if hint := undefined(conn, row["course"], row["exam"]):
            conn.execute(ADD_HINT, row | {"reason": reason, "hint": hint})
    conn.execute(WRONG)


def is_date(text: str) -> bool:
    """Return whether a text is an ISO 8601 date, or a time whose date counts."""
    try:
        return datetime.strptime(text[:10], "%Y-%m-%d") is not None and bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def apply(conn: Conn) -> None:
    """Create and change the staged authorizations; record the outcome of each in pg_temp.outcome."""
    conn.execute(APPLY)


def export(conn: Conn, *, course: str | None, exam: str | None, match: str | None, limit: int | None) -> list[Row]:
    """Return authorizations that are not cancelled, as an import reads them, by id."""
    return conn.execute(EXPORT, {"course": course, "exam": exam, "match": match, "limit": limit}).fetchall()
