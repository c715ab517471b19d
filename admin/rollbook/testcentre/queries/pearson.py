"""What goes to the test centre and what comes back, and the reports on it.

An export, in one transaction, under a lock that lets one export run at a time:
1. lock the records that are due, and note them. Who is editing one of them is waited for, and the edit counts; who
   comes later waits for the export, and the edit gets a later time than the upload: it is due again.
2. read them with a snapshot taken after that: the values are those that are stamped, the user's e-mail included, as
   an e-mail cannot change without its candidate's row. They stream: nobody holds them all in memory.
3. stamp those that could be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, one
from rollbook.testcentre.exchange_file import Kind, Member, line, why_not

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rollbook.core.db import Conn

TURN = "rollbook pearson export"
IMPORT_TURN = "rollbook pearson import"

OPEN_FILE = """
insert into rollbook.exchange_file (direction, kind, name, actor) values ('out', %s, %s, %s) returning id
"""

# What is due is asked of the row itself, so that it is asked again, of the newest version, after a wait for its lock.
# A cancelled authorization that was never sent, or whose Delete was sent, is none of Pearson's business any more.
LOCK: dict[Kind, LiteralString] = {
    "cdd": """
with due as (
    select c.id, c.client_candidate_id as key
    from portal.student_testcenteruser as c
    where %(everything)s or c.uploaded_at is null or c.uploaded_at < c.user_updated_at
    order by c.id for no key update of c
)
insert into rollbook.exchange_row (file_id, line, key, record_id, outcome)
select %(file)s, row_number() over (order by d.id), d.key, d.id, 'sent' from due as d order by d.id
""",
    "ead": """
with due as (
    select r.id, r.client_authorization_id as key
    from portal.student_testcenterregistration as r
    where (
            (%(everything)s and (r.cancelled_at is null or r.upload_status = 'Error'))
            or r.uploaded_at is null or r.uploaded_at < r.user_updated_at
        )
        and (r.cancelled_at is null or r.uploaded_at is not null)
    order by r.id for no key update of r
)
insert into rollbook.exchange_row (file_id, line, key, record_id, outcome)
select %(file)s, row_number() over (order by d.id), d.key, d.id, 'sent' from due as d order by d.id
""",
}

# Quoted as csv.QUOTE_MINIMAL does: no value equals the null string, so an empty one is written as nothing.
READ: dict[Kind, LiteralString] = {
    "cdd": """
copy (
    select
        c.client_candidate_id as "ClientCandidateID",
        c.first_name as "FirstName",
        c.last_name as "LastName",
        c.middle_name as "MiddleName",
        c.suffix as "Suffix",
        c.salutation as "Salutation",
        u.email as "Email",
        c.address_1 as "Address1",
        c.address_2 as "Address2",
        c.address_3 as "Address3",
        c.city as "City",
        c.state as "State",
        c.postal_code as "PostalCode",
        c.country as "Country",
        c.phone as "Phone",
        c.extension as "Extension",
        c.phone_country_code as "PhoneCountryCode",
        c.fax as "FAX",
        c.fax_country_code as "FAXCountryCode",
        c.company_name as "CompanyName",
        to_char(c.user_updated_at at time zone 'UTC', 'YYYY/MM/DD HH24:MI:SS') as "LastUpdate"
    from rollbook.exchange_row as r
    inner join portal.student_testcenteruser as c on c.id = r.record_id
    inner join portal.auth_user as u on u.id = c.user_id
    where r.file_id = %(file)s
    order by r.line
) to stdout (format csv, header, delimiter e'\\t', null e'\\x01')
""",
    "ead": """
