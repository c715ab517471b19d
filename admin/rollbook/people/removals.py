"""Users whom a file would remove from courses: the most that a command removes, and the consent to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rollbook.core import render
from rollbook.core.errors import NotConfirmedError, RefusedError, UsageError

if TYPE_CHECKING:
    from rollbook.core.command import Run

NAMED = 10  # users that a plan names
T = TypeVar("T")


@dataclass(frozen=True)
class Limit:
    """The most users that may be removed: a number, or a percentage of those who are there."""

    number: float
    is_percentage: bool

    def of(self, present: int) -> int:
        """Return the limit where so many users are there."""
        return int(present * self.number / 100) if self.is_percentage else int(self.number)

    def check(self, leaving: Sequence[str], present: int, place: str, why: str) -> None:
        """Raise RefusedError if more leave a place than the limit."""
        if len(leaving) > self.of(present):
            raise RefusedError(
                f"this would remove {len(leaving)} of {present} users from {place}; the limit is {self.of(present)}",
                why=why, fix=f"check that the file is complete; if it is, add --max-removals {len(leaving)}",
            )  # fmt: skip


def parsed_limit(text: str) -> Limit:
    """Return the limit that a text such as 5 or 10% means. Raises UsageError."""
    number, is_percentage = text.strip().removesuffix("%"), text.strip().endswith("%")
    if not number.replace(".", "", 1).isdecimal() or ("." in number and not is_percentage):
        raise UsageError(f"--max-removals {text} is not a number", fix="write 5 for five, or 10% of the course")
    return Limit(float(number), is_percentage)


def named(names: Sequence[str], because: str = "not in the file") -> str:
    """Return the sentence that names the users who leave, the first of them."""
    return f"{because}: {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


class ConsentNeededError(Exception):
    """Removals that nobody consented to yet: ask when the transaction has been rolled back, and begin again."""

    def __init__(self, question: str, ids: frozenset[int], plan: dict[str, Any]) -> None:
        super().__init__(question)
        self.question = question
        self.ids = ids
        self.plan = plan


def with_consent(run: Run, act: Callable[[frozenset[int]], T]) -> T:
    """Do something that removes enrollments, with the ids of those that the caller consented to; return its answer.

    No lock is held while a person thinks: `act` raises ConsentNeededError, and is tried again after a yes.
    """
    agreed: frozenset[int] = frozenset()
    while True:
        try:
            return act(agreed)
        except ConsentNeededError as needed:
            try:
                render.confirm(run, needed.question)
            except NotConfirmedError as exc:
                exc.details["plan"] = needed.plan
                raise
            agreed |= needed.ids


def require_consent(run: Run, agreed: frozenset[int], ids: frozenset[int], question: str, plan: dict[str, Any]) -> None:
    """Raise ConsentNeededError for removals that nobody consented to, unless --yes or a dry run needs no consent."""
    if not (run.yes or run.dry_run or ids <= agreed):
        raise ConsentNeededError(question, ids, plan)
