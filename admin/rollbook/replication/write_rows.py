"""Making a course's rows on a server equal to the portal's, in batches of users."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import errors, sql

from rollbook.core.conninfo import masked
from rollbook.core.db import Conn
from rollbook.core.errors import AdminError, RefusedError, UnreachableError
from rollbook.core.rows import one
from rollbook.replication import build, obstacle
from rollbook.replication.apply_error import copy_rows
from rollbook.replication.catalog import Placement, course_of
from rollbook.replication.compare import Compared
from rollbook.replication.fence import FaultError, fence
from rollbook.replication.queries.copies import Written, total
from rollbook.replication.route_hold import held_routes
from rollbook.replication.session import Progress, Session

BATCH_USERS = 2_500
BATCH_SECONDS = 5.0  # how long the portal's writers may wait for a batch, whatever its server does
SMALLER = 10  # a batch that takes longer is tried again as so many

MAY_PREPARE = "select has_database_privilege(current_database(), 'temporary') as may"


class LateError(UnreachableError):
    """A server did not write a batch within the time for which the portal's writers wait for it."""


def write_rows(
    session: Session, holder: Conn, course: Placement, found: Sequence[Compared], progress: Progress, *,
    below: Session | None = None,
) -> list[Written]:  # fmt: skip
    """Write what differs on the server; return what was written by table. `progress` counts rows.

    Users are written in batches. During a batch the portal holds their routes (in `holder`, a second session), so that
    none of their changes is under way: the server has all that was committed before, and nothing comes after. Readers
    on the server see each batch whole. The course's own columns and tables are not touched.

    What is written on a relay goes on to the servers behind it; rows that it lacks are withheld from the one `below`,
    which may have them: there they would be conflicts.
    """
    if below is not None and any(part.count("missing") for part in found):
        with build.withheld(below, course.schema_name):
            return write_rows(session, holder, course, found, progress)
    users: dict[int, dict[str, list[int]]] = {}
    for table in found:
        for finding in table.findings:
            users.setdefault(finding.user_id, {}).setdefault(table.table, []).append(finding.row_id)
    written: list[Written] = []
    order = sorted(users)
    start, size = 0, BATCH_USERS
    while start < len(order):
        batch = order[start : start + size]
        row_ids = {name: [i for user in batch for i in users[user].get(name, [])] for name in session.copied.names}
        fence(session)  # nobody waits yet: a server that is behind has caught up before
        try:
            written += write_held(session, holder, course, batch, row_ids)
        except LateError:
            if session.conn.closed or len(batch) == 1:
                raise
            size = max(1, len(batch) // SMALLER)
            continue
        start += len(batch)
        count = sum(map(len, row_ids.values()))
        progress.rows(count, count)
    return [row for row in total(*written) if row]


def write_held(
    session: Session, holder: Conn, course: Placement, user_ids: list[int], row_ids: dict[str, list[int]]
) -> list[Written]:
    """Write one batch while the portal holds the routes of its users; return what was written.

    Raises LateError where the time is over first: the routes are free then, and nothing was written, unless the server
    was committing.
    """
    seconds = min(session.timeout, BATCH_SECONDS)
    written = {name: Written(name) for name in session.copied.names}
    try:
        with held_routes(holder, user_ids, [hop.conn for hop in session.hops], seconds) as hold:
            fence(session, hold.left)
            with session.conn.transaction():
                write_batch(session, course.schema_name, row_ids, written)
                if not hold.left:
                    raise late(session, course, seconds)
    except (FaultError, LateError):
        raise
    except (UnreachableError, psycopg.Error) as exc:
        if not hold.left:
            raise late(session, course, seconds) from exc
        if isinstance(exc, UnreachableError):
            raise
        raise refused_write(session, course.schema_name, exc) or exc from exc
    return list(written.values())


def late(session: Session, course: Placement, seconds: float) -> LateError:
    """Return the error of a batch that took longer than `seconds`."""
    name = session.server.name
    return LateError(
        f"server {name} did not write the rows of course {course.course} within {seconds:g} s",
        why="the portal's writers wait for no longer; a lock, a slow trigger or the load of that server holds it up",
        fix=f"on server {name}, end what holds up writes to schema {course.schema_name}: pg_stat_activity shows it; "
        "then the same command again",
    )  # fmt: skip


def refused_write(session: Session, schema_name: str, exc: psycopg.Error) -> AdminError | None:
    """Return the refusal of a course that does not accept what was written to it, or of a role; None for others.

    The transaction in which it was written is rolled back.
    """
    course, server = course_of(session.portal, schema_name), session.server
    if isinstance(exc, errors.ForeignKeyViolation | errors.RestrictViolation):
        what = exc.diag.table_name if exc.diag.message_detail is None else "a copy that must be deleted"
        return RefusedError(
            f"course {course} has rows of its own on the server that refer to {what}",
            why=exc.diag.message_detail, fix=f"remove those rows in schema {schema_name} there first",
        )  # fmt: skip
    if isinstance(exc, errors.InsufficientPrivilege) and not one(session.conn, MAY_PREPARE)["may"]:
        conn = session.conn.info
        database, role = (sql.Identifier(name).as_string() for name in (conn.dbname, conn.user))
        return UnreachableError(
            f"the role on server {server.name} may not create temporary tables", why="rows are brought there in them",
            fix=f"on server {server.name}: grant temporary on database {database} to {role}",
        )  # fmt: skip
    if exc.sqlstate is None or exc.sqlstate.startswith(("08", "40", "53", "55P03", "57", "58", "XX")):
        return None
    found = [obstacle.statement(session.conn, schema_name, name, exc, "OA") for name in session.copied.names]
    sql_there = next(filter(None, found), None)
    if sql_there is None:
        return None
    return RefusedError(
        f"a row of course {course} cannot be written on server {server.name}",
        why=f"{masked(exc.diag.message_primary or str(exc))} (SQLSTATE {exc.sqlstate})",
        fix=obstacle.fix_lines(server, course, sql_there, ["repair"]),
    )


def write_batch(
    session: Session, schema_name: str, row_ids: dict[str, list[int]], written: dict[str, Written]
) -> None:  # fmt: skip
    """Make these rows on the server equal to the portal's, in the server's current transaction."""
    conn = session.conn
    tables = [table for table in session.copied.tables if row_ids[table.name]]
    columns = {table.name: session.copied.of(schema_name, table.name) for table in tables}
    for table in tables:  # by the role of the session: a relay lets nobody else make temporary tables
        place, due = sql.Identifier(schema_name, table.name), sql.Identifier("pg_temp", f"due_{table.name}")
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns[table.name])
        conn.execute(sql.SQL("create temporary table {} on commit drop as select {} from {} with no data").format(
            due, names, place
        ))  # fmt: skip
        conn.execute(sql.SQL("grant select, insert on {} to rollbook_owner").format(due))
    conn.execute("set local role rollbook_owner")
    # The rows are found by key; a copy that was never analyzed would be read whole, again and again.
    conn.execute("set local enable_seqscan = off")
    scope = {
        table.name: sql.SQL("{} = any({})").format(sql.Identifier(table.key), sql.Literal(row_ids[table.name]))
        for table in tables
    }
    for table in tables:
        name, key = table.name, sql.Identifier(table.key)
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns[name])
        # Locked before the portal is read: the rows that exist now are those that this read compares.
        conn.execute(sql.SQL("select from {} where {} order by {} for update").format(place, scope[name], key))
        query = sql.SQL("select {} from {} where {}").format(names, place, scope[name])
        copy_rows(session.portal, conn, query, due, names)
    for table in reversed(tables):
        name, key = table.name, sql.Identifier(table.key)
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        gone = sql.SQL("delete from {0} where {1} and {2} not in (select {2} from {3})").format(
            place, scope[name], key, due
        )
        written[name].deleted += conn.execute(gone).rowcount
    for table in tables:
        name, key = table.name, sql.Identifier(table.key)
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        mine, theirs = (
            sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns[name]) for alias in ("d", "c")
        )
        sets = sql.SQL(", ").join(
            sql.SQL("{0} = {1}").format(sql.Identifier(column), sql.Identifier("d", column)) for column in columns[name]
        )
        changed = sql.SQL(
            # As text: a course may have given a column a collation in which different texts are equal.
            "update {0} as c set {1} from {2} as d "
            "where d.{3} = c.{3} and row({4})::text is distinct from row({5})::text"
        ).format(place, sets, due, key, mine, theirs)
        written[name].updated += conn.execute(changed).rowcount
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns[name])
        added = sql.SQL(
            "insert into {0} ({1}) select {1} from {2} as d where not exists (select from {0} as c where c.{3} = d.{3})"
        ).format(place, names, due, key)
        written[name].inserted += conn.execute(added).rowcount