copy (
    select
        case
            when %(force_add)s and s.transaction_type <> 'Delete' then 'Add' else s.transaction_type
        end as "AuthorizationTransactionType",
        coalesce(s.authorization_id::text, '') as "AuthorizationID",
        s.client_authorization_id as "ClientAuthorizationID",
        s.client_candidate_id as "ClientCandidateID",
        1 as "ExamAuthorizationCount",
        s.exam_series_code as "ExamSeriesCode",
        case when s.accommodation_code = 'NONE' then '' else s.accommodation_code end as "Accommodations",
        to_char(s.eligibility_appointment_date_first, 'YYYY/MM/DD') as "EligibilityApptDateFirst",
        to_char(s.eligibility_appointment_date_last, 'YYYY/MM/DD') as "EligibilityApptDateLast",
        to_char(s.user_updated_at at time zone 'UTC', 'YYYY/MM/DD HH24:MI:SS') as "LastUpdate"
    from rollbook.exchange_row as r
    inner join rollbook.authorization_status as s on s.id = r.record_id
    where r.file_id = %(file)s
    order by r.line
) to stdout (format csv, header, delimiter e'\\t', null e'\\x01')
""",
}

KEY: dict[Kind, str] = {"cdd": "ClientCandidateID", "ead": "ClientAuthorizationID"}

SET_ASIDE = """
update rollbook.exchange_row as r
set outcome = 'set aside', message = s.reason
from unnest(%s::text[], %s::text[]) as s (key, reason)
where r.file_id = %s and r.key = s.key
"""

WHO: dict[Kind, LiteralString] = {
    "cdd": """
select s.client_candidate_id as key, s.username from rollbook.candidate_status as s
where s.client_candidate_id = any(%s)
""",
    "ead": """
select s.client_authorization_id as key, s.username from rollbook.authorization_status as s
where s.client_authorization_id = any(%s)
""",
}

# A record whose user_updated_at lies in the future would be due for ever.
STAMP: dict[Kind, LiteralString] = {
    "cdd": """
update portal.student_testcenteruser as c
set uploaded_at = greatest(%(at)s, c.user_updated_at), updated_at = clock_timestamp()
from rollbook.exchange_row as r
where r.file_id = %(file)s and r.outcome = 'sent' and c.id = r.record_id
""",
    "ead": """
update portal.student_testcenterregistration as c
set uploaded_at = greatest(%(at)s, c.user_updated_at), updated_at = clock_timestamp()
from rollbook.exchange_row as r
where r.file_id = %(file)s and r.outcome = 'sent' and c.id = r.record_id
""",
}

CLOSE_FILE = """
update rollbook.exchange_file
set at = %(at)s, rows = %(rows)s, set_aside = %(set_aside)s
where id = %(file)s
"""


def taken_names(conn: Conn) -> set[str]:
    """Return the names of the files of today and yesterday: a new one is none of them, whatever its folder."""
    found = conn.execute(
        "select name from rollbook.exchange_file where direction = 'out' and at > clock_timestamp() - interval '1 day'"
    )
    return {row["name"] for row in found}


def now(conn: Conn) -> datetime:
    """Return the database's time, to the microsecond."""
    at: datetime = one(conn, "select clock_timestamp() as at")["at"]
    return at


def export(
    conn: Conn, kind: Kind, write: Callable[[bytes], object], *, name: str, actor: str, everything: bool = False,
    force_add: bool = False,
) -> tuple[Row, list[Row]]:  # fmt: skip
    """Write what is due, or everything, and stamp it. Return the file, and what was set aside: key username reason.

    Under TURN, in the caller's transaction, which must be READ COMMITTED. `write` gets the lines as Pearson reads them.
    """
    number = one(conn, OPEN_FILE, [kind, name, actor])["id"]
    noted = conn.execute(LOCK[kind], {"file": number, "everything": everything}).rowcount
    at = now(conn)  # after the locks: no edit that is in the file is later
    aside: list[Row] = []
    with conn.cursor().copy(READ[kind], {"file": number, "force_add": force_add}) as copy:
        found = iter(copy)
        header = bytes(next(found))
        write(line(header))
        for copied in found:
            try:
                write(line(copied))
            except UnicodeEncodeError:
                values, reason = why_not(header, bytes(copied))
                aside.append({"key": values[KEY[kind]], "reason": reason})
    if aside:
        conn.execute(SET_ASIDE, [[row["key"] for row in aside], [row["reason"] for row in aside], number])
        names = {row["key"]: row["username"] for row in conn.execute(WHO[kind], [[row["key"] for row in aside]])}
        aside = [{"key": row["key"], "username": names.get(row["key"]), "reason": row["reason"]} for row in aside]
    conn.execute(STAMP[kind], {"file": number, "at": at})
    conn.execute(CLOSE_FILE, {"file": number, "at": at, "rows": noted - len(aside), "set_aside": len(aside)})
    return {"batch": number, "file": name, "kind": kind, "rows": noted - len(aside), "set_aside": len(aside)}, aside


