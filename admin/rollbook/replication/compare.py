"""Comparing a course's copies in the portal with those on its server, while both are written.

Both sides digest ranges of ids; where the digests differ they digest the rows one by one; rows that differ then are
read again behind a fence, until each is known to differ or seen to be changing.
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
from rollbook.replication.catalog import TABLES
from rollbook.replication.fence import fence
from rollbook.replication.heartbeat import let_commit
from rollbook.replication.session import Session

RANGE_ROWS = 10_000
ROUNDS = 5  # reads of a row that differs before it counts as in flight

BOUNDS = "select id from rollbook.id_bounds(%s, %s, %s) as b (id)"

DIGEST = """
select count(*) as rows, sha256(coalesce(string_agg(r.digest, ''::bytea order by r.id), ''::bytea)) as digest
from rollbook.digest_rows(%s, %s, %s, %s) as r
"""

ROWS = "select id, digest from rollbook.digest_rows(%s, %s, %s, %s)"

LOOK = "select id, user_id, version, digests from rollbook.digest_columns(%s, %s, %s)"


@dataclass(frozen=True)
class Difference:
    """One row that differs: `missing` on the server, `extra` there, or `changed` in these columns."""

    finding: str
    row_id: int
    user_id: int
    columns: list[str] | None


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


def compare(session: Session, schema_name: str) -> list[Compared]:
    """Compare a course's three copies with those on the server.

    Raises UnreachableError if the server does not reach the portal's position within the session's time.
    """
    copies = session.copies(schema_name)
    if len(copies) < len(TABLES) or any(copy.sync != "r" or copy.lacking for copy in copies):
        raise UnreachableError(
            f"the copies in {schema_name} on server {session.server.name} cannot be compared",
            why="a table or column is missing there, or its first copy is not complete",
            fix="rollbook replication status", schema_name=schema_name,
        )  # fmt: skip
    fence(session)
    with ThreadPoolExecutor(2) as pool:
        try:
            return [compare_table(session, schema_name, name, pool) for name in TABLES]
        except KeyboardInterrupt:  # the pool waits for running statements
            for side in (session.portal, session.conn):
                with suppress(psycopg.Error):
                    side.cancel_safe(timeout=2)
            raise


def compare_table(session: Session, schema_name: str, name: str, pool: ThreadPoolExecutor) -> Compared:
    """Compare one table."""

    def both(statement: LiteralString, low: int | None, high: int | None) -> tuple[list[Row], list[Row]]:
        """Ask both sides at once; each digests on a core of its own."""
        asked = [schema_name, name, low, high]
        here = pool.submit(lambda: session.portal.execute(statement, asked).fetchall())
        there = pool.submit(lambda: session.conn.execute(statement, asked).fetchall())
        return here.result(), there.result()

    bounds = [row["id"] for row in session.portal.execute(BOUNDS, [schema_name, name, RANGE_ROWS])]
    found = Compared(name)
    doubtful: set[int] = set()
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        (mine,), (theirs,) = both(DIGEST, low, high)
        found.rows += theirs["rows"]
        if mine != theirs:
            here, there = both(ROWS, low, high)
            doubtful |= {row["id"] for row in differing(here, there)}
    judge(session, schema_name, sorted(doubtful), found)
    found.findings.sort(key=lambda each: each.row_id)
    return found


def differing(here: list[Row], there: list[Row]) -> list[Row]:
    """Return the rows that only one side has, or that differ."""
    mine, theirs = ({row["id"]: row for row in rows} for rows in (here, there))
    return [
        (mine.get(number) or theirs[number])
        for number in mine.keys() | theirs.keys()
        if number not in mine or number not in theirs or mine[number]["digest"] != theirs[number]["digest"]
    ]


def read_rows(side: Conn, schema_name: str, name: str, row_ids: list[int]) -> dict[int, Row]:
    """Return by id these rows of one copy, on one side: id user_id version digests."""
    return {row["id"]: row for row in side.execute(LOOK, [schema_name, name, row_ids])}


def judge(session: Session, schema_name: str, doubtful: list[int], found: Compared) -> list[int]:
    """Read rows that differed again: on the portal, behind a fence on the server, and on the portal once more.

    A row that the portal did not write between its two reads must be the same on the server. One that it keeps writing
    is in flight, and not a finding. A row that the portal does not have may have come and gone between its reads: it is
    extra if the server still has the same version behind the next fence. Returns the rows that are in flight.
    """
    columns = session.columns[found.table]
    extras: dict[int, str] = {}
    for _ in range(ROUNDS):
        if not doubtful:
            break
        before = read_rows(session.portal, schema_name, found.table, doubtful)
        fence(session)
        there = read_rows(session.conn, schema_name, found.table, doubtful)
        let_commit(session.portal)
        after = read_rows(session.portal, schema_name, found.table, doubtful)
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
                pairs = zip(columns, mine["digests"], theirs["digests"], strict=True)
                found.findings.append(difference("changed", mine, [name for name, a, b in pairs if a != b]))
        doubtful = moving
    found.in_flight = len(doubtful)
    return doubtful


def difference(finding: str, row: Row, columns: Sequence[str] = ()) -> Difference:
    """Return one finding."""
    return Difference(finding, row["id"], row["user_id"], list(columns) or None)
