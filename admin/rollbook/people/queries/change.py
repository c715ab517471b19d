"""Changes of name and of e-mail address that users request. The SQL functions have the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, one
from rollbook.core.sqlstate import translated
from rollbook.people.queries.names import find_hits, find_repeated_users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn
    from rollbook.core.since import Period

NAME_CHANGES = """
select
    id, username, old_name, new_name, rationale, requested_at, state, reason, decided_at, user_id,
    count(*) over () as total
from rollbook.name_change_status
where state = %(state)s
    and (%(since)s::timestamptz is null or requested_at >= %(since)s)
    and (%(until)s::timestamptz is null or requested_at < %(until)s)
    and (
        %(match)s::text is null
        or strpos(lower(concat_ws(' ', username, old_name, new_name)), lower(%(match)s)) > 0
    )
order by id
limit %(limit)s
"""

NAME_CHANGE = """
select id, username, old_name, new_name, rationale, requested_at, state, reason, user_id
from rollbook.name_change_status where
"""

# Locks the users of these requests, so that none is deleted meanwhile.
ASKING = """
select u.id from portal.auth_user as u
where u.id in (select c.user_id from portal.student_pendingnamechange as c where c.id = any(%s))
order by u.id for key share
"""

EMAIL_CHANGES = """
select
    id, username, old_email, new_email, requested_at, expires_at, conflict, user_id, count(*) over () as total
from rollbook.email_change_status
where (
        %(match)s::text is null
        or strpos(lower(concat_ws(' ', username, old_email, new_email)), lower(%(match)s)) > 0
    )
    and (%(since)s::timestamptz is null or requested_at >= %(since)s)
    and (%(until)s::timestamptz is null or requested_at < %(until)s)
order by id
limit %(limit)s
"""

EMAIL_CHANGE = """
select id, username, old_email, new_email, requested_at, expires_at, conflict
from rollbook.email_change_status where user_id = %s
"""

# The account of a key, with its present address; locked as the function called next locks it.
KEY_OWNER = """
select u.id, u.username, u.email
from portal.auth_user as u
inner join portal.student_pendingemailchange as c on c.user_id = u.id
where c.activation_key = %s
for no key update of u
"""

IMPORTED = ("user", "email")

# Locks the users of the staged requests, by id, so that the checks stay true until the write.
LOCK = """
select u.id from portal.auth_user as u where u.id in (select h.user_id from pg_temp.hit as h)
order by u.id for no key update
"""

WRONG_ADDRESSES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select s.line, 'email', s.email, f.reason
from pg_temp.staged as s
left join pg_temp.normal as n on n.line = s.line
left join pg_temp.hit as h on h.line = s.line
left join portal.auth_user as u on u.id = h.user_id
left join portal.auth_user as o on lower(o.email) = lower(coalesce(n.email, s.email)) and o.email <> '' and o.id <> u.id
cross join lateral (
    values (case
        when s.email is null or s.email = '\N' then 'an e-mail address is needed'
        when rollbook.email_fault(s.email) is not null then rollbook.email_fault(s.email)
        when u.email = coalesce(n.email, s.email) then 'the user already has this address'
        when o.id is not null then 'another account has this address'
    end)
) as f (reason)
where f.reason is not null and not exists (select from pg_temp.problem as p where p.line = s.line)
"""

# A pending request for the same address keeps its key, which was sent there.
REQUEST = """
with wanted as (
    select s.line, h.user_id, s."user", s.email, c.new_email as old_email, c.id is not null as is_asking,
        c.new_email = s.email and c.expires_at > now() as is_same
    from pg_temp.staged as s
    inner join pg_temp.hit as h on h.line = s.line
    left join portal.student_pendingemailchange as c on c.user_id = h.user_id
),
asked as (
    select w.line, rollbook.request_email_change(w.user_id, w.email)
    from (select * from wanted where is_same is not true order by user_id) as w
),
written as (
    insert into pg_temp.written (object, outcome, user_id, before, after)
    select
        w."user", case when w.is_asking then 'changed' else 'created' end, w.user_id,
        case when w.is_asking then jsonb_build_object('new_email', w.old_email) end,
        jsonb_build_object('new_email', w.email)
    from asked as a inner join wanted as w on w.line = a.line
)
insert into pg_temp.outcome (line, outcome)
select w.line, case when a.line is null then 'unchanged' when w.is_asking then 'changed' else 'created' end
from wanted as w left join asked as a on a.line = w.line
"""

CANCEL = """
delete from portal.student_pendingemailchange where user_id = any(%s) returning user_id, new_email
"""


