"""What the tables of a site lack to be the portal's, as steps that can be undone; and what no step can overcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn


@dataclass(frozen=True)
class Step:
    """One change of the site's tables."""

    name: str  # in words, unique in an adoption
    table: str  # without schema
    do: str
    undo: str | None  # None: nothing to undo
    lock: str  # the strongest lock that it takes, and how long
    is_online: bool  # done in a transaction of its own, before the move


@dataclass(frozen=True)
class Blocked:
    """What stops an adoption before it begins."""

    object: str
    reason: str
    fix: str | None


def structure(conn: Conn, schema: str, *, in_place: bool, widen: bool) -> list[Step]:
    """Return what the tables lack, in the order in which it is done."""
    raise NotImplementedError


def blocked(conn: Conn, schema: str, *, in_place: bool = False, widen: bool = False) -> list[Blocked]:
    """Return what no step can overcome; empty: the site can be adopted."""
    raise NotImplementedError
