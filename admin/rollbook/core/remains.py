"""What a removal leaves where: each place is named, with the command that takes it away where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, TypedDict

from rollbook.core.rows import typed

if TYPE_CHECKING:
    from psycopg import sql

    from rollbook.core.db import Conn


class Remains(TypedDict):
    """One place, as JSON has it; `count` None: unknown."""

    place: str
    what: str
    count: int | None
    fix: str | None


@dataclass(frozen=True)
class Remain:
    """What remains in one place after one row is removed. `several` is the remedy for many such rows together."""

    place: str
    what: str
    count: int | None = None
    fix: str | None = None
    several: str | None = None
    row: str | None = None  # the removed row, where a query answers for many

    @property
    def public(self) -> Remains:
        """Return it as JSON has it."""
        return Remains(place=self.place, what=self.what, count=self.count, fix=self.fix)


def find(
    conn: Conn, query: LiteralString | sql.Composed, parameters: Sequence[Any] | Mapping[str, Any]
) -> list[Remain]:
    """Return what a query finds: place, what, count, fix, several, row."""
    return typed(Remain, conn, query, parameters)


def by_row(found: Iterable[Remain]) -> dict[str | None, list[Remain]]:
    """Return them by the removed row."""
    rows: dict[str | None, list[Remain]] = {}
    for each in found:
        rows.setdefault(each.row, []).append(each)
    return rows
