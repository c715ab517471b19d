"""Bringing a course on a server back to what the portal holds: its rows, and the stream that carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import errors, sql

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import Row
from rollbook.replication import apply_error as pending
from rollbook.replication import state, stream
from rollbook.replication.comparing import Compared
from rollbook.replication.link import Server, fence, send_beat

BATCH_USERS = 500
BATCH_SECONDS = 5.0  # how long the portal's writers may wait for a batch's server to catch up
IDLE_ROUNDS = 50  # how often a stream that is set going may stop again where nothing could be cleared

HOLD = "select from rollbook.route where user_id = any(%s) order by user_id for update"


def write(
    portal: Conn, holder: Conn, conn: Conn, to: Server, course: Row, found: Sequence[Compared],
    columns: dict[str, list[str]], seconds: float, advance: Callable[[int], None] = lambda _: None,
) -> list[Row]:  # fmt: skip
    """Write what differs on the server: table inserted updated deleted. `advance` is told how many users are done.

    Users go in batches. While a batch is written their routes are held on the portal (in `holder`, a second session),
    so that nothing of theirs is under way: the server has all that was committed before, and nothing comes after.
    Readers on the server see each batch whole. Columns and tables of the course's own are not touched.
    """
    users: dict[int, dict[str, list[int]]] = {}
    for table in found:
        for row in table.findings:
            users.setdefault(row["user_id"], {}).setdefault(table.table, []).append(row["row_id"])
    written = {name: {"table": name, "inserted": 0, "updated": 0, "deleted": 0} for name in stream.TABLES}
    order = sorted(users)
    for start in range(0, len(order), BATCH_USERS):
        batch = order[start : start + BATCH_USERS]
        row_ids = {name: [i for user in batch for i in users[user].get(name, [])] for name in stream.TABLES}
        with holder.transaction(force_rollback=True):
            holder.execute(HOLD, [batch])
            fence(portal, conn, to, min(seconds, BATCH_SECONDS))
            with named(course), conn.transaction():
                write_batch(portal, conn, course["schema_name"], columns, batch, row_ids, written)
        advance(len(batch))
    return [row for row in written.values() if row["inserted"] or row["updated"] or row["deleted"]]


class named:  # noqa: N801 (reads as a verb where it is used)
    """Turn the refusal of a course's own constraint on the server into ours, which names the course."""

    def __init__(self, course: Row) -> None:
        self.course = course

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        """Raise RefusedError for a foreign key of the course's."""
        if isinstance(exc, errors.ForeignKeyViolation | errors.RestrictViolation):
            raise RefusedError(
                f"course {self.course['course']} has rows of its own on the server that refer to "
                f"{exc.diag.table_name if exc.diag.message_detail is None else 'a copy that must go'}",
                why=exc.diag.message_detail,
                fix=f"remove those rows in schema {self.course['schema_name']} there first",
            ) from exc


def write_batch(
    portal: Conn, conn: Conn, schema_name: str, columns: dict[str, list[str]], users: list[int],
    row_ids: dict[str, list[int]], written: dict[str, Row],
) -> None:  # fmt: skip
    """Make the rows of these users on the server equal to the portal's, in the server's current transaction."""
    conn.execute("set local role rollbook_owner")
    scope: dict[str, sql.Composed] = {}
    for name in stream.TABLES:
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns[name])
        owner = sql.Identifier("id" if name == "auth_user" else "user_id")
        scope[name] = sql.SQL("({} = any({}) or id = any({}))").format(
            owner, sql.Literal(users), sql.Literal(row_ids[name])
        )
        # Locked before the portal is read: a row that stands here now is what that reading judges.
        conn.execute(sql.SQL("select from {} where {} order by id for update").format(place, scope[name]))
        conn.execute(sql.SQL("create temporary table {} on commit drop as select {} from {} with no data").format(
            due, names, place
        ))  # fmt: skip
        query = sql.SQL("select {} from {} where {}").format(names, place, scope[name])
        pending.copy_rows(portal, conn, query, due, names)
    for name in reversed(stream.TABLES):
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        gone = sql.SQL("delete from {} where {} and id not in (select id from {})").format(place, scope[name], due)
        written[name]["deleted"] += conn.execute(gone).rowcount
    for name in stream.TABLES:
        place, due = sql.Identifier(schema_name, name), sql.Identifier("pg_temp", f"due_{name}")
        mine, theirs = (
            sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns[name]) for alias in ("d", "c")
        )
        sets = sql.SQL(", ").join(
            sql.SQL("{0} = {1}").format(sql.Identifier(column), sql.Identifier("d", column)) for column in columns[name]
        )
        changed = sql.SQL(
            # As text: a course may have given a column a collation that takes different texts for equal.
            "update {} as c set {} from {} as d where d.id = c.id and row({})::text is distinct from row({})::text"
        ).format(place, sets, due, mine, theirs)
        written[name]["updated"] += conn.execute(changed).rowcount
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns[name])
        added = sql.SQL(
            "insert into {0} ({1}) select {1} from {2} as d where not exists (select from {0} as c where c.id = d.id)"
        ).format(place, names, due)
        written[name]["inserted"] += conn.execute(added).rowcount


