"""The apply error that a server's worker meets again and again: pending changes are decoded and tried on the server.

A worker reports its error in the server's log only, and retries. So the transaction that failed is decoded from a copy
of the slot and run on the server as the apply worker would, then rolled back: the server repeats the error, this time
to us. The worker goes on retrying meanwhile. Format: PostgreSQL manual, "Logical Replication Message Formats",
version 1.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, sql

from rollbook.core.bound import bounded
from rollbook.core.conninfo import masked
from rollbook.core.db import Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import Row, one
from rollbook.core.shell import course_word, is_name
from rollbook.replication import answered, catalog, obstacle, readable
from rollbook.replication.link import Server, patience
from rollbook.replication.session import Session

SENT_AT_ONCE = 200  # statements whose answers are read together
PEEKED = 20_000  # changes looked through; a larger transaction is read whole
TRIED = 200  # transactions tried to find the one that fails
LOOKS = 3  # how often a fault is looked for while the worker goes on and commits what was being tried
NAMED = 20  # courses named in a printed command
SLOT_SECONDS = 2.0  # how long PostgreSQL may need for a copy of a slot that is being read
ORIGIN = "select remote_lsn::text as lsn from pg_show_replication_origin_status() where external_id = 'pg_' || %s"
PEEK = """
select data from pg_logical_slot_peek_binary_changes(
    %(slot)s::name, null, %(limit)s, 'proto_version', '1', 'publication_names', %(publication)s::text
)
"""


# Deferred triggers of a course that fire for an apply worker; `operation` is one that queues them.
DEFERRED = """
select
    n.nspname as schema_name, c.relname as table, o.operation,
    format('alter table %I.%I disable trigger %I', n.nspname, c.relname, t.tgname) as statement
