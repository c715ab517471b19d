"""What was found of some users' copies: by table for `replication verify --user`, by course for `user show`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from rollbook.replication.person import Everywhere, Uncompared
from rollbook.replication.queries.users import UserRow


@dataclass(frozen=True)
class UserComparison:
    """One table of one course, of one user; the fields are the columns of `replication verify --user`."""

    user: str
    course: str
    table: str
    portal_rows: int | None
    course_rows: int | None
    missing: int | None
    changed: int | None
    extra: int | None
    verdict: str  # match, differs, not_comparable, unreachable
    server: str | None
    in_flight: int | None


@dataclass(frozen=True)
class UserFinding:
    """One row that differs; the fields are the columns of `replication verify --user --rows`."""

    user: str
    course: str
    table: str
    finding: str  # missing, changed, extra
    row_id: int | None
    columns: list[str] | None
    server: str | None


class UserPlace(TypedDict):
    """The copies of one user in one course: those in the portal's database, and those on its server."""

    course: str
    is_enrolled: bool
    user_copy: str  # ok, missing, changed, extra, unknown, none: as rollbook.user_copies
    profile_copy: str
    enrollment_copy: str
    server: str | None
    server_copy: str | None  # equal, differs, in flight, none, or why it was not compared: a word of `status`


def count(rows: Iterable[UserRow], *findings: str) -> int:
    """Return how many rows have one of these findings."""
    return sum(row.finding in findings for row in rows)


def comparisons(found: Everywhere, names: Mapping[int, str]) -> list[UserComparison]:
    """Return a line for each user, course and table; `names` by user id, in the order of the lines."""
    silent = {each.course: each for each in found.uncompared if each.server and each.course}
    grouped: dict[tuple[int, str], dict[str, list[UserRow]]] = {}
    for row in found.rows:
        grouped.setdefault((row.user_id, row.course), {}).setdefault(row.table, []).append(row)
    order = {user_id: number for number, user_id in enumerate(names)}
    return [
        comparison(names[user_id], course, table, grouped[user_id, course].get(table, []), found, silent.get(course))
        for user_id, course in sorted(grouped, key=lambda key: (order[key[0]], key[1]))
        for table in [*found.copied.names, *(["route"] if "route" in grouped[user_id, course] else [])]
    ]


def comparison(
    user: str, course: str, table: str, rows: Sequence[UserRow], found: Everywhere, silent: Uncompared | None
) -> UserComparison:
    """Return one line."""
    server = found.servers[course]
    here = [row for row in rows if row.server is None]
    there = [row for row in rows if row.server == server] if server else here
    beside = {(row.row_id, row.finding) for row in (*here, *there)}  # what a relay lacks, and its server too
    rows = [row for row in rows if row.server in (None, server) or (row.row_id, row.finding) not in beside]
    due = count(here, "ok", "missing", "changed")
    if silent is not None and table != "route":
        verdict = "unreachable" if silent.state == "unreachable" else "not_comparable"
        return UserComparison(user, course, table, due, None, None, None, None, verdict, server, None)
    if count(here, "not_comparable"):
        return UserComparison(user, course, table, None, None, None, None, None, "not_comparable", server, None)
    verdict = "differs" if any(row.differs for row in rows) else "match"
    missing, changed, extra, moving = (count(rows, word) for word in ("missing", "changed", "extra", "in_flight"))
    held = count(there, "ok", "changed", "extra", "in_flight")
    return UserComparison(user, course, table, due, held, missing, changed, extra, verdict, server, moving)


def findings(found: Everywhere, names: Mapping[int, str]) -> list[UserFinding]:
    """Return each row that differs."""
    order = {user_id: number for number, user_id in enumerate(names)}
    rows = sorted(found.differing, key=lambda row: (order[row.user_id], row.course))
    return [
        UserFinding(names[row.user_id], row.course, row.table, row.finding, row.row_id, row.columns, row.server)
        for row in rows
    ]


def copies_of(found: Everywhere, user_id: int, enrolled: Collection[str]) -> dict[str, Any]:
    """Return what `user show` has of the copies of one user: copies, differences, not_compared."""
    mine = [row for row in found.rows if row.user_id == user_id]
    courses = {row.course for row in mine}
    return {
        "copies": [
            place(course, course in enrolled, [row for row in mine if row.course == course], found)
            for course in sorted(courses)
        ],
        "differences": [
            {"course": row.course, "server": row.server, "table": row.table, "finding": row.finding,
             "row_id": row.row_id, "columns": row.columns}
            for row in mine if row.differs
        ],
        "not_compared": [vars(each) for each in found.uncompared if each.course is None or each.course in courses],
    }  # fmt: skip


def place(course: str, is_enrolled: bool, rows: Sequence[UserRow], found: Everywhere) -> UserPlace:
    """Return the line of one course."""
    here: dict[str, list[UserRow]] = {table.role: [] for table in found.copied.tables}
    roles = {table.name: table.role for table in found.copied.tables}
    for row in rows:
        if row.server is None and row.table in roles:
            here[roles[row.table]].append(row)
    there = [row for row in rows if row.server]
    silent = next((each.state for each in found.uncompared if each.server and each.course == course), None)
    words = "differs" if any(row.differs for row in there) else "in flight" if count(there, "in_flight") else "equal"
    server = found.servers[course]
    return UserPlace(
        course=course, is_enrolled=is_enrolled,
        user_copy=local_word(here["person"]), profile_copy=local_word(here.get("profile", ())),
        enrollment_copy=local_word(here["membership"]), server=server,
        server_copy=None if server is None else silent or (words if there else "none"),
    )  # fmt: skip


def in_short(line: UserPlace) -> dict[str, Any]:
    """Return the line of one course for a narrow screen: what is wrong with the portal's copies in one column."""
    states = {"user": line["user_copy"], "profile": line["profile_copy"], "enrollment": line["enrollment_copy"]}
    wrong = [f"{name} {word}" for name, word in states.items() if word not in ("ok", "none")]
    return {
        "course": line["course"], "is_enrolled": line["is_enrolled"], "portal_copy": ", ".join(wrong) or "ok",
        "server": line["server"], "server_copy": line["server_copy"],
    }  # fmt: skip


def local_word(rows: Sequence[UserRow]) -> str:
    """Return the state of one copy in the portal's database, as rollbook.user_copies has it."""
    words = {row.finding for row in rows}
    worst = next((word for word in ("not_comparable", "changed", "missing", "extra", "ok") if word in words), "none")
    return "unknown" if worst == "not_comparable" else worst
