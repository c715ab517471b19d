"""Short transactions that lock a copy which others read and write."""

from __future__ import annotations

import time
from collections.abc import Iterable

from psycopg import errors

from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError

LOCK_SECONDS = 1.0  # how long a reader of a copy may hold up one attempt, and be held up by it
ATTEMPTS = 10
PAUSE_SECONDS = 0.2  # between two attempts


def run_locked(conn: Conn, statements: Iterable[str]) -> None:
    """Run statements that lock a copy, in one transaction; again if its lock is not free in time, or crosses another.

    Raises RefusedError, naming who has the lock.
    """
    words = "; ".join(statements)
    if not words:
        return
    for turn in range(ATTEMPTS):
        try:
            with conn.transaction():
                conn.execute(f"set local lock_timeout = '{LOCK_SECONDS:g}s'; {words}".encode())
        except (errors.LockNotAvailable, errors.DeadlockDetected) as exc:
            if turn == ATTEMPTS - 1:
                where = getattr(exc, "server", None)
                raise RefusedError(
                    f"a copy{f' on server {where}' if where else ''} is in use",
                    why=f"its lock was not free in {ATTEMPTS} attempts of {LOCK_SECONDS:g} s",
                    fix="end the transaction that uses it, then the same command again",
                ) from exc
            time.sleep(PAUSE_SECONDS)
        else:
            return