def seal(conn: Conn, number: int, sha256: str | None) -> None:
    """Note what a written file hashes to."""
    conn.execute("update rollbook.exchange_file set sha256 = %s where id = %s", [sha256, number])


# --- answers ----------------------------------------------------------------------------------------------------------

STAGE = """
create temporary table answer (
    seq bigint generated always as identity, file_id bigint, kind text, line integer, key text, status text,
    date timestamptz, message text, number integer, fault text, remark text
) on commit drop
"""

IN_FILE = """
insert into rollbook.exchange_file (direction, kind, name, archive, rows, sha256, actor)
values ('in', %s, %s, %s, %s, %s, %s) returning id
"""

LOCK_ANSWERED: dict[Kind, LiteralString] = {
    "cdd": """
select count(*) from (
    select c.id from portal.student_testcenteruser as c
    where c.client_candidate_id in (select a.key from pg_temp.answer as a where a.kind = 'cdd' and a.fault = '')
    order by c.id for no key update of c
) as locked
""",
    "ead": """
select count(*) from (
    select r.id from portal.student_testcenterregistration as r
    where r.client_authorization_id in (select a.key from pg_temp.answer as a where a.kind = 'ead' and a.fault = '')
    order by r.id for no key update of r
) as locked
""",
}

# An answer's Date is in whole seconds. It answers the upload before it: what is older than the last upload, or than
# the answer that is known, changes nothing; neither does one that meets a newer edit, or that is known already.
JUDGE = """
create temporary table verdict on commit drop as
with record as (
    select
        'cdd' as kind, s.client_candidate_id as key, s.id, s.username, s.uploaded_at, s.processed_at, s.upload_status,
        s.upload_error_message, s.needs_uploading
    from rollbook.candidate_status as s
    where s.client_candidate_id in (select a.key from pg_temp.answer as a where a.kind = 'cdd' and a.fault = '')
    union all
    select
        'ead', s.client_authorization_id, s.id, s.username, s.uploaded_at, s.processed_at, s.upload_status,
        s.upload_error_message, s.needs_uploading
    from rollbook.authorization_status as s
    where s.client_authorization_id in (select a.key from pg_temp.answer as a where a.kind = 'ead' and a.fault = '')
),
met as (
    select
        a.seq, r.id as record_id, r.username, r.uploaded_at,
        case
            when a.fault <> '' then 'refused'
            when r.id is null then 'unknown'
            when r.uploaded_at is null then 'never sent'
            when
                a.date = r.processed_at and left(a.message, 512) = r.upload_error_message
                and r.upload_status in ('', a.status)
                then 'unchanged'
            -- Two answers within one second: the one that was read first does not come back when it is read again.
            when a.date = r.processed_at and exists (
                select from rollbook.exchange_row as x inner join rollbook.exchange_file as f on f.id = x.file_id
                where f.kind = case a.kind when 'cdd' then 'vcdc' else 'eac' end and x.record_id = r.id
                    and x.answered_at = a.date and x.status = a.status and coalesce(x.message, '') = a.message
            ) then 'unchanged'
            when a.date < date_trunc('second', r.uploaded_at) or a.date < r.processed_at then 'older'
            when r.needs_uploading then 'outdated'
            else 'applied'
        end as outcome
    from pg_temp.answer as a
    left join record as r on r.kind = a.kind and r.key = a.key and a.fault = ''
)
select
    a.*, m.record_id, m.username, m.uploaded_at,
    case
        when m.outcome <> 'applied' then m.outcome
        when row_number() over newest = 1 then case a.status when 'Accepted' then 'accepted' else 'rejected' end
        when (a.date, a.status, a.message) = (
            first_value(a.date) over newest, first_value(a.status) over newest, first_value(a.message) over newest
        ) then 'unchanged'
        else 'older'
    end as outcome
from pg_temp.answer as a
inner join met as m on m.seq = a.seq
window newest as (partition by a.kind, m.record_id, m.outcome order by a.date desc, a.seq desc)
"""

APPLY_CANDIDATES = """
update portal.student_testcenteruser as c
set
    upload_status = v.status,
    upload_error_message = left(v.message, 512),
    processed_at = v.date,
    candidate_id = coalesce(v.number, c.candidate_id),
    confirmed_at = clock_timestamp(),
    updated_at = clock_timestamp()
from pg_temp.verdict as v
where v.kind = 'cdd' and v.outcome in ('accepted', 'rejected') and c.id = v.record_id
"""

