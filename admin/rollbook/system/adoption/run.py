"""Adopt a site: rehearse all of it in a transaction that is rolled back, or do it, in steps that can be resumed.

What was done, and how it is undone, is in public.rollbook_adoption. The steps that are still missing are computed from
the catalog each time, so that the same call goes on wherever it was stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from psycopg import errors, sql

from rollbook.core.db import require_own_session
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.migrating import placed
from rollbook.core.rows import as_json, one
from rollbook.core.sqlstate import translate
from rollbook.system import migration, portal_tables
from rollbook.system.adoption import fixes as repairs
from rollbook.system.adoption.records import RECORD, STEPS, Begun, begun, note, record, seal
from rollbook.system.adoption.structure import READ, Step, blocked, places_in, spelled, structure

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.site import Site

LOCK_SECONDS = 2.0
TRIES = 30
REHEARSED_COURSES = 20  # all in one transaction: each takes some 10 locks
AGAIN = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)

# Who reaches the tables needs USAGE on the schema that they move to; who owns them may create more there.
USERS = """
select distinct
    case u.grantee when 0 then 'public' else u.grantee::regrole::text end as grantee,
    case when u.is_owner then 'usage, create' else 'usage' end as rights
from pg_class as c
cross join lateral (
    select c.relowner as grantee, true as is_owner
    union
    select a.grantee, false from aclexplode(c.relacl) as a where a.grantee <> c.relowner
    union
    select x.grantee, false from pg_attribute as t, aclexplode(t.attacl) as x where t.attrelid = c.oid
) as u
where c.oid = any (%s::regclass[])
    and not has_schema_privilege(
        case u.grantee when 0 then 'public' else pg_get_userbyid(u.grantee) end, 'portal', 'usage'
    )
order by 1
"""

FOLLOWED = """
select format('%%s (%%s) refers to %%s', f.conrelid::regclass, a.attname, f.confrelid::regclass) as words
from pg_constraint as f inner join pg_attribute as a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
where f.contype = 'f' and f.confrelid = any (%(tables)s::regclass[]) and f.conrelid <> all (%(tables)s::regclass[])
    and f.conrelid not in (select c.oid from pg_class as c where c.relnamespace = to_regnamespace('rollbook'))
order by 1
"""

OUTSIDE = """
select format('%%s.%%I', a.attrelid::regclass, a.attname) as words
from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid
where a.attrelid = any (%(tables)s::regclass[]) and a.attnum > 0 and not a.attisdropped
    and not (%(known)s::jsonb -> c.relname::text) ? a.attname
order by a.attrelid::regclass::text, a.attnum
"""

COURSES = """
select distinct e.course_id from portal.student_courseenrollment as e
where not exists (select from rollbook.course as c where c.course_id = e.course_id) order by 1
"""

# Who holds locks on our tables, the oldest transaction first.
HOLDERS = """
select
    a.pid,
    format('session %%s of role %%s (%%s) holds %%s', a.pid, a.usename, coalesce(a.state, a.backend_type),
           string_agg(distinct c.oid::regclass::text, ', ')) as words
