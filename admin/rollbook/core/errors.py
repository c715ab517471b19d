"""The exit codes, and the errors that end a command with one."""

from __future__ import annotations

from typing import Any, ClassVar

INTERRUPTED = 130
PIPE_CLOSED = 141
COMMITTING = "committing"  # a note on a KeyboardInterrupt that came during the commit
EXIT_CODES = {
    0: "done; healthy; nothing to do; an empty list",
    1: "refused: unknown, already exists, or a rule forbids it. Nothing was changed",
    2: "usage: a wrong option, argument, file header or column",
    3: "unknown: the server did not answer, a permission is missing, an answer could not be written (a full disk), "
    "or something could not be compared",
    4: "attention: drift, lag, something pending, or the database is not migrated",
    5: "partial: some items were done and others not; the report says which",
    6: "not confirmed: the answer was no, or there was no terminal to ask on",
    70: "a bug in rollbook; the message names the log file",
    INTERRUPTED: "interrupted by Ctrl-C",
    PIPE_CLOSED: "the reader closed the pipe",
}
"""Exit code -> meaning. Every command uses them alike; the reference is written from here. Where several apply, the
first of 70, 2, 6, 3, 5, 4, 1 wins."""


class AdminError(Exception):
    """An error for the user: a fact, a reason if there is one, and a remedy. Subclasses set the exit code."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "refused"

    def __init__(self, message: str, *, why: str | None = None, fix: str | None = None, **details: Any) -> None:  # noqa: ANN401
        super().__init__(message)
        self.message = message
        self.why = why
        self.fix = fix
        self.details = details

    def about(self, subject: str, **details: Any) -> AdminError:  # noqa: ANN401
        """Return an error of the same class that names what it is about, with these details besides."""
        found = type(self).__new__(type(self))  # a subclass may be made of something else
        named = f"{subject}: {self.message}"
        AdminError.__init__(found, named, why=self.why, fix=self.fix, **{**self.details, **details})
        return found


class RefusedError(AdminError):
    """Not found, already exists, or a rule forbids it. Nothing was changed."""


class UsageError(AdminError):
    """A bad option or argument."""

    exit_code = 2
    code = "usage"


class UnreachableError(AdminError):
    """The server did not answer, a permission is missing, or something could not be compared."""

    exit_code = 3
    code = "unknown"


class AttentionError(AdminError):
    """The database needs attention: it is not migrated, or it drifted."""

    exit_code = 4
    code = "attention"


class BugError(AdminError):
    """An uncaught exception: a bug in rollbook."""

    exit_code = 70
    code = "bug"


class PartialError(AdminError):
    """Some items were done and others not."""

    exit_code = 5
    code = "partial"


class NotConfirmedError(AdminError):
    """The command needs --yes or --confirm: the answer was no, or nobody could be asked."""

    exit_code = 6
    code = "not_confirmed"