# --- the stream -------------------------------------------------------------------------------------------------------


def set_going(portal: Conn, conn: Conn, to: Server, seconds: float) -> list[Row]:
    """Set a stream going that stopped at rows standing in its way: delete those, and only those.

    It goes on as long as there is something to delete: others write meanwhile, and may meet the next row in the way.
    Returns what was deleted: schema_name table row_id. Raises RefusedError for any other fault, which it names.
    """
    removed: list[Row] = []
    idle = 0
    while idle < IDLE_ROUNDS:
        idle += 1
        found = stream.subscription(conn, to)
        if found is None or not found["enabled"]:
            fault = pending.fault(portal, conn, to)
            if fault is not None and not fault.is_conflict:
                raise faulty(portal, to, fault)
            if fault is not None and fault.operation == "copy":
                retake(portal, conn, to, fault.schema_name)
            elif fault is not None:
                fresh = [row for row in clear_way(portal, conn, to) if row not in removed]
                removed += fresh
                idle = 0 if fresh else idle  # somebody there who puts a row back ends it
            stream.enable(conn, to)
        try:
            fence(portal, conn, to, seconds)
            return removed
        except UnreachableError:
            found = stream.subscription(conn, to)
            if found is None or found["enabled"]:
                raise
    raise UnreachableError(f"the stream to server {to.name} stops again and again", fix="rollbook replication status")


def faulty(portal: Conn, to: Server, fault: pending.Fault) -> RefusedError:
    """Return a fault that only a person can mend, with the ways to go on."""
    course = course_of(portal, fault.schema_name)
    key = f" row {fault.key}" if fault.key else ""
    skip = f"; or leave that transaction out with --skip {fault.finish_lsn}, then repair" if fault.finish_lsn else ""
    return RefusedError(
        f"server {to.name} cannot {fault.operation} {fault.table}{key} of course {course}",
        why=f"{fault.message} (SQLSTATE {fault.sqlstate})",
        fix=f"mend that there, then: rollbook replication resume '{course}'{skip}",
        course=course, table=fault.table, key=fault.key, sqlstate=fault.sqlstate, lsn=fault.finish_lsn,
    )  # fmt: skip


def course_of(portal: Conn, schema_name: str) -> str:
    """Return the course of a schema; the schema's name where there is none."""
    row = portal.execute("select course_id from rollbook.course where schema_name = %s", [schema_name]).fetchone()
    return str(row["course_id"]) if row else schema_name


def clear_way(portal: Conn, conn: Conn, to: Server) -> list[Row]:
    """Delete on the server the rows that stand where pending inserts belong; return schema_name table row_id."""
    removed: list[Row] = []
    absent = pending.expected_absent(portal, conn, to)
    with conn.transaction():
        conn.execute("set local role rollbook_owner")
        for (schema_name, name), keys in absent.items():
            key = sql.Identifier("beat" if name == "heartbeat" else "id")
            statement = sql.SQL("delete from {} where {} = any(%s) returning {} as row_id").format(
                sql.Identifier(schema_name, name), key, key
            )
            with named({"course": course_of(portal, schema_name), "schema_name": schema_name}):
                gone = conn.execute(statement, [keys]).fetchall()
            removed += [{"schema_name": schema_name, "table": name, **row} for row in gone]
    return removed


