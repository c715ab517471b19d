"""Who holds the lock that a statement of ours waits for, asked in a second session while it waits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import Condition, Thread
from time import monotonic
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, errors

from rollbook.core.shipped import as_query
from rollbook.core.values import visible

LOOK_SECONDS = 5.0  # after which a statement counts as one that waits
CONNECT_SECONDS = 2

# Who holds up a session, through sessions that wait themselves: only who waits for nobody can be ended to some effect.
# A prepared transaction has no session: 0, and its transaction.
HOLDERS = """
with recursive blocking (pid, waiting) as (
    select b.pid, %(pid)s::integer from unnest(pg_blocking_pids(%(pid)s)) as b (pid)
    union
    select b.pid, w.pid from blocking as w cross join unnest(pg_blocking_pids(w.pid)) as b (pid) where w.pid <> 0
)
select distinct h.pid, case when h.pid = 0 then (
    select coalesce(l.transactionid::text, (
        select min(split_part(held.virtualtransaction, '/', 2)) from pg_locks as held
        where held.pid is null and held.granted and held.relation = l.relation and held.database = l.database
    ))
    from pg_locks as l where l.pid = h.waiting and not l.granted limit 1
) end as xid
from blocking as h
where h.pid = 0 or pg_blocking_pids(h.pid) = '{}'
order by 1 limit 3
"""

# Who may end it: null for this role itself. A process of the server has no role.
ENDED_BY = """
select case
    when me.rolsuper then null
    when holder.rolsuper is not false then 'a superuser'
    when pg_has_role(holder.oid, 'usage') then null
    when %(is_prepared)s then format('role %%s or a superuser', holder.rolname)
    when not pg_has_role('pg_signal_backend', 'usage') then 'a member of pg_signal_backend'
end
from pg_roles as me left join pg_roles as holder on holder.rolname = %(role)s
where me.rolname = current_user
"""


class Holder(NamedTuple):
    """A session that holds a lock, in a phrase, the statement that ends it, and who may run that, if not this role."""

    words: str
    remedy: str | None
    ended_by: str | None

    @property
    def fix(self) -> str | None:
        """Return what ends the session."""
        return f"(as {self.ended_by}) {self.remedy}" if self.ended_by and self.remedy else self.remedy


class Statement(NamedTuple):
    """A statement that runs: its session, whether it has no bound, and where the answer goes."""

    conn: Connection[Any]
    is_unbounded: bool
    found: list[Holder]


class Watch:
    """One thread looks after all statements: to start one for each takes ten times as long as a short statement."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.due: dict[int, tuple[float, Statement]] = {}  # by the identity of `found`: when to look
        self.wakes = inf  # when the thread looks next
        self.thread: Thread | None = None

    def add(self, statement: Statement, delay: float) -> None:
        """Look after a statement once `delay` seconds have passed."""
        at = monotonic() + delay
        with self.changed:
            self.due[id(statement.found)] = at, statement
            if self.thread is None or not self.thread.is_alive():
                self.wakes = at
                self.thread = Thread(target=self.run, name="rollbook watch", daemon=True)
                self.thread.start()
            elif at < self.wakes:  # else the thread wakes early enough: no switch to it for each statement
                self.wakes = at
                self.changed.notify()

    def remove(self, statement: Statement) -> None:
        """Look after it no longer: it has ended."""
        with self.changed:
            self.due.pop(id(statement.found), None)

    def run(self) -> None:
        """Wait for the next statement that is due; others are due while one is looked after."""
        while True:
            with self.changed:
                now = monotonic()
                late = [key for key, (at, _) in self.due.items() if at <= now]
                for key in late:
                    Thread(target=look, args=self.due.pop(key)[1], daemon=True).start()
                self.wakes = min((at for at, _ in self.due.values()), default=inf)
                self.changed.wait(None if self.wakes == inf else self.wakes - now)


WATCH = Watch()


@contextmanager
def watched(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Watch one statement, bounded by `seconds`, 0 for no bound: if it waits for a lock, find who holds it.

    With a bound, `holders_of` has the answer from the error that ends it; without one, it is logged on stderr.
    """
    statement = Statement(conn, not seconds, [])
    WATCH.add(statement, min(LOOK_SECONDS, seconds * 0.7) if seconds else LOOK_SECONDS)
    try:
        yield
    except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
        exc.holders = statement.found  # type: ignore[union-attr]
        raise
    finally:
        WATCH.remove(statement)


def look(waiting: Connection[Any], is_unbounded: bool, found: list[Holder]) -> None:
    """Find who holds the lock for which a session waits. What cannot be asked is not known."""
    try:
        info = waiting.info
        with psycopg.connect(
            info.dsn, password=info.password or None, connect_timeout=CONNECT_SECONDS, autocommit=True,
            fallback_application_name="rollbook",
        ) as conn:  # fmt: skip
            found += [described(conn, *row) for row in conn.execute(HOLDERS, {"pid": info.backend_pid}).fetchall()]
    except psycopg.Error:
        return
    if is_unbounded:
        for holder in found:
            # A warning without a handler goes to stderr as it is.
            logging.getLogger("rollbook").warning(visible(f"waiting for {holder.words}; to end it: {holder.fix}"))


def described(conn: Connection[Any], pid: int, xid: str | None) -> Holder:
    """Return what is known of a session, or of the prepared transaction `xid`."""
    query = as_query("checks/describe_holder", "pid", "xid")
    (row,) = conn.execute(query, {"pid": pid, "xid": xid}).fetchall()
    ((by,),) = conn.execute(ENDED_BY, {"role": row[1], "is_prepared": pid == 0}).fetchall()
    return Holder(row[-2], row[-1], by)


def holders_of(exc: psycopg.Error) -> list[Holder]:
    """Return who held the lock for which the statement waited that ended with this error; none if that is not known."""
    found: list[Holder] = getattr(exc, "holders", [])
    return found
