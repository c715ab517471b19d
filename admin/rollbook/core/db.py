"""The connection: a session that means the same wherever it runs, and one transaction a command."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import dict_row
from psycopg.sql import Composable

from rollbook.core.conninfo import conninfo, masked
from rollbook.core.errors import AttentionError
from rollbook.core.migrating import VERSION_TABLE, known_revisions
from rollbook.core.sqlstate import translated

Conn = Connection[dict[str, Any]]

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 60


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
