"""Making the rows of some users equal to the portal, in its database and on the course servers, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, RefusedError
from rollbook.replication import catalog, link
from rollbook.replication.fence import FaultError
from rollbook.replication.person import Everywhere, compare_there, look_everywhere
from rollbook.replication.queries.copies import Written, total
from rollbook.replication.queries.users import UserRow, compare_users, repair_users
from rollbook.replication.repair import CATCH_UP_SECONDS, LOOKS, Failure, Repaired
from rollbook.replication.restart import restart
from rollbook.replication.session import Progress, opened
from rollbook.replication.write_rows import write_rows

if TYPE_CHECKING:
    from rollbook.core.command import Run


@dataclass
class UserPlan:
    """What a repair of some users would write, by course, and what it cannot."""

    found: Everywhere
    rows: dict[str, list[UserRow]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def plan_users(
    run: Run, portal: Conn, user_ids: Sequence[int], courses: Sequence[str], *, all_courses: bool
) -> UserPlan:
    """Return what a repair of these users in these courses would write."""
    found = look_everywhere(portal, user_ids, courses, run.caller(), all_courses=all_courses)
    plan = UserPlan(found)
    plan.failures += [Failure(where, error) for where, error in found.obstacles().items()]
    gone = {each.course for each in found.uncompared if each.server is None}
    for row in found.differing:
        if row.course not in found.paused and row.course not in gone:
            plan.rows.setdefault(row.course, []).append(row)
    for course in sorted({row.course for row in found.differing if row.course in found.paused}):
        _, why, fix = found.paused[course]
        plan.failures.append(Failure(course, RefusedError("its repair is to resume it", why=why, fix=fix)))
    return plan


def repair_planned(
    run: Run, plan: UserPlan, names: Mapping[int, str], note: Callable[[str], None]
) -> tuple[list[Repaired], list[Failure]]:
    """Repair the courses of a plan, each in a transaction of its own; a failure does not stop the others."""
    result: list[Repaired] = []
    failures = list(plan.failures)
    for course, rows in plan.rows.items():
        try:
            result += repair_course(run, course, plan.found.servers[course], rows, names, note)
        except AdminError as exc:
            failures.append(Failure(course, exc))
    return result, failures


def repair_course(
    run: Run, course: str, place: str | None, rows: Sequence[UserRow], names: Mapping[int, str],
    note: Callable[[str], None],
) -> list[Repaired]:  # fmt: skip
    """Repair some users in one course: in the portal's database, then on its server. A dry run changes no server.

    `place`: the server of the course.
    """
    user_ids = list(names)
    server = place if any(row.server for row in rows) else None
    with run.connect() as conn:
        written = repair_users(conn, user_ids, course)
        left = {row.table for row in compare_users(conn, user_ids, [course]) if row.differs}
        record(run, conn, [row for row in rows if row.server is None], names, note)
    if server is not None and run.dry_run:
        written = total(*written, *planned([row for row in rows if row.server]))
    elif server is not None:
        there, unequal = repair_there(run, course, server, user_ids)
        left |= unequal
        with run.connect() as conn:
            record(run, conn, [row for row in rows if row.server], names, note)
        written = total(*written, *there)
    prefix = "would " if run.dry_run and not left else ""
    tables = {part.table for part in written}
    written += [Written(table) for table in sorted(left - tables)]
    return [
        Repaired(course, part.table, part.inserted, part.updated, part.deleted,
                 prefix + ("differs" if part.table in left else "match"))
        for part in written or [Written("route")]
    ]  # fmt: skip


def planned(rows: Sequence[UserRow]) -> list[Written]:
    """Return what would be written for these rows."""
    columns = {"missing": "inserted", "changed": "updated", "extra": "deleted"}
    return total(*(Written(row.table, **{columns[row.finding]: 1}) for row in rows))


def repair_there(run: Run, course: str, server_name: str, user_ids: Sequence[int]) -> tuple[list[Written], set[str]]:
    """Make the rows of these users on a server equal to the portal's; return what was written, and what differs yet.

    Rows that are being written meanwhile may need a second look. Raises UnreachableError, RefusedError.
    """
    written: list[Written] = []
    left: set[str] = set()
    unequal: set[str] = set()
    with run.connect() as portal, run.connect() as holder:
        portal.autocommit = True
        holder.autocommit = True
        server = link.find_server(portal, server_name)
        place = next(row for row in catalog.placements(portal, server) if row.course == course)
        with (
            link.held(portal, server),
            opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
        ):
            for hop in session.hops:
                for look in range(LOOKS):
                    try:
                        found = compare_there(hop, place.schema_name, user_ids)
                    except FaultError:  # what was written on the relay met a row that was here already
                        if look == LOOKS - 1:
                            raise
                        restart(hop)
                        continue
                    unequal = {part.table for part in found if part.findings}
                    if not unequal or look == LOOKS - 1:
                        break
                    written += write_rows(
                        hop, holder, place, found, Progress(), below=None if hop is session else session
                    )
                left |= unequal
    return total(*written), left


def record(
    run: Run, conn: Conn, rows: Sequence[UserRow], names: Mapping[int, str], note: Callable[[str], None]
) -> None:
    """Record in the history, for each user, the rows that were repaired, if the role may write there."""
    for user_id in dict.fromkeys(row.user_id for row in rows):
        mine = [
            {"table": row.table, "finding": row.finding, "row_id": row.row_id, "columns": row.columns,
             "server": row.server}
            for row in rows if row.user_id == user_id
        ]  # fmt: skip
        known = history.record_if_allowed(
            conn, run, names.get(user_id) or f"id:{user_id}", "repaired", after={"rows": mine}, user_id=user_id,
            course_id=rows[0].course,
        )  # fmt: skip
        if not known:
            note(history.NOT_RECORDED)
            return
