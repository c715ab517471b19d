"""The copies of some users, looked up by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollbook.core.rows import one, typed
from rollbook.core.users import usernames
from rollbook.replication.queries.copies import Written
from rollbook.replication.queries.courses import CourseState

if TYPE_CHECKING:
    from rollbook.core.db import Conn

BATCH = 200  # courses in one statement: it locks about 9 tables and indexes of each

COMPARE = """
select user_id, course_id as course, table_name as table, row_id, finding, columns, null as server
from rollbook.compare_users(%s, %s)
"""

REPAIR = """
select table_name as table, inserted::integer, updated::integer, deleted::integer
from rollbook.repair_users(%s, array[%s])
"""

USER_ROWS = "select schema_name, table_name, id from rollbook.user_rows(%s, %s)"

# As course_states has them, without the counts of rollbook.course_status, which read every copy.
STATES = """
select
    c.course_id as course, c.schema_name::text as schema_name, 'ok' as state, c.state as recorded, c.server,
    v.verified_at, v.verdict, v.differing_rows, now() as observed_at, c.paused_at, c.pause_reason, c.moving_to,
    c.leaving, c.closed_at, null as fault
from rollbook.course as c
left join rollbook.verification as v on v.course_id = c.course_id
where c.course_id = any(%s)
order by c.course_id
"""


@dataclass(frozen=True)
class UserRow:
    """One row of a user in one copy, compared with where it comes from.

    `finding`: ok, missing, changed, extra, in_flight; not_comparable, of a table. `server` None: the copy in the
    portal's database, compared with the portal; else the one on that server, compared with the former.
    """

    user_id: int
    course: str
    table: str
    row_id: int | None
    finding: str
    columns: list[str] | None
    server: str | None

    @property
    def differs(self) -> bool:
        """Return whether there is something to repair."""
        return self.finding in ("missing", "changed", "extra")


def compare_users(portal: Conn, user_ids: Sequence[int], courses: Sequence[str]) -> list[UserRow]:
    """Return each row of these users in these courses, in the portal's database. Autocommit: it locks much."""
    found: list[UserRow] = []
    for start in range(0, len(courses), BATCH):
        found += typed(UserRow, portal, COMPARE, [list(user_ids), list(courses[start : start + BATCH])])
    return found


def repair_users(portal: Conn, user_ids: Sequence[int], course: str) -> list[Written]:
    """Make the rows of these users in one course equal to the portal. Raises RefusedError (RB008, RB020, RB021)."""
    return typed(Written, portal, REPAIR, [list(user_ids), course])


def find_user_rows(
    side: Conn, user_ids: Sequence[int], schemas: Sequence[str] | None = None
) -> dict[tuple[str, str], set[int]]:
    """Return the ids of the rows of these users on one side, by schema and table; `schemas` None: in all copies."""
    found: dict[tuple[str, str], set[int]] = {}
    for row in side.execute(USER_ROWS, [list(user_ids), None if schemas is None else list(schemas)]):
        found.setdefault((row["schema_name"], row["table_name"]), set()).add(row["id"])
    return found


def can_find_users(conn: Conn) -> bool:
    """Return whether a server has the function of find_user_rows: one that was prepared long ago does not."""
    return bool(one(conn, "select to_regproc('rollbook.user_rows') is not null as yes")["yes"])


def place_states(portal: Conn, courses: Sequence[str]) -> list[CourseState]:
    """Return the state of these courses without counting their rows; `state` is ok."""
    return typed(CourseState, portal, STATES, [list(courses)])


def list_usernames(portal: Conn, user_ids: Sequence[int]) -> dict[int, str]:
    """Return the usernames by id; id:N of users that the portal does not have, or without a username."""
    found = usernames(portal, user_ids)
    return {number: found.get(number, f"id:{number}") for number in user_ids}
