"""How the program reaches course servers: which exist, a session on one, a question to many at once."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core import lock_wait
from rollbook.core.bound import WATCH, bounded, hang_up
from rollbook.core.conninfo import masked, parts, sentences
from rollbook.core.db import Caller, Conn, Session, SessionCursor, require_own_session, session
from rollbook.core.errors import AdminError, RefusedError, UnreachableError, UsageError
from rollbook.core.rows import Row, nearest, one, typed
from rollbook.core.sqlstate import translate
from rollbook.core.values import one_line
from rollbook.replication import answered

HIDDEN = "its route holds a password, which this role may not read"
ANSWER_SECONDS = 5.0  # how long a server may take to answer one question, unless --timeout says otherwise
PART_ROWS = 1000  # of an answer that are read at once, where libpq can (from 17 on)
AT_ONCE = 100  # servers are asked: threads and sessions of this program
GRACE = 2.0  # times the seconds that a server keeps to itself: then we hang up, as it need not keep to them
STATEMENT_SECONDS = 3600.0  # how long a server may take over one statement of long work without --timeout
TOLD_SECONDS = 10.0  # after which long work reports, at the latest, that it waits for a server
CONNECT_SECONDS = 1.0  # how long a server may take to connect, at least: a short --timeout is for what it answers
Answer = TypeVar("Answer")

SERVERS = """
select
    name, admin_dsn, subscription_dsn, portal_identity, subscription, paused_at, created_at, through, moving_through,
    moving_direct, moving_dsn
