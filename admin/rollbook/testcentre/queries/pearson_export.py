"""Files for the test centre: what is due, locked, read and stamped.

An export is one transaction, under a lock that lets one export run at a time:
1. Lock and list the records that are due. An uncommitted edit is waited for and included; a later edit waits for the
   export and gets a later time than the upload: its record is due again.
2. Read them in a snapshot taken after that, so that the exported values are the stamped ones. This covers the e-mail
   address: a change of it writes the candidate's row too. The rows stream; they are never all in memory.
3. Stamp the written ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.rows import one, typed
from rollbook.testcentre.exchange_file import COLUMNS, KEY, Kind, line, values

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rollbook.core.command import Author
    from rollbook.core.db import Conn

TURN = "rollbook pearson export"

OPEN_FILE = """
insert into rollbook.exchange_file (direction, kind, name, os_user, on_behalf_of)
values ('out', %s, %s, %s, %s) returning id
"""

# The condition tests the locked row itself: after a wait for its lock PostgreSQL tests the newest version again.
# A cancelled authorization is not exported if it was never sent, or if its Delete was sent.
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

# What the columns of a file are taken from, by the names in COLUMNS.
SOURCE: dict[Kind, LiteralString] = {
    "cdd": """
    select c.*, u.email, r.line, to_char(c.user_updated_at at time zone 'UTC', 'YYYY/MM/DD HH24:MI:SS') as last_update
    from rollbook.exchange_row as r
    inner join portal.student_testcenteruser as c on c.id = r.record_id
    inner join portal.auth_user as u on u.id = c.user_id
    where r.file_id = %(file)s and r.outcome = 'sent'
""",
    "ead": """
    select
        case
            when %(force_add)s and s.transaction_type <> 'Delete' then 'Add' else s.transaction_type
        end as transaction_type,
        coalesce(s.authorization_id::text, '') as authorization_id,
        s.client_authorization_id,
        s.client_candidate_id,
        1 as exam_authorization_count,
        s.exam_series_code,
        case when s.accommodation_code = 'NONE' then '' else s.accommodation_code end as accommodations,
        to_char(s.eligibility_appointment_date_first, 'YYYY/MM/DD') as first_day,
        to_char(s.eligibility_appointment_date_last, 'YYYY/MM/DD') as last_day,
        to_char(s.user_updated_at at time zone 'UTC', 'YYYY/MM/DD HH24:MI:SS') as last_update,
        r.line
    from rollbook.exchange_row as r
    inner join rollbook.authorization_status as s on s.id = r.record_id
    where r.file_id = %(file)s and r.outcome = 'sent'
""",
}

# Ids that were stored before the rule. A plain one is seen at once.
FAULTY_IDS: dict[Kind, LiteralString] = {
    "cdd": """
update rollbook.exchange_row as r set outcome = 'set aside', message = 'ClientCandidateID: ' || f.fault
from rollbook.candidate_status as s
cross join lateral rollbook.exchange_id_fault(s.client_candidate_id, 50) as f (fault)
where r.file_id = %s and s.id = r.record_id and r.key !~ '^[!-~]+$' and f.fault is not null
returning r.key, s.username, r.message as reason
""",
    "ead": """
update rollbook.exchange_row as r set outcome = 'set aside', message = f.fault
from rollbook.authorization_status as s
cross join lateral (
    select coalesce(
        'ClientAuthorizationID: ' || rollbook.exchange_id_fault(s.client_authorization_id, 20),
        'ClientCandidateID: ' || rollbook.exchange_id_fault(s.client_candidate_id, 50)
    ) as fault
) as f
where r.file_id = %s and s.id = r.record_id
    and (r.key !~ '^[!-~]+$' or s.client_candidate_id !~ '^[!-~]+$') and f.fault is not null