from pg_trigger as t
inner join pg_class as c on c.oid = t.tgrelid
inner join pg_namespace as n on n.oid = c.relnamespace
cross join (values ('insert', 4), ('delete', 8), ('update', 16)) as o (operation, bit)
where t.tginitdeferred and t.tgenabled in ('A', 'R') and t.tgtype & o.bit <> 0
"""
# The worker that retries holds the same rows for a moment. Apply refuses a table whose policies apply to it.
AS_WORKER = "set local search_path = ''; set local lock_timeout = '1s'; set local row_security = off"
# Errors that say nothing of a row: the worker, or a command of the course, held a lock that the trial needed.
PASSING = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled)
# SQLSTATE, or its class: a server without room for a row, whatever row it is.
LACKS = {
    "53100": "free disk space on", "53200": "free memory on", "53": "raise the limit that the message names on",
    "58": "see to the disks of",
}  # fmt: skip
RESTRICTED = "cannot fire deferred trigger within security-restricted operation"


@dataclass(frozen=True)
class Change:
    """One row changed in a transaction that the server has not applied; values are text, or None for null."""

    operation: str  # insert, update, delete
    schema_name: str
    table: str
    key_column: str  # by which the row is found
    key: str | None
    values: dict[str, str | None]
    finish_lsn: str = ""  # of its transaction: what ALTER SUBSCRIPTION ... SKIP takes


class Keyed(NamedTuple):
    """A table on a server, and the column by which its rows are found."""

    schema_name: str
    name: str
    key_column: str


@dataclass(frozen=True)
class Fault:
    """What a worker cannot apply: where, and the server's message."""

    schema_name: str
    table: str
    key: str | None
    operation: str  # insert, update, delete, copy (the first copy of a table) or commit (a deferred trigger)
    sqlstate: str
    message: str
    finish_lsn: str | None
    course: str | None  # None: Rollbook's own heartbeats
    statement: str | None = None  # SQL for the server that removes what refuses the row; None: not known, or not needed
    commands: tuple[str, ...] = ("resume",)  # of `rollbook replication`: what fixes it then, one after the other
    moving_to: str | None = None  # the server to which the course is on its way, here or through here
    suspects: tuple[str, ...] = ()  # where the error names nothing: what the course added to the table
    touched: tuple[str, ...] = ()  # the courses of its transaction: skipped, each lacks a change
    sent_without: str | None = None  # a column that travels: the publication lacks it, or did when that row was written
    grant: str | None = None  # what lets the login of the subscription read it; its worker goes on by itself then

    @property
    def is_conflict(self) -> bool:
        """Return whether a row on the server has the key of a row of the portal, so that repair may delete it."""
        return self.commands == ("repair",)

    @property
    def lack(self) -> str | None:
        """Return what to do where the server itself lacks something, None where its row is refused.

        No row is at fault then, so none is skipped: the worker tries again until it succeeds.
        """
        return LACKS.get(self.sqlstate) or LACKS.get(self.sqlstate[:2])

    @property
    def words(self) -> str:
        """Return what happened, in words."""
        row = f" row {self.key}" if self.key else ""
        return f"{self.operation} {self.table}{row}: {self.message} (SQLSTATE {self.sqlstate})"

    def fix(self, server: Server, asked: str | None = None, *, with_skip: bool = False) -> str:
        """Return what fixes it, to be executed as it is; `asked`: a course of the server, for the heartbeats.

        `with_skip`: skipping the transaction too, where that is a way.
        """
        if self.grant is not None:
            commands = obstacle.fix_lines(server, self.course, None, (), moving_to=self.moving_to)
            return "; then: ".join(filter(None, [self.grant, commands]))
        course = self.course or (asked if self.is_conflict else None)
        fix = obstacle.fix_lines(server, course, self.statement, self.commands, moving_to=self.moving_to)
        if self.lack is not None:
            fix = f"{self.lack} server {server.name}; then: {fix}"
        elif self.statement is None and self.commands == ("resume",):
            such_as = f", such as {', '.join(self.suspects)}" if self.suspects else ""
            schema = f"in schema {self.schema_name} " if is_name(self.schema_name) else ""  # a relay says it
            where = f"{schema}on server {server.name}{such_as}"
            fix = f"change what refuses that row {where}; then: {fix}"
        is_skippable = self.commands == ("resume",) and self.moving_to is None and self.lack is None
        if with_skip and self.finish_lsn and is_skippable:
            fix += f"; or: {obstacle.fix_lines(server, course, None, ['resume'])} --skip {self.finish_lsn}"
            names = map(course_word, self.touched if len(self.touched) <= NAMED else ())  # none: all courses
            fix += "; then: " + " ".join(["rollbook replication repair", *names])
        return fix


class Reader:
    """Reads the fields of one message."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, form: str) -> int:
        """Return the next integer, as struct spells it."""
        (value,) = struct.unpack_from(f"!{form}", self.data, self.at)
        self.at += struct.calcsize(f"!{form}")
        return int(value)

    def word(self) -> str:
        """Return the next zero-terminated string."""
        end = self.data.index(0, self.at)
        value, self.at = self.data[self.at : end].decode(), end + 1
        return value

    def letter(self) -> str:
        """Return the next byte as a character."""
        self.at += 1
        return chr(self.data[self.at - 1])

    def row(self, columns: list[str]) -> dict[str, str | None]:
        """Return a tuple's columns; those that TOAST left out are absent."""
        found: dict[str, str | None] = {}
        for name in columns[: self.number("H")]:
            kind = self.letter()
            if kind == "n":
                found[name] = None
            elif kind == "t":
                length = self.number("I")
                found[name] = self.data[self.at : self.at + length].decode()
                self.at += length
        return found


