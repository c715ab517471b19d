"""The log file: the tracebacks of bugs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.command import Run


def log_bug(run: Run, trace: str) -> Path | None:
    """Append a traceback to the log file (the configured one, else below XDG_STATE_HOME); None if that cannot be."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        configured = run.log_file or os.environ.get("ROLLBOOK_LOG_FILE")  # a bug may come before the configuration
        path = Path(configured).expanduser() if configured else state / "rollbook" / "rollbook.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as log:
            log.write(f"{datetime.now(UTC).isoformat()} {run.name}\n{trace}\n")
    except (OSError, RuntimeError):  # such as a full disk, or a user without a home
        return None
    return path
