"""Holding the routes of users on the portal while a server is written: for a bounded time, whatever the server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg
from psycopg import pq

from rollbook.core.bound import hang_up
from rollbook.core.db import Conn

HOLD = "select from rollbook.route where user_id = any(%s) order by user_id for update"
GIVE_UP_SECONDS = 1.0  # how long a server may take to end its statement, once the routes are free again
LOST_SECONDS = 5.0  # behind the bound: the portal itself frees the routes of a program that is stopped, or cut off
EXPIRES = "select set_config('idle_in_transaction_session_timeout', %s, true)"


class RouteHold:
    """A hold on routes: until when it lasts."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left; 0 if the routes are free again."""
        return max(0.0, self.end - time.monotonic())


@contextmanager
def held_routes(holder: Conn, user_ids: Sequence[int], servers: Sequence[Conn], seconds: float) -> Iterator[RouteHold]:
    """Hold the routes of users for `seconds`, while the sessions with these servers are used.

    Then they are free again, and a server that works on a statement is asked to cancel it. One that does not is cut
    off: its session breaks. Who commits on a server looks first whether anything is left.
    """
    done = threading.Event()
    with holder.transaction(force_rollback=True):
        holder.execute(EXPIRES, [f"{int((seconds + LOST_SECONDS) * 1000)}ms"])
        holder.execute(HOLD, [list(user_ids)])
        watch = threading.Thread(target=end_hold, args=(holder, servers, seconds, done), daemon=True)
        hold = RouteHold(seconds)
        watch.start()
        try:
            yield hold
        finally:
            done.set()
            watch.join()


def end_hold(holder: Conn, servers: Sequence[Conn], seconds: float, done: threading.Event) -> None:
    """Free the routes once `seconds` have passed, then see to it that no server keeps the program any longer."""
    if done.wait(seconds):
        return
    with suppress(psycopg.Error):
        holder.execute("rollback")
    for conn in filter(is_busy, servers):
        threading.Thread(target=cancel, args=(conn,), daemon=True).start()  # it may hang: this goes to the server too
    end = time.monotonic() + GIVE_UP_SECONDS
    while not done.wait(0.05):
        for conn in filter(is_busy, servers) if time.monotonic() > end else ():
            hang_up(conn)


def is_busy(conn: Conn) -> bool:
    """Return whether a session waits for its server."""
    return conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE


def cancel(conn: Conn) -> None:
    """Ask a server to cancel what it does; it may ignore that."""
    with suppress(psycopg.Error):
        conn.cancel_safe(timeout=GIVE_UP_SECONDS)
