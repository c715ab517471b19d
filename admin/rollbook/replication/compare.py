"""Comparing a course's copies in the portal with those on its server, while both are written.

Both sides hash ranges of ids; where the hashes differ they hash the rows one by one; rows that differ then are read
again behind a fence, until each is known to differ or seen to be changing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import LiteralString

import psycopg

from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row
from rollbook.replication.catalog import Copied
from rollbook.replication.fence import fence
from rollbook.replication.heartbeat import let_commit
from rollbook.replication.link import received, unusable
from rollbook.replication.session import Session

RANGE_BITS = 13  # of an id: ranges of 8,192 ids
NUMBERS = frozenset({int, Decimal, type(None)})  # what the hashes of ranges and rows consist of
MOST_RANGES = 100_000  # that a server may have beyond the portal's
MOST_EXTRA = 300_000  # rows of one copy that the portal does not have
ROUNDS = 5  # reads of a row that differs before it counts as in flight

ALL_RANGES = range(-(1 << 63 - RANGE_BITS), (1 << 63 - RANGE_BITS) - 1)  # of a bigint; the last has no end in one

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

    def both(statement: LiteralString, numbers: range, more: int, *asked: int) -> tuple[list[Row], list[Row]]:
        """Ask both sides at once; each hashes on a core of its own. The server has at most `more` rows more."""
        given = [schema_name, name, *asked, without]
        here = pool.submit(lambda: session.portal.execute(statement, given).fetchall())
        there = pool.submit(received, session.conn, statement, given, lambda: len(here.result()) + more)
        mine, theirs = here.result(), there.result()
        if any(not may_be(row, numbers) for row in theirs):
            raise unusable(session.server.name, f"no {name} of {schema_name} can have such numbers")
        return mine, theirs

    here, there = both(RANGES, ALL_RANGES, MOST_RANGES, RANGE_BITS)
    found, extra = Compared(name, sum(row["rows"] for row in there)), 0
    for number in differing(here, there):
        numbers = range(number << RANGE_BITS, (number + 1) << RANGE_BITS)
        findings = differences(*both(ROWS, numbers, len(numbers), numbers.start, numbers.stop))
        extra += sum(each.finding == "extra" for each in findings)
        if extra > MOST_EXTRA:
            raise unusable(session.server.name, f"{name} of {schema_name} has too many rows that the portal has not")
        found.findings += findings
    if judged:
        doubtful, found.findings = [each.row_id for each in found.findings], []
        judge(session, schema_name, doubtful, found, LOOK if with_columns else LOOK_WHOLE)
    found.findings.sort(key=lambda each: each.row_id)
    return found


def may_be(row: Row, numbers: range) -> bool:
    """Return whether a row of a server's answer is about one of these ranges or rows, in numbers as they are asked."""
    return NUMBERS.issuperset(map(type, row.values())) and row["number"] is not None and row["number"] in numbers


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
    given = [schema_name, name, row_ids, known.without(schema_name)]
    server = getattr(side, "server", None)
    if server is None:
        return {row["id"]: row for row in side.execute(query, given)}
    found = {row["id"]: row for row in received(side, query, given, lambda: len(row_ids))}
    columns = len(known.of(schema_name, name)) if query == LOOK else None
    if not found.keys() <= set(row_ids) or any(not is_digest(row, columns) for row in found.values()):
        raise unusable(server, f"no {name} of {schema_name} can have such digests")
    return found


def is_digest(row: Row, columns: int | None) -> bool:
    """Return whether a row of a server's answer has a version, and a digest or, of so many columns, one of each."""
    digests = row["digests"]
    is_whole = isinstance(digests, bytes) if columns is None else isinstance(digests, list) and len(digests) == columns
    return is_whole and isinstance(row["version"], str)


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