def lsn(number: int) -> str:
    """Return a position as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def position(text: str) -> int:
    """Return a written position as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def decoded(messages: Iterator[bytes], after: int) -> Iterator[Change]:
    """Return the changes of the transactions that end behind a position, in the order of their commits."""
    relations: dict[int, tuple[str, str, list[str], str]] = {}
    transaction: list[Change] = []
    for data in messages:
        message = Reader(data)
        kind = message.letter()
        if kind == "B":
            finish = lsn(message.number("Q"))
            transaction = []
        elif kind == "R":
            number, schema_name, name = message.number("I"), message.word(), message.word()
            message.letter()  # replica identity
            columns, keys = [], []
            for _ in range(message.number("H")):
                is_of_key = message.letter() != "\0"
                columns.append(message.word())
                keys += columns[-1:] if is_of_key else []
                _ = message.number("I"), message.number("I")  # type and its modifier
            relations[number] = (schema_name, name, columns, next(iter(keys or columns)))
        elif kind in "IUD":
            schema_name, name, columns, key_column = relations[message.number("I")]
            old: dict[str, str | None] = {}
            part = message.letter()
            if part in "KO":
                old = message.row(columns)
                part = message.letter() if kind == "U" else ""
            new = message.row(columns) if part == "N" else {}
            key = old.get(key_column) or new.get(key_column)
            word = {"I": "insert", "U": "update", "D": "delete"}[kind]
            transaction.append(Change(word, schema_name, name, key_column, key, new, finish))
        elif kind == "C":
            _ = message.number("B"), message.number("Q")  # flags, the LSN of the commit
            if message.number("Q") > after:
                yield from transaction


def applied_until(conn: Conn, server: Server) -> int:
    """Return the position up to which the server has applied; 0 if it has applied nothing.

    Raises UnreachableError for a role that may not read it.
    """
    found = catalog.subscription(conn, server)
    if found is None:
        return 0
    try:
        with conn.transaction():  # a savepoint: the caller's transaction goes on
            row = conn.execute(ORIGIN, [str(found.oid)]).fetchone()
    except errors.InsufficientPrivilege as exc:
        raise needs(conn, server, "grant execute on function pg_show_replication_origin_status()") from exc
    return position(row["lsn"]) if row and row["lsn"] else 0


def needs(conn: Conn, server: Server, grant: str) -> UnreachableError:
    """Return the error of a role that lacks a right on the server."""
    grant = f"{grant} to {sql.Identifier(conn.info.user).as_string()}"
    return UnreachableError(
        "this role may not diagnose an apply error",
        why=f"diagnosing the apply error requires, on the server: {grant}",
        fix=f"on server {server.name}: {grant}; then: rollbook replication status",
    )


def changes(session: Session) -> Iterator[Change]:
    """Return what the slot holds that the server has not applied.

    A temporary copy of the slot is read: the slot itself may be in use, and reading could move it. The source needs one
    free slot for it.
    """
    source, stream = session.source, session.server.stream
    copy = f"look_{source.info.backend_pid}"
    copy_slot(session, copy)
    try:
        asked = {"slot": copy, "publication": stream, "limit": PEEKED}
        rows = source.execute(PEEK, asked, binary=True).fetchall()
    finally:
        source.execute("select pg_drop_replication_slot(%s)", [copy])
    return decoded((bytes(row["data"]) for row in rows), applied_until(session.conn, session.server))


def copy_slot(session: Session, copy: str) -> None:
    """Copy a slot for this session. Repeated where its reader moves it meanwhile: PostgreSQL refuses that copy."""
    end = time.monotonic() + SLOT_SECONDS
    source, stream, name = session.source, session.server.stream, session.source_name
    while True:
        try:
            source.execute("select pg_copy_logical_replication_slot(%s, %s, temporary => true)", [stream, copy])
        except (errors.ObjectNotInPrerequisiteState, errors.InternalError_):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        except errors.ConfigurationLimitExceeded as exc:
            count = one(source, "select current_setting('max_replication_slots')::int as count")["count"]
            raise UnreachableError(
                "the apply error cannot be diagnosed",
                why=f"{name} has no free replication slot: all {count} are in use, and a copy of the server's is read "
                "for a moment; the server's log has the error",
                fix=f"on {name}: alter system set max_replication_slots = {count + 5}; then restart it",
            ) from exc
        else:
            return


