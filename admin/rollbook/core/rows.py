"""Rows as the database returns them, and helpers for every module of queries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

if TYPE_CHECKING:
    from psycopg import sql
    from psycopg.types.json import Jsonb

    from rollbook.core.db import Conn

Row = dict[str, Any]
Record = TypeVar("Record")


def one(conn: Conn, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> Row:
    """Return the row of a query that always returns one."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 (the query always returns one)
    return row


def typed(
    kind: type[Record], conn: Conn, query: LiteralString | sql.Composed,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
) -> list[Record]:  # fmt: skip
    """Return the rows of a query as objects of a dataclass; its fields are the query's columns."""
    from psycopg.rows import class_row

    return conn.cursor(row_factory=class_row(kind)).execute(query, parameters).fetchall()


def as_json(value: Any) -> Jsonb:  # noqa: ANN401
    """Return a value as a parameter of type jsonb; values without a JSON form become text."""
    from psycopg.types.json import Jsonb  # psycopg costs 0.2 s, which --help must not pay

    return Jsonb(value, dumps=lambda found: json.dumps(found, default=str, ensure_ascii=False))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return `the nearest is X`, or None if nothing is near; case does not count."""
    from difflib import get_close_matches

    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), names, n=1)
    return f"the nearest is {names[near[0]]}" if near else None