from pg_locks as l
inner join pg_class as c on c.oid = l.relation
inner join pg_stat_activity as a on a.pid = l.pid
where l.granted and l.pid <> pg_backend_pid() and c.relname = any (%s) and c.relkind = 'r'
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
group by a.pid, a.usename, a.state, a.backend_type, a.xact_start order by a.xact_start limit 3
"""

Result = TypeVar("Result")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class RowCount:
    """The rows of one table before and after; `before` is None for a table that was made."""

    table: str
    before: int | None
    after: int


@dataclass(frozen=True)
class Report:
    """What an adoption, a rehearsal or an undo did."""

    schema: str  # of the site's tables before
    place: str  # of the site's tables after
    steps: list[str] = field(default_factory=list)
    rows: list[RowCount] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)  # columns of the site that do not travel
    followed: list[str] = field(default_factory=list)  # foreign keys of other tables that still refer to ours
    courses: list[str] = field(default_factory=list)
    findings: int = 0  # what verify found
    lock_seconds: float = 0.0  # the longest time that a table was locked
    settings: list[str] = field(default_factory=list)  # what the application must set
    left: list[str] = field(default_factory=list)  # what could not be done or undone, and why


class Adoption:
    """One adoption in progress: its connection, its options, and the locks that it held."""

    def __init__(self, conn: Conn, schema: str, *, in_place: bool, widen: bool, lock_timeout: float,
                 progress: Progress | None) -> None:  # fmt: skip
        self.conn, self.schema, self.in_place, self.widen = conn, schema, in_place, widen
        self.lock_timeout, self.report = lock_timeout, progress or (lambda _: None)
        self.steps: list[str] = []
        self.lock_seconds = 0.0

    @property
    def moves(self) -> bool:
        """Return whether the tables change their schema."""
        return not self.in_place and self.schema != "portal"

    def run(self, statements: str) -> None:
        """Run statements as they are."""
        self.conn.execute(statements.encode())

    def steps_due(self) -> list[Step]:
        """Return the steps that are still missing."""
        return structure(self.conn, self.schema, in_place=self.in_place, widen=self.widen)

    @contextmanager
    def locked(self, step: Step | None = None) -> Iterator[None]:
        """Measure how long others wait, for a lock that was not free too: they queue behind it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if step is None or step.lock not in (READ, "none"):
                self.lock_seconds = max(self.lock_seconds, time.perf_counter() - began)

    def tried(self, what: str, action: Callable[[], Result], clean: Callable[[], None] | None = None) -> Result:
        """Return what an action returns, tried again while it finds no lock within lock_timeout."""
        for left in reversed(range(TRIES)):
            try:
                return action()
            except AGAIN as exc:
                if clean:
                    clean()
                if not left:
                    raise held(self.conn, what) or translate(exc) from exc
                self.report(f"{what}: a lock was not free within {self.lock_timeout:g} s; trying again")
                time.sleep(min(self.lock_timeout, 1.0))
        raise AssertionError

    def online(self, step: Step) -> None:
        """Do one step in a transaction of its own, and record it."""
        try:
            if " concurrently " in step.do:
                self.concurrently(step)
            else:
                self.tried(step.name, lambda: self.at_once(step))
        except (errors.IntegrityError, errors.DataError) as exc:
            raise slipped(step, exc) from exc
        self.steps.append(step.name)
        self.report(step.name)

    def at_once(self, step: Step) -> None:
        """Do a step and record it, in one transaction."""
        with self.conn.transaction():
            record(self.conn, step)
            with self.locked(step):
                self.run(step.do)

    def concurrently(self, step: Step) -> None:
        """Record a step that runs in no transaction, and do it; what is left of an index that failed goes."""
        record(self.conn, step)

        def drop() -> None:
            if step.undo:
                self.run(step.undo.replace("drop index ", "drop index concurrently "))

        try:
            self.tried(step.name, lambda: self.run(step.do), drop)
        except BaseException:
            drop()
            raise

    def install(self) -> None:
        """Move the tables or make the views, and install Rollbook over them, in the caller's transaction."""
        due = [step for step in self.steps_due() if not step.is_online]
        script = migration.offline("0001", "head")  # before the first lock
        places = places_in(self.conn, self.schema)
        tables = ", ".join(places.values())
        with self.locked():
            # The strongest that is needed, at once: who reads and then writes would be in a deadlock with a second one.
            mode = "access exclusive" if self.moves or due else "share row exclusive"
            self.run(f"lock table {tables} in {mode} mode")
            for step in due:
                self.run(step.do)
                record(self.conn, step)
                self.steps.append(step.name)
            if self.schema != "portal":
                self.enter(places)
            self.run(portal_tables.STAMP)
            real = places if self.in_place and self.schema != "portal" else {}
            self.run(placed(re.sub(r"(?m)^(BEGIN|COMMIT|set local lock_timeout.*);$", "", script), real))
            repairs.write_history(self.conn)
            note(self.conn, "moved")

    def enter(self, places: dict[str, str]) -> None:
        """Make schema portal, and the tables or views in it."""
        conn = self.conn
        if one(conn, "select to_regnamespace('portal') is null as found")["found"]:
            self.run("create schema portal; comment on schema portal is 'Canonical student records; only the portal "
                     "writes here, courses receive copies.'")  # fmt: skip
            note(conn, "schema portal", "do $$ begin drop schema portal; exception when dependent_objects_still_exist "
                 "then raise notice 'schema portal stays: it holds other objects'; end $$")  # fmt: skip
        if self.moves:
            home = spelled(conn, self.schema)
            users = conn.execute(USERS, [list(places.values())]).fetchall()
            back = [f"alter table portal.{name} set schema {home}" for name in places]
            revoked = [f"revoke {row['rights']} on schema portal from {row['grantee']}" for row in users]
            for row in users:
                self.run(f"grant {row['rights']} on schema portal to {row['grantee']}")
            for place in places.values():
                self.run(f"alter table {place} set schema portal")
            note(conn, "tables in schema portal", "; ".join(back + revoked))
            return
        for name, place in places.items():
            columns = ", ".join(portal_tables.shipped_columns()[name])
            self.run(f"create view portal.{name} as select {columns} from {place}")  # noqa: S608 (names of the catalog)
            self.run(f"comment on view portal.{name} is 'The columns of {place.replace(chr(39), chr(39) * 2)} "
                     "that Rollbook knows.'")  # fmt: skip
        note(conn, "views in schema portal", "; ".join(f"drop view if exists portal.{name}" for name in places))

    def make_courses(self, courses: str, limit: int | None = None) -> tuple[list[str], list[str]]:
        """Create the courses that are missing, each in a transaction; return those made, and those refused with why."""
        made, left = [], []
        for course_id in self.courses_due(courses)[:limit]:
            try:
                self.tried(f"course {course_id}", partial(self.make_course, course_id))
            except errors.Error as exc:
                left.append(f"course {course_id}: {exc.diag.message_primary}")
                continue
            made.append(course_id)
            self.report(f"course {course_id}")
        return made, left

    def make_course(self, course_id: str) -> None:
        """Create one course, with its copies."""
        with self.conn.transaction():
            self.conn.execute("select rollbook.create_course(%s)", [course_id])

    def courses_due(self, courses: str) -> list[str]:
        """Return the courses to create: all with enrollments, none, or those that a file names, a line each."""
        if courses == "none":
            return []
        if courses == "all":
            return [str(row["course_id"]) for row in self.conn.execute(COURSES)]
        try:
            lines = Path(courses).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise RefusedError(f"{courses} cannot be read", why=str(exc), fix="name a file, all, or none") from exc
        wanted = dict.fromkeys(line.strip() for line in lines if line.strip())
        known = {str(row["course_id"]) for row in self.conn.execute("select course_id from rollbook.course")}
        return [course_id for course_id in wanted if course_id not in known]

    def reported(self, before: dict[str, int], courses: list[str], left: list[str]) -> Report:
        """Return what was done."""
        conn = self.conn
        places = portal_tables.places(conn)
        tables = list(places.values())
        known = as_json(portal_tables.shipped_columns())
        after = count(conn, places)
        return Report(
            schema=self.schema, place="portal" if self.moves else self.schema, steps=self.steps,
            rows=[RowCount(name, before.get(name), rows) for name, rows in after.items()],
            outside=[row["words"] for row in conn.execute(OUTSIDE, {"tables": tables, "known": known})],
            followed=[row["words"] for row in conn.execute(FOLLOWED, {"tables": tables})],
            courses=courses, findings=one(conn, "select count(*) as n from rollbook.verify()")["n"],
            lock_seconds=self.lock_seconds,
            settings=[f"search_path=portal,{spelled(conn, self.schema)}"] if self.moves else [], left=left,
        )  # fmt: skip


