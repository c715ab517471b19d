"""Comparing a course's copies in the portal with those on its server, while both are written.

Ranges of ids are digested on both sides; where the digests differ the rows are digested one by one; and what differs
then is looked at again behind a fence, until it is either settled or seen to be changing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row, one
from rollbook.replication import stream
from rollbook.replication.link import Server, fence, let_commit

RANGE_ROWS = 10_000
ROUNDS = 5  # looks at a row that differs before it is called in flight

BOUNDS = "select id from (select id, row_number() over (order by id) as n from {}) as r where n % {} = 0 order by id"

DIGEST = """
select count(*) as rows, sha256(coalesce(string_agg(r.digest, ''::bytea order by r.id), ''::bytea)) as digest
from (
    select id, sha256(convert_to(row({columns})::text, 'UTF8')) as digest from {place} where {within}
) as r
"""

ROWS = "select id, sha256(convert_to(row({columns})::text, 'UTF8')) as digest from {place} where {within}"

# xmin tells whether the row was written between two looks, also where it says the same as before.
LOOK = (
    "select id, {owner} as user_id, xmin::text as version, array[{digests}] as digests from {place} where id = any(%s)"
)


@dataclass
class Compared:
    """One table of one course: rows on the server, and what differs there; row_id user_id finding columns."""

    table: str
    rows: int = 0
    in_flight: int = 0
    findings: list[Row] = field(default_factory=list)

    def count(self, finding: str) -> int:
        """Return how many findings are of one kind."""
        return sum(row["finding"] == finding for row in self.findings)


def compare(
    portal: Conn, conn: Conn, to: Server, schema_name: str, columns: dict[str, list[str]], seconds: float,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Compared]:  # fmt: skip
    """Compare a course's three copies with those on the server; `advance` is told each table done.

    Raises UnreachableError if the stream does not get past the portal's position within `seconds`.
    """
    there = stream.copies(conn, stream.whitelist(portal), [schema_name], stream.subscription(conn, to))
    if len(there) < len(stream.TABLES) or any(row["sync"] != "r" or row["lacking"] for row in there):
        raise UnreachableError(
            f"the copies in {schema_name} on server {to.name} cannot be compared",
            why="a table or column is missing there, or its first copy is not done",
            fix="rollbook replication status", schema_name=schema_name,
        )  # fmt: skip
    fence(portal, conn, to, seconds)
    result = []
    with ThreadPoolExecutor(2) as pool:
        try:
            for name in stream.TABLES:
                result.append(compare_table(portal, conn, to, schema_name, name, columns[name], seconds, pool))
                advance(1)
        except KeyboardInterrupt:  # the pool waits for what it is at
            for side in (portal, conn):
                with suppress(psycopg.Error):
                    side.cancel_safe(timeout=2)
            raise
    return result


def compare_table(
    portal: Conn, conn: Conn, to: Server, schema_name: str, name: str, columns: Sequence[str], seconds: float,
    pool: ThreadPoolExecutor,
) -> Compared:  # fmt: skip
    """Compare one table."""
    place = sql.Identifier(schema_name, name)
    listed = sql.SQL(", ").join(sql.Identifier(column) for column in columns)

    def both(statement: sql.Composed) -> tuple[list[Row], list[Row]]:
        """Ask both sides at once; each has a core of its own to digest with."""
        here = pool.submit(lambda: portal.execute(statement).fetchall())
        there = pool.submit(lambda: conn.execute(statement).fetchall())
        return here.result(), there.result()

    bounds = [row["id"] for row in portal.execute(sql.SQL(BOUNDS).format(place, RANGE_ROWS))]
    found = Compared(name)
    doubtful: set[int] = set()
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        parts: list[sql.Composable] = [sql.SQL("true")] if low is None else [sql.SQL("id >= {}").format(low)]
        parts += [] if high is None else [sql.SQL("id < {}").format(high)]
        names = {"columns": listed, "place": place, "within": sql.SQL(" and ").join(parts)}
        (mine,), (theirs,) = both(sql.SQL(DIGEST).format(**names))
        found.rows += theirs["rows"]
        if mine != theirs:
            here, there = both(sql.SQL(ROWS).format(**names))
            doubtful |= {row["id"] for row in differing(here, there)}
    settle(portal, conn, to, place, columns, sorted(doubtful), seconds, found)
    found.findings.sort(key=lambda row: row["row_id"])
    return found


def differing(here: list[Row], there: list[Row]) -> list[Row]:
    """Return the rows that stand on one side alone, or otherwise than on the other."""
    mine, theirs = ({row["id"]: row for row in rows} for rows in (here, there))
    return [
        (mine.get(number) or theirs[number])
        for number in mine.keys() | theirs.keys()
        if number not in mine or number not in theirs or mine[number]["digest"] != theirs[number]["digest"]
    ]


def settle(
    portal: Conn, conn: Conn, to: Server, place: sql.Identifier, columns: Sequence[str], doubtful: list[int],
    seconds: float, found: Compared,
) -> None:  # fmt: skip
    """Look again at rows that differed: on the portal, behind a fence on the server, and on the portal again.

    A row that the portal did not write between its two looks must stand on the server as they saw it. One that it
    keeps writing is in flight, and no finding. What the portal does not have may have come and gone between its looks:
    it is extra if the server still has the same behind the next fence.
    """
    owner = "id" if found.table == "auth_user" else "user_id"
    look = sql.SQL(LOOK).format(
        owner=sql.Identifier(owner), place=place,
        digests=sql.SQL(", ").join(
            sql.SQL("sha256(convert_to({}::text, 'UTF8'))").format(sql.Identifier(column)) for column in columns
        ),
    )  # fmt: skip

    def seen(side: Conn) -> dict[int, Row]:
        return {row["id"]: row for row in side.execute(look, [doubtful])}

    extras: dict[int, str] = {}
    for _ in range(ROUNDS):
        if not doubtful:
            return
        before = seen(portal)
        fence(portal, conn, to, seconds)
        there = seen(conn)
        let_commit(portal)
        after = seen(portal)
        moving = []
        for number in doubtful:
            mine, theirs = before.get(number), there.get(number)
            if mine != after.get(number):
                moving.append(number)
            elif mine is None and theirs is not None and extras.get(number) != theirs["version"]:
                extras[number] = theirs["version"]
                moving.append(number)
            elif mine is None and theirs is not None:
                found.findings.append(finding("extra", theirs))
            elif mine is not None and theirs is None:
                found.findings.append(finding("missing", mine))
            elif mine is not None and theirs is not None and mine["digests"] != theirs["digests"]:
                pairs = zip(columns, mine["digests"], theirs["digests"], strict=True)
                found.findings.append(finding("changed", mine, [name for name, a, b in pairs if a != b]))
        doubtful = moving
    found.in_flight = len(doubtful)


def finding(word: str, row: Row, columns: Sequence[str] = ()) -> Row:
    """Return one finding."""
    return {"finding": word, "row_id": row["id"], "user_id": row["user_id"], "columns": list(columns) or None}


def rows_on(conn: Conn, schema_name: str) -> dict[str, int]:
    """Return how many rows each of a course's copies has on the server."""
    count = sql.SQL("select count(*) as n from {}")
    return {name: int(one(conn, count.format(sql.Identifier(schema_name, name)))["n"]) for name in stream.TABLES}


def columns_of(portal: Conn) -> dict[str, list[str]]:
    """Return the replicated columns by table."""
    found: Any = stream.whitelist(portal).obj
    return dict(found)