from rollbook.server_route where %(name)s::text is null or name = %(name)s order by name
"""

IDENTITY = "select identity as database, timeline from rollbook.portal_identity()"


@dataclass(frozen=True)
class Identity:
    """Who a portal is: a clone has the same rows in rollbook.server, an old primary the same cluster and database."""

    database: str  # cluster and database, such as `7345.../16384`
    timeline: int


@dataclass(frozen=True)
class Server:
    """A row of rollbook.server_route. A route is None where it holds a password that this role may not read."""

    name: str
    admin_dsn: str | None
    subscription_dsn: str | None
    portal_identity: str
    subscription: int | None = None
    paused_at: datetime | None = None
    created_at: datetime | None = None
    through: str | None = None  # the relay that feeds it; None: the portal does
    moving_through: str | None = None  # the relay to which, or away from which, its `server move` is not finished
    moving_direct: bool = False  # that move leads to the portal
    moving_dsn: str | None = None  # the subscription_dsn that it was given

    @property
    def stream(self) -> str:
        """Return the name of its publication, its slot and its subscription."""
        return f"rollbook_{self.name}"

    @property
    def is_moving(self) -> bool:
        """Return whether its move between the portal and a relay is not finished."""
        return self.moving_through is not None

    @property
    def moving_words(self) -> str:
        """Return what is not finished of its move between the portal and a relay."""
        where = f"from {self.moving_through} to the portal" if self.moving_direct else f"behind {self.moving_through}"
        return f"the move of server {self.name} {where} is not finished"

    @property
    def move_command(self) -> str:
        """Return the command that finishes its move between the portal and a relay."""
        where = "--direct" if self.moving_direct else f"--through {self.moving_through}"
        return f"rollbook server move {self.name} {where}"


def list_servers(portal: Conn) -> list[Server]:
    """Return all course servers, by name."""
    return typed(Server, portal, SERVERS, {"name": None})


def find_server(portal: Conn, name: str) -> Server:
    """Return one course server. Raises RefusedError for an unknown one."""
    found = find_server_if_any(portal, name)
    if found is None:
        known = [each.name for each in list_servers(portal)]
        raise RefusedError(f"there is no server {name}", why=nearest(name, known), fix="rollbook server list")
    return found


def find_server_if_any(portal: Conn, name: str) -> Server | None:
    """Return one course server, None for an unknown one."""
    return next(iter(typed(Server, portal, SERVERS, {"name": name})), None)


def find_relay(portal: Conn, server: Server) -> Server | None:
    """Return the relay that feeds a server, None if the portal does."""
    return None if server.through is None else find_server(portal, server.through)


def list_behind(portal: Conn, relay: Server) -> list[Server]:
    """Return the servers that a relay feeds, and those that move behind it. Without any it is not a relay."""
    return [server for server in list_servers(portal) if relay.name in (server.through, server.moving_through)]


def refuse_relay(portal: Conn, server: Server) -> None:
    """Raise RefusedError while a server feeds others."""
    if behind := [each.name for each in list_behind(portal, server)]:
        raise RefusedError(
            f"server {server.name} is the relay of {', '.join(behind)}",
            fix=f"rollbook server remove {behind[0]}; or keep it: rollbook server move {behind[0]} --direct",
        )


def refuse_servers(portal: Conn) -> None:
    """Raise RefusedError while there are course servers: each has a slot here and a subscription there."""
    if found := list_servers(portal):
        names = ", ".join(server.name for server in found)
        first = next((server for server in found if server.through is not None), found[0])  # a relay goes last
        raise RefusedError(f"there are course servers: {names}", fix=f"rollbook server remove {first.name}")


def identity(portal: Conn) -> Identity:
    """Return who this portal is."""
    return typed(Identity, portal, IDENTITY)[0]


def checked_conninfo(option: str, given: str) -> str:
    """Return a conninfo that names its database and host. Raises UsageError: libpq would guess them otherwise."""
    found = parts(given, option)
    if not (found.get("dbname") or found.get("service")):
        raise UsageError(f"{option} does not name its database", fix="add dbname=NAME to it")
    if not (found.get("host") or found.get("hostaddr") or found.get("service")):
        raise UsageError(f"{option} does not name its host", fix="add host=NAME to it, or the directory of a socket")
    return given


def watched(given: str) -> str:
    """Return a conninfo that detects a lost machine within half a minute, unless it sets these parameters itself."""
    watch = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
    return make_conninfo(given, **{key: value for key, value in watch.items() if key not in conninfo_to_dict(given)})


def shown(route: str | None) -> str | None:
    """Return a route without its password; None if this role may not read it."""
    return None if route is None else masked(route)


def has_password(given: str) -> bool:
    """Return whether a conninfo holds a password."""
    return bool(conninfo_to_dict(given).get("password"))


@contextmanager
def reached(server: Server, caller: Caller, *, long: bool = False) -> Iterator[Session]:
    """Yield an autocommit session on the server. Raises UnreachableError; errors inside name the server.

    A statement has the caller's timeout (5 s if None), with `long` too: `unhurried` gives long work its time.
    """
    if server.admin_dsn is None:
        raise UnreachableError(
            f"the route to server {server.name} is hidden", why=HIDDEN,
            fix="keep passwords out of routes: service=NAME, passfile=FILE, or a certificate",
        )  # fmt: skip
    seconds = caller.timeout or ANSWER_SECONDS
    try:
        conn = session(watched(server.admin_dsn), name=caller.name, timeout=seconds)
    except psycopg.Error as exc:
        raise unreachable(server, exc) from exc
    conn.cursor_factory = named_cursor(server, tells=long)
    conn.server = server.name
    conn.patience = GRACE * seconds
    with conn:
        try:
            with bounded(conn, conn.patience):
                conn.autocommit = True
                if conn.is_pooled:
                    require_own_session(conn, f"the administration of server {server.name}")
                hide_statements(conn)
        except psycopg.Error as exc:
            raise unreachable(server, exc) from exc
        try:
            yield conn
        except psycopg.Error as exc:
            if getattr(exc, "server", None) != server.name:
                raise  # the portal's, or another server's
            raise server_error(server, exc) from exc


def hide_statements(conn: Conn) -> None:
    """Keep statements out of the server's log: a failed CREATE SUBSCRIPTION has its password. Superusers may do so."""
    if conn.execute("select current_setting('is_superuser') as is_superuser").fetchone() == {"is_superuser": "on"}:
        conn.execute("set log_min_error_statement = panic")
        conn.execute("set log_min_messages = error")  # requirements.try_route warns
        conn.execute("set log_statement = none")
        conn.execute("set log_min_duration_statement = -1")


def unhurried(conn: Conn, caller: Caller) -> None:
    """Let the statements of a session take long, unless --timeout bounds each of them."""
    if caller.timeout is None and isinstance(conn, Session):
        conn.execute("set statement_timeout = 0")
        conn.seconds = 0  # who holds a lock for which one waits is printed
        conn.patience = STATEMENT_SECONDS


def patience(conn: Conn) -> float:
    """Return how long the database may take over one statement, by our clock; 0, as the portal has it: no bound."""
    return conn.patience if isinstance(conn, Session) else 0.0


def hurry(conn: Conn, seconds: float) -> None:
    """Let a server take no longer than this over one statement from here on, by our clock."""
    if isinstance(conn, Session):
        conn.patience = min(conn.patience, seconds)


