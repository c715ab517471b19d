"""The connection: libpq's conninfo untouched, one transaction a command, and the map from SQLSTATE to our errors."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.sql import Composable

from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError, UsageError
from rollbook.core.migrating import VERSION_TABLE, known_revisions

Conn = Connection[dict[str, Any]]

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 60

# Constraint -> message. Every other error keeps the server's words.
IN_WORDS = {
    "auth_user_username_key": "An account with this username already exists: the username is taken",
    "auth_user_email_key": "An account with this e-mail already exists: it belongs to another user (case-insensitive)",
    "auth_user_username_check": "a username is not empty and has no blanks or control characters",
    "auth_user_email_check": "this is not an e-mail address",
    "student_pendingemailchange_new_email_check": "Valid e-mail address required.",
    "student_pendingemailchange_new_email_width": "an e-mail address has at most 254 characters",
    "student_pendingnamechange_new_name_check": "Name required",
    "student_testcenteruser_user_id_key": "this user is already a candidate: use rollbook candidate update",
    "student_testcenterregistration_exam_key": "this candidate already has an authorization for this exam",
    "student_usertestgroup_name_key": "a group with this name already exists",
    "student_usertestgroup_name_check": "a group needs a name",
    "auth_userprofile_meta_check": "meta must be a JSON object",
    "auth_userprofile_gender_check": "gender must be m, f or o",
    "auth_userprofile_level_of_education_check": "level of education is p_se, p_oth, m, b, hs, jhs, el, none or other",
}
ADVICE = {
    "42501": "ask the owner of the database for the permission that the server names",
    "57014": "allow more time with --timeout SECONDS",
    "55P03": "try again when the other session is done",
    "40001": "run the command again: another session changed the same rows at the same time",
    "40P01": "run the command again: another session changed the same rows at the same time",
    "25006": "connect to the primary, or to a session that may write",
    "53200": "raise max_locks_per_transaction (about 10 locks for each course that one statement touches)",
}
NOT_MIGRATED = {"42P01", "42883", "3F000", "42704", "42703"}
TAKEN = {"42P06", "42P07", "42710", "42723"}
UNKNOWN = {"25006", "42501", "57014", "55P03", "53200", "53300", "28000", "28P01", "3D000", "57P01", "57P02", "57P03"}


def masked(text: str) -> str:
    """Return the text without passwords of conninfo strings and URIs."""
    text = re.sub(r"(\w+://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", r"\1***", text, flags=re.IGNORECASE)


def conninfo(dsn: str | None) -> str:
    """Return what libpq is given: a URI or key=value as it stands; a bare word is the dbname, as in psql."""
    given = dsn if dsn is not None else os.environ.get("ROLLBOOK_DSN", "")
    if given and "=" not in given and "://" not in given:
        return make_conninfo(dbname=given)
    try:
        conninfo_to_dict(given)
    except psycopg.ProgrammingError:
        # libpq quotes the part that it does not understand, which may be a password.
        raise UsageError(
            "the conninfo cannot be read", fix="write key=value pairs or a URI; quote or percent-encode odd characters"
        ) from None
    return given


def translate(exc: psycopg.Error) -> AdminError:
    """Return the error that a server's (or libpq's) error means to the user."""
    state = exc.sqlstate or ""
    said = exc.diag.message_primary or str(exc).strip().removeprefix("connection is bad: ")
    why = masked(f"{said} (SQLSTATE {state})" if state else " ".join(said.split()))
    if state.startswith("RB"):
        return RefusedError(said, why=exc.diag.message_detail, fix=exc.diag.message_hint, sqlstate=state)
    if state in NOT_MIGRATED and re.search(r"rollbook|portal", said):
        return AttentionError(
            "the database is not migrated, or not to the head that this program needs", why=why,
            fix="rollbook schema upgrade", sqlstate=state,
        )  # fmt: skip
    if state in NOT_MIGRATED:
        return RefusedError(
            said, why="a course's schema, or a part of it, is gone", fix="rollbook schema check", sqlstate=state
        )
    if state in UNKNOWN or state.startswith("08"):
        what = "permission is missing" if state == "42501" else "the server did not answer"
        return UnreachableError(what, why=why, fix=ADVICE.get(state), sqlstate=state)
    if state in TAKEN:
        return RefusedError(
            said, why=f"SQLSTATE {state}", fix="drop or rename the existing object, if it is not needed", sqlstate=state
        )
    if state[:2] in ("23", "22", "40", "2B", "55"):
        words = IN_WORDS.get(exc.diag.constraint_name or "", said)
        # The detail of these two is the whole row, password hash included.
        detail = None if state in ("23502", "23514") else exc.diag.message_detail
        return RefusedError(words, why=detail or why, fix=ADVICE.get(state), sqlstate=state)
    if state == "XX000" and "concurrently" in said:  # two sessions alter one object of the catalog
        return RefusedError(said, why="another session changed the same object at the same time", fix=ADVICE["40001"])
    if isinstance(exc, psycopg.DataError):
        return RefusedError("a value cannot be stored", why=why)
    if isinstance(exc, psycopg.OperationalError | psycopg.ProgrammingError) and not state:
        return UnreachableError(
            "cannot connect to the database", why=why,
            fix="name it with -d CONNINFO, ROLLBOOK_DSN or libpq's PG* variables, and see that the server runs",
        )  # fmt: skip
    raise exc


@contextmanager
def translated() -> Iterator[None]:
    """Turn every psycopg error inside into ours."""
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc) from exc


class LoudCursor(Cursor[Any]):
    """A cursor that logs each statement and its milliseconds on stderr, without its parameters."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Execute as usual, and log."""
        began = time.perf_counter()
        try:
            return super().execute(query, *args, **kwargs)
        finally:
            text = query.as_string(self) if isinstance(query, Composable) else query
            words = masked(" ".join((text.decode() if isinstance(text, bytes) else text).split()))
            logging.getLogger("rollbook").debug("%.1f ms  %s", (time.perf_counter() - began) * 1000, words)


