"""Names of users in files: which users they refer to, and which names are ambiguous."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn


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