def named_cursor(server: Server, *, tells: bool = False) -> type[SessionCursor]:
    """Return a cursor class that marks its errors with the server's name, to tell them from errors of the portal.

    It hangs up on a server that takes longer than the session's patience. `tells`: once, it reports the wait before.
    """
    told: list[float] = []

    def tell(seconds: float) -> None:
        if not told:
            told.append(seconds)
            logging.getLogger("rollbook").warning(f"waiting for server {server.name}: no answer for {seconds:g} s")

    @contextmanager
    def marked() -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            exc.server = server.name  # type: ignore[attr-defined]
            raise
        except UnicodeDecodeError as exc:  # only a server that is none sends it
            error = psycopg.DataError(f"its answer is not UTF-8: {exc.reason}")
            error.server = server.name  # type: ignore[attr-defined]
            raise error from exc

    class NamedCursor(SessionCursor):
        """Reading a row can fail too: what a server answers need not be a value that exists here."""

        def execute(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            conn = self.connection
            with ExitStack() as stack:
                stack.enter_context(marked())
                stack.enter_context(bounded(conn, conn.patience))
                if tells:
                    seconds = min(0.75 * conn.patience, TOLD_SECONDS)
                    stack.enter_context(WATCH.after(seconds, lambda: tell(seconds)))
                return super().execute(*args, **kwargs)

        def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401
            conn = self.connection
            with conn.settled(), marked(), bounded(conn, conn.patience), lock_wait.watched(conn, conn.seconds):
                yield from super().stream(*args, **kwargs)

        def fetchone(self) -> Any:  # noqa: ANN401
            with marked():
                return super().fetchone()

        def fetchall(self) -> list[Any]:
            with marked():
                return super().fetchall()

        def __next__(self) -> Any:  # noqa: ANN401
            with marked():
                return super().__next__()

    return NamedCursor


def received(conn: Conn, statement: LiteralString, given: Sequence[Any], most: Callable[[], int]) -> list[Row]:
    """Return what a server answers, a part at a time, and hang up on one that answers more than `most()` rows.

    `most` is called once the first row is there. Raises UnreachableError.
    """
    found: list[Row] = []
    limit: int | None = None
    with conn.cursor() as cursor:
        for row in cursor.stream(statement, given, size=PART_ROWS if capabilities.has_stream_chunked() else 1):
            if limit is None:
                limit = most()
            if len(found) >= limit:
                hang_up(conn)  # else the rest would be read, to be thrown away
                raise unusable(str(getattr(conn, "server", None)), f"it has more than {limit} rows")
            found.append(row)
    return found


def unusable(name: str, why: str) -> UnreachableError:
    """Return the error of a server whose answer to one of Rollbook's own functions cannot be."""
    return UnreachableError(
        f"server {name} gives no usable answer", why=f"its answer cannot be read: {why}",
        fix=f"rollbook server add {name}",
    )  # fmt: skip


def cut_off(server: Server, relay: Server, exc: UnreachableError) -> UnreachableError:
    """Return the error of a server whose relay cannot be reached."""
    return UnreachableError(
        f"server {server.name} is unreachable through {relay.name}", why=exc.why,
        fix=f"rollbook server ping {relay.name}",
    )  # fmt: skip


def unreachable(server: Server, exc: psycopg.Error) -> UnreachableError:
    """Return the error of a server that does not answer, or not so that it can be read, with libpq's reason."""
    if isinstance(exc, psycopg.DataError):
        return UnreachableError(
            f"server {server.name} gives no usable answer",
            why=one_line(f"its answer cannot be read: {masked(str(exc))}"),
            fix=f"correct that value on server {server.name}: in its copies, or in rollbook.heartbeat",
        )  # fmt: skip
    said = (exc.diag.message_primary or str(exc)).removeprefix("connection is bad: ")
    return UnreachableError(
        f"server {server.name} cannot be reached", why=sentences(said),
        fix=f"rollbook server ping {server.name}" if server.created_at
        else "correct --admin-dsn, or let that server accept it, then run the command again",
    )  # fmt: skip


def either_error(server: Server, exc: psycopg.Error) -> AdminError:
    """Return what an error means, whether the server or the portal raised it."""
    return server_error(server, exc) if getattr(exc, "server", None) == server.name else translate(exc)


def server_error(server: Server, exc: psycopg.Error) -> AdminError:
    """Return what an error of the server means, with the server's name in front.

    Whoever owns the server chose its words: they begin no line, and its hint is not a command.
    """
    if exc.sqlstate is None or exc.sqlstate.startswith(("08", "57P")):
        return unreachable(server, exc)
    exc.server = server.name  # type: ignore[attr-defined]
    error = translate(exc).about(f"server {server.name}", server=server.name)
    error.message, error.why = one_line(error.message), one_line(error.why) if error.why else None
    if error.fix is None and exc.diag.message_hint:
        error.fix = hinted(server, exc.diag.message_hint)
    return error


def hinted(server: Server, hint: str) -> str:
    """Return the remedy in a server's hint if it is a statement of this program, to be executed there."""
    said = answered.statement(hint.rpartition(": ")[2])
    return f"on server {server.name}: {said}" if said else answered.look(server.name)


def ask(
    asked: Iterable[Server], question: Callable[[Server, Conn], Answer], caller: Caller, *, waits: float = 0.0,
    at_once: int | None = None,
) -> dict[str, Answer | UnreachableError]:  # fmt: skip
    """Ask all servers, up to AT_ONCE at a time; return each one's answer, or the reason why it gave none.

    A server has the caller's timeout (5 s if None, but at least 1 s) to connect. Once it has, it has as long to answer,
    and the seconds for which the question itself `waits`. One that takes longer, such as a stopped process, is
    abandoned. What cannot be read of an answer makes that server unreachable, and no other.
    """
    seconds = caller.timeout or ANSWER_SECONDS
    answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    ends: dict[str, float] = {}  # by server: until when it may take
    connected: dict[str, Conn] = {}

    def run(server: Server) -> None:
        try:
            with reached(server, Caller(caller.name, seconds)) as conn:
                ends[server.name] = time.monotonic() + waits + seconds
                connected[server.name] = conn
                answers.put((server.name, question(server, conn)))
        except UnreachableError as exc:
            answers.put((server.name, exc))
        except Exception as exc:
            answers.put((server.name, exc))

    waiting = list({server.name: server for server in asked}.values())[::-1]
    running: set[str] = set()
    found: dict[str, Any] = {}
    while waiting or running:
        while waiting and len(running) < (at_once or AT_ONCE):
            server = waiting.pop()
            running.add(server.name)
            ends[server.name] = time.monotonic() + max(CONNECT_SECONDS, seconds)
            threading.Thread(target=run, args=(server,), daemon=True).start()
        try:
            who, answer = answers.get(timeout=max(0.0, min(ends[who] for who in running) - time.monotonic()))
        except queue.Empty:
            for who in [who for who in running if ends[who] <= time.monotonic()]:
                running.remove(who)
                if who in connected:
                    hang_up(connected[who])  # else an answer without end would go on filling the memory
                bound = waits + seconds if who in connected else max(CONNECT_SECONDS, seconds)
                found[who] = UnreachableError(
                    f"server {who} cannot be reached", why=f"no answer within {bound:g} s",
                    fix=f"rollbook server ping {who}",
                )  # fmt: skip
            continue
        running.discard(who)  # an answer that comes late, while others are asked, counts too
        if isinstance(answer, Exception) and not isinstance(answer, AdminError):
            raise answer
        if isinstance(answer, AdminError) and not isinstance(answer, UnreachableError):
            answer = UnreachableError(answer.message, why=answer.why, fix=answer.fix)
        found[who] = answer
    return found


@contextmanager
def held(portal: Conn, server: Server, *, moving: bool = False) -> Iterator[None]:
    """Lock a server for changes, and the relay that feeds it.

    Raises RefusedError if another command holds one of them, this portal is a clone or, unless `moving`, the server's
    own move is not finished: its subscription may be on its way from one source to the other.
    """
    require_own_session(portal, "this command")
    with ExitStack() as stack:
        for name in dict.fromkeys((server.through, server.moving_through, server.name)):
            if name is not None:
                stack.enter_context(held_alone(portal, name))
        if server.portal_identity != identity(portal).database:
            raise clone(server)
        if not moving and (now := find_server_if_any(portal, server.name)) and now.is_moving:
            raise RefusedError(now.moving_words, fix=now.move_command)
        yield


@contextmanager
def held_alone(portal: Conn, name: str) -> Iterator[None]:
    """Lock one server for changes. Raises RefusedError if another command holds it."""
    key = f"rollbook server {name}"
    if not one(portal, "select pg_try_advisory_lock(hashtext(%s)) as ours", [key])["ours"]:
        raise RefusedError(f"another command is changing server {name}", fix="try again when that command is done")
    try:
        yield
    finally:
        portal.execute("select pg_advisory_unlock(hashtext(%s))", [key])


def clone(server: Server) -> RefusedError:
    """Return the refusal of a portal whose record says that another database feeds the server."""
    return RefusedError(
        f"this database does not feed server {server.name}: it is a clone or a restored backup of the portal",
        why="another portal may still be feeding that server",
        fix=f"if it is the portal now: rollbook server add {server.name} ... --take-over",
    )