def held(conn: Conn, what: str) -> UnreachableError | None:
    """Return the error that names who holds the tables; None where nobody does any more."""
    found = conn.execute(HOLDERS, [portal_tables.names()]).fetchall()
    if not found:
        return None
    return UnreachableError(
        f"{what}: a lock was not free", why="; ".join(str(row["words"]) for row in found),
        fix=f"end it, then run the command again: select pg_terminate_backend({found[0]['pid']});",
    )  # fmt: skip


def slipped(step: Step, exc: errors.IntegrityError | errors.DataError) -> RefusedError:
    """Return the refusal for a row that breaks a rule; it came in after the plan."""
    detail = exc.diag.message_detail if exc.sqlstate in ("23505", "23503") else None  # the others show the whole row
    return RefusedError(
        f"{step.name}: {exc.diag.message_primary}", why=detail or "a row came in since the plan was made",
        fix="rollbook schema adopt -n",
    )  # fmt: skip


def count(conn: Conn, places: dict[str, str]) -> dict[str, int]:
    """Return the rows of each table that is there."""
    found = {}
    for name, place in places.items():
        if one(conn, "select to_regclass(%s) is not null as there", [place])["there"]:
            table = sql.SQL(place)  # pyright: ignore[reportArgumentType] (as PostgreSQL prints it)
            query = sql.SQL("select count(*) as n from {}").format(table)
            found[name] = int(one(conn, query)["n"])
    return found


