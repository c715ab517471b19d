"""Activation keys: their users and states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core.rows import Row, one

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.since import Period

REGISTRATIONS = """
select username, email, created_at as created, expires_at as expires, state, count(*) over () as total
from rollbook.registration_status
where (%(state)s::text is null or state = %(state)s)
    and (%(since)s::timestamptz is null or created_at >= %(since)s)
    and (%(until)s::timestamptz is null or created_at < %(until)s)
    and (%(match)s::text is null or strpos(lower(username || ' ' || email), lower(%(match)s)) > 0)
order by id
limit %(limit)s
"""

REGISTRATION = """
select username, email, created_at as created, expires_at as expires, activated_at as activated, state
from rollbook.registration_status where user_id = %s
"""

# Enrollments of the activation have the time of its transaction.
ACTIVATED = """
select
    u.id, u.username, u.email, s.state,
    (
        select count(*) from portal.student_courseenrollment as e where e.user_id = u.id and e.created = now()
    ) as enrolled
from portal.auth_user as u inner join rollbook.registration_status as s on s.user_id = u.id
where u.id = %s
"""

RENEW = """
select rollbook.renew_registration(%(id)s, make_interval(days => %(days)s)) as activation_key
"""


def registrations(
    conn: Conn, *, state: str | None, match: str | None, limit: int | None, period: Period
) -> tuple[list[Row], int]:
    """Return username email created expires state, and how many there are without the limit. Never a key."""
    found = conn.execute(REGISTRATIONS, {"state": state, "match": match, "limit": limit, **period}).fetchall()
    return found, found[0]["total"] if found else 0


def registration(conn: Conn, user_id: int) -> Row | None:
    """Return the registration of a user, without its key, if there is one."""
    return conn.execute(REGISTRATION, [user_id]).fetchone()


def activate(conn: Conn, key: str) -> Row:
    """Activate the account of a key; return id username email state enrolled. Raises RefusedError (RB012)."""
    user_id = one(conn, "select rollbook.activate_registration(%s) as id", [key])["id"]
    return one(conn, ACTIVATED, [user_id])


def renew(conn: Conn, user_id: int, days: int) -> str:
    """Give a user a new key, valid for `days`, and return it: a secret. The old one stops working."""
    return str(one(conn, RENEW, {"id": user_id, "days": days})["activation_key"])  # type: ignore[arg-type]
