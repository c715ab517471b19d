"""What the imports of people share: hints on the problems of staged rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from rollbook.core.rows import nearest

if TYPE_CHECKING:
    from rollbook.core.db import Conn

UNKNOWN = "select distinct value from pg_temp.problem where column_name = %s and reason = %s and value <> '' limit 100"

ADD_HINT = """
update pg_temp.problem set reason = reason || '; ' || %(hint)s
where column_name = %(column)s and reason = %(reason)s and value = %(value)s
"""


def add_nearest(conn: Conn, column: str, reason: str, known: LiteralString) -> None:
    """Add the nearest name to each problem of a column that has this reason. `known` is a query of one column, name."""
    unknown = [row["value"] for row in conn.execute(UNKNOWN, [column, reason])]
    names = [row["name"] for row in conn.execute(known)] if unknown else []
    for value in unknown:
        if hint := nearest(value, names):
            conn.execute(ADD_HINT, {"column": column, "reason": reason, "value": value, "hint": hint})