returning r.key, s.username, r.message as reason
""",
}

# Quoted as csv.QUOTE_MINIMAL does: no value equals the null string, so an empty one is written as nothing.
COPY = sql.SQL("""
copy (select {columns} from ({source}) as s order by s.line)
to stdout (format csv, header, delimiter e'\\t', null e'\\x01')
""")

SET_ASIDE = """
update rollbook.exchange_row as r
set outcome = 'set aside', message = s.reason
from unnest(%s::text[], %s::text[]) as s (key, reason)
where r.file_id = %s and r.key = s.key
"""

# The columns of a record that Latin-1 cannot hold, in words.
FAULTS = """
select string_agg(f.name || ': ' || rollbook.text_fault(f.value, null, false), '; ' order by f.place) as faults
from unnest(%s::text[], %s::text[]) with ordinality as f (name, value, place)
"""

USERNAMES: dict[Kind, LiteralString] = {
    "cdd": """
select s.client_candidate_id as key, s.username from rollbook.candidate_status as s
where s.client_candidate_id = any(%s)
""",
    "ead": """
select s.client_authorization_id as key, s.username from rollbook.authorization_status as s
where s.client_authorization_id = any(%s)
""",
}

# A user_updated_at in the future would keep its record due forever.
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


@dataclass(frozen=True)
class SetAside:
    """A record that a file could not hold, by our id, and the reason. `username` is None if it was deleted."""

    key: str
    username: str | None
    reason: str


@dataclass(frozen=True)
class Exported:
    """A file as written: its id, how many records it holds, and those that were set aside."""

    id: int
    rows: int
    set_aside: list[SetAside]


def taken_names(conn: Conn) -> set[str]:
    """Return the names of the last day's files, in any directory: a new file takes another name."""
    found = conn.execute(
        "select name from rollbook.exchange_file where direction = 'out' and at > clock_timestamp() - interval '1 day'"
    )
    return {row["name"] for row in found}


def now(conn: Conn) -> datetime:
    """Return the database's time, to the microsecond."""
    at: datetime = one(conn, "select clock_timestamp() as at")["at"]
    return at


def export(
    conn: Conn, kind: Kind, write: Callable[[bytes], object], *, name: str, author: Author, everything: bool = False,
    force_add: bool = False,
) -> Exported:  # fmt: skip
    """Pass the due records, or all of them, to `write` as lines of the file, and stamp them.

    Under TURN, in the caller's transaction, which must be READ COMMITTED.
    """
    number = one(conn, OPEN_FILE, [kind, name, author.os_user, author.on_behalf_of])["id"]
    listed = conn.execute(LOCK[kind], {"file": number, "everything": everything}).rowcount
    aside = typed(SetAside, conn, FAULTY_IDS[kind], [number])
    at = now(conn)  # after the locks: no exported edit is later
    records: list[dict[str, str]] = []  # that Latin-1 cannot hold
    with conn.cursor().copy(copy_statement(kind), {"file": number, "force_add": force_add}) as copy:
        found = iter(copy)
        header = bytes(next(found))
        write(line(header))
        for copied in found:
            try:
                write(line(copied))
            except UnicodeEncodeError:
                records.append(values(header, bytes(copied)))
    if records:
        failed = {record[KEY[kind]]: faults(conn, record) for record in records}
        conn.execute(SET_ASIDE, [list(failed), list(failed.values()), number])
        names = {row["key"]: row["username"] for row in conn.execute(USERNAMES[kind], [list(failed)])}
        aside += [SetAside(key, names.get(key), reason) for key, reason in failed.items()]
    conn.execute(STAMP[kind], {"file": number, "at": at})
    conn.execute(CLOSE_FILE, {"file": number, "at": at, "rows": listed - len(aside), "set_aside": len(aside)})
    return Exported(number, listed - len(aside), aside)


def faults(conn: Conn, record: dict[str, str]) -> str:
    """Return why a record cannot be written, with each column."""
    return str(one(conn, FAULTS, [list(record), list(record.values())])["faults"])


def copy_statement(kind: Kind) -> sql.Composed:
    """Return the COPY that reads a file's columns in their order."""
    columns = [
        sql.SQL("s.{} as {}").format(sql.Identifier(source), sql.Identifier(column))
        for column, source in COLUMNS[kind].items()
    ]
    return COPY.format(columns=sql.SQL(", ").join(columns), source=sql.SQL(SOURCE[kind]))


def record_hash(conn: Conn, number: int, sha256: str | None) -> None:
    """Record the SHA-256 of a written file."""
    conn.execute("update rollbook.exchange_file set sha256 = %s where id = %s", [sha256, number])