def name_changes(conn: Conn, state: str, match: str | None, limit: int | None, period: Period) -> tuple[list[Row], int]:
    """Return changes of name in one state, the oldest first, and how many there are without the limit."""
    found = conn.execute(NAME_CHANGES, {"state": state, "match": match, "limit": limit, **period}).fetchall()
    return found, found[0]["total"] if found else 0


def pending_name_change(conn: Conn, user_id: int) -> Row | None:
    """Return the pending change of name of a user."""
    return conn.execute(NAME_CHANGE + " user_id = %s and state = 'pending'", [user_id]).fetchone()


def request_name_change(conn: Conn, user_id: int, name: str, rationale: str) -> Row:
    """Request a new name and return the request. Raises RefusedError (23R13)."""
    conn.execute("select rollbook.request_name_change(%s, %s, %s)", [user_id, name, rationale])
    return one(conn, NAME_CHANGE + " user_id = %s and state = 'pending'", [user_id])


def decide_name_changes(
    conn: Conn, numbers: Sequence[int], *, approved: bool, reason: str | None, skip: bool
) -> tuple[list[Row], list[RefusedError]]:
    """Approve or reject requests, by number, and return them as decided, and an error for each that was skipped.

    Raises RefusedError (RB012, 23R13) for the first that cannot be decided, or, with `skip`, if none can.
    """
    conn.execute(ASKING, [list(numbers)])  # also begins the transaction: what follows are savepoints in it
    done: list[Row] = []
    failures: list[RefusedError] = []
    for number in sorted(set(numbers)):
        try:
            with translated(), conn.transaction():
                done.append(decide_name_change(conn, number, approved=approved, reason=reason))
        except RefusedError as exc:
            if not skip:
                raise
            failures.append(exc)
    if failures and not done:
        raise failures[0]
    return done, failures


def decide_name_change(conn: Conn, number: int, *, approved: bool, reason: str | None) -> Row:
    """Approve or reject a request and return it as it was decided. Raises RefusedError (RB012, 23R13)."""
    conn.execute("select rollbook.decide_name_change(%s, %s, %s)", [number, approved, reason])
    return one(conn, NAME_CHANGE + " id = %s and state <> 'pending'", [number])


def email_changes(conn: Conn, match: str | None, limit: int | None, period: Period) -> tuple[list[Row], int]:
    """Return the pending changes of address, the oldest first, and their number without the limit."""
    found = conn.execute(EMAIL_CHANGES, {"match": match, "limit": limit, **period}).fetchall()
    return found, found[0]["total"] if found else 0


def pending_email_change(conn: Conn, user_id: int) -> Row | None:
    """Return the pending change of address of a user, without its key."""
    return conn.execute(EMAIL_CHANGE, [user_id]).fetchone()


def request_email_change(conn: Conn, user_id: int, email: str) -> Row:
    """Request a new address and return the request, with its key. Raises RefusedError (23R13, 23R14)."""
    key = one(conn, "select rollbook.request_email_change(%s, %s) as key", [user_id, email])["key"]
    return one(conn, EMAIL_CHANGE, [user_id]) | {"activation_key": key}


def key_of(conn: Conn, user_id: int, username: str) -> str:
    """Return the key of the pending change of a user. Raises RefusedError if there is none."""
    found = conn.execute(
        "select activation_key from portal.student_pendingemailchange where user_id = %s", [user_id]
    ).fetchone()
    if found is None:
        raise RefusedError(
            f"{username} has no pending change of e-mail address", fix="rollbook email-change list, or create"
        )
    return str(found["activation_key"])


def confirm_email_change(conn: Conn, key: str) -> Row:
    """Give the account of a key its new address and return id username old_email new_email.

    Raises RefusedError (RB012, 23R14).
    """
    before = conn.execute(KEY_OWNER, [key]).fetchone()
    user_id = one(conn, "select rollbook.confirm_email_change(%s) as id", [key])["id"]
    after = one(conn, "select id, username, email from portal.auth_user where id = %s", [user_id])
    old = before["email"] if before else None
    return {"id": user_id, "username": after["username"], "old_email": old, "new_email": after["email"]}


def find_wrong_addresses(conn: Conn) -> None:
    """Record in pg_temp.problem the faults of the staged requests, except the form of addresses."""
    find_hits(conn)
    conn.execute(LOCK)
    conn.execute(WRONG_ADDRESSES)
    find_repeated_users(conn)


def request_email_changes(conn: Conn) -> None:
    """Request the staged addresses; record the outcomes in pg_temp.outcome."""
    conn.execute(REQUEST)


def cancel_email_changes(conn: Conn, user_ids: Sequence[int]) -> dict[int, str]:
    """Cancel the pending changes of address of these users; return the requested address of each."""
    return {row["user_id"]: row["new_email"] for row in conn.execute(CANCEL, [list(user_ids)])}
