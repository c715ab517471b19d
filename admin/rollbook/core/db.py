"""The connection: a session that means the same wherever it runs, and one transaction a command."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, Copy, Cursor, Transaction, errors, pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row, tuple_row

from rollbook.core.conninfo import conninfo, masked
from rollbook.core.errors import COMMITTING, AdminError, AttentionError, RefusedError
from rollbook.core.lock_wait import watched
from rollbook.core.migrating import MIGRATION_LOCK, VERSION_TABLE, known_revisions
from rollbook.core.sqlstate import NOT_MIGRATED, translate, translated

Conn = Connection[dict[str, Any]]

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 60

# Ctrl-C between a statement and its answer: the driver reports that it cannot roll back, and closes the session, which
# does. Our own message says what was left; the driver's words are for --verbose.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


# A session of ours means the same wherever it runs: neither the role, the database nor PGOPTIONS change what text
# means, which function a name finds, or what a transaction sees. client_encoding is set when connecting.
# Nothing is compiled: our statements read catalogs, are short, and are estimated to be long.
SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "jit": "off",
}

# Who turned the triggers off for this session. One line a setting that can be reset.
REPLICA_ROLE = """
select concat_ws(
    ' ', 'alter', case when s.setrole = 0 then 'database' else 'role' end,
    case when s.setrole = 0 then quote_ident(d.datname) else quote_ident(session_user) end,
    case when s.setrole <> 0 and s.setdatabase <> 0 then 'in database ' || quote_ident(d.datname) end,
    'reset session_replication_role'
) as remedy
from pg_db_role_setting as s
inner join pg_database as d on d.datname = current_database()
where s.setdatabase in (0, d.oid)
    and s.setrole in (0, (select r.oid from pg_roles as r where r.rolname = session_user))
    and exists (select from unnest(s.setconfig) as c where starts_with(c, 'session_replication_role='))
