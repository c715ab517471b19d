"""What can go wrong, each with its exit code; and the one map from SQLSTATE to it."""

from __future__ import annotations

from typing import Any, ClassVar


class AdminError(Exception):
    """An error for the user: a fact, perhaps the server's reason, and a remedy. Subclasses set the exit code."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "refused"

    def __init__(self, message: str, *, why: str | None = None, fix: str | None = None, **details: Any) -> None:  # noqa: ANN401
        super().__init__(message)
        self.message = message
        self.why = why
        self.fix = fix
        self.details = details


class RefusedError(AdminError):
    """Not found, exists already, or a rule says no. Nothing was changed."""


class UsageError(AdminError):
    """A bad option or argument."""

    exit_code = 2
    code = "usage"


class UnreachableError(AdminError):
    """No answer, no right, or not comparable: the truth is not known."""

    exit_code = 3
    code = "unknown"


class AttentionError(AdminError):
    """The program works, the database needs somebody: not migrated, drifted."""

    exit_code = 4
    code = "attention"


class BugError(AdminError):
    """An uncaught exception: ours to mend."""

    exit_code = 70
    code = "bug"


class PartialError(AdminError):
    """Some of it is done, the rest is not."""

    exit_code = 5
    code = "partial"


class NotConfirmedError(AdminError):
    """The command needs --yes or --confirm, and nobody could be asked or the answer was no."""

    exit_code = 6
    code = "not_confirmed"
