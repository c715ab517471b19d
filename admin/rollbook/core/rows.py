"""A row as the database gives it, and what every module of queries needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from rollbook.core.db import Conn

Row = dict[str, Any]


def one(conn: Conn, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> Row:
    """Return the single row of a query that always has one."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 (such queries only)
    return row


def as_json(value: Any) -> Jsonb:  # noqa: ANN401
    """Return a value as a parameter of type jsonb; what JSON has no form for becomes text."""
    return Jsonb(value, dumps=lambda found: json.dumps(found, default=str, ensure_ascii=False))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return `the nearest is X`, or None where nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"the nearest is {near[0]}" if near else None
