"""A bound on a session that does not depend on its server: a server need not keep to its timeouts."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import Connection


def hang_up(conn: Connection[Any]) -> None:
    """End a session from another thread, whatever the server does: who waits for its answer gets an error."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


@contextmanager
def bounded(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Hang up if what is done takes longer: a server need not keep to its timeouts."""
    timer = threading.Timer(seconds, hang_up, [conn])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
