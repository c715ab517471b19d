"""Groups of users, and their members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.referring import deleting, with_ids
from rollbook.core.rows import Row, nearest, typed
from rollbook.people.queries.names import find_hits, unambiguous
from rollbook.people.queries.staged import add_nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from rollbook.core.db import Conn


@dataclass(frozen=True)
class Group:
    """A group; `members` is their number."""

    id: int
    name: str
    description: str
    members: int


@dataclass(frozen=True)
class Member:
    """A member of a group; `name` is the full name, if the user has a profile."""

    id: int
    username: str
    email: str
    name: str | None
    is_active: bool


GROUPS = """
select g.id, g.name, count(m.id) as members, g.description, count(*) over () as total
from portal.student_usertestgroup as g
left join portal.student_usertestgroup_users as m on m.usertestgroup_id = g.id
where %(match)s::text is null or strpos(lower(g.name || ' ' || g.description), lower(%(match)s)) > 0
group by g.id, g.name, g.description
order by g.id
limit %(limit)s
"""

GROUP = """
select
    g.id, g.name, g.description,
    (select count(*) from portal.student_usertestgroup_users as m where m.usertestgroup_id = g.id) as members
from portal.student_usertestgroup as g where g.name = %s
"""

MEMBERS = """
select u.id, u.username, u.email, p.name, u.is_active
from portal.student_usertestgroup_users as m
inner join portal.auth_user as u on u.id = m.user_id
left join portal.auth_userprofile as p on p.user_id = u.id
where m.usertestgroup_id = %s
order by u.id
"""

CREATE = """
insert into portal.student_usertestgroup (name, description)
values (%(name)s::text, coalesce(%(description)s::text, rollbook.default_group(%(name)s), ''))
"""

# Created on first use; two sessions that use it at the same time create one.
CREATE_DEFAULT = """
insert into portal.student_usertestgroup (name, description)
select %(name)s::text, rollbook.default_group(%(name)s) where rollbook.default_group(%(name)s) is not null
on conflict (name) do nothing
returning id
"""

NAMES = """
select name from portal.student_usertestgroup
union
select name from rollbook.default_groups()
"""

ADD = """
insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
select %(group)s, id from unnest(%(ids)s::bigint[]) as id order by id
on conflict (usertestgroup_id, user_id) do nothing
returning id, user_id
"""

REMOVE = """
delete from portal.student_usertestgroup_users where usertestgroup_id = %(group)s and user_id = any(%(ids)s)
returning id, user_id
"""

AMONG: dict[str, LiteralString] = {
    "course": "exists (select from portal.student_courseenrollment as e where e.user_id = u.id and e.course_id = {})",
    "group": "exists (select from portal.student_usertestgroup_users as m inner join portal.student_usertestgroup as g "
    "on g.id = m.usertestgroup_id where m.user_id = u.id and g.name = {})",
    "active": "u.is_active",
    "inactive": "not u.is_active",
    "staff": "u.is_staff",
    "superuser": "u.is_superuser",
}

EXPORT = """
select g.name as "group", u.username as "user"
from portal.student_usertestgroup_users as m
inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id
inner join portal.auth_user as u on u.id = m.user_id
where %(names)s::text[] is null or g.name = any(%(names)s)
order by g.id, u.id
"""

WRONG_GROUPS = """
insert into pg_temp.problem (line, column_name, value, reason)
select
    s.line, 'group', s."group",
    case
        when s."group" is null then 'a group is needed'
        when length(s."group") > 32 then 'a name has at most 32 characters'
        else 'there is no such group'
    end
from pg_temp.staged as s
where s."group" is null
    or (
        (
            length(s."group") > 32
            or not %(create)s and s."group" not in (select d.name from rollbook.default_groups() as d)
        )
        and s."group" not in (select g.name from portal.student_usertestgroup as g)
    )
