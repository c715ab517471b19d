"""Adopt a site: rehearse all of it in a transaction that is rolled back, or do it, in steps that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.site import Site

LOCK_SECONDS = 2.0


@dataclass(frozen=True)
class RowCount:
    """The rows of one table before and after; `before` is None for a table that was made."""

    table: str
    before: int | None
    after: int


@dataclass(frozen=True)
class Report:
    """What an adoption, a rehearsal or an undo did."""

    schema: str  # of the site's tables before
    place: str  # of the site's tables after
    steps: list[str] = field(default_factory=list)
    rows: list[RowCount] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)  # columns of the site that do not travel
    followed: list[str] = field(default_factory=list)  # foreign keys of other tables that still refer to ours
    courses: list[str] = field(default_factory=list)
    findings: int = 0  # what verify found
    lock_seconds: float = 0.0  # the longest time that writers of a table waited
    settings: list[str] = field(default_factory=list)  # what the application must set
    left: list[str] = field(default_factory=list)  # what could not be done or undone, and why


Progress = Callable[[str], None]


def rehearse(
    conn: Conn, site: Site, *, in_place: bool, fixes: Sequence[str] = (), courses: str = "all", widen: bool = False,
    lock_timeout: float = LOCK_SECONDS, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Do all of it in one transaction, verify, and roll back. Writers of the tables wait until it ends.

    `courses`: all, none, or a file with a course ID a line.
    """
    raise NotImplementedError


def adopt(
    conn: Conn, site: Site, *, in_place: bool, fixes: Sequence[str] = (), courses: str = "all", widen: bool = False,
    lock_timeout: float = LOCK_SECONDS, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Adopt the site. `conn` must be in no transaction; stopped anywhere, the same call goes on.

    Raises RefusedError where a row slipped in that a step cannot take, UnreachableError where a lock was never free.
    """
    raise NotImplementedError
