"""Comparing a course's copies in the portal with those on its server, while both are written.

Both sides hash ranges of ids; where the hashes differ they hash the rows one by one; rows that differ then are read
again behind a fence, until each is known to differ or seen to be changing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row
from rollbook.replication.catalog import Copied
from rollbook.replication.fence import fence
from rollbook.replication.heartbeat import let_commit
from rollbook.replication.session import Session

RANGE_BITS = 13  # of an id: ranges of 8,192 ids
ROUNDS = 5  # reads of a row that differs before it counts as in flight

RANGES = "select range as number, rows, hash from rollbook.hash_ranges(%s, %s, %s, %s)"

ROWS = "select id as number, user_id, hash from rollbook.hash_rows(%s, %s, %s, %s, %s)"

LOOK = "select id, user_id, version, digests from rollbook.digest_columns(%s, %s, %s, %s)"

LOOK_WHOLE = "select id, user_id, version, digest as digests from rollbook.digest_rows(%s, %s, %s, %s)"


@dataclass(frozen=True)
class Difference:
    """One row that differs: `missing` on the server, `extra` there, or `changed` in these columns."""

    finding: str
    row_id: int
    user_id: int
    columns: list[str] | None  # None too where they were not asked for


@dataclass
class Compared:
    """One table of one course: how many rows the server has, and what differs there."""

    table: str
    rows: int = 0
    in_flight: int = 0
    findings: list[Difference] = field(default_factory=list)

    def count(self, finding: str) -> int:
        """Return how many findings are of one kind."""
        return sum(each.finding == finding for each in self.findings)


def compare(
    session: Session, schema_name: str, *, judged: bool = True, with_columns: bool = False
) -> list[Compared]:  # fmt: skip
    """Compare the copies of a course with those on the server. Not `judged`: the findings may be rows in flight.

    Raises UnreachableError if the server does not reach the portal's position within the session's time.
    """
    copies = session.copies(schema_name)
    if not copies or any(copy.sync != "r" or copy.lacking for copy in copies):
        raise UnreachableError(
            f"the copies in {schema_name} on server {session.server.name} cannot be compared",
            why="a table or column is missing there, or its first copy is not complete",
            fix="rollbook replication status", schema_name=schema_name,
        )  # fmt: skip
    fence(session)
    with ThreadPoolExecutor(2) as pool:
        try:
            return [
                compare_table(session, schema_name, name, pool, judged=judged, with_columns=with_columns)
                for name in session.copied.names
            ]
        except KeyboardInterrupt:  # the pool waits for running statements
            for side in (session.portal, session.conn):
                with suppress(psycopg.Error):
                    side.cancel_safe(timeout=2)
            raise


def compare_table(
    session: Session, schema_name: str, name: str, pool: ThreadPoolExecutor, *, judged: bool, with_columns: bool
) -> Compared:
    """Compare one table."""
    without = session.copied.without(schema_name)

    def both(statement: LiteralString, *asked: int) -> tuple[list[Row], list[Row]]:
        """Ask both sides at once; each hashes on a core of its own."""
        here = pool.submit(lambda: session.portal.execute(statement, [schema_name, name, *asked, without]).fetchall())
        there = pool.submit(lambda: session.conn.execute(statement, [schema_name, name, *asked, without]).fetchall())
        return here.result(), there.result()

    here, there = both(RANGES, RANGE_BITS)
    found = Compared(name, sum(row["rows"] for row in there))
    for number in differing(here, there):
        found.findings += differences(*both(ROWS, number << RANGE_BITS, (number + 1) << RANGE_BITS))
    if judged:
        doubtful, found.findings = [each.row_id for each in found.findings], []
        judge(session, schema_name, doubtful, found, LOOK if with_columns else LOOK_WHOLE)
    found.findings.sort(key=lambda each: each.row_id)
    return found


def differing(here: list[Row], there: list[Row]) -> list[int]:
    """Return the numbers of the ranges or rows that only one side has, or that differ, in order."""
    mine, theirs = ({tuple(row.values()) for row in rows} for rows in (here, there))
    return sorted({number for number, *_ in mine ^ theirs})


def differences(here: list[Row], there: list[Row]) -> list[Difference]:
    """Return the rows that only one side has, or that differ, in order."""
    mine, theirs = ({row["number"]: row for row in rows} for rows in (here, there))
    return [
        Difference(
            "missing" if number not in theirs else "changed" if number in mine else "extra", number,
            (mine.get(number) or theirs[number])["user_id"], None,
        )
        for number in differing(here, there)
    ]  # fmt: skip


def read_rows(
    side: Conn, known: Copied, schema_name: str, name: str, row_ids: list[int], query: LiteralString = LOOK
) -> dict[int, Row]:
    """Return by id these rows of one copy, on one side: id user_id version digests."""
    return {row["id"]: row for row in side.execute(query, [schema_name, name, row_ids, known.without(schema_name)])}


def judge(
    session: Session, schema_name: str, doubtful: list[int], found: Compared, query: LiteralString = LOOK
) -> list[int]:
    """Read rows that differed again: on the portal, behind a fence on the server, and on the portal once more.

    A row that the portal did not write between its two reads must be the same on the server. One that it keeps writing
    is in flight, and not a finding. A row that the portal does not have may have come and gone between its reads: it is
    extra if the server still has the same version behind the next fence. Returns the rows that are in flight.
    """
    columns = session.copied.of(schema_name, found.table) if query == LOOK else []
    extras: dict[int, str] = {}
    for _ in range(ROUNDS):
        if not doubtful:
            break
        before = read_rows(session.portal, session.copied, schema_name, found.table, doubtful, query)
        fence(session)
        there = read_rows(session.conn, session.copied, schema_name, found.table, doubtful, query)
        let_commit(session.portal)
        after = read_rows(session.portal, session.copied, schema_name, found.table, doubtful, query)
        moving = []
        for number in doubtful:
            mine, theirs = before.get(number), there.get(number)
            if mine != after.get(number):
                moving.append(number)
            elif mine is None and theirs is not None and extras.get(number) != theirs["version"]:
                extras[number] = theirs["version"]
                moving.append(number)
            elif mine is None and theirs is not None:
                found.findings.append(difference("extra", theirs))
            elif mine is not None and theirs is None:
                found.findings.append(difference("missing", mine))
            elif mine is not None and theirs is not None and mine["digests"] != theirs["digests"]:
                pairs = zip(columns, mine["digests"], theirs["digests"], strict=query == LOOK)
                found.findings.append(difference("changed", mine, [name for name, a, b in pairs if a != b]))
        doubtful = moving
    found.in_flight = len(doubtful)
    return doubtful


def difference(finding: str, row: Row, columns: Sequence[str] = ()) -> Difference:
    """Return one finding."""
    return Difference(finding, row["id"], row["user_id"], list(columns) or None)
