"""The discussion service: its settings, and the outbox of changes that it has not confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, one, typed
from rollbook.core.since import ALWAYS, Period
from rollbook.core.users import find_users

if TYPE_CHECKING:
    from rollbook.core.db import Conn


@dataclass(frozen=True)
class Settings:
    """Whether changes are queued, where the service is, and the key to it, a secret."""

    active: bool
    url: str
    api_key: str | None = field(repr=False)


@dataclass(frozen=True)
class State:
    """The outbox: undelivered changes, those with a failed attempt, the age of the oldest, the latest error."""

    pending: int
    failed: int
    oldest_seconds: int | None
    last_error: str | None


@dataclass(frozen=True)
class Change:
    """An undelivered change; `is_gone`: the user no longer exists, so nothing is left to send."""

    id: int
    user_id: int
    operation: str
    username: str | None
    email: str | None
    is_gone: bool


SETTINGS = "select active, url, api_key from rollbook.discussion"
WITHOUT_KEY = "select active, url, null::text as api_key from rollbook.discussion"
MAY_READ_KEY = "select has_column_privilege('rollbook.discussion', 'api_key', 'select') as yes"

CONFIGURE = """
update rollbook.discussion
set active = %(active)s, url = coalesce(%(url)s, url), api_key = coalesce(%(api_key)s, api_key)
where row(active, url, api_key)
    is distinct from row(%(active)s, coalesce(%(url)s, url), coalesce(%(api_key)s, api_key))
"""

STATE = """
select
    count(*) as pending, count(*) filter (where o.attempts > 0) as failed,
    floor(extract(epoch from now() - min(o.created_at)))::bigint as oldest_seconds,
    (
        select l.error from rollbook.discussion_outbox as l where l.attempts > 0
        order by l.tried_at desc, l.id desc limit 1
    ) as last_error
from rollbook.discussion_outbox as o
"""

# A change without a name is sent with the user's name and address of that time. Both come from the snapshot of the
# outbox, so they are never older than the user's earlier changes.
OUTBOX = """
select
    o.id, o.user_id, coalesce(o.username, u.username) as username, o.operation, o.attempts,
    o.next_try_at as next_try, o.error, o.created_at as since
from rollbook.discussion_outbox as o
left join portal.auth_user as u on u.id = o.user_id
where (%(ids)s::bigint[] is null or o.user_id = any(%(ids)s))
    and (not %(failed)s or o.attempts > 0)
    and (%(since)s::timestamptz is null or o.created_at >= %(since)s)
    and (%(until)s::timestamptz is null or o.created_at < %(until)s)
    and (
        %(match)s::text is null
        or strpos(lower(concat_ws(' ', o.username, u.username, o.error)), lower(%(match)s)) > 0
    )
order by o.id
limit %(limit)s
"""

TOTAL = """
select count(*) as total from rollbook.discussion_outbox as o
where (%(ids)s::bigint[] is null or o.user_id = any(%(ids)s)) and o.id <= coalesce(%(until)s, o.id)
"""

QUEUE = """
insert into rollbook.discussion_outbox (user_id, operation)
select u.id, 'put' from portal.auth_user as u
where (%(ids)s::bigint[] is null or u.id = any(%(ids)s)) and not exists (
    select from rollbook.discussion_outbox as o
    where o.user_id = u.id and o.operation = 'put' and o.username is null
)
order by u.id
"""

# What can be tried, oldest first over all users: a name that one user gives up is free before another one takes it. A
# user with an older change that waits for its next try waits too.
DUE = """
select o.id, o.user_id
from rollbook.discussion_outbox as o
where (%(ids)s::bigint[] is null or o.user_id = any(%(ids)s)) and o.user_id <> all(%(held)s::bigint[])
    and o.id <= coalesce(%(until)s, o.id)
    and (%(at_once)s or (o.next_try_at <= now() and not exists (
        select from rollbook.discussion_outbox as p
        where p.user_id = o.user_id and p.id < o.id and p.next_try_at > now()
    )))
order by o.id
limit 200
"""

HEAD = """
select
    o.id, o.user_id, o.operation, coalesce(o.username, u.username) as username,
    case when o.username is null then u.email else o.email end as email,
    o.operation = 'put' and o.username is null and u.id is null as is_gone
from rollbook.discussion_outbox as o
left join portal.auth_user as u on u.id = o.user_id
where o.id = %(id)s and (%(at_once)s or o.next_try_at <= now())
    and not exists (select from rollbook.discussion_outbox as p where p.user_id = o.user_id and p.id < o.id)
"""

# A PUT that was refused for its content, not for the first time, gives way to a later change of the user.
GIVE_WAY = """
delete from rollbook.discussion_outbox as o
where o.id = %(id)s and o.operation = 'put' and o.attempts > 0 and %(http_status)s = any(array[400, 409, 422])
    and exists (select from rollbook.discussion_outbox as n where n.user_id = o.user_id and n.id > o.id)
returning o.id
"""

FAILED = """
update rollbook.discussion_outbox
set attempts = attempts + 1, tried_at = now(), http_status = %(http_status)s, error = %(error)s,
    next_try_at = now() + least(interval '1 hour', interval '10 seconds' * 2 ^ least(attempts, 12))
where id = %(id)s
"""

# The time of the next try: the oldest change of each user decides for its others.
NEXT_TRY = """
select extract(epoch from min(h.next_try_at) - now())::float8 as seconds
from (
    select distinct on (o.user_id) o.next_try_at from rollbook.discussion_outbox as o order by o.user_id, o.id
) as h
"""

# The change that blocks a user's queue: the oldest one, once an attempt has failed.
DISCARD = """
delete from rollbook.discussion_outbox as o
where o.user_id = %s and o.attempts > 0
    and not exists (select from rollbook.discussion_outbox as p where p.user_id = o.user_id and p.id < o.id)
