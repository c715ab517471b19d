"""How the program reaches course servers: who they are, a session, many asked at once, and heartbeats as a fence."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import Cursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core.db import Caller, Conn, masked, session, translate
from rollbook.core.errors import AdminError, RefusedError, UnreachableError, UsageError
from rollbook.core.rows import Row, nearest, one

ANSWER_SECONDS = 5.0  # how long a server may take to answer one question, unless --timeout says otherwise
COMMIT_SECONDS = 1.0  # how long a commit may take to become visible once it can be sent
POLL_SECONDS = 0.005  # between two looks for a heartbeat; grows tenfold while it does not come
Answer = TypeVar("Answer")

SERVERS = """
select name, admin_dsn, subscription_dsn, portal_identity, subscription, paused_at, created_at
from rollbook.server where %(name)s::text is null or name = %(name)s order by name
"""

# Which cluster and which database in it: a clone of the portal has the same rows, but is not the one that feeds.
IDENTITY = """
select (pg_control_system()).system_identifier || '/' || d.oid as identity
from pg_database as d where d.datname = current_database()
"""

ARRIVED = """
select
    exists (select from rollbook.heartbeat where beat = %(beat)s and sent_at = %(sent_at)s) as arrived,
    coalesce((
        select s.subenabled from pg_subscription as s
        where s.subname = %(stream)s
            and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
    ), false) as enabled
