"""Which user a name refers to: a username, an e-mail address, id:N, username:X or email:X."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from rollbook.core.errors import RefusedError
from rollbook.core.rows import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn


class User(TypedDict):
    """A user that a name refers to."""

    id: int
    username: str
    email: str


FIND_USERS = """
select r.place, u.id, u.username, u.email
from rollbook.resolve_users(%s::text[]) as r inner join portal.auth_user as u on u.id = r.user_id
order by r.place, u.id
"""

NEAR_USERS = "select username from portal.auth_user where lower(username) like %s order by username limit 2000"

# A username that reads like another kind of name, or is the address of another user.
AMBIGUOUS = """
select u.username
from portal.auth_user as u
where u.username = any(%s) and (
    u.username ~ '^(id|username|email):'
    or exists (
        select from portal.auth_user as o where lower(o.email) = lower(u.username) and o.email <> '' and o.id <> u.id
    )
)
"""

# All users that the `user` of a staged row refers to.
HITS = """
create temporary table hit on commit drop as
select s.line, r.user_id
from rollbook.resolve_users(array(select g."user" from pg_temp.staged as g order by g.line)) as r
inner join (select line, row_number() over (order by line) as place from pg_temp.staged) as s on s.place = r.place
"""

WRONG_USERS = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select
    s.line, 'user', s."user",
    case
        when s."user" is null or s."user" = '\N' then 'a user is needed'
        when many.users is null then 'there is no such user'
        else format('matches several users: %s; name one as id:N, username:X or email:X', many.users)
    end
from pg_temp.staged as s
left join (
    select h.line, string_agg(format('id:%s (%s)', u.id, u.username), ', ' order by u.id) as users
    from pg_temp.hit as h inner join portal.auth_user as u on u.id = h.user_id
    where h.line in (select d.line from pg_temp.hit as d group by d.line having count(*) > 1)
    group by h.line
) as many on many.line = s.line
where (many.line is not null or not exists (select from pg_temp.hit as f where f.line = s.line))
    and not exists (select from pg_temp.problem as p where p.line = s.line)
"""

REPEATED_USERS = """
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'user', d."user", format('the same user as on line %s', d.first)
from (
    select s.line, s."user", min(s.line) over (partition by h.user_id) as first
    from pg_temp.staged as s inner join pg_temp.hit as h on h.line = s.line
) as d
where d.line > d.first and not exists (select from pg_temp.problem as p where p.line = d.line)
"""


def find_users(conn: Conn, tokens: Sequence[str]) -> list[User]:
    """Return the users that names refer to, each once, in the order of the names.

    All or nothing. Raises RefusedError for a name that is unknown or ambiguous.
    """
    hits: dict[int, list[User]] = {}
    for row in conn.execute(FIND_USERS, [list(tokens)]):
        user = User(id=row["id"], username=row["username"], email=row["email"])
        hits.setdefault(row["place"], []).append(user)
    found: dict[int, User] = {}
    for place, token in enumerate(tokens, start=1):
        users = hits.get(place, [])
        if not users:
            near = conn.execute(NEAR_USERS, [token[:1].lower() + "%"]).fetchall()
            why = nearest(token, (row["username"] for row in near))
            raise RefusedError(f"there is no user {token}", why=why, fix="rollbook user list --match TEXT")
        if len(users) > 1:
            several = ", ".join(f"id:{user['id']} ({user['username']}, {user['email']})" for user in users)
            raise RefusedError(
                f"{token} matches several users", why=several, fix="name one as id:N, username:X or email:X"
            )  # fmt: skip
        found[users[0]["id"]] = users[0]
    return list(found.values())


def find_user(conn: Conn, token: str) -> User:
    """Return the user that a name refers to. Raises RefusedError if it is unknown or ambiguous."""
    return find_users(conn, [token])[0]


def find_recorded_id(conn: Conn, token: str) -> int:
    """Return the id that a name refers to; id:N is also that of a deleted user. Raises RefusedError as find_user."""
    number = token.removeprefix("id:")
    return int(number) if token != number and number.isdecimal() else find_user(conn, token)["id"]


def unambiguous(conn: Conn, usernames: list[str]) -> list[str]:
    """Return usernames as an import reads them: with `username:` in front where the bare name fits another user."""
    odd = {row["username"] for row in conn.execute(AMBIGUOUS, [[n for n in usernames if ":" in n or "@" in n]])}
    return [f"username:{name}" if name in odd else name for name in usernames]


def find_hits(conn: Conn) -> None:
    """Record in pg_temp.hit the user of each staged row, and in pg_temp.problem unknown and ambiguous names."""
    conn.execute(HITS)
    conn.execute("analyze pg_temp.hit")
    conn.execute(WRONG_USERS)


def find_repeated_users(conn: Conn) -> None:
    """Record in pg_temp.problem the staged rows whose user an earlier row has too. After `find_hits`."""
    conn.execute(REPEATED_USERS)
