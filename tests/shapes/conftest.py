"""Where the tests of platforms start: a database with a platform's tables, owned by its own role, and a server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.conftest import Cluster
from tests.replication.conftest import call, course_databases, course_server
from tests.shapes.platforms import Db, Platform

__all__ = ["call", "course_databases", "course_server"]


class Home:
    """A database of a platform: a session of the DBA, and one of the application, which owns the tables."""

    def __init__(self, dsn: str, dba: Db, app: Db) -> None:
        self.dsn, self.dba, self.app = dsn, dba, app


@contextmanager
def home(cluster: Cluster, platform: Platform) -> Iterator[Home]:
    """Make the tables as the platform makes them: by its application's role, in schema public."""
    name, role = f"site_{uuid.uuid4().hex[:10]}", f"{platform.name}_app"
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as server:
        server.execute(
            sql.SQL(
                "do $$ begin create role {} login; exception when duplicate_object then null; end $$"
            ).format(sql.Identifier(role))
        )  # fmt: skip
        server.execute(
            sql.SQL("create database {} owner {} template template0").format(sql.Identifier(name), sql.Identifier(role))
        )
        try:
            dsn = cluster.server.dsn(name)
            with (
                psycopg.connect(dsn, autocommit=True) as dba,
                psycopg.connect(dsn, autocommit=True, user=role) as app,
            ):
                app.execute(platform.tables.encode())
                app.execute(platform.furnish) if platform.furnish else None
                app.execute(platform.add, {"first": 1, "last": 6})
                yield Home(dsn, dba, app)
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
