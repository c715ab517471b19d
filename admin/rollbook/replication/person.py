"""Some users' copies everywhere, in the portal's database and on the course servers, compared with the portal.

Rows are found by user, so the cost does not depend on how many students a course has. Servers are asked at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import AdminError, AttentionError, UnreachableError
from rollbook.core.rows import Row
from rollbook.core.shell import course_word
from rollbook.replication import catalog, link, observe, state
from rollbook.replication.arrivals import confirmed
from rollbook.replication.catalog import Copied
from rollbook.replication.compare import Compared, judge, read_rows
from rollbook.replication.fence import fence
from rollbook.replication.heartbeat import arrival, send_if_allowed
from rollbook.replication.link import ANSWER_SECONDS, Server
from rollbook.replication.observe import Seen
from rollbook.replication.queries.courses import CourseState
from rollbook.replication.queries.users import UserRow, can_find_users, compare_users, find_user_rows, place_states
from rollbook.replication.session import Session, opened
from rollbook.replication.state import Verdict


class Copy(NamedTuple):
    """One copied table of a course."""

    schema_name: str
    table: str


@dataclass(frozen=True)
class Held:
    """What a server has of some users: rows of the copies to compare, by id, and all schemas with rows of them."""

    rows: dict[Copy, dict[int, Row | None]]  # None: known to the portal, but not there
    schemas: set[str]


@dataclass(frozen=True)
class Uncompared:
    """A course, or a server, where the copies of the users were not compared, and why."""

    course: str | None  # None: the server, of which the portal knows no copy of these users
    server: str | None
    state: str  # a word of `status`
    reason: str | None
    fix: str | None

    @property
    def is_unreachable(self) -> bool:
        """Return whether nothing is known at all: no answer, or that of a server that another portal feeds."""
        return self.state in ("unreachable", "unknown")

    @property
    def cause(self) -> tuple[str | None, ...]:
        """Return what it has in common with others: a server that does not answer is one fault, of all its courses."""
        return self.server, self.state, self.reason

    def error(self) -> AdminError:
        """Return it as an error, which does not name the course or server."""
        there = f" on server {self.server}" if self.course and self.server else ""
        kind = UnreachableError if self.is_unreachable else AttentionError
        return kind(f"not compared{there}: {self.state}", why=self.reason, fix=self.fix)


@dataclass
class Everywhere:
    """What was found of some users: their rows, what could not be compared, and copies that no stream feeds."""

    copied: Copied
    servers: dict[str, str | None]  # by course
    paused: dict[str, Verdict]  # by course: it is not written, so that its copies may differ
    rows: list[UserRow]
    uncompared: list[Uncompared] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)  # server, schema

    @property
    def differing(self) -> list[UserRow]:
        """Return the rows that differ."""
        return [row for row in self.rows if row.differs]

    def obstacles(self) -> dict[str, AdminError]:
        """Return why courses were not compared, each reason once: courses, or a server, -> the error."""
        found: dict[tuple[str | None, ...], list[Uncompared]] = {}
        for each in self.uncompared:
            found.setdefault(each.cause, []).append(each)
        return {
            ", ".join(each.course or f"server {each.server}" for each in same): same[0].error()
            for same in found.values()
        }  # fmt: skip

    @property
    def is_unreachable(self) -> bool:
        """Return whether of a server nothing is known."""
        return any(each.is_unreachable for each in self.uncompared)


def look_everywhere(
    portal: Conn, user_ids: Sequence[int], courses: Sequence[str], caller: Caller, *, all_courses: bool
) -> Everywhere:
    """Compare the copies of these users in these courses, where they are enrolled and where not. Sets autocommit.

    A server that does not answer costs its timeout, once for all. `all_courses`: these are all the courses, so that
    what else a server has was kept by a detach.
    """
    portal.autocommit = True
    places = place_states(portal, courses)
    paused = {place.course: state.beside_portal(place) for place in places if place.paused_at is not None}
    found = Everywhere(
        catalog.copied(portal),
        {place.course: place.server for place in places},
        paused,
        compare_users(portal, user_ids, courses),
    )
    due = {row.course for row in found.rows}
    broken = {row.course: row.table for row in reversed(found.rows) if row.finding == "not_comparable"}
    for course, table in broken.items():
        fix = f"rollbook replication repair {course_word(course)}"
        found.uncompared.append(Uncompared(course, None, "broken", f"its copy {table} is gone, or lacks columns", fix))
    if not any(found.servers.values()):
        return found
    servers = link.list_servers(portal)
    behind = {relay.name: {each.name for each in servers if each.through == relay.name} for relay in servers}
    mine: dict[Server, list[CourseState]] = {
        server: here for server in servers
        if (here := [p for p in places if p.server and p.server in {server.name, *behind[server.name]}])
    }  # fmt: skip
    arriving = {
        (server.name, place.schema_name) for place in places for server in servers
        if place.moving_to and place.moving_to in {server.name, *behind[server.name]}
    }  # fmt: skip
    ready: dict[Server, list[CourseState]] = {}
    for seen in observe.look(portal, list(mine), caller):
        verdicts = {place: obstacle(place, seen) for place in mine[seen.server]}
        if not behind[seen.server.name]:  # of a relay, the servers behind it have them
            found.uncompared += uncompared(seen.server, verdicts, due)
        if comparable := [place for place, why in verdicts.items() if why is None]:
            ready[seen.server] = comparable
    schemas = {place.course: place.schema_name for place in places}
    known: dict[Copy, set[int]] = {}
    for row in found.rows:
        if row.row_id is not None:
            known.setdefault(Copy(schemas[row.course], row.table), set()).add(row.row_id)
    answers = ask_servers(portal, found.copied, ready, user_ids, known, caller, all_courses=all_courses)
    for server, comparable in ready.items():
        try:
            answer = answers[server.name]
            if isinstance(answer, UnreachableError):
                raise answer
            at = {place.schema_name: place.course for place in comparable}
            found.rows += compare_held(portal, found.copied, server, at, answer, caller)
            others = answer.schemas - {place.schema_name for place in mine[server]}
            found.kept += [
                (server.name, schema)
                for schema in sorted(others)
                if all_courses and (server.name, schema) not in arriving
            ]
        except AdminError as exc:  # a refusal: the server obeys another portal
            word = "unreachable" if isinstance(exc, UnreachableError) else "unknown"
            verdict = Verdict("lagging" if "lags" in exc.details else word, exc.why or exc.message, exc.fix)
            found.uncompared += uncompared(server, dict.fromkeys(comparable, verdict), due)
    return found


def obstacle(place: CourseState, seen: Seen) -> Verdict | None:
    """Return why a course cannot be compared on its server now, in the words of `status`; None if it can.

    Nor can it where its relay does not have it.
    """
    if seen.relay is not None and obstacle(place, seen.relay) is not None:
        return state.course_state(replace(place, paused_at=None), seen)
    answer = seen.reached
    copies = answer.copies.get(place.schema_name, []) if answer else []
    if (
        answer is not None and not seen.objection and place.recorded != "detached" and state.lost(seen) is None
        and seen.server.paused_at is None and seen.runs and copies
        and all(copy.is_there and copy.sync == "r" and not copy.lacking for copy in copies)
    ):  # fmt: skip
        return None
    # A pause of the course itself would hide what is wrong on the server.
    return state.course_state(replace(place, paused_at=None), seen)


def uncompared(
    server: Server, verdicts: Mapping[CourseState, Verdict | None], due: Collection[str]
) -> list[Uncompared]:
    """Return the courses of these users that cannot be compared; where none is theirs, but all are so, the server."""
    reasons = {place.course: why for place, why in verdicts.items() if why is not None}
    found = [Uncompared(course, server.name, *why) for course, why in reasons.items() if course in due]
    if not found and len(reasons) == len(verdicts):
        found = [Uncompared(None, server.name, *next(iter(reasons.values())))]
    return found


def ask_servers(
    portal: Conn, copied: Copied, places: Mapping[Server, Sequence[CourseState]], user_ids: Sequence[int],
    known: Mapping[Copy, Collection[int]], caller: Caller, *, all_courses: bool,
) -> dict[str, Held | UnreachableError]:  # fmt: skip
    """Ask servers at once what they have of these users, once they have all that the portal has committed by now.

    `places`: the courses to compare on each. `known`: the rows that the portal's copies have. `all_courses`: look for
    rows in all copies there.
    """
    seconds = caller.timeout or ANSWER_SECONDS
    beat = send_if_allowed(portal)
    reports = {} if beat else confirmed(portal, list(places), caller, seconds)

    def question(server: Server, conn: Conn) -> Held:
        if not can_find_users(conn):
            raise UnreachableError(
                "it was prepared by an older version of Rollbook",
                fix=f"rollbook course attach {course_word(places[server][0].course)} --to {server.name}",
            )
        if (arrival(conn, server, beat, seconds) if beat else reports[server.name]) is None:
            raise UnreachableError(
                f"it has not caught up with the portal within {seconds:g} s", fix="rollbook replication status",
                lags=True,
            )  # fmt: skip
        schemas = [place.schema_name for place in places[server]]
        theirs = find_user_rows(conn, user_ids, None if all_courses else schemas)
        rows: dict[Copy, dict[int, Row | None]] = {}
        for copy in [Copy(schema, name) for schema in schemas for name in copied.names]:
            if ids := sorted({*known.get(copy, ()), *theirs.get(copy, ())}):
                there = read_rows(conn, copied, *copy, ids)
                rows[copy] = {number: there.get(number) for number in ids}
        return Held(rows, {schema for schema, _ in theirs})

    return link.ask(places, question, caller, waits=seconds)


def compare_held(
    portal: Conn, copied: Copied, server: Server, courses: Mapping[str, str], held: Held, caller: Caller
) -> list[UserRow]:
    """Compare what a server has of some users with the portal's copies; `courses` by schema.

    Rows that differ are read again behind a fence, until each is known to differ or seen to be changing.
    """
    found: list[UserRow] = []
    doubtful: dict[Copy, list[int]] = {}
    owners: dict[Copy, dict[int, int]] = {}

    def add(copy: Copy, number: int, finding: str, columns: list[str] | None = None) -> None:
        user_id, course = owners[copy][number], courses[copy.schema_name]
        found.append(UserRow(user_id, course, copy.table, number, finding, columns, server.name))

    for copy, there in held.rows.items():
        here = read_rows(portal, copied, *copy, list(there))
        doubtful[copy] = different(here, there)
        owners[copy] = {number: row["user_id"] for number, row in (there | here).items() if row}
        for number in here.keys() - set(doubtful[copy]):
            add(copy, number, "ok")
    if not any(doubtful.values()):
        return found
    with opened(portal, server, caller, catch_up=ANSWER_SECONDS, changes=False) as session:
        for copy, ids in doubtful.items():
            compared = Compared(copy.table)
            moving = judge(session, copy.schema_name, ids, compared)
            for each in compared.findings:
                add(copy, each.row_id, each.finding, each.columns)
            for number in moving:
                add(copy, number, "in_flight")
            for number in set(ids) - set(moving) - {each.row_id for each in compared.findings}:
                if number in read_rows(portal, copied, *copy, [number]):  # arrived meanwhile
                    add(copy, number, "ok")
    return found


def different(here: Mapping[int, Row], there: Mapping[int, Row | None]) -> list[int]:
    """Return the ids of the rows that are not equal on both sides."""
    mine = {number: row["digests"] for number, row in here.items()}
    return [number for number, row in there.items() if mine.get(number) != (row and row["digests"])]


def compare_there(session: Session, schema_name: str, user_ids: Sequence[int]) -> list[Compared]:
    """Compare the rows of these users in one course with those on its server, behind a fence.

    Raises UnreachableError if the server does not reach the portal's position within the session's time.
    """
    fence(session)
    mine, theirs = (find_user_rows(side, user_ids, [schema_name]) for side in (session.portal, session.conn))
    found = []
    for name in session.copied.names:
        ids = sorted({*mine.get((schema_name, name), ()), *theirs.get((schema_name, name), ())})
        here, there = (
            read_rows(side, session.copied, schema_name, name, ids) for side in (session.portal, session.conn)
        )
        found.append(Compared(name, len(there)))
        judge(session, schema_name, different(here, {number: there.get(number) for number in ids}), found[-1])
    return found
