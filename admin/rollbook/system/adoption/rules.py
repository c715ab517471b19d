"""What a row of a site must be like, and the repairs of rows that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.command import Author
    from rollbook.core.db import Conn
    from rollbook.system.adoption.site import Site


@dataclass(frozen=True)
class Fault:
    """A rule that rows of the site break."""

    rule: str
    table: str
    column: str
    count: int
    first_ids: list[int]
    remedy: str


@dataclass(frozen=True)
class Repaired:
    """What one repair changed or deleted."""

    rule: str
    word: str
    table: str
    rows: int


def find(conn: Conn, site: Site) -> list[Fault]:
    """Return every rule that is broken. All of it is read in the snapshot of the caller's transaction."""
    raise NotImplementedError


def apply(
    conn: Conn, site: Site, fixes: Sequence[str], author: Author | None = None, reason: str | None = None
) -> list[Repaired]:
    """Repair rows, and keep each with before and after in public.rollbook_adoption_fix, in the caller's transaction.

    `fixes` are RULE=WORD. The command calls it: before `rehearse`, in the transaction that is rolled back, and before
    `adopt`, in a transaction of its own. Raises RefusedError where a row is wrong afterwards; the caller rolls back.
    """
    raise NotImplementedError


def are_fixed(conn: Conn) -> bool:
    """Return whether a repair has been made: public.rollbook_adoption_fix has rows."""
    raise NotImplementedError


def write_history(conn: Conn) -> int:
    """Copy the repairs that were made into rollbook.history; called in the adopting transaction. Return how many."""
    raise NotImplementedError
