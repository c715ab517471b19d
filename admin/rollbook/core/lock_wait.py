"""Who holds the lock that a statement of ours waits for, asked in a second session while it waits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, errors, sql

from rollbook.core.bound import WATCH, bounded
from rollbook.core.shell import is_name
from rollbook.core.shipped import as_query
from rollbook.core.values import one_line, visible

LOOK_SECONDS = 5.0  # after which a statement counts as one that waits
CONNECT_SECONDS = 2
ANSWER_SECONDS = 3.0  # for who holds the lock: a server need not end its answer
MOST_HOLDERS = 3  # that are named
MOST_CHARACTERS = 500  # of the words for one
REMEDY = re.compile(r"\bto end it\b.*", re.IGNORECASE)  # what a session calls itself, or executes, gives no remedy

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
    when %(is_prepared)s then 'its role'
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
    server: str | None = None  # the course server where it is; None: on the portal

    @property
    def fix(self) -> str | None:
        """Return what ends the session, and where."""
        if self.remedy is None:
            return None
        place = f"on server {self.server}: " if self.server else ""
        return f"{place}(as {self.ended_by}) {self.remedy}" if self.ended_by else f"{place}{self.remedy}"


@contextmanager
def watched(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Watch one statement, bounded by `seconds`, 0 for no bound: if it waits for a lock, find who holds it.

    With a bound, `holders_of` has the answer from the error that ends it; without one, it is logged on stderr.
    """
    found: list[Holder] = []
    delay = min(LOOK_SECONDS, seconds * 0.7) if seconds else LOOK_SECONDS
    with WATCH.after(delay, lambda: look(conn, not seconds, found)):
        try:
            yield
        except (errors.QueryCanceled, errors.LockNotAvailable) as exc:
            exc.holders = found  # type: ignore[union-attr]
            raise


def look(waiting: Connection[Any], is_unbounded: bool, found: list[Holder]) -> None:
    """Find who holds the lock for which a session waits. What cannot be asked, or read, is not known."""
    server: str | None = getattr(waiting, "server", None)
    try:
        info = waiting.info
        with (
            psycopg.connect(
                info.dsn, password=info.password or None, connect_timeout=CONNECT_SECONDS, autocommit=True,
                fallback_application_name="rollbook",
            ) as conn,
            bounded(conn, ANSWER_SECONDS),
            conn.transaction(),
        ):  # fmt: skip
            conn.execute(f"set local statement_timeout = '{ANSWER_SECONDS:g}s'".encode())
            holders = conn.execute(HOLDERS, {"pid": info.backend_pid}).fetchmany(MOST_HOLDERS)
            found += [described(conn, int(pid), xid, server) for pid, xid in holders]
    except (psycopg.Error, TypeError, ValueError):
        return
    if is_unbounded:
        for holder in found:
            # A warning without a handler goes to stderr as it is.
            end = f"; to end it: {holder.fix}" if holder.fix else ""
            logging.getLogger("rollbook").warning(visible(f"waiting for {holder.words}{end}"))


def described(conn: Connection[Any], pid: int, xid: str | None, server: str | None) -> Holder:
    """Return what is known of a session, or of the prepared transaction `xid`.

    The remedy is written here: a course server, whose owner chose what its functions return, gives words alone.
    """
    query = as_query("checks/describe_holder", "pid", "xid") + b" limit 1"
    (row,) = conn.execute(query, {"pid": pid, "xid": xid}).fetchmany(1)
    role, gid, is_there = str(row[1]), row[3], row[-1] is not None
    words = REMEDY.sub("...", one_line(row[-2]))[:MOST_CHARACTERS]
    ((by,),) = conn.execute(ENDED_BY, {"role": role, "is_prepared": pid == 0}).fetchmany(1)
    remedy = None
    if is_there and pid > 0:
        remedy = f"select pg_terminate_backend({pid});"
    elif is_there and (server is None or is_name(gid)):
        remedy = f"rollback prepared {sql.Literal(gid).as_string(conn).strip()};"
    if by == "its role":
        by = f"role {role} or a superuser" if server is None or is_name(role) else "its role or a superuser"
    elif by not in (None, "a superuser", "a member of pg_signal_backend"):
        by = None
    return Holder(words, remedy, by, server)


def holders_of(exc: psycopg.Error) -> list[Holder]:
    """Return who held the lock for which the statement waited that ended with this error; none if that is not known."""
    found: list[Holder] = getattr(exc, "holders", [])
    return found