APPLY_AUTHORIZATIONS = """
update portal.student_testcenterregistration as r
set
    upload_status = v.status,
    upload_error_message = left(v.message, 512),
    processed_at = v.date,
    authorization_id = coalesce(v.number, r.authorization_id),
    confirmed_at = clock_timestamp(),
    updated_at = clock_timestamp()
from pg_temp.verdict as v
where v.kind = 'ead' and v.outcome in ('accepted', 'rejected') and r.id = v.record_id
"""

# Whatever became of the answer: what Pearson accepted it knows, and is told of it with Update, not Add; what it has
# handled and not accepted it does not know. What it accepted after a cancellation was the Delete: it knows it no more.
NOTE_HANDLED = """
update portal.student_testcenterregistration as r
set processed_at = v.date
from (
    select v.record_id, max(v.date) as date from pg_temp.verdict as v
    where v.kind = 'ead' and v.outcome = 'outdated' group by v.record_id
) as v
where r.id = v.record_id and (r.processed_at is null or r.processed_at < v.date)
"""

# An answer that is known already may bring the number that its first copy lacked.
NOTE_NUMBERS: dict[Kind, LiteralString] = {
    "cdd": """
update portal.student_testcenteruser as c
set candidate_id = v.number, updated_at = clock_timestamp()
from (select record_id, max(number) as number from pg_temp.verdict
    where kind = 'cdd' and outcome = 'unchanged' and number is not null group by record_id) as v
where c.id = v.record_id and c.candidate_id is null
""",
    "ead": """
update portal.student_testcenterregistration as r
set authorization_id = v.number, updated_at = clock_timestamp()
from (select record_id, max(number) as number from pg_temp.verdict
    where kind = 'ead' and outcome = 'unchanged' and number is not null group by record_id) as v
where r.id = v.record_id and r.authorization_id is null
""",
}

NOTE_ACCEPTANCE = """
update portal.student_testcenterregistration as r
set accepted_at = case when r.cancelled_at is null then v.date end
from (
    select v.record_id, max(v.date) as date, bool_or(v.outcome = 'accepted') as applied
    from pg_temp.verdict as v
    where v.kind = 'ead' and v.status = 'Accepted' and v.outcome in ('accepted', 'outdated', 'older')
    group by v.record_id
) as v
where r.id = v.record_id and (r.accepted_at is null or r.accepted_at < v.date)
    and (r.cancelled_at is null or v.applied)
"""

# The row of the file that was answered; it was stamped with the file's time. Where the rows of a large file have just
# been written, the planner does not know how many they are, and would look through all of them for each answer.
HASHED = "set local enable_nestloop = off"
NOTE_ANSWERED = """
update rollbook.exchange_row as r
set outcome = case v.status when 'Accepted' then 'accepted' else 'rejected' end, status = v.status,
    message = v.message, answered_at = v.date
from pg_temp.verdict as v
inner join rollbook.exchange_file as f on f.direction = 'out' and f.kind = v.kind and f.at = v.uploaded_at
where v.outcome in ('accepted', 'rejected', 'outdated') and v.date >= date_trunc('second', v.uploaded_at)
    and r.file_id = f.id and r.record_id = v.record_id
    and (r.answered_at is null or r.answered_at <= v.date)
"""

NOTE_ROWS = """
insert into rollbook.exchange_row (file_id, line, key, record_id, outcome, status, message, answered_at)
select
    v.file_id, v.line, v.key, v.record_id, v.outcome, v.status,
    concat_ws('; ', nullif(v.fault, ''), nullif(v.message, ''), nullif(v.remark, '')), v.date
from pg_temp.verdict as v
order by v.seq
"""