"""

MAKE_STAGED_GROUPS = """
with made as (
    insert into portal.student_usertestgroup (name, description)
    select s."group", coalesce(rollbook.default_group(s."group"), '') from pg_temp.staged as s
    group by s."group" order by min(s.line)
    on conflict (name) do nothing
    returning id, name, description
)
insert into pg_temp.written (kind, object, outcome, after)
select 'group', m.name, 'created', jsonb_build_object('id', m.id, 'description', m.description) from made as m
"""

# A line that repeats another finds its user in the group already.
ADD_STAGED = """
with wanted as (
    select
        s.line, g.id as group_id, n.user_id, s."group", s."user",
        row_number() over (partition by g.id, n.user_id order by s.line) = 1 as is_first
    from pg_temp.staged as s
    inner join pg_temp.hit as n on n.line = s.line
    inner join portal.student_usertestgroup as g on g.name = s."group"
),
added as (
    insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
    select w.group_id, w.user_id from wanted as w where w.is_first order by w.user_id, w.group_id
    on conflict (usertestgroup_id, user_id) do nothing
    returning id, usertestgroup_id, user_id
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, after)
    select 'member', w."group" || ': ' || w."user", 'created', a.user_id,
        jsonb_build_object('id', a.id, 'group', w."group")
    from added as a inner join wanted as w on w.group_id = a.usertestgroup_id and w.user_id = a.user_id and w.is_first
)
insert into pg_temp.outcome (line, outcome)
select w.line, case when a.user_id is null then 'unchanged' else 'created' end
from wanted as w
left join added as a on a.usertestgroup_id = w.group_id and a.user_id = w.user_id and w.is_first
"""


def groups(conn: Conn, match: str | None, limit: int | None) -> tuple[list[Row], int]:
    """Return groups by id, id name members description, and how many there are without the limit."""
    found = conn.execute(GROUPS, {"match": match, "limit": limit}).fetchall()
    return found, found[0]["total"] if found else 0


def group(conn: Conn, name: str) -> Group:
    """Return a group. Raises RefusedError for an unknown name, with the nearest."""
    found = typed(Group, conn, GROUP, [name])
    if not found:
        known = [row["name"] for row in conn.execute(NAMES)]
        raise RefusedError(
            f"Group {name} does not exist",
            why=nearest(name, known),
            fix="rollbook group list, or rollbook group create",
        )
    return found[0]


def create_default(conn: Conn, name: str) -> bool:
    """Create a group if it is a default one that does not exist yet; return whether that was so."""
    return conn.execute(CREATE_DEFAULT, {"name": name}).fetchone() is not None


def members(conn: Conn, group_id: int) -> list[Member]:
    """Return the members of a group by id."""
    return typed(Member, conn, MEMBERS, [group_id])


def create(conn: Conn, name: str, description: str | None) -> None:
    """Create a group. A default group without a description has its own."""
    conn.execute(CREATE, {"name": name, "description": description})


def exists(conn: Conn, name: str) -> bool:
    """Return whether there is a group of this name."""
    return bool(conn.execute(GROUP, [name]).fetchone())


def delete(conn: Conn, group_id: int) -> None:
    """Delete a group with its memberships; the users stay. Raises RefusedError if other tables refer to the group."""
    with deleting(conn, "this group", "student_usertestgroup", with_ids([group_id])):
        conn.execute("delete from portal.student_usertestgroup where id = %s", [group_id])


def add(conn: Conn, group_id: int, user_ids: Sequence[int]) -> dict[int, int]:
    """Put users into a group; return the id of each new membership by user."""
    return {row["user_id"]: row["id"] for row in conn.execute(ADD, {"group": group_id, "ids": list(user_ids)})}


def remove(conn: Conn, group_id: int, user_ids: Sequence[int]) -> dict[int, int]:
    """Remove users from a group; return the id of each ended membership by user."""
    return {row["user_id"]: row["id"] for row in conn.execute(REMOVE, {"group": group_id, "ids": list(user_ids)})}


def among(conn: Conn, filters: Sequence[tuple[str, str]]) -> list[int] | None:
    """Return the ids of the users for whom all filters (kind, value) hold; None for all users."""
    if not filters:
        return None
    conditions = [sql.SQL(AMONG[kind]).format(sql.Literal(value)) for kind, value in filters]
    found = conn.execute(
        sql.SQL("select u.id from portal.auth_user as u where {} order by u.id").format(
            sql.SQL(" and ").join(conditions)
        )
    )
    return [row["id"] for row in found]


def split(
    conn: Conn, shares: dict[str, Decimal], seed: int, user_ids: list[int] | None, text: str
) -> list[Group]:  # fmt: skip
    """Create groups and put users into them by share. Return the groups. Raises RefusedError (RB013, 23R14)."""
    conn.execute(
        "select rollbook.split_users(%s::text[], %s::numeric[], %s, %s::bigint[], %s)",
        [list(shares), list(shares.values()), seed, user_ids, text],
    )
    return [group(conn, name) for name in shares]


def memberships(conn: Conn, names: list[str] | None) -> list[Row]:
    """Return the members of the groups (None: of all), group and user, as `group import` reads them."""
    found = conn.execute(EXPORT, {"names": names}).fetchall()
    users = unambiguous(conn, [row["user"] for row in found])
    return [row | {"user": user} for row, user in zip(found, users, strict=True)]


def check_staged(conn: Conn, *, create_groups: bool) -> None:
    """Record in pg_temp.problem the lines with no such user, or with a group that is not there and is not created."""
    find_hits(conn)
    conn.execute(WRONG_GROUPS, {"create": create_groups})
    add_nearest(conn, "group", "there is no such group", NAMES)


def add_staged(conn: Conn) -> None:
    """Put the users of a file into its groups, creating those that may be created; record it in pg_temp.outcome."""
    conn.execute(MAKE_STAGED_GROUPS)
    conn.execute(ADD_STAGED)