def begin(adoption: Adoption) -> Begun:
    """Record that an adoption begins. Raises RefusedError for a site that cannot be adopted."""
    conn = adoption.conn
    if stops := blocked(conn, adoption.schema, in_place=adoption.in_place, widen=adoption.widen):
        raise RefusedError(f"{stops[0].object}: {stops[0].reason}", why="the site cannot be adopted", fix=stops[0].fix)
    rows = count(conn, places_in(conn, adoption.schema))
    with conn.transaction():
        adoption.run(RECORD)
        seal(conn, STEPS)
        note(conn, "begun", None, {"schema": adoption.schema, "in_place": adoption.in_place, "rows": rows})
    return Begun(adoption.schema, adoption.in_place, rows, is_moved=False, is_done=False)


def rehearse(
    conn: Conn, site: Site, *, in_place: bool, fixes: Sequence[str] = (), courses: str = "all", widen: bool = False,
    lock_timeout: float = LOCK_SECONDS, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Do all of it in one transaction, verify, and roll back. Who reads or writes the tables waits until it ends.

    `courses`: all, none, or a file with a course ID a line; the first 20 are made.
    """
    adoption = Adoption(conn, site.schema, in_place=in_place, widen=widen, lock_timeout=lock_timeout, progress=progress)
    report = adoption.tried("rehearsal", lambda: rehearsed(adoption, site, fixes, courses))
    return replace(report, lock_seconds=adoption.lock_seconds)


def rehearsed(adoption: Adoption, site: Site, fixes: Sequence[str], courses: str) -> Report:
    """Rehearse once, in one transaction. It locks all tables at once: one after the other would be deadlocks."""
    conn, adoption.steps = adoption.conn, []
    with conn.transaction(force_rollback=True):
        conn.execute("select set_config('lock_timeout', %s, true)", [f"{adoption.lock_timeout * 1000:.0f}ms"])
        before = begin(adoption).rows
        places = places_in(conn, site.schema)
        with adoption.locked():
            adoption.run(f"lock table {', '.join(places[name] for name in before)} in access exclusive mode")
            repairs.apply(conn, site, fixes)
            conn.execute("set constraints all immediate")  # a table with events that wait cannot be altered
            for step in adoption.steps_due():
                if step.is_online:
                    try:
                        adoption.run(step.do.replace(" concurrently ", " "))
                    except (errors.IntegrityError, errors.DataError) as exc:
                        raise slipped(step, exc) from exc
                    adoption.steps.append(step.name)
            adoption.install()
            made, left = adoption.make_courses(courses, REHEARSED_COURSES)
            return adoption.reported(before, made, left)


def adopt(
    conn: Conn, site: Site, *, in_place: bool, fixes: Sequence[str] = (), courses: str = "all", widen: bool = False,
    lock_timeout: float = LOCK_SECONDS, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Adopt the site. `conn` must be in no transaction; stopped anywhere, the same call goes on.

    An adoption that was begun keeps its schema and place. Raises RefusedError where a row slipped in that a step cannot
    take, UnreachableError where a lock was never free.
    """
    require_own_session(conn, "an adoption")
    conn.rollback()
    conn.autocommit = True
    conn.execute("select set_config('lock_timeout', %s, false)", [f"{lock_timeout * 1000:.0f}ms"])
    conn.execute("select pg_advisory_lock(hashtext('rollbook migrations'))")
    try:
        state = begun(conn)
        schema, stays = (state.schema, state.in_place) if state else (site.schema, in_place)
        adoption = Adoption(conn, schema, in_place=stays, widen=widen, lock_timeout=lock_timeout, progress=progress)
        state = state or begin(adoption)
        if not state.is_moved:
            if fixes:
                with conn.transaction():
                    repairs.apply(conn, site, fixes)
            for step in adoption.steps_due():
                if step.is_online:
                    adoption.online(step)
            adoption.tried("installation", lambda: installed(adoption))
        made, left = adoption.make_courses(courses)
        note(conn, "done")
        return adoption.reported(state.rows, made, left)
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtext('rollbook migrations'))")


def installed(adoption: Adoption) -> None:
    """Install in one transaction; steps of a try that failed are not reported."""
    done = list(adoption.steps)
    try:
        with adoption.conn.transaction():
            adoption.install()
    except BaseException:
        adoption.steps = done
        raise
