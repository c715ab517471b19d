"""Alembic behind the `schema` commands and the tests: its API, not its command line."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, TextIO

from psycopg.rows import tuple_row

from rollbook.core.db import require_own_session, session
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.lock_wait import holders_of
from rollbook.core.migrating import (
    LOCK_SECONDS,
    LOCK_TIMEOUT,
    MIGRATIONS,
    SQL,
    VERSION_TABLE,
    Places,
    object_scripts,
    places,
    rendered,
)
from rollbook.core.shape import Shape, of
from rollbook.core.sqlstate import EXISTING, NOT_MIGRATED, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from rollbook.core.db import Conn
    from rollbook.core.errors import AdminError


RETRY_SECONDS = 60.0  # how long a step is tried again that finds a lock taken
PAUSE_SECONDS = 1.0  # between two attempts: who waited for the locks passes


def configuration(output: TextIO | None = None, **attributes: Any) -> Config:  # noqa: ANN401
    """Return Alembic's configuration for the shipped migrations; offline SQL goes to `output`."""
    from alembic.config import Config  # 0.8 s, only for migrations

    config = Config(output_buffer=output, stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


def scripts() -> ScriptDirectory:
    """Return the revisions that ship."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(configuration())


def known(revision: str) -> str:
    """Return the full name of a revision; `head` and `base` pass. Raises RefusedError for an unknown one."""
    from alembic.util import CommandError

    if revision in ("head", "base"):
        return revision
    try:
        return str(scripts().get_revision(revision).revision)
    except CommandError as exc:
        raise RefusedError(f"there is no revision {revision}", why=str(exc), fix="rollbook schema history") from exc


def move(
    dsn: str | None, revision: str, *, up: bool, shape: Shape | None = None,
    report: Callable[[str], None] = lambda _: None, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Upgrade or downgrade the database to a revision, one transaction a step. `how` goes to db.session.

    A step gives up where a lock is not free at once, so that nobody waits behind it, and is tried again for a minute;
    `report` gets who held it. shape: one that was checked, of tables that are there, beside which revision 0001 is
    wanted. Raises our errors, not Alembic's.
    """
    import psycopg
    from alembic import command
    from psycopg import errors
    from sqlalchemy.exc import DBAPIError

    how = {"name": "rollbook schema", "long": True, "writes": True, **how}

    def connected() -> Any:  # noqa: ANN401
        conn = session(dsn, **how)
        try:
            require_own_session(conn, "a migration")
        except Exception:
            conn.close()
            raise
        if shape is not None:
            conn.execute("set rollbook.beside = 'on'")
        conn.execute("set lock_timeout = '500ms'")  # also for the lock that migrations hold
        conn.seconds = LOCK_SECONDS  # an error has who held the lock
        conn.commit()
        conn.row_factory = tuple_row  # type: ignore[assignment]
        return conn

    end = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            (command.upgrade if up else command.downgrade)(
                configuration(connect=connected, shape=shape), known(revision)
            )
            if not up and revision == "base":
                with session(dsn, **how) as conn:
                    conn.execute(f"drop table if exists public.{VERSION_TABLE}")
            return
        except (psycopg.Error, DBAPIError) as exc:
            cause = exc.orig if isinstance(exc, DBAPIError) else exc
            if not isinstance(cause, psycopg.Error):
                raise
            if not isinstance(cause, errors.LockNotAvailable):
                raise refused(cause) from exc
            said = cause.diag.message_primary or ""
            held_by = cause.diag.message_detail or ", ".join(holder.words for holder in holders_of(cause))
            if time.monotonic() > end:
                raise UnreachableError(
                    "a lock did not become free; nothing was changed",
                    why=said + (f": {held_by}" if held_by else ""), sqlstate=cause.sqlstate,
                    fix="run the command again when that session is done, or at a quieter hour",
                ) from exc  # fmt: skip
            report(f"trying again: {said}" + (f": {held_by}" if held_by else ""))
            time.sleep(PAUSE_SECONDS)


def refused(exc: psycopg.Error) -> AdminError:
    """Return what an error of a revision means. The tables may be a site's: no advice to migrate, nor to drop them."""
    state = exc.sqlstate or ""
    if state not in NOT_MIGRATED | EXISTING:
        return translate(exc)
    return RefusedError(
        "the database is not as the revisions before left it",
        why=f"{exc.diag.message_primary} (SQLSTATE {state}); nothing of this revision was done",
        fix="rollbook schema adopt takes over the tables of a Django site; otherwise "
        + ("rename what is there" if state in EXISTING else "restore what is missing") + ", then run the command again",
        sqlstate=state,
    )  # fmt: skip


def upgrade(dsn: str, revision: str = "head") -> None:
    """Upgrade the database; for the tests and the demo."""
    move(dsn, revision, up=True)


def offline(start: str, end: str, shape: Shape | None = None) -> str:
    """Return the SQL from one revision to another; down where `end` is the older one. Needs no server."""
    from alembic import command

    output = io.StringIO()
    way = steps(start, end)
    if way:
        start, end = (
            known(name) if name != "head" else scripts().get_current_head() or "head" for name in (start, end)
        )
        (command.upgrade if way > 0 else command.downgrade)(
            configuration(output, shape=shape), f"{start}:{end}", sql=True
        )
    beside = "set rollbook.beside = 'on';\n\n" if shape is not None and way > 0 else ""
    return beside + output.getvalue()


def grants(shape: Shape, where: Places) -> str:
    """Return the SQL that makes functions, triggers, views, roles, owners, rights and policies as shipped.

    It can be run at any time. psql cannot run the files: their variables stand for what the shape declares.
    """
    texts = [(MIGRATIONS / "tables" / "0002" / "roles.sql").read_text(), *object_scripts(SQL)]
    return rendered("\n".join(texts), shape, where)


def grant_all(conn: Conn) -> None:
    """Run `grants`. What the database refuses is our error RB010 or the server's 42501."""
    conn.execute(LOCK_TIMEOUT)
    conn.execute("set local check_function_bodies = off")
    conn.execute(grants(of(conn), places(conn)).encode())


def steps(start: str, end: str) -> int:
    """Return how many revisions lie between: positive where `end` is newer, negative where it is older."""
    order = ["base", *(step.revision for step in reversed(list(scripts().walk_revisions())))]
    at, to = (order.index(order[-1] if name == "head" else known(name)) for name in (start, end))
    return to - at