returning o.user_id, o.username, o.operation, o.attempts, o.http_status, o.error
"""

LOCK = "select pg_try_advisory_lock(hashtextextended('rollbook discussion ' || %s::bigint, 0)) as ours"
UNLOCK = "select pg_advisory_unlock(hashtextextended('rollbook discussion ' || %s::bigint, 0))"


def settings(conn: Conn) -> Settings:
    """Return the settings; without the key for a role that may not read it."""
    return typed(Settings, conn, SETTINGS if one(conn, MAY_READ_KEY)["yes"] else WITHOUT_KEY)[0]


def configure(conn: Conn, *, active: bool, url: str | None = None, api_key: str | None = None) -> bool:
    """Store the settings that are not None; return whether anything changed."""
    return conn.execute(CONFIGURE, {"active": active, "url": url, "api_key": api_key}).rowcount > 0


def state(conn: Conn) -> State:
    """Return the state of the outbox."""
    return typed(State, conn, STATE)[0]


def outbox(
    conn: Conn, *, ids: list[int] | None = None, failed: bool = False, match: str | None = None,
    limit: int | None = None, period: Period = ALWAYS,
) -> list[Row]:  # fmt: skip
    """Return the undelivered changes, the oldest first: id user_id username operation attempts next_try error since."""
    return conn.execute(OUTBOX, {"ids": ids, "failed": failed, "match": match, "limit": limit, **period}).fetchall()


def total(conn: Conn, ids: list[int] | None, until: int | None) -> int:
    """Return the number of undelivered changes of these users, or of all, up to the change `until`."""
    return int(one(conn, TOTAL, {"ids": ids, "until": until})["total"])  # type: ignore[arg-type]


def last(conn: Conn) -> int:
    """Return the id of the latest undelivered change, 0 for none."""
    return int(one(conn, "select coalesce(max(id), 0) as id from rollbook.discussion_outbox")["id"])


def named(conn: Conn, tokens: Sequence[str]) -> list[int]:
    """Return the ids of users; `id:N` may be a deleted user with undelivered changes. Raises RefusedError."""
    found: list[int] = []
    for token in tokens:
        try:
            found.append(find_users(conn, [token])[0]["id"])
        except RefusedError:
            number = token.removeprefix("id:")
            waits = "select from rollbook.discussion_outbox where user_id = %s limit 1"
            known = token != number and number.isdecimal() and len(number) < 19
            if not (known and conn.execute(waits, [int(number)]).fetchone() is not None):
                raise
            found.append(int(number))
    return list(dict.fromkeys(found))


def queue(conn: Conn, ids: list[int] | None) -> int:
    """Queue users, all for None, to be sent with their values at that time; return how many."""
    return conn.execute(QUEUE, {"ids": ids}).rowcount


def due(
    conn: Conn, ids: list[int] | None, held: list[int], *, at_once: bool, until: int | None = None
) -> list[tuple[int, int]]:  # fmt: skip
    """Return the id and the user's id of the next changes to try, in order, but none of the users `held`."""
    found = conn.execute(DUE, {"ids": ids, "held": held, "at_once": at_once, "until": until})
    return [(row["id"], row["user_id"]) for row in found]


@contextmanager
def claimed(conn: Conn, user_id: int) -> Iterator[bool]:
    """Claim a user against other deliveries, not against writers; yield whether it is ours."""
    ours = bool(one(conn, LOCK, [user_id])["ours"])
    yield ours
    if ours:  # an error ends the session, and the claim with it
        conn.execute(UNLOCK, [user_id])


def head(conn: Conn, number: int, *, at_once: bool) -> Change | None:
    """Return a change of a claimed user if it is undelivered, due, and the user's oldest; else None."""
    found = typed(Change, conn, HEAD, {"id": number, "at_once": at_once})
    return found[0] if found else None


def delivered(conn: Conn, number: int) -> None:
    """Remove a change from the outbox."""
    conn.execute("delete from rollbook.discussion_outbox where id = %s", [number])


def discard(conn: Conn, user_id: int, name: str) -> Row:
    """Delete the change that blocks a user's queue, undelivered; return it. Raises RefusedError if there is none."""
    row = conn.execute(DISCARD, [user_id]).fetchone()
    if row is None:
        raise RefusedError(f"{name} has no failed change", fix="rollbook discussion list --state failed")
    return row


def gives_way(conn: Conn, number: int, http_status: int | None) -> bool:
    """Remove a change that was refused again and has a later one of its user; return whether that was so."""
    return conn.execute(GIVE_WAY, {"id": number, "http_status": http_status}).fetchone() is not None


def failed(conn: Conn, number: int, http_status: int | None, error: str) -> None:
    """Record a failed attempt; the delay before the next one doubles, up to an hour."""
    conn.execute(FAILED, {"id": number, "http_status": http_status, "error": error})


def next_try(conn: Conn) -> float | None:
    """Return the seconds until the next try; None if everything is delivered."""
    seconds = one(conn, NEXT_TRY)["seconds"]
    return None if seconds is None else float(seconds)


def listen(conn: Conn) -> None:
    """Listen for new changes by NOTIFY; an idle session is not ended."""
    conn.execute("set idle_session_timeout = 0")
    conn.execute("listen rollbook_discussion")


def wait(conn: Conn, seconds: float) -> None:
    """Wait for a new change, at most this many seconds."""
    for _ in conn.notifies(timeout=seconds, stop_after=1):
        pass
