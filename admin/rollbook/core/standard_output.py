"""Standard output where the reader may have left."""

import io
import os

from rollbook.core.errors import PIPE_CLOSED


class StandardOutput(io.TextIOWrapper):
    """A stream whose closed pipe ends the program silently with 141, be the writer ours, Typer's or Rich's."""

    def write(self, text: str) -> int:
        """Write as usual."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise self.closed_pipe() from None

    def flush(self) -> None:
        """Flush as usual."""
        try:
            super().flush()
        except BrokenPipeError:
            raise self.closed_pipe() from None

    def closed_pipe(self) -> SystemExit:
        """Return the end of the program; what is still buffered goes nowhere."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        return SystemExit(PIPE_CLOSED)