def statement_of(change: Change) -> tuple[sql.Composed, list[str | None]]:
    """Return the statement that makes a change, and its parameters."""
    place = sql.Identifier(change.schema_name, change.table)
    key = sql.Identifier(change.key_column)
    names = [sql.Identifier(name) for name in change.values]
    if change.operation == "insert":
        marks = sql.SQL(", ").join(sql.SQL("%s") for _ in names)
        written = sql.SQL("insert into {} ({}) values ({})").format(place, sql.SQL(", ").join(names), marks)
        return written, list(change.values.values())
    if change.operation == "update":
        sets = sql.SQL(", ").join(sql.SQL("{} = %s").format(name) for name in names)
        written = sql.SQL("update {} set {} where {} = %s").format(place, sets, key)
        return written, [*change.values.values(), change.key]
    return sql.SQL("delete from {} where {} = %s").format(place, key), [change.key]


def as_apply_worker(conn: Conn, server: Server) -> None:
    """Act within the transaction as an apply worker: no search path, only triggers that fire for replicas.

    Raises UnreachableError for a role without the right.
    """
    try:
        conn.execute("set local session_replication_role = replica")
    except errors.InsufficientPrivilege as exc:
        raise needs(conn, server, "grant set on parameter session_replication_role") from exc
    conn.execute(AS_WORKER)
    if conn.info.server_version >= 160000:  # apply acts for the owner of the table
        conn.execute("set local role rollbook_owner")


def fault(session: Session) -> Fault | None:
    """Return what the server's workers cannot apply; None if the next transactions would be applied now.

    Nothing is changed on either side. Raises UnreachableError if the error cannot be diagnosed.
    """
    return copy_fault(session) or apply_fault(session)


def apply_fault(session: Session) -> Fault | None:
    """Return why one of the next transactions cannot be applied.

    A transaction without effect on the server (its rows do not exist there) may have been applied without a trace at
    the origin, so the next one is tried too. What the worker has committed meanwhile is not a fault: the rows were
    there because it had written them.
    """
    for _ in range(LOOKS):
        found = next_fault(session)
        if found is None or found.finish_lsn is None:
            return found
        if applied_until(session.conn, session.server) <= position(found.finish_lsn):
            return found
    return None


def next_fault(session: Session) -> Fault | None:
    """Return the fault of the first transaction that has an effect on the server; None if it has no fault."""
    waiting = changes(session)
    fed = Fed(session)
    transactions = itertools.groupby(waiting, key=lambda change: change.finish_lsn)
    for _, each in itertools.islice(transactions, TRIED):
        due = list(each)
        written, found = tried(session.conn, due, fed)
        if found is not None:
            names = {fed.courses.get(change.schema_name) for change in due}
            return replace(found, touched=tuple(sorted(name for name in names if name)))
        if written:
            return None
    return None


def tried(conn: Conn, due: list[Change], fed: Fed) -> tuple[int, Fault | None]:
    """Run one transaction as the apply worker would, and roll back; return how many rows it wrote, and its fault.

    Its statements are sent without waiting for each answer: a transaction may have many thousands.
    """
    written = 0
    sent: list[tuple[Change, psycopg.Cursor[Row]]] = []  # and not answered yet
    end: Fault | None = None  # what the worker meets behind these
    at = replace(next((each for each in due if fed.deferred(each)), due[0]), operation="commit", key=None)
    try:
        with conn.transaction(force_rollback=True):
            as_apply_worker(conn, fed.server)
            with bounded(conn, patience(conn)), conn.pipeline() as pipeline:
                for change in due:
                    if end := fed.unfit(change):
                        break
                    if not fed.applies(change.schema_name, change.table, change.finish_lsn):
                        continue
                    sent.append((change, conn.execute(*statement_of(change))))
                    if conn.info.server_version >= 160000 and (queued := fed.deferred(change)):
                        end = fed.fault(change, "42501", RESTRICTED, statement=answered.statement(queued))
                        break
                    if len(sent) == SENT_AT_ONCE:
                        pipeline.sync()
                        written += rows_of(sent)
            written += rows_of(sent)
            if end is None:
                conn.execute("set constraints all immediate")
    except PASSING as exc:
        raise blocked(exc) from exc
    except psycopg.Error as exc:
        at = next((change for change, cursor in sent if cursor.pgresult is None), at)
        return written, described(conn, exc, at, fed)
    return written, end


