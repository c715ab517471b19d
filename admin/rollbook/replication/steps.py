"""Statements that change the portal or a server, run in order or, in a dry run, only listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from psycopg import sql

from rollbook.core.bound import bounded
from rollbook.core.conninfo import masked
from rollbook.core.db import Conn
from rollbook.replication import link
from rollbook.replication.link import Server
from rollbook.replication.session import Session


@dataclass
class Steps:
    """Statements in the order in which they run; with `dry` they are only listed."""

    dry: bool = False
    listed: list[tuple[str, str]] = field(default_factory=list)  # where, statement
    records: list[sql.Composed | sql.SQL] = field(default_factory=list)  # of a dry run: what the portal would record

    def on_portal(self, portal: Conn, *statements: sql.Composed | sql.SQL) -> None:
        """Run statements on the portal, which record something; several of them in one transaction."""
        self._run(portal, "portal", statements)
        if self.dry:
            self.records += statements

    @contextmanager
    def recorded(self, portal: Conn) -> Iterator[None]:
        """Let the portal be, inside, as the statements left it; those of a dry run are rolled back."""
        if not self.records:
            yield
            return
        with portal.transaction(force_rollback=True):
            for statement in self.records:
                portal.execute(statement)
            yield

    def on_source(self, source: Conn, server: Server, *statements: sql.Composed | sql.SQL) -> None:
        """Run statements on what feeds a server, its relay or the portal; several of them in one transaction."""
        self._run(source, "portal" if server.through is None else f"server {server.through}", statements)

    def on_server(self, session: Session, *statements: sql.Composed | sql.SQL) -> None:
        """Run statements on the server; several of them in one transaction."""
        self._run(session.conn, f"server {session.server.name}", statements)

    def _run(self, conn: Conn, where: str, statements: tuple[sql.Composed | sql.SQL, ...]) -> None:
        self.listed += [(where, without_passwords(statement).as_string(conn)) for statement in statements]
        if self.dry:
            return
        if len(statements) == 1:
            conn.execute(statements[0])
            return
        # The commit too, which runs what the server has deferred.
        with bounded(conn, link.patience(conn) * (len(statements) + 1)), conn.transaction():
            for statement in statements:
                conn.execute(statement)


def without_passwords(statement: sql.Composable) -> sql.Composable:
    """Return a statement with the passwords in its literals masked: quoting would hide them from a later search."""
    if isinstance(statement, sql.Composed):
        return sql.Composed([without_passwords(part) for part in statement])
    if isinstance(statement, sql.Literal) and isinstance(statement._obj, str):
        return sql.Literal(masked(statement._obj))
    return statement
