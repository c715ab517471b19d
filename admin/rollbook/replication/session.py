"""A session with both sides of one server's stream: what most of this wing works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from rollbook.core.bound import bounded
from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.replication import catalog, feeding, link
from rollbook.replication.link import Server


@dataclass(frozen=True)
class Session:
    """The portal (in autocommit), a server, and how long that server may take to catch up."""

    portal: Conn
    conn: Conn  # on the server, in autocommit
    server: Server
    timeout: float  # seconds
    is_taken_over: bool = False  # from another portal, whose command changed the server last
    upstream: Session | None = None  # with the relay that feeds the server; None: the portal does

    @property
    def source(self) -> Conn:
        """Return the session with the database that the server subscribes to: its relay, or the portal."""
        return self.portal if self.upstream is None else self.upstream.conn

    @property
    def source_name(self) -> str:
        """Return what feeds the server, in words."""
        return "the portal" if self.upstream is None else f"server {self.upstream.server.name}"

    @property
    def hops(self) -> list[Session]:
        """Return the sessions through which a change goes: with the relay, if there is one, then with the server."""
        return [self] if self.upstream is None else [self.upstream, self]

    @cached_property
    def copied(self) -> catalog.Copied:
        """Return what the installation copies."""
        return catalog.copied(self.portal)

    def subscription(self) -> catalog.Subscription | None:
        """Return the subscription as it is now."""
        return catalog.subscription(self.conn, self.server)

    def copies(self, *schemas: str) -> list[catalog.Copy]:
        """Return the copies in these schemas of the server as they are now."""
        return catalog.copies(self.conn, self.copied, schemas, self.subscription())


@contextmanager
def opened(
    portal: Conn, server: Server, caller: Caller, *, catch_up: float, changes: bool, take_over: bool = False
) -> Iterator[Session]:
    """Yield a session for long work; it waits `catch_up` seconds where the caller has no timeout.

    Raises RefusedError for a portal that is not the one which feeds the server, UnreachableError for a server, or its
    relay, that does not answer what it is asked first. `changes`: record there that it is.
    """
    with ExitStack() as stack:
        relay, upstream = link.find_relay(portal, server), None
        if relay is not None:
            try:
                upstream = stack.enter_context(opened(portal, relay, caller, catch_up=catch_up, changes=changes))
            except UnreachableError as exc:
                raise link.cut_off(server, relay, exc) from exc
        conn = stack.enter_context(link.reached(server, caller, long=True))
        own = link.identity(portal)
        with bounded(conn, conn.patience):
            found = feeding.known(conn, server, own)
        source = portal if upstream is None else upstream.conn
        with bounded(source, 0 if upstream is None else conn.patience):
            unread = feeding.unread_since(source, server)
        if refusal := feeding.objection(server, own, found, unread, take_over=take_over):
            raise refusal
        if changes:
            with bounded(conn, conn.patience):
                feeding.record(conn, own)
        link.unhurried(conn, caller)
        yield Session(
            portal, conn, server, caller.timeout or catch_up,
            is_taken_over=found.current not in (None, own.database), upstream=upstream,
        )  # fmt: skip


@contextmanager
def joined(portal: Conn, conn: Conn, server: Server, caller: Caller, seconds: float) -> Iterator[Session]:
    """Yield a session for a short look, with a connection to the server that exists; reaches its relay, if it has one.

    Raises UnreachableError for a relay that does not answer.
    """
    relay = link.find_relay(portal, server)
    if relay is None:
        yield Session(portal, conn, server, seconds)
        return
    with ExitStack() as stack:
        try:
            there = stack.enter_context(link.reached(relay, caller))
        except UnreachableError as exc:
            raise link.cut_off(server, relay, exc) from exc
        yield Session(portal, conn, server, seconds, upstream=Session(portal, there, relay, seconds))


def ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Progress:
    """How long work reports to its caller: how much more is done, and sentences for the operator.

    `rows` takes how many more rows were compared or written, and how many of those that `expect` announced that was.
    """

    advance: Callable[[int], None] = ignore  # of the items that its caller, or `more`, announced
    note: Callable[[str], None] = ignore
    rows: Callable[[int, int], None] = ignore
    expect: Callable[[int], None] = ignore
    more: Callable[[int], None] = ignore

    @contextmanager
    def part(self, expected: int) -> Iterator[Progress]:
        """Yield the progress of a part of the work, for which `expected` rows were announced: however many it has."""
        left = expected

        def rows(count: int, reached: int) -> None:
            nonlocal left
            step = min(reached, left)
            left -= step
            self.rows(count, step)

        try:
            yield Progress(note=self.note, rows=rows)
        finally:
            self.rows(0, left)
            self.advance(1)
