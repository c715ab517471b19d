"""Undo an adoption: the tables of the site as they were, with the rows of now."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from psycopg import errors

from rollbook.core.db import require_own_session, revision
from rollbook.core.errors import RefusedError
from rollbook.core.migrating import placed
from rollbook.core.rows import one
from rollbook.core.sqlstate import translated
from rollbook.replication import link
from rollbook.replication.queries.courses import drop_course, known_courses
from rollbook.system import migration, portal_tables
from rollbook.system.adoption import fixes
from rollbook.system.adoption.records import begun
from rollbook.system.adoption.run import LOCK_SECONDS, Adoption, Report, RowCount, count
from rollbook.system.adoption.structure import places_in
from rollbook.system.queries import list_dependents, list_local_objects

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.records import Begun
    from rollbook.system.adoption.run import Progress


def undo(
    conn: Conn, *, keep_fixes: bool = False, drop_local: bool = False, lock_timeout: float = LOCK_SECONDS,
    progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Remove Rollbook and what adopt added; rows of the site are never touched. It can be stopped and run again.

    Raises RefusedError after --fix unless `keep_fixes`, with course servers, with objects elsewhere that depend on
    Rollbook's, and with courses that hold local data unless `drop_local`.
    """
    require_own_session(conn, "an adoption")
    conn.rollback()
    state = begun(conn)
    if state is None:
        made = is_installed(conn)
        raise RefusedError(
            "no site was adopted in this database",
            why="there is nothing to undo" + (": Rollbook has a portal of its own" if made else ""),
            fix=None if made else "rollbook schema adopt --dry-run",
        )  # fmt: skip
    refuse(conn, keep_fixes=keep_fixes, drop_local=drop_local)
    conn.rollback()
    conn.autocommit = True
    conn.execute("select set_config('lock_timeout', %s, false)", [f"{lock_timeout * 1000:.0f}ms"])
    conn.execute("select pg_advisory_lock(hashtext('rollbook migrations'))")
    adoption = Adoption(
        conn, state.schema, in_place=state.in_place, widen=False, lock_timeout=lock_timeout, progress=progress
    )
    try:
        with translated():
            for course_id in known_courses(conn, []) if is_installed(conn) else []:
                adoption.tried(f"course {course_id}", partial(drop, conn, course_id))
                adoption.report(f"course {course_id} dropped")
            left = adoption.tried("removal", lambda: taken_back(adoption, state))
            rows = count(conn, places_in(conn, state.schema))
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtext('rollbook migrations'))")
    return Report(
        schema=state.schema, place=state.schema, steps=adoption.steps,
        rows=[RowCount(name, state.rows.get(name), after) for name, after in rows.items()],
        lock_seconds=adoption.lock_seconds, left=left,
    )  # fmt: skip


def is_installed(conn: Conn) -> bool:
    """Return whether schema rollbook is there."""
    return bool(one(conn, "select to_regnamespace('rollbook') is not null as there")["there"])


def refuse(conn: Conn, *, keep_fixes: bool, drop_local: bool) -> None:
    """Refuse what would lose something that nobody has agreed to lose."""
    if fixes.are_fixed(conn) and not keep_fixes:
        raise RefusedError(
            "rows were repaired by --fix, and the undo leaves them as they are now",
            why="the values before are in public.rollbook_adoption_fix", fix="add --keep-fixes",
        )  # fmt: skip
    if not is_installed(conn):
        return
    link.refuse_servers(conn)
    if others := list_dependents(conn, portal=False):
        raise RefusedError(
            f"these depend on Rollbook's tables: {', '.join(name for name, _ in others)}",
            fix=f"in psql: {' '.join(line for _, line in others)}",
        )
    if not drop_local and (added := list_local_objects(conn)):
        raise RefusedError(
            f"courses hold data of their own: {'; '.join(added)}", why="the undo drops their schemas",
            fix="save it elsewhere, then: rollbook course delete COURSE --drop-local",
        )  # fmt: skip


def drop(conn: Conn, course_id: str) -> None:
    """Drop one course in a transaction of its own."""
    with conn.transaction():
        drop_course(conn, course_id, drop_local=True)


def taken_back(adoption: Adoption, state: Begun) -> list[str]:
    """Remove Rollbook and undo each step, latest first, in one transaction; return what could not be undone."""
    conn, left = adoption.conn, []
    found = revision(conn)
    script = migration.offline(found, "0001") if found and found > "0001" else ""
    places = portal_tables.places(conn) if state.is_moved else places_in(conn, state.schema)
    there = [place for name, place in places.items() if name in count(conn, places)]
    with conn.transaction(), adoption.locked():
        adoption.run(f"lock table {', '.join(there)} in access exclusive mode")
        adoption.run(placed(re.sub(r"(?m)^(BEGIN|COMMIT|set local lock_timeout.*);$", "", script), places))
        adoption.run("drop table if exists public.rollbook_revision")
        rows = conn.execute("select step, undo from public.rollbook_adoption order by position desc").fetchall()
        for row in rows:
            if row["undo"] is None:
                continue
            try:
                with conn.transaction():
                    adoption.run(row["undo"])
            except (errors.IntegrityError, errors.DependentObjectsStillExist, errors.DataError) as exc:
                left.append(f"{row['step']}: {exc.diag.message_primary}")
            else:
                adoption.steps.append(row["step"])
        fixes.close(conn)
        adoption.run("drop table public.rollbook_adoption")
    return left