def rows_of(sent: list[tuple[Change, psycopg.Cursor[Row]]]) -> int:
    """Empty a list of answered statements, and return how many rows they wrote."""
    rows = sum(cursor.rowcount for _, cursor in sent)
    sent.clear()
    return rows


def blocked(exc: psycopg.Error) -> UnreachableError:
    """Return the error of a trial that had to wait too long for a lock."""
    return UnreachableError(
        "the apply error could not be diagnosed", why=f"another session holds a lock there: {exc.diag.message_primary}",
        fix="try again",
    )  # fmt: skip


class Fed:
    """The copies of a server as an apply worker sees them."""

    def __init__(self, session: Session) -> None:
        portal, conn, server = session.portal, session.conn, session.server
        placed = catalog.fed(portal, server)
        self.portal, self.server, self.copied = portal, server, catalog.copied(portal)
        self.courses = {row.schema_name: row.course for row in placed}
        self.moving = {row.schema_name: row.moving_to for row in placed if row.state == "moving"}
        found = catalog.copies(conn, self.copied, list(self.courses), catalog.subscription(conn, server))
        self.copies = {(copy.schema_name, copy.table): copy for copy in found}
        self.late = {
            (row["schema_name"], row["table"], row["operation"]): row["statement"] for row in conn.execute(DEFERRED)
        }

    def deferred(self, change: Change) -> str | None:
        """Return the SQL that disables a trigger which a change queues until commit, None if there is none."""
        return self.late.get((change.schema_name, change.table, change.operation))

    def fault(self, at: Change, sqlstate: str, message: str, **more: Any) -> Fault:  # noqa: ANN401
        """Return a fault at a change."""
        return Fault(
            at.schema_name, at.table, at.key, at.operation, sqlstate, message, at.finish_lsn or None,
            self.courses.get(at.schema_name), moving_to=self.moving.get(at.schema_name), **more,
        )  # fmt: skip

    def unfit(self, at: Change) -> Fault | None:
        """Return the fault of a table that an apply worker does not accept, in its words; None if it does."""
        if at.schema_name not in self.courses:
            return None
        copy = self.copies.get((at.schema_name, at.table))
        relation = f'logical replication target relation "{at.schema_name}.{at.table}"'
        if copy is None or not copy.is_there:
            return self.fault(at, "55000", f"{relation} does not exist", commands=("resync",))
        if copy.lacking:
            names = ", ".join(f'"{name}"' for name in copy.lacking)
            words = f"{relation} is missing replicated column{'s' if len(copy.lacking) > 1 else ''}: {names}"
            added = catalog.add_columns(self.portal, at.schema_name, [copy])
            return self.fault(at, "55000", words, statement=added, commands=("resume", "repair"))
        is_applied = self.applies(at.schema_name, at.table, at.finish_lsn)
        if copy.identity_fix and is_applied and at.operation in ("update", "delete"):
            words = f"{relation} has no usable replica identity or primary key"
            return self.fault(at, "55000", words, statement=answered.statement(copy.identity_fix))
        return None

    def is_unsent(self, at: Change, column: str) -> bool:
        """Return whether a column travels, and a row that is inserted was sent without it."""
        if at.operation != "insert" or (at.schema_name, at.table) not in self.copies:
            return False
        return column not in at.values and column in self.copied.of(at.schema_name, at.table)

    def applies(self, schema_name: str, table: str, finish_lsn: str) -> bool:
        """Return whether a worker applies a transaction to a table, or leaves it to the table's first copy."""
        copy = self.copies.get((schema_name, table))
        if copy is None or not copy.is_there or copy.sync == "r":
            return True  # None: the heartbeats
        return copy.sync == "s" and position(copy.sync_lsn or "0/0") <= position(finish_lsn)