# A session of ours means the same wherever it runs: neither the role, the database nor PGOPTIONS change what text
# means, which function a name finds, or what a transaction sees.
SETTINGS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "search_path": "pg_catalog, pg_temp",
    "default_transaction_isolation": "read committed",
}


@dataclass(frozen=True)
class Caller:
    """Who opens a session: its application name, and its bound in seconds, None for the default."""

    name: str
    timeout: float | None = None


def session(
    dsn: str | None, *, name: str, timeout: float | None = None, long: bool = False, verbose: bool = False
) -> Conn:
    """Return a connection. `timeout` in seconds bounds connecting (10 if None), each statement (60; none if `long`)."""
    conn: Conn = psycopg.connect(
        conninfo(dsn),
        row_factory=dict_row,
        connect_timeout=max(1, round(timeout or CONNECT_SECONDS)),
        fallback_application_name=name,
    )
    statement = timeout if timeout is not None else 0 if long else STATEMENT_SECONDS
    settings = {**SETTINGS, "statement_timeout": f"{int(statement * 1000)}ms"}
    conn.execute(
        "select set_config(key, value, false) from unnest(%s::text[], %s::text[]) as s (key, value)",
        [list(settings), list(settings.values())],
    )
    conn.commit()
    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("rollbook").setLevel(logging.DEBUG)
        conn.cursor_factory = LoudCursor
    return conn


@contextmanager
def connect(
    dsn: str | None, *, name: str, timeout: float | None = None, long: bool = False, keep: bool = True,
    migrated: bool = True, verbose: bool = False,
) -> Iterator[Conn]:  # fmt: skip
    """Yield a session in a transaction that is committed at the end, or rolled back on an error or if not `keep`.

    Raises UnreachableError, AttentionError (not migrated, or newer than this program), RefusedError.
    """
    with translated(), session(dsn, name=name, timeout=timeout, long=long, verbose=verbose) as conn:
        if migrated:
            check_revision(conn)
            conn.commit()
        yield conn
        if not keep:
            conn.rollback()


def revision(conn: Conn) -> str | None:
    """Return the revision of the database, None where Rollbook is not installed."""
    row = conn.execute("select to_regclass(%s) is not null as there", [f"public.{VERSION_TABLE}"]).fetchone()
    if not row or not row["there"]:
        return None
    row = conn.execute(f"select version_num from public.{VERSION_TABLE}").fetchone()  # noqa: S608 (a constant)
    return row["version_num"] if row else None


def check_revision(conn: Conn) -> None:
    """Raise AttentionError unless the database is at the revision that this program ships as its head."""
    found, known = revision(conn), known_revisions()
    refuse_newer(found)
    if found != known[-1]:
        raise AttentionError(
            f"the database is at revision {found}, this program needs {known[-1]}" if found else
            f"the database {conn.info.dbname} is not migrated",
            fix="rollbook schema upgrade",
        )  # fmt: skip


def refuse_newer(found: str | None) -> None:
    """Raise AttentionError for a revision that this program does not know."""
    known = known_revisions()
    if found and found not in known:
        raise AttentionError(
            f"the database's schema ({found}) is newer than this program ({known[-1]})",
            fix="install the release of rollbook that made the schema",
        )
