"""Short transactions that change the declaration of the shape while nobody writes the copied tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg import errors

from rollbook.core.db import Conn, require_own_session
from rollbook.core.errors import RefusedError
from rollbook.core.rows import one
from rollbook.core.shape import Shape
from rollbook.replication.queries.shape import require_right

if TYPE_CHECKING:
    from rollbook.core.command import Run

LOCK = "100ms"  # how long a writer may wait for one lock of ours
PAUSE_SECONDS = 0.1  # between two attempts: who waited goes first
PATIENCE_SECONDS = 60.0  # unless --timeout says otherwise

WRITERS = """
select
    a.pid, coalesce(to_char(a.xact_start at time zone 'UTC', 'HH24:MI:SS') || ' UTC', 'an unknown time') as since,
    coalesce(nullif(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 60), ''), 'a hidden statement') as query
from pg_locks as l
inner join pg_stat_activity as a on a.pid = l.pid
where l.relation = any (%s::regclass[]) and l.granted and l.pid <> pg_backend_pid()
    and l.mode not in ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock')
order by a.xact_start nulls last limit 1
"""

# Each transaction by which an older snapshot can still be read: gone, or newer, at the next look.
SNAPSHOTS = """
select
    a.pid, a.backend_xmin::text as xmin, a.xact_start::text as began,
    coalesce(to_char(a.xact_start at time zone 'UTC', 'HH24:MI:SS') || ' UTC', 'an unknown time') as since,
    coalesce(nullif(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 60), ''), 'a hidden statement') as query
from pg_stat_activity as a
where a.datname = current_database() and a.backend_xmin is not null and a.pid <> pg_backend_pid()
    and a.backend_type = 'client backend'
order by a.xact_start nulls last
"""


@contextmanager
def changing(run: Run) -> Iterator[None]:
    """Let no other command change the shape meanwhile. Raises RefusedError; also for a role that may not."""
    with run.connect() as portal:
        require_own_session(portal, "this command")
        require_right(portal)
        portal.rollback()
        portal.autocommit = True
        lock = "select pg_try_advisory_lock(hashtext('rollbook shape')) as ours"
        if not one(portal, lock)["ours"]:
            raise RefusedError("another command is changing the shape", fix="try again when that command is done")
        yield


def switch(
    portal: Conn, shape: Shape, change: Callable[[Conn], None], *, exclusive: str | None = None,
    seconds: float | None = None,
) -> None:  # fmt: skip
    """Run `change` in one transaction in which nobody writes the copied tables, creates or drops a course.

    Who writes waits for our locks no longer than 100 ms each and for what `change` takes; then all is undone and tried
    again. `exclusive`: a relation that is itself altered, so that its readers wait too. Raises RefusedError, naming who
    writes.
    """
    relations = [table.relation for table in shape.tables]
    end = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    while True:
        try:
            with portal.transaction():
                portal.execute("select set_config('lock_timeout', %s, true)", [LOCK])
                portal.execute("lock table rollbook.course_set in share row exclusive mode")
                for relation in relations:
                    mode = "access exclusive" if relation == exclusive else "share row exclusive"
                    portal.execute(f"lock table {relation} in {mode} mode".encode())
                change(portal)
        except errors.LockNotAvailable as exc:
            if time.monotonic() > end:
                raise busy(portal, relations) from exc
            time.sleep(PAUSE_SECONDS)
        else:
            return


def busy(portal: Conn, relations: Sequence[str]) -> RefusedError:
    """Return the refusal that names a transaction which writes."""
    found = portal.execute(WRITERS, [list(relations)]).fetchone()
    why = "who held it is not known: it is free now"
    if found:
        why = f"process {found['pid']} writes since {found['since']}: {found['query']}"
    return RefusedError(
        f"{' or '.join(relations)} is in use", why=why,
        fix=f"end it: select pg_terminate_backend({found['pid']}); then the same command again" if found
        else "the same command again",
    )  # fmt: skip


def await_snapshots(portal: Conn, note: Callable[[str], None], seconds: float | None = None) -> None:
    """Return once no transaction reads by a snapshot of before. Nobody waits for us meanwhile.

    What is committed by now is then seen by everybody, at REPEATABLE READ too. Raises RefusedError, naming who reads.
    """
    end = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    told = time.monotonic() + 2
    waiting = {(row["pid"], row["xmin"], row["began"]): row for row in portal.execute(SNAPSHOTS)}
    while waiting:
        there = {(row["pid"], row["xmin"], row["began"]) for row in portal.execute(SNAPSHOTS)}
        waiting = {key: row for key, row in waiting.items() if key in there}
        if not waiting:
            return
        first = next(iter(waiting.values()))
        why = f"process {first['pid']} reads since {first['since']}: {first['query']}"
        if time.monotonic() > end:
            raise RefusedError(
                "a transaction is older than this change", why=f"{why}; it would not see it",
                fix="wait until it has ended, or end it: "
                f"select pg_terminate_backend({first['pid']}); then the same command again",
            )  # fmt: skip
        if time.monotonic() > told:
            note(f"waiting for an older transaction: {why}")
            told = end
        time.sleep(0.05)