def copy_fault(session: Session) -> Fault | None:
    """Return why the first copy of a table fails; None where none has failed yet, or all are done."""
    conn, server = session.conn, session.server
    found = catalog.subscription(conn, server)
    if found is None or not found.sync_errors:
        return None
    fed = Fed(session)
    due = [copy for copy in fed.copies.values() if copy.is_due]
    lacking = readable.unreadable(session, list(dict.fromkeys(copy.schema_name for copy in due)))
    for copy in due:
        at = Change("copy", copy.schema_name, copy.table, fed.copied.table(copy.table).key, None, {})
        if unfit := fed.unfit(at):
            return unfit
        if lacking is not None and copy.schema_name in lacking.schemas:
            words = f"login {lacking.login} may not read it on {session.source_name}"
            return fed.fault(at, "42501", words, commands=(), grant=lacking.fix)
        place = sql.Identifier(copy.schema_name, copy.table)
        names = sql.SQL(", ").join(sql.Identifier(name) for name in fed.copied.of(copy.schema_name, copy.table))
        try:
            with conn.transaction(force_rollback=True):
                as_apply_worker(conn, server)
                copy_rows(session.source, conn, sql.SQL("select {} from {}").format(names, place), place, names)
        except PASSING:
            continue  # it is being copied
        except psycopg.Error as exc:
            (now,) = (
                each for each in catalog.copies(conn, fed.copied, [copy.schema_name], found)
                if each.table == copy.table
            )  # fmt: skip
            if now.is_due:  # otherwise it has been copied meanwhile
                return described(conn, exc, at, fed)
    return None


def copy_rows(origin: Conn, conn: Conn, query: sql.Composed, place: sql.Identifier, names: sql.Composed) -> None:
    """Stream the rows of a query on the portal, or a relay, into a table on the server."""
    source = sql.SQL("copy ({}) to stdout").format(query)
    target = sql.SQL("copy {} ({}) from stdin").format(place, names)
    with origin.cursor().copy(source) as out, conn.cursor().copy(target) as into:
        for block in out:
            into.write(block)


def described(conn: Conn, exc: psycopg.Error, at: Change, fed: Fed) -> Fault:
    """Return an error of the server at a change as a fault."""
    said = masked(exc.diag.message_primary or str(exc))
    state = exc.sqlstate or ""
    if obstacle.is_key_taken(conn, at.schema_name, at.table, at.key_column, exc):
        detail = exc.diag.message_detail  # it names only the key; other details would show the row
        return fed.fault(at, state, f"{said}: {detail}" if detail else said, commands=("repair",))
    column = exc.diag.column_name
    if state == errors.NotNullViolation.sqlstate and column and fed.is_unsent(at, column):
        words = f"{said}; it was sent without {column}"
        return fed.fault(at, state, words, commands=("resync",), sent_without=column)
    statement = obstacle.statement(conn, at.schema_name, at.table, exc, "RA")
    added = [] if statement else catalog.local_objects(conn, at.schema_name, on_copies=True)
    suspects = tuple(name for name in added if at.table in name and is_name(name))
    return fed.fault(at, state, said, statement=statement, suspects=suspects)


def expected_absent(session: Session) -> dict[Keyed, list[int]]:
    """Return by table the keys that pending inserts bring, and that no pending change before removes."""
    seen: set[tuple[Keyed, str | None]] = set()
    found: dict[Keyed, list[int]] = {}
    fed = Fed(session)
    for change in changes(session):
        if not fed.applies(change.schema_name, change.table, change.finish_lsn):
            continue
        table = Keyed(change.schema_name, change.table, change.key_column)
        if change.operation == "insert" and (table, change.key) not in seen and change.key is not None:
            found.setdefault(table, []).append(int(change.key))
        seen.add((table, change.key))
    return found
