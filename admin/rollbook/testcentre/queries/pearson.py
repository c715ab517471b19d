"""The files exchanged with the test centre, and the reports on what waits and what was rejected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, one, typed

if TYPE_CHECKING:
    from datetime import datetime

    from rollbook.core.db import Conn
    from rollbook.core.since import Period

FILES = """
select batch, at, kind, file, rows, accepted, rejected, waiting, set_aside, archive, sha256
from rollbook.exchange_file_status
where (%(match)s::text is null or strpos(lower(file), lower(%(match)s)) > 0)
    and (%(kind)s::text is null or kind = %(kind)s)
    and (%(since)s::timestamptz is null or at >= %(since)s)
    and (%(until)s::timestamptz is null or at < %(until)s)
order by batch desc
limit %(limit)s
"""

FILE_ROWS = """
select r.line, r.key, r.outcome, r.status, r.message, r.answered_at
from rollbook.exchange_row as r where r.file_id = %s order by r.line
"""

OVERDUE = """
select count(*) as n from rollbook.exchange_file_status where waiting > 0 and at < clock_timestamp() - %s
"""

# What is due and what is unanswered, as candidate_status and authorization_status define it; without the accounts.
WAITING = """
select
    'candidate' as kind,
    count(*) filter (where w.is_due) as to_send,
    count(*) filter (where not w.is_due and c.upload_status not in ('Accepted', 'Error')) as to_answer,
    min(c.user_updated_at) filter (where w.is_due) as due_since
from portal.student_testcenteruser as c
cross join lateral (select c.uploaded_at is null or c.uploaded_at < c.user_updated_at as is_due) as w
union all
select
    'authorization', count(*) filter (where w.is_due),
    count(*) filter (where not w.is_due and r.uploaded_at is not null and r.upload_status not in ('Accepted', 'Error')),
    min(r.user_updated_at) filter (where w.is_due)
from portal.student_testcenterregistration as r
cross join lateral (
    select (r.uploaded_at is null or r.uploaded_at < r.user_updated_at)
        and (r.cancelled_at is null or r.uploaded_at is not null) as is_due
) as w
"""

LAST_EXPORT = "select max(at) as at from rollbook.exchange_file where direction = 'out'"

DUMP = """
select
    a.username, c.email, c.first_name, c.last_name, a.client_candidate_id, a.client_authorization_id, a.course_id,
    a.exam_series_code, a.accommodation_request, a.accommodation_code, a.registration_status, a.demographics_status,
    a.accommodation_status, a.upload_error_message as registration_error, c.upload_error_message as demographics_error,
    a.needs_uploading
from rollbook.authorization_status as a
inner join rollbook.candidate_status as c on c.id = a.testcenter_user_id
where (%(course)s::text is null or a.course_id = %(course)s)
    and (%(exam)s::text is null or a.exam_series_code = %(exam)s)
    and (not %(accommodation_pending)s or (a.accommodation_status = 'Pending' and a.cancelled_at is null))
order by a.id
"""

REPORTS: dict[str, LiteralString] = {
    "waiting": """
select 'candidate' as what, c.client_candidate_id as key, c.username, c.uploaded_at as sent_at,
    case
        when c.needs_uploading then 'to be sent' else 'to be answered'
    end as waits
from rollbook.candidate_status as c where c.needs_uploading or c.demographics_status = 'Pending'
union all
select 'authorization', a.client_authorization_id, a.username, a.uploaded_at,
    case when a.needs_uploading then 'to be sent' else 'to be answered' end
from rollbook.authorization_status as a
where a.needs_uploading or (a.registration_status = 'Pending' and a.uploaded_at is not null)
order by sent_at nulls first, what, key
""",
    "rejected": """
select 'candidate' as what, c.client_candidate_id as key, c.username, c.processed_at,
    c.upload_error_message as message
from rollbook.candidate_status as c where c.demographics_status = 'Rejected'
union all
select 'authorization', a.client_authorization_id, a.username, a.processed_at, a.upload_error_message
from rollbook.authorization_status as a where a.registration_status = 'Rejected'
order by processed_at, what, key
""",
    "accommodation": """
select a.client_authorization_id as key, a.username, a.course_id as course, a.exam_series_code as exam,
    a.created_at, a.accommodation_request as request
from rollbook.authorization_status as a
where a.accommodation_status = 'Pending' and a.cancelled_at is null
order by a.created_at, a.id
""",
    "appointments": """
select a.course_id as course, a.exam_series_code as exam, d.day::date as day, count(*) as authorizations,
    count(*) filter (where a.status = 'Accepted') as accepted
from rollbook.authorization_status as a
cross join lateral generate_series(
    a.eligibility_appointment_date_first::timestamp, a.eligibility_appointment_date_last::timestamp, interval '1 day'
) as d (day)
where a.cancelled_at is null
group by a.course_id, a.exam_series_code, d.day
order by a.course_id, a.exam_series_code, d.day
""",
}


@dataclass(frozen=True)
class Waiting:
    """How many records of a kind wait for an export, and how many for Pearson's answer."""

    kind: str  # candidate or authorization
    to_send: int
    to_answer: int
    due_since: datetime | None  # the oldest one to be sent


def waiting(conn: Conn) -> list[Waiting]:
    """Return what waits, by kind: what `pearson report waiting` lists."""
    return typed(Waiting, conn, WAITING)


def last_export(conn: Conn) -> datetime | None:
    """Return when a file was last exported; None: never."""
    found: datetime | None = one(conn, LAST_EXPORT)["at"]
    return found


def files(conn: Conn, limit: int | None, *, kind: str | None, match: str | None, period: Period) -> list[Row]:
    """Return the exchange files, newest first. Source: exchange_file_status."""
    return conn.execute(FILES, {"limit": limit, "kind": kind, "match": match, **period}).fetchall()


def overdue(conn: Conn, hours: float) -> int:
    """Return how many files are older than `hours` and have rows without an answer."""
    return int(one(conn, OVERDUE, [timedelta(hours=hours)])["n"])


def file_rows(conn: Conn, number: int) -> list[Row]:
    """Return the rows of a file: line key outcome status message answered_at. Raises RefusedError."""
    if not one(conn, "select exists (select from rollbook.exchange_file where id = %s) as there", [number])["there"]:
        raise RefusedError(f"there is no file {number}", fix="rollbook pearson list")
    return conn.execute(FILE_ROWS, [number]).fetchall()


def dump(conn: Conn, *, course: str | None, exam: str | None, accommodation_pending: bool) -> list[Row]:
    """Return authorizations with their states. The two errors and needs_uploading are left out where they are empty."""
    found = conn.execute(
        DUMP, {"course": course, "exam": exam, "accommodation_pending": accommodation_pending}
    ).fetchall()
    optional = ("registration_error", "demographics_error", "needs_uploading")
    return [{key: value for key, value in row.items() if value or key not in optional} for row in found]


def report(conn: Conn, what: str) -> list[Row]:
    """Return a report: waiting, rejected, accommodation or appointments."""
    return conn.execute(REPORTS[what]).fetchall()