def retake(portal: Conn, conn: Conn, to: Server, schema_name: str) -> None:
    """Take one course out of the stream and in again, without a first copy: its rows are repaired instead."""
    state = "update rollbook.course set state = %s where schema_name = %s"
    for word in ("detached", "copying"):
        portal.execute(state, [word, schema_name])
        portal.execute("select rollbook.publish_courses(%s)", [to.name])
        stream.refreshed(conn, to, stream.Steps(), copy=False)


def rebuild(portal: Conn, conn: Conn, to: Server) -> None:
    """Make the stream anew, from now on: after its slot was lost, or a side was restored. Copies nothing.

    What was committed between is missing on the server: each course there is `unknown` until it is resynced.
    """
    steps = stream.Steps()
    oid = stream.drop_subscription(conn, to, steps)
    portal.execute("update rollbook.course set state = 'unknown' where server = %s and state <> 'detached'", [to.name])
    portal.execute("delete from rollbook.verification as v using rollbook.course as c "
                   "where c.course_id = v.course_id and c.server = %s", [to.name])  # fmt: skip
    stream.drop_slots(portal, to, oid or to.subscription, steps)
    stream.prepare(conn, to, steps)
    conn.execute("delete from rollbook.heartbeat")  # those of a portal that was restored would meet the new ones
    stream.make_schemas(portal, conn, to, stream.attached(portal, to), steps)
    stream.build(portal, conn, to, steps, copy=False)
    send_beat(portal)


def carry_on(portal: Conn, conn: Conn, to: Server) -> bool:
    """Let a stream of which nothing was lost go on by the routes of `to`; say whether it is one.

    So it is where the slot came along: by pg_upgrade, from PostgreSQL 17 on, or on a standby that was promoted.
    """
    (seen,) = state.look(portal, [to], Caller("rollbook server add"), deep=False)
    found = stream.subscription(conn, to)
    if (
        seen.slot is None or seen.slot["alarm"] == "lost" or found is None or found["slot"] != to.stream
        or not found["is_whole"] or not seen.is_published or state.lost_beats(seen)[1]
    ):  # fmt: skip
        return False
    route = sql.SQL("alter subscription {} connection {}")
    conn.execute(route.format(sql.Identifier(to.stream), sql.Literal(to.subscription_dsn)))
    if not found["enabled"] and to.paused_at is None:
        stream.enable(conn, to)
    return True


def restore_stream(portal: Conn, conn: Conn, to: Server, course: Row, seconds: float) -> None:
    """Make whatever is lacking for a course's changes to flow: stream, tables, their place in the stream."""
    (seen,) = state.look(portal, [to], Caller("rollbook resync"))
    found = stream.subscription(conn, to)
    lost = seen.slot is None or seen.slot["alarm"] == "lost" or found is None or found["slot"] != to.stream
    lost = lost or (found is not None and not found["is_whole"]) or not seen.is_published
    if lost or state.lost_beats(seen)[1]:
        rebuild(portal, conn, to)
        return
    steps = stream.Steps()
    stream.prepare(conn, to, steps)
    stream.make_schemas(portal, conn, to, [course], steps)
    if found is not None and not found["enabled"]:
        set_going(portal, conn, to, seconds)
    portal.execute("select rollbook.publish_courses(%s)", [to.name])
    columns, schemas = stream.whitelist(portal), [course["schema_name"]]
    if any(row["sync"] is None for row in stream.copies(conn, columns, schemas, stream.subscription(conn, to))):
        stream.refresh(portal, conn, to, steps)
    if stream.await_copies(conn, to, schemas, columns, lambda _: None, seconds, lambda: None) == "copying":
        retake(portal, conn, to, course["schema_name"])
