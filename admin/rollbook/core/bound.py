"""A bound on a session that does not depend on its server: a server need not keep to its timeouts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from threading import Condition, Thread
from time import monotonic
from typing import Any

import psycopg
from psycopg import Connection


class Watch:
    """One thread looks after all statements: to start one for each takes ten times as long as a short statement."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.due: dict[object, tuple[float, Callable[[], None]]] = {}  # by its key: when to do what
        self.wakes = inf  # when the thread looks next
        self.thread: Thread | None = None

    @contextmanager
    def after(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        """Do something, in a thread of its own, if what runs inside takes longer than this."""
        key = object()
        self.add(key, monotonic() + seconds, act)
        try:
            yield
        finally:
            with self.changed:
                self.due.pop(key, None)

    def add(self, key: object, at: float, act: Callable[[], None]) -> None:
        """Do something when the time has come."""
        with self.changed:
            self.due[key] = at, act
            if self.thread is None or not self.thread.is_alive():
                self.wakes = at
                self.thread = Thread(target=self.run, name="rollbook watch", daemon=True)
                self.thread.start()
            elif at < self.wakes:  # else the thread wakes early enough: no switch to it for each statement
                self.wakes = at
                self.changed.notify()

    def run(self) -> None:
        """Wait for what is due next; others become due while one is done."""
        while True:
            with self.changed:
                now = monotonic()
                late = [key for key, (at, _) in self.due.items() if at <= now]
                for key in late:
                    Thread(target=self.due.pop(key)[1], daemon=True).start()
                self.wakes = min((at for at, _ in self.due.values()), default=inf)
                self.changed.wait(None if self.wakes == inf else self.wakes - now)


WATCH = Watch()


def hang_up(conn: Connection[Any]) -> None:
    """End a session from another thread, whatever the server does: who waits for its answer gets an error."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


@contextmanager
def bounded(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Hang up if what is done takes longer: a server need not keep to its timeouts. 0: it may."""
    late: list[float] = []

    def end() -> None:
        late.append(seconds)
        hang_up(conn)

    if not seconds:
        yield
        return
    with WATCH.after(seconds, end):
        try:
            yield
        except psycopg.Error as exc:
            if not late:
                raise
            error = psycopg.OperationalError(f"no answer within {seconds:g} s")
            error.server = getattr(exc, "server", None)  # type: ignore[attr-defined]
            raise error from exc
