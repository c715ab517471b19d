"""Who holds the lock that a statement of ours waits for, asked in a second session while it waits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, errors

from rollbook.core.values import visible

LOOK_SECONDS = 5.0  # after which a statement counts as one that waits
CONNECT_SECONDS = 2

HOLDERS = """
select w.holder, w.remedy from rollbook.lock_wait as w where w.waiting_pid = %s order by w.since limit 3
"""


class Holder(NamedTuple):
    """A session that holds a lock, in a phrase, and the statement that ends it, if one does."""

    words: str
    remedy: str | None


@contextmanager
def watched(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Watch one statement, bounded by `seconds`, 0 for no bound: if it waits for a lock, find who holds it.

    With a bound, `holders_of` has the answer from the error that ends it; without one, it is logged on stderr.
    """
    found: list[Holder] = []
    info = conn.info
    where = {"conninfo": info.dsn, "password": info.password or None, "connect_timeout": CONNECT_SECONDS}
    delay = min(LOOK_SECONDS, seconds * 0.7) if seconds else LOOK_SECONDS
    timer = Timer(delay, look, (where, info.backend_pid, found, not seconds))
    timer.daemon = True
    timer.start()
    try:
        yield
    except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
        exc.holders = found  # type: ignore[union-attr]
        raise
    finally:
        timer.cancel()


def look(where: dict[str, Any], pid: int, found: list[Holder], is_unbounded: bool) -> None:
    """Find who holds the lock for which session `pid` waits. What cannot be asked is not known."""
    try:
        with psycopg.connect(**where, autocommit=True, fallback_application_name="rollbook") as conn:
            found += [Holder(*row) for row in conn.execute(HOLDERS, [pid]).fetchall()]
    except psycopg.Error:
        return
    if is_unbounded:
        for holder in found:
            # A warning without a handler goes to stderr as it is.
            logging.getLogger("rollbook").warning(visible(f"waiting for {holder.words}; to end it: {holder.remedy}"))


def holders_of(exc: psycopg.Error) -> list[Holder]:
    """Return who held the lock for which the statement waited that ended with this error; none if that is not known."""
    found: list[Holder] = getattr(exc, "holders", [])
    return found
