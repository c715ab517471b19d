"""A wider type for a column that is copied: on the servers first, then in the copies here, then in the portal's table.

So no side ever gets a value that it cannot hold. Each table is altered in a short transaction of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors

from rollbook.core import history
from rollbook.core import shape as core
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, RefusedError, UsageError
from rollbook.core.rows import one
from rollbook.core.shape import Table
from rollbook.core.sqlstate import translate
from rollbook.replication import forward, link
from rollbook.replication.columns import WORDS, Outcome, find, outcome, refuse_key
from rollbook.replication.locked import run_locked
from rollbook.replication.queries import shape as queries
from rollbook.replication.queries.shape import Column, CourseShape
from rollbook.replication.repair import Failure
from rollbook.replication.rollout import Done
from rollbook.replication.session import Progress
from rollbook.replication.switch import switch

if TYPE_CHECKING:
    from rollbook.core.command import Run

TYPE = re.compile(r'[\w" .]+(\(\s*\d+\s*(,\s*\d+\s*)?\))?( with(out)? time zone)?(\[\])*')
WIDER = {("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint"), ("real", "double precision")}

FILE = "select pg_relation_filenode('pg_temp.rollbook_type'::regclass)::bigint as file"
KIND = """
select format_type(a.atttypid, a.atttypmod) as type, format_type(a.atttypid, null) as base
from pg_attribute as a where a.attrelid = %s::regclass and a.attname = %s
"""


@dataclass(frozen=True)
class Kind:
    """A type of a column: as it is, and the one that is asked for."""

    now: str
    wanted: str  # as PostgreSQL spells it
    rewrites: bool  # whether the rows of a table are written again


def widen(run: Run, column: Column, wanted: str, progress: Progress) -> Outcome:
    """Give a column a wider type everywhere. Raises RefusedError for one that is not wider, or rewrites the portal."""
    if not TYPE.fullmatch(wanted.strip()):
        raise UsageError(f"{wanted} is not a type", fix="write one such as: varchar(300)")
    with run.connect() as portal:
        shape = core.of(portal)
        table = find(shape, column)
        refuse_key(table, column)
        kind = compared(portal, table, column, wanted)
        real = queries.real_table(portal, table.relation)
        if kind.rewrites and kind.now != kind.wanted:
            raise RefusedError(
                f"{column} cannot become {kind.wanted} while everybody works",
                why=f"PostgreSQL writes all rows of {real} again, and nobody can write it meanwhile",
                fix=f"in a quiet hour: alter table {real} alter {core.name(column.name)} type {kind.wanted}; "
                "then the same command again, for the copies",
            )  # fmt: skip
        courses = queries.list_courses(portal)
        narrow = {course.course for course in courses}
        if run.dry_run:
            narrow = {courses_of(courses)[name].course for name in narrower(portal, column, kind, courses)}
            return Outcome(len(narrow), 0, [], WORDS[bool(narrow) or kind.now != kind.wanted])
        queries.record_widening(portal, column, kind.wanted)
    progress.more(len(courses))
    done = copies(run, column, kind, courses, progress)
    is_new = kind.now != kind.wanted
    if is_new and not done.failures:
        alter = f"alter table {real} alter column {core.name(column.name)} type {kind.wanted}"

        def change(conn: Conn) -> None:
            if queries.is_view(conn, table.relation):
                conn.execute("select rollbook.alter_site_table(%s, %s)", [table.name, alter])
            else:
                conn.execute(alter.encode())
            before, after = ({"column": str(column), "type": name} for name in (kind.now, kind.wanted))
            history.record(conn, run, "shape", "updated", before=before, after=after)

        with run.connect() as portal:
            portal.autocommit = True
            switch(portal, shape, change, exclusive=table.relation, seconds=run.timeout)
    if not done.failures:
        with run.connect() as portal:
            queries.record_widening(portal, column, None)
    return outcome(done, is_new=is_new)


def compared(portal: Conn, table: Table, column: Column, wanted: str) -> Kind:
    """Return the types of a column, now and wanted. Raises RefusedError for one that is not wider."""
    real = queries.real_table(portal, table.relation)
    now = one(portal, KIND, [real, column.name])
    try:
        with portal.transaction(force_rollback=True):
            portal.execute(f"create temporary table rollbook_type (c {now['type']})".encode())
            before = one(portal, FILE)["file"]
            portal.execute(f"alter table pg_temp.rollbook_type alter c type {wanted}".encode(), prepare=True)
            after = one(portal, KIND, ["pg_temp.rollbook_type", "c"])
            rewrites = one(portal, FILE)["file"] != before
    except errors.ProgrammingError as exc:
        raise RefusedError(
            f"{column} cannot become {wanted}",
            why=exc.diag.message_primary,
            fix=f"it is {now['type']}: name a wider type",
        ) from exc
    is_same_kind = now["base"] == after["base"] or {now["base"], after["base"]} <= {"character varying", "text"}
    is_wider = (is_same_kind and not rewrites) or (now["base"], after["base"]) in WIDER
    if not is_wider:
        raise RefusedError(
            f"{after['type']} is not wider than {now['type']}", why="values would be cut, or change",
            fix="name a type that holds all values of the old one",
        )  # fmt: skip
    return Kind(now["type"], after["type"], rewrites)


def courses_of(courses: list[CourseShape]) -> dict[str, CourseShape]:
    """Return courses by schema."""
    return {course.schema_name: course for course in courses}


def narrower(conn: Conn, column: Column, kind: Kind, courses: list[CourseShape]) -> list[str]:
    """Return the schemas whose copy has the column with another type."""
    return queries.of_other_type(conn, column, kind.wanted, [course.schema_name for course in courses])


def copies(run: Run, column: Column, kind: Kind, courses: list[CourseShape], progress: Progress) -> Done:
    """Widen a column of all copies, those on servers first; a course that fails does not stop the others.

    A publication that lists columns holds their types: the copy is out of it for the transaction.
    """
    done, changed, failed = Done(), set[str](), dict[str, AdminError]()
    name = core.name(column.name)

    def widen_all(conn: Conn, own: list[CourseShape], again: Callable[[CourseShape], list[str]]) -> None:
        by_schema = courses_of(own)
        for schema in narrower(conn, column, kind, own):
            course = by_schema[schema].course
            if course in failed:
                continue
            try:
                place = f"{core.name(schema)}.{core.name(column.table)}"
                out = [f"alter publication {each} drop table {place}" for each in queries.publications(conn, place)]
                alter = f"alter table {place} alter column {name} type {kind.wanted}"
                run_locked(conn, [*out, alter, *(again(by_schema[schema]) if out else ())])
            except (AdminError, psycopg.Error) as exc:
                failed[course] = refusal(exc, schema)
            else:
                changed.add(course)

    with run.connect() as portal:
        portal.autocommit = True
        servers = {server.name: server for server in link.list_servers(portal)}

        def by_relay(course: CourseShape) -> list[str]:
            server = servers[str(course.server)]
            return [forward.statement(portal, server, course.course, course.schema_name)]

        for server in sorted(servers.values(), key=lambda server: server.through is None):  # before their relay
            own = [course for course in courses if server.name in course.hosts]
            try:
                with link.held(portal, server), link.reached(server, run.caller(), long=True) as conn:
                    link.unhurried(conn, run.caller())
                    widen_all(conn, own, by_relay)
            except AdminError as exc:
                done.failures.append(Failure(f"{len(own)} courses on server {server.name}", exc))
                failed |= {course.course: exc for course in own if course.course not in failed}
                continue
        unreached = {failure.error for failure in done.failures}
        widen_all(portal, courses, by_portal)
    progress.advance(len(courses))
    done.courses = sorted(changed)
    done.failures += [Failure(course, error) for course, error in sorted(failed.items()) if error not in unreached]
    return done


def by_portal(course: CourseShape) -> list[str]:
    """Return what puts a copy in what the portal sends again."""
    return [f"select rollbook.publish_courses('{server}', {core.literal(course.course)})" for server in course.fed]


def refusal(exc: AdminError | psycopg.Error, schema: str) -> AdminError:
    """Return the error of a copy whose column cannot change its type."""
    if isinstance(exc, AdminError):
        return exc
    if isinstance(exc, errors.FeatureNotSupported):
        return RefusedError(
            f"an object of the course's own in {schema} needs the column", why=exc.diag.message_detail,
            fix="drop it, run the same command again, and create it again",
        )  # fmt: skip
    return translate(exc)