VERDICTS = """
select
    f.archive as file, f.name as member, v.line, v.key, v.status, v.outcome,
    concat_ws(
        '; ',
        case
            when v.fault <> '' then v.fault
            when v.outcome = 'unknown' and v.kind = 'cdd'
                then format('Failed to find record for client_candidate_id %s', v.key)
            when v.outcome = 'unknown' then format('Failed to find record for client_auth_id %s', v.key)
            when v.outcome = 'never sent' then format('%s was never sent: there is nothing to answer', v.key)
            when v.kind = 'cdd' then format('Found demographics record for user %s', v.username)
            else format('Found authorization record for user %s', v.username)
        end,
        case v.outcome
            when 'older' then 'older than the last upload, or than a newer answer'
            when 'outdated' then 'a newer edit waits for its upload'
        end,
        case when v.fault = '' then nullif(v.message, '') end,
        nullif(v.remark, '')
    ) as detail
from pg_temp.verdict as v inner join rollbook.exchange_file as f on f.id = v.file_id
order by v.seq
"""

TROUBLE = (
    "select count(*) as n from pg_temp.verdict where outcome in ('refused', 'unknown', 'never sent') or remark <> ''"
)


def apply_answers(conn: Conn, archives: list[tuple[str, list[Member]]], actor: str) -> tuple[list[Row], int]:
    """Apply the answers of checked archives. Return what became of each line, and how many were not (fully) applied.

    Under IMPORT_TURN, in the caller's transaction.
    """
    conn.execute(STAGE)
    with conn.cursor() as cursor:
        for archive, members in archives:
            for member in members:
                values = [
                    member.name.partition("-")[0],
                    member.name,
                    archive,
                    len(member.answers),
                    member.sha256,
                    actor,
                ]
                number = one(conn, IN_FILE, values)["id"]
                with cursor.copy(
                    "copy pg_temp.answer (file_id, kind, line, key, status, date, message, number, fault, remark) "
                    "from stdin"
                ) as copy:
                    for a in member.answers:
                        copy.write_row((
                            number, member.kind, a.line, a.key, a.status, a.date, a.message, a.number, a.fault, a.remark
                        ))  # fmt: skip
    conn.execute("analyze pg_temp.answer")
    for statement in LOCK_ANSWERED.values():
        conn.execute(statement)
    conn.execute(JUDGE)
    conn.execute("analyze pg_temp.verdict")
    for step in (
        APPLY_CANDIDATES, APPLY_AUTHORIZATIONS, *NOTE_NUMBERS.values(), NOTE_HANDLED, NOTE_ACCEPTANCE, HASHED,
        NOTE_ANSWERED, NOTE_ROWS,
    ):  # fmt: skip
        conn.execute(step)
    return conn.execute(VERDICTS).fetchall(), one(conn, TROUBLE)["n"]


# --- what is there ----------------------------------------------------------------------------------------------------

FILES = """
select batch, at, kind, file, rows, accepted, rejected, waiting, set_aside, archive, sha256
from rollbook.exchange_file_status
where (%(match)s::text is null or strpos(lower(file), lower(%(match)s)) > 0)
    and (%(kind)s::text is null or kind = %(kind)s)
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


def files(conn: Conn, limit: int | None, *, kind: str | None, match: str | None) -> list[Row]:
    """Return the exchange files, the newest first. Source: exchange_file_status."""
    return conn.execute(FILES, {"limit": limit, "kind": kind, "match": match}).fetchall()


def overdue(conn: Conn, hours: float) -> int:
    """Return how many files have rows that have waited longer than so many hours."""
    from datetime import timedelta

    return int(one(conn, OVERDUE, [timedelta(hours=hours)])["n"])


def file_rows(conn: Conn, number: int) -> list[Row]:
    """Return the rows of a file: line key outcome status message answered_at. Raises RefusedError."""
    if not one(conn, "select exists (select from rollbook.exchange_file where id = %s) as there", [number])["there"]:
        raise RefusedError(f"there is no batch {number}", fix="rollbook pearson list")
    return conn.execute(FILE_ROWS, [number]).fetchall()


def dump(conn: Conn, *, course: str | None, exam: str | None, accommodation_pending: bool) -> list[Row]:
    """Return the authorizations with their states; errors only where there are some, needs_uploading only if so."""
    found = conn.execute(
        DUMP, {"course": course, "exam": exam, "accommodation_pending": accommodation_pending}
    ).fetchall()
    optional = ("registration_error", "demographics_error", "needs_uploading")
    return [{key: value for key, value in row.items() if value or key not in optional} for row in found]


def report(conn: Conn, what: str) -> list[Row]:
    """Return a report: waiting, rejected, accommodation or appointments."""
    return conn.execute(REPORTS[what]).fetchall()
