"""Alembic behind the `schema` commands and the tests: its API, not its command line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, TextIO

from psycopg.rows import tuple_row

from rollbook.core.db import require_own_session, session
from rollbook.core.errors import RefusedError
from rollbook.core.migrating import MIGRATIONS, SQL, VERSION_TABLE, Places, object_files, places, rendered
from rollbook.core.shape import Shape, of
from rollbook.core.sqlstate import EXISTING, NOT_MIGRATED, translate

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from rollbook.core.db import Conn
    from rollbook.core.errors import AdminError


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


def move(dsn: str | None, revision: str, *, up: bool, shape: Shape | None = None, **how: Any) -> None:  # noqa: ANN401
    """Upgrade or downgrade the database to a revision, one transaction a step. `how` goes to db.session.

    shape: one that was checked, of tables that are there, beside which revision 0001 is wanted. Raises our errors, not
    Alembic's.
    """
    import psycopg
    from alembic import command
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
        conn.commit()
        conn.row_factory = tuple_row  # type: ignore[assignment]
        return conn

    try:
        (command.upgrade if up else command.downgrade)(configuration(connect=connected, shape=shape), known(revision))
        if not up and revision == "base":
            with session(dsn, **how) as conn:
                conn.execute(f"drop table if exists public.{VERSION_TABLE}")
    except psycopg.Error as exc:
        raise refused(exc) from exc
    except DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            raise refused(exc.orig) from exc
        raise


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
    texts = [path.read_text() for path in (MIGRATIONS / "tables" / "0002" / "roles.sql", *object_files(SQL))]
    return rendered("\n".join(texts), shape, where)


def grant_all(conn: Conn) -> None:
    """Run `grants`. What the database refuses is our error RB010 or the server's 42501."""
    conn.execute("set local lock_timeout = '10s'")
    conn.execute("set local check_function_bodies = off")
    conn.execute(grants(of(conn), places(conn)).encode())


def steps(start: str, end: str) -> int:
    """Return how many revisions lie between: positive where `end` is newer, negative where it is older."""
    order = ["base", *(step.revision for step in reversed(list(scripts().walk_revisions())))]
    at, to = (order.index(order[-1] if name == "head" else known(name)) for name in (start, end))
    return to - at
