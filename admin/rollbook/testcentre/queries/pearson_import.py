"""Answers of the test centre: staged, judged against the records that they answer, and applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg.rows import class_row

from rollbook.core.rows import one

if TYPE_CHECKING:
    from rollbook.core.command import Author
    from rollbook.core.db import Conn
    from rollbook.testcentre.answer_archive import Member
    from rollbook.testcentre.exchange_file import Kind

TURN = "rollbook pearson import"

STAGE = """
create temporary table answer (
    seq bigint generated always as identity, file_id bigint, kind text, line integer, key text, status text,
    date timestamptz, message text, number integer, fault text, remark text
) on commit drop
"""

IN_FILE = """
insert into rollbook.exchange_file (direction, kind, name, archive, rows, sha256, os_user, on_behalf_of)
values ('in', %s, %s, %s, %s, %s, %s, %s) returning id
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

# An answer's Date is in whole seconds and refers to the upload before it. An answer changes nothing if it is older than
# the last upload or than the known answer, if its record was edited since, or if it is known already.
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
            -- Two answers within one second: reading the earlier one again must not restore it.
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

# These three follow what Pearson knows, also where the answer itself is not applied. An accepted authorization is sent
# as Update, not Add; one that was handled but never accepted is sent as Add. Accepted after a cancellation: that was
# the Delete, and Pearson no longer knows it.
RECORD_HANDLED = """
update portal.student_testcenterregistration as r
set processed_at = v.date
from (
    select v.record_id, max(v.date) as date from pg_temp.verdict as v
    where v.kind = 'ead' and v.outcome = 'outdated' group by v.record_id
) as v
where r.id = v.record_id and (r.processed_at is null or r.processed_at < v.date)
"""

# A known answer may come again with the number that its first copy lacked.
RECORD_NUMBERS: dict[Kind, LiteralString] = {
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

RECORD_ACCEPTANCE = """
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

# Marks the answered row of the file that was sent; file and record have the same time. Right after a large file was
# written its rows have no statistics, and a nested loop would scan all of them for each answer.
NO_NESTED_LOOP = "set local enable_nestloop = off"
RECORD_ANSWERED = """
update rollbook.exchange_row as r
set outcome = case v.status when 'Accepted' then 'accepted' else 'rejected' end, status = v.status,
    message = v.message, answered_at = v.date
from pg_temp.verdict as v
inner join rollbook.exchange_file as f on f.direction = 'out' and f.kind = v.kind and f.at = v.uploaded_at
where v.outcome in ('accepted', 'rejected', 'outdated') and v.date >= date_trunc('second', v.uploaded_at)
    and r.file_id = f.id and r.record_id = v.record_id
    and (r.answered_at is null or r.answered_at <= v.date)
"""

RECORD_ROWS = """
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
            when v.outcome = 'never sent' then format('%s was never sent: nothing to answer', v.key)
            when v.kind = 'cdd' then format('Found demographics record for user %s', v.username)
            else format('Found authorization record for user %s', v.username)
        end,
        case v.outcome
            when 'older' then 'older than the last upload or the known answer'
            when 'outdated' then 'edited since; the next export sends it again'
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


@dataclass(frozen=True)
class Verdict:
    """What an answer did: a line of a member of an archive (`file`), the record's key, the outcome with its detail."""

    file: str
    member: str
    line: int
    key: str
    status: str
    outcome: str
    detail: str


def apply_answers(conn: Conn, archives: dict[str, list[Member]], author: Author) -> tuple[list[Verdict], int]:
    """Apply the answers of checked archives. Return a verdict for each line, and how many were not fully applied.

    Under TURN, in the caller's transaction.
    """
    conn.execute(STAGE)
    with conn.cursor() as cursor:
        for archive, members in archives.items():
            for member in members:
                kind = member.name.partition("-")[0]
                values = [kind, member.name, archive, len(member.answers), member.sha256]
                number = one(conn, IN_FILE, [*values, author.os_user, author.on_behalf_of])["id"]
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
        APPLY_CANDIDATES, APPLY_AUTHORIZATIONS, *RECORD_NUMBERS.values(), RECORD_HANDLED, RECORD_ACCEPTANCE,
        NO_NESTED_LOOP, RECORD_ANSWERED, RECORD_ROWS,
    ):  # fmt: skip
        conn.execute(step)
    with conn.cursor(row_factory=class_row(Verdict)) as cursor:
        return cursor.execute(VERDICTS).fetchall(), one(conn, TROUBLE)["n"]