"""


# Whether Rollbook is installed, and whether this role may ask what it copies. Revision 0001 copies nothing yet.
INSTALLED = """
select to_regclass(%s) is not null as is_there, exists (
    select from pg_proc as p inner join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = 'rollbook' and p.proname = 'copied_tables'
        and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')
) as may_ask
"""
PEOPLE = """array(
    select t.relation from rollbook.copied_tables() as t where t.role in ('person', 'membership') order by t.ordinal
)"""
POOLED = "a pooler, such as PgBouncer, is in between: another client may get this session and its locks"
# No migration is under way while a transaction holds this; the revision is read after it was got.
SHARED_REVISION = f"""
select pg_catalog.pg_advisory_xact_lock_shared({MIGRATION_LOCK});
select version_num from public.{VERSION_TABLE}
"""  # noqa: S608 (constants)
# What writes miss: as `rollbook status` says it, those of the portal's tables first.
MISSING = """
select format('%s %s: %s', f.kind, f.object, f.difference) as words from rollbook.routing_fault() as f
where f.kind = 'table' or f.difference = 'is gone' limit 3
"""
DEFAULT_TABLES = ("portal.auth_user", "portal.student_courseenrollment")


@dataclass(frozen=True)
class Caller:
    """Who opens a session: its application name, and its bound in seconds, None for the default."""

    name: str
    timeout: float | None = None


class Session(Connection[dict[str, Any]]):
    """A connection that makes our settings for each transaction, and leaves nothing behind.

    Behind a pooler in transaction mode the next transaction may run in another session of the server, and somebody
    else's in this one. In autocommit there is no transaction to set anything for: the settings are made once for a
    session that is ours alone; behind a pooler each statement becomes a transaction.
    """

    settings: Mapping[str, str] = SETTINGS
    seconds = 0.0  # bound of a statement; 0 = none
    patience = 0.0  # how long, by our clock, a course server may take over one, whatever it does; 0 = no bound
    writes = False
    is_pooled: bool | None = None  # None until the server has been asked
    revision: str | None = None  # with `writes`: what each transaction must find; None = it does not matter
    server: str | None = None  # the course server that it is on; its errors have the name too

    def settle(self) -> None:
        """Make the settings, for this transaction; in autocommit for the session, unless a pooler lends it."""
        # libpq got the number of the server's process when it connected; a pooler makes one up.
        local = "pg_catalog.pg_backend_pid() operator(pg_catalog.<>) {}" if self.autocommit else "true"
        made = [
            sql.SQL("pg_catalog.set_config({}, {}, {})").format(
                name, value, sql.SQL(local).format(self.info.backend_pid)
            )
            for name, value in self.settings.items()
        ]
        query = sql.SQL(
            "select pg_catalog.pg_backend_pid(), pg_catalog.current_setting('session_replication_role'), {}"
        )
        with Cursor(self, row_factory=tuple_row) as cursor:
            (pid, role, *_) = cursor.execute(query.format(sql.SQL(", ").join(made)), prepare=False).fetchone() or (
                0,
                "",
            )
        if self.is_pooled is None:
            self.is_pooled = pid != self.info.backend_pid
            if self.is_pooled:
                self.prepare_threshold = None  # what one session prepares, the next one does not know
            if self.writes and role == "replica":
                raise triggers_are_off(self)

    def hold_revision(self) -> None:
        """Hold the schema as it is for this transaction, where a command writes. Raises AttentionError if it changed.

        A program that began before an upgrade, such as a long import, would write what the new schema does not expect.
        """
        if not self.writes or self.revision is None:
            return
        with Cursor(self, row_factory=tuple_row) as cursor:
            cursor.execute(SHARED_REVISION, prepare=False)  # two statements: the second one sees what was committed
            cursor.nextset()
            (found,) = cursor.fetchone() or (None,)
        if found != self.revision:
            refuse_newer(found)
            raise AttentionError(
                f"the database's schema changed from {self.revision} to {found} while this command ran",
                fix="run the command again",
            )

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Begin a transaction with our settings, where a statement inside would begin one."""
        if self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            yield
        elif not self.autocommit:
            self.settle()
            self.hold_revision()
            yield
        elif self.is_pooled:
            with self.transaction():
                yield
        else:
            yield

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """Begin a transaction, or a savepoint in one, as usual."""
        begins = self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if begins and (self.is_pooled or not self.autocommit):
                self.settle()
            if begins:
                self.hold_revision()
            yield transaction

    def wait(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Wait as usual; all that a session does waits here. Errors of a course server are not the portal's."""
        try:
            return super().wait(*args, **kwargs)
        except psycopg.Error as exc:
            if self.server is not None:
                exc.server = self.server  # type: ignore[attr-defined]
            raise

    def set_autocommit(self, value: bool) -> None:
        """Set autocommit as usual."""
        super().set_autocommit(value)
        if value:
            self.settle()


class SessionCursor(Cursor[Any]):
    """A cursor of a Session, whose statements run with its settings."""

    connection: Session

    def execute(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Execute as usual."""
        with self.connection.settled(), watched(self.connection, self.connection.seconds):
            return super().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Execute as usual."""
        with self.connection.settled():
            super().executemany(*args, **kwargs)

    @contextmanager
    def copy(self, *args: Any, **kwargs: Any) -> Iterator[Copy]:  # noqa: ANN401
        """Copy as usual."""
        with self.connection.settled(), super().copy(*args, **kwargs) as copy:
            yield copy


class LoudCursor(SessionCursor):
    """A cursor that logs each statement and its milliseconds on stderr, without its parameters."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Execute as usual, and log."""
        began = time.perf_counter()
        try:
            return super().execute(query, *args, **kwargs)
        finally:
            text = query.as_string(self) if isinstance(query, sql.Composable) else query
            words = masked(" ".join((text.decode() if isinstance(text, bytes) else text).split()))
            logging.getLogger("rollbook").debug("%.1f ms  %s", (time.perf_counter() - began) * 1000, words)


def unreadable(conn: Connection[Any], exc: errors.CharacterNotInRepertoire) -> AdminError:
    """Return the error that names the first row that is not UTF-8: SQL_ASCII takes any bytes."""
    conn.rollback()
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("set local client_encoding = 'SQL_ASCII'")  # texts arrive as bytes, unchecked
        for table in ("auth_user", "auth_userprofile"):
            cursor.execute(sql.SQL("select * from portal.{} order by id").format(sql.Identifier(table)))
            names = [column.name for column in cursor.description or []]
            for row in cursor.fetchall():
                for name, value in zip(names, row, strict=True):
                    if isinstance(value, bytes) and not is_utf8(value):
                        shown = value.decode(errors="backslashreplace")[:200]
                        return AttentionError(
                            f"{name} of portal.{table}, id {row[0]}, is not UTF-8: {shown}",
                            why="the encoding of the database is SQL_ASCII, which takes any bytes",
                            fix="correct that value in the database: write it in UTF-8",
                        )
    return translate(exc)


def missing(conn: Conn) -> str:
    """Return which column, schema or copy is gone, in words; empty where nothing is, or this role may not see it."""
    conn.rollback()
    with suppress(psycopg.Error), conn.transaction():
        return "; ".join(row["words"] for row in conn.execute(MISSING))
    return ""


def is_utf8(value: bytes) -> bool:
    """Return whether bytes are a text in UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def triggers_are_off(conn: Session) -> RefusedError:
    """Return the refusal to write in a session without triggers: no course would get what is written."""
    found = [row["remedy"] for row in conn.execute(REPLICA_ROLE)]
    return RefusedError(
        "session_replication_role is replica in this session, so that no trigger runs",
        why="changes on the portal would reach no course",
        fix="; ".join(found) or "remove session_replication_role from PGOPTIONS and from the options of the conninfo",
    )


def require_own_session(conn: Connection[Any], what: str) -> None:
    """Raise RefusedError where a pooler lends the session: a lock that outlives a transaction guards nothing there."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        if cursor.execute("select pg_catalog.pg_backend_pid()").fetchone() != (conn.info.backend_pid,):
            raise RefusedError(
                f"{what} needs a session of its own",
                why=POOLED,
                fix="connect to PostgreSQL itself, at its own host and port: -d CONNINFO, or --admin-dsn for a server",
            )


def session(
    dsn: str | None, *, name: str, timeout: float | None = None, long: bool = False, verbose: bool = False,
    writes: bool = False,
) -> Session:  # fmt: skip
    """Return a connection. `timeout` in seconds bounds connecting (10 if None), each statement (60; none if `long`).

    With `writes`, its first statement raises RefusedError where no trigger would run.
    """
    where = conninfo(dsn)
    hosts = str(conninfo_to_dict(where).get("host", "")).count(",") + 1  # libpq gives each of them connect_timeout
    conn = Session.connect(
        where,
        row_factory=dict_row,
        cursor_factory=LoudCursor if verbose else SessionCursor,
        connect_timeout=max(1, round((timeout or CONNECT_SECONDS) / hosts)),
        fallback_application_name=name,
        client_encoding="UTF8",
    )
    statement = timeout if timeout is not None else 0 if long else STATEMENT_SECONDS
    conn.settings = {**SETTINGS, "statement_timeout": f"{int(statement * 1000)}ms"}
    conn.seconds = statement
    conn.writes = writes
    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("rollbook").setLevel(logging.DEBUG)
    return conn


@contextmanager
def connect(
    dsn: str | None, *, name: str, timeout: float | None = None, long: bool = False, keep: bool = True,
    migrated: bool = True, default_tables: bool = False, verbose: bool = False, writes: bool = False,
) -> Iterator[Conn]:  # fmt: skip
    """Yield a session in a transaction that is committed at the end, or rolled back on an error or if not `keep`.

    Raises UnreachableError, AttentionError (not migrated, or newer than this program), RefusedError; the latter, with
    `default_tables`, where other tables hold people and enrollments.
    """
    with (
        translated(),
        session(dsn, name=name, timeout=timeout, long=long, verbose=verbose, writes=writes) as conn,
    ):
        if migrated:
            check_revision(conn, default_tables=default_tables)
            conn.commit()
            conn.revision = known_revisions()[-1]
        try:
            yield conn
        except errors.CharacterNotInRepertoire as exc:
            if conn.info.parameter_status("server_encoding") != "SQL_ASCII":
                raise
            raise unreadable(conn, exc) from exc
        except psycopg.Error as exc:
            if not migrated or conn.closed or exc.sqlstate not in NOT_MIGRATED or not (words := missing(conn)):
                raise
            raise RefusedError(
                masked(exc.diag.message_primary or ""), why=words, fix="rollbook schema check", sqlstate=exc.sqlstate
            ) from exc
        if keep and not conn.closed:
            try:
                conn.commit()  # inside: psycopg leaves a session open if its own commit at the end fails
            except KeyboardInterrupt as exc:
                exc.add_note(COMMITTING)
                raise
        if not keep:
            check_deferred(conn)
            conn.rollback()


def check_deferred(conn: Conn) -> None:
    """Check deferred constraints as the commit would, so that a dry run is refused where the commit is."""
    if conn.info.transaction_status == pq.TransactionStatus.INTRANS:
        conn.execute("set constraints all immediate")


def other_encoding(conn: Conn) -> str | None:
    """Return the encoding of the database, None if it is UTF8."""
    found = conn.info.parameter_status("server_encoding")
    return None if found == "UTF8" else found


def installed(conn: Conn) -> tuple[str | None, list[str]]:
    """Return the revision of the database, None where Rollbook is not installed, and the tables of people.

    These are the person and the membership table; none for a role that may not ask.
    """
    row = conn.execute(INSTALLED, [f"public.{VERSION_TABLE}"]).fetchone()
    if not row or not row["is_there"]:
        return None, []
    tables = PEOPLE if row["may_ask"] else "'{}'::text[]"
    query = f"select version_num, {tables} as tables from public.{VERSION_TABLE}"  # noqa: S608 (constants)
    row = conn.execute(query).fetchone()
    return (row["version_num"], row["tables"]) if row else (None, [])


def revision(conn: Conn) -> str | None:
    """Return the revision of the database, None where Rollbook is not installed."""
    return installed(conn)[0]


def check_revision(conn: Conn, *, default_tables: bool = False) -> None:
    """Raise AttentionError unless the database is at the revision that this program ships as its head.

    With `default_tables`, raise RefusedError where the people are in other tables than the default's.
    """
    (found, tables), known = installed(conn), known_revisions()
    refuse_newer(found)
    if found != known[-1]:
        raise AttentionError(
            f"the database is at revision {found}, this program needs {known[-1]}" if found else
            f"the database {conn.info.dbname} is not migrated",
            fix="rollbook schema upgrade",
        )  # fmt: skip
    if default_tables and tables and tuple(tables) != DEFAULT_TABLES:
        raise RefusedError(
            f"this command needs the default's tables: {' and '.join(DEFAULT_TABLES)}",
            why=f"here people are in {tables[0]}, and their enrollments are in {tables[1]}",
            fix="change these as your platform does: every change is copied; to compare: rollbook replication verify",
        )


def refuse_newer(found: str | None) -> None:
    """Raise AttentionError for a revision that this program does not know."""
    known = known_revisions()
    if found and found not in known:
        raise AttentionError(
            f"the database's schema ({found}) is newer than this program ({known[-1]})",
            fix="install the release of rollbook that made the schema",
        )