"""

WRITING = "select pid, backend_xid::text as xid from pg_stat_activity where backend_xid is not null"


@dataclass(frozen=True)
class Server:
    """A row of rollbook.server."""

    name: str
    admin_dsn: str
    subscription_dsn: str
    portal_identity: str
    subscription: int | None = None
    paused_at: datetime | None = None
    created_at: datetime | None = None

    @property
    def stream(self) -> str:
        """Return the name of its publication, its slot and its subscription."""
        return f"rollbook_{self.name}"


def servers(portal: Conn) -> list[Server]:
    """Return all course servers, by name."""
    return [Server(**row) for row in portal.execute(SERVERS, {"name": None})]


def server(portal: Conn, name: str) -> Server:
    """Return one course server. Raises RefusedError for an unknown one."""
    row = portal.execute(SERVERS, {"name": name}).fetchone()
    if row is None:
        known = [each.name for each in servers(portal)]
        raise RefusedError(f"there is no server {name}", why=nearest(name, known), fix="rollbook server list")
    return Server(**row)


def identity(portal: Conn) -> str:
    """Return which cluster and database this is."""
    return str(one(portal, IDENTITY)["identity"])


def checked_conninfo(option: str, given: str) -> str:
    """Return a conninfo that names database and host itself. Raises UsageError: what is not said would be guessed."""
    try:
        parts = conninfo_to_dict(given)
    except psycopg.ProgrammingError:
        raise UsageError(
            f"{option}: this conninfo cannot be read",
            fix="write key=value pairs or a URI; quote or percent-encode odd characters",
        ) from None
    if not (parts.get("dbname") or parts.get("service")):
        raise UsageError(f"{option} does not name its database", fix="add dbname=NAME to it")
    if not (parts.get("host") or parts.get("hostaddr") or parts.get("service")):
        raise UsageError(f"{option} does not name its host", fix="add host=NAME to it, or the folder of a socket")
    return given


def watched(given: str) -> str:
    """Return a conninfo that notices within half a minute when the other machine is gone, unless it says otherwise."""
    watch = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
    return make_conninfo(given, **{key: value for key, value in watch.items() if key not in conninfo_to_dict(given)})


def has_password(given: str) -> bool:
    """Say whether a conninfo holds a password."""
    return bool(conninfo_to_dict(given).get("password"))


@contextmanager
def reached(to: Server, caller: Caller, *, long: bool = False) -> Iterator[Conn]:
    """Yield an autocommit session on the server. Raises UnreachableError; other errors inside become ours, named."""
    try:
        conn = session(watched(to.admin_dsn), name=caller.name, timeout=caller.timeout or ANSWER_SECONDS, long=long)
    except psycopg.Error as exc:
        raise unreachable(to, exc) from exc
    conn.cursor_factory = named_cursor(to)
    with conn:
        conn.autocommit = True
        if long and caller.timeout is None:  # else it bounds each statement too
            conn.execute("set statement_timeout = 0")
        # A failed CREATE SUBSCRIPTION would stand in the server's log, password and all; only superusers may say so.
        if conn.execute("select current_setting('is_superuser') as is_superuser").fetchone() == {"is_superuser": "on"}:
            conn.execute("set log_min_error_statement = panic")
            conn.execute("set log_min_messages = error")  # a tried route warns, see try_route
            conn.execute("set log_statement = none")
            conn.execute("set log_min_duration_statement = -1")
        try:
            yield conn
        except psycopg.Error as exc:
            if getattr(exc, "server", None) != to.name:
                raise  # the portal's, or another server's
            raise spoken(to, exc) from exc


def named_cursor(to: Server) -> type[Cursor[Any]]:
    """Return a cursor that notes on its errors which server they are of: the portal's can arise beside them."""

    class NamedCursor(Cursor[Any]):
        def execute(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            try:
                return super().execute(*args, **kwargs)
            except psycopg.Error as exc:
                exc.server = to.name  # type: ignore[attr-defined]
                raise

    return NamedCursor


def unreachable(to: Server, exc: psycopg.Error) -> UnreachableError:
    """Return that the server gives no answer, in its own words."""
    said = (exc.diag.message_primary or str(exc)).removeprefix("connection is bad: ")
    return UnreachableError(
        f"server {to.name} cannot be reached", why=masked(" ".join(said.split())), fix=f"rollbook server ping {to.name}"
    )


def meaning(to: Server, exc: psycopg.Error) -> AdminError:
    """Return what an error means, be it of the session on the server or of the portal's beside it."""
    return spoken(to, exc) if getattr(exc, "server", None) == to.name else translate(exc)


def spoken(to: Server, exc: psycopg.Error) -> AdminError:
    """Return what an error on the server means, with the server's name before it."""
    if exc.sqlstate is None or exc.sqlstate.startswith(("08", "57P")):
        return unreachable(to, exc)
    meant = translate(exc)
    return type(meant)(f"server {to.name}: {meant.message}", why=meant.why, fix=meant.fix, **meant.details)


def ask(
    asked: Iterable[Server], question: Callable[[Server, Conn], Answer], caller: Caller
) -> dict[str, Answer | UnreachableError]:
    """Ask all servers at once and return each one's answer, or why there is none.

    None takes longer than the caller's timeout (5 s if None) to connect and as long again to answer; who is silent
    longer, a stopped process say, is left to itself.
    """
    seconds = caller.timeout or ANSWER_SECONDS
    answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run(to: Server) -> None:
        try:
            with reached(to, Caller(caller.name, seconds)) as conn:
                answers.put((to.name, question(to, conn)))
        except UnreachableError as exc:
            answers.put((to.name, exc))
        except Exception as exc:
            answers.put((to.name, exc))

    waiting = {to.name: to for to in asked}
    found: dict[str, Any] = {}
    for to in waiting.values():
        threading.Thread(target=run, args=(to,), daemon=True).start()
    end = time.monotonic() + 2 * seconds
    while len(found) < len(waiting):
        try:
            who, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            for who in waiting.keys() - found.keys():
                found[who] = UnreachableError(
                    f"server {who} cannot be reached", why=f"no answer within {2 * seconds:g} s",
                    fix=f"rollbook server ping {who}",
                )  # fmt: skip
            break
        if isinstance(answer, Exception) and not isinstance(answer, AdminError):
            raise answer
        if isinstance(answer, AdminError) and not isinstance(answer, UnreachableError):
            answer = UnreachableError(answer.message, why=answer.why, fix=answer.fix)
        found[who] = answer
    return found


# --- heartbeats -------------------------------------------------------------------------------------------------------


def send_beat(portal: Conn) -> Row:
    """Send a heartbeat: beat, sent_at, lsn. The session must be in autocommit: it travels at commit."""
    return one(portal, "select beat, sent_at, lsn from rollbook.beat()")


def arrival(conn: Conn, to: Server, beat: Row, seconds: float) -> float | None:
    """Wait on the server until a heartbeat has come, and with it all that was committed before it.

    One of its number that another portal sent, or this one before it was restored, is not it. Returns the seconds that
    it took from here; None if it has not come in time, or the subscription is not enabled.
    """
    began = time.monotonic()
    pause = POLL_SECONDS
    while True:
        look = one(conn, ARRIVED, {**beat, "stream": to.stream})  # type: ignore[arg-type]
        waited = time.monotonic() - began
        if look["arrived"]:
            return waited
        if not look["enabled"] or waited >= seconds:
            return None
        time.sleep(min(pause, max(0.001, seconds - waited)))
        pause = min(pause * 1.2, POLL_SECONDS * 10)


def fence(portal: Conn, conn: Conn, to: Server, seconds: float) -> None:
    """Return once the server has all that the portal has committed by now.

    Raises UnreachableError: the stream stands still, or is slower than `seconds`.
    """
    began = time.monotonic()
    if arrival(conn, to, send_beat(portal), seconds) is None:
        stands = time.monotonic() - began < seconds
        raise UnreachableError(
            f"the stream to server {to.name} stands still" if stands
            else f"server {to.name} has not caught up with the portal within {seconds:g} s",
            why="what differs now may be under way",
            fix="rollbook replication status" if stands else "the same again, perhaps with a longer --timeout SECONDS",
        )  # fmt: skip


def let_commit(portal: Conn) -> None:
    """Return once every transaction that was writing when this began has ended, or is too slow to be just committing.

    A commit is sent to the servers as soon as it is in the WAL, and the portal shows it a moment later: what a server
    has shown, the portal shows from here on.
    """
    began = time.monotonic()
    writing = {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}
    while writing and time.monotonic() - began < COMMIT_SECONDS:
        time.sleep(0.002)
        writing &= {(row["pid"], row["xid"]) for row in portal.execute(WRITING)}


@contextmanager
def held(portal: Conn, to: Server) -> Iterator[None]:
    """Hold a server for changes: one command at a time. Raises RefusedError if another is at it, or a clone asks."""
    key = f"rollbook server {to.name}"
    taken: Sequence[Any] = [key]
    if not one(portal, "select pg_try_advisory_lock(hashtext(%s)) as ours", taken)["ours"]:
        raise RefusedError(f"another command is changing server {to.name}", fix="try again when it is done")
    try:
        if to.portal_identity != identity(portal):
            raise RefusedError(
                f"this database is not the portal that feeds server {to.name}, but a copy of it, or a restored one",
                why="another portal may still be feeding that server",
                fix=f"if this is the portal now: rollbook server add {to.name} again, with --take-over",
            )
        yield
    finally:
        portal.execute("select pg_advisory_unlock(hashtext(%s))", taken)
