"""Standard output where the reader may have left or the disk be full, and standard error likewise."""

import io
import os

from rollbook.core.errors import PIPE_CLOSED, UnreachableError
from rollbook.core.files import way_out


def discard(stream: io.TextIOWrapper) -> None:
    """Let what is still buffered, and all that follows, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class StandardOutput(io.TextIOWrapper):
    """A stream whose closed pipe ends the program silently with 141, be the writer ours, Typer's or Rich's.

    Any other failure, such as a full disk, raises UnreachableError.
    """

    def write(self, text: str) -> int:
        """Write as usual."""
        try:
            return super().write(text)
        except OSError as exc:
            raise self.failure(exc) from None

    def flush(self) -> None:
        """Flush as usual."""
        try:
            super().flush()
        except OSError as exc:
            raise self.failure(exc) from None

    def failure(self, exc: OSError) -> SystemExit | UnreachableError:
        """Return what a failure means to the program."""
        discard(self)
        if isinstance(exc, BrokenPipeError):
            return SystemExit(PIPE_CLOSED)
        return UnreachableError("cannot write to standard output", why=exc.strerror, fix=way_out(exc, "-o"))


class StandardError(io.TextIOWrapper):
    """A stream that fails silently: there is no other place to report it, and the exit code still counts."""

    def write(self, text: str) -> int:
        """Write as usual."""
        try:
            return super().write(text)
        except OSError:
            discard(self)
            return len(text)

    def flush(self) -> None:
        """Flush as usual."""
        try:
            super().flush()
        except OSError:
            discard(self)
