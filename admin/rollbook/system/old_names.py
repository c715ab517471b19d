"""Usernames, names and addresses that are there and break a rule of today: reported, never broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollbook.core.rows import typed

if TYPE_CHECKING:
    from rollbook.core.db import Conn

COLLIDING = """
select array_to_string(c.usernames, ', ') as usernames, c.user_ids from rollbook.colliding_usernames() as c
"""

# Plain values need no call. The first three of each rule are named.
FAULTY = """
select what, count(*) as count, (array_agg(format('id:%%s (%%s)', id, fault) order by id))[1:3] as examples
from (
    select 'username' as what, u.id, rollbook.username_fault(u.username) as fault from portal.auth_user as u
    where u.username !~ '^[A-Za-z0-9_.+][A-Za-z0-9_.@+-]*$'
    union all
    select 'e-mail address', u.id, rollbook.email_fault(u.email) from portal.auth_user as u
    where octet_length(u.email) > length(u.email)
    union all
    select 'name', p.user_id, rollbook.name_fault(p.name) from portal.auth_userprofile as p
    where p.name !~ '^([!-~][ -~]*[!-~])?$'
) as f
where fault is not null group by what order by what desc
"""


@dataclass(frozen=True)
class Faulty:
    """Values of one kind that break the rule of new ones."""

    what: str
    count: int
    examples: list[str]


@dataclass(frozen=True)
class Colliding:
    """Accounts whose usernames differ in case alone."""

    usernames: str
    user_ids: list[int]


def remarks(conn: Conn) -> list[str]:
    """Return what to report of the names that are there, a line each."""
    found = typed(Colliding, conn, COLLIDING)
    lines = [
        f"usernames that differ in case alone: {each.usernames} (id:{', id:'.join(map(str, each.user_ids))}); no "
        f"further one is made; rename one: rollbook user update id:{each.user_ids[-1]} --username NAME"
        for each in found[:3]
    ]
    if len(found) > 3:
        lines.append(f"rollbook.colliding_usernames() has all {len(found)} of them")
    return lines + [
        f"{each.count} {each.what}{'' if each.count == 1 else 's' if each.what[-1] != 's' else 'es'} from before "
        f"would be refused today: {'; '.join(each.examples)}"
        for each in typed(Faulty, conn, FAULTY)
    ]
