"""Where the tests of sql/ start: two courses, one of each policy, and a login that an application has.

Most tests roll back all that they do, in one database: a clone for each would cost more than the test itself.
Those that need a commit or a second session take `live`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection
from pytest_postgresql.executors import NoopExecutor

from tests.conftest import Cluster
from tests.databases import Databases
from tests.sql.helpers import COURSES, Db, create, declare, run, value

FLAGGED: LiteralString = "flagged"


@pytest.fixture(scope="session")
def empty(template: NoopExecutor, cluster: Cluster) -> Iterator[Db]:
    """A session on a database without courses, that no test commits to."""
    with clone_of(template, cluster, "empty") as db:
        yield separate_ids(db)


@pytest.fixture(scope="session")
def founded(template: NoopExecutor, cluster: Cluster) -> Iterator[Db]:
    """A session on a database with the two courses, that no test commits to."""
    with clone_of(template, cluster, "founded") as db:
        yield found(separate_ids(db))


@pytest.fixture(scope="session")
def flagged_databases(template: NoopExecutor, cluster: Cluster) -> Databases:
    """Databases whose enrollments count while `is_active`, as Open edX has it."""
    with clone_of(template, cluster, FLAGGED) as db:
        run(db, "alter table portal.student_courseenrollment add is_active boolean not null default true")
    declare(cluster.server.dsn(FLAGGED), "is_active")
    return Databases(cluster.server, FLAGGED)


@pytest.fixture
def flagged(flagged_databases: Databases) -> Iterator[Db]:
    """A session, autocommit, on such a database, without courses."""
    with flagged_databases.lent() as db:
        yield db


@pytest.fixture
def flagged_session(flagged: Db, cluster: Cluster) -> Iterator[Callable[[], Db]]:
    """Make further sessions on it; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(psycopg.connect(cluster.server.dsn(flagged.info.dbname), autocommit=True))


@pytest.fixture
def portal(empty: Db) -> Iterator[Db]:
    """A portal without courses, in a transaction that is rolled back."""
    with empty.transaction(force_rollback=True):
        yield begin_ids(empty)


@pytest.fixture
def school(founded: Db) -> Iterator[Db]:
    """A portal with a course that keeps leavers and one that removes them, in a transaction that is rolled back."""
    with founded.transaction(force_rollback=True):
        yield begin_ids(founded)


@pytest.fixture(scope="session")
def lives(databases: Databases) -> Databases:
    """Databases with the two courses, which are made once."""
    return databases.filled("live", lambda db: found(begin_ids(db)))


@pytest.fixture
def live(db: Db) -> Db:
    """The same two courses in a database of the test's own, autocommit; `dsn` and `session` lead there too."""
    return begin_ids(db)


@pytest.fixture
def app(live: Db, dsn: str) -> Iterator[Connection[Any]]:
    """A login to `live` that may read and write the portal's tables, and has no right in rollbook or in a course."""
    run(
        live,
        """do $$ begin create role portal_app login; exception when duplicate_object then null; end $$;
        grant usage on schema portal to portal_app;
        grant select, insert, update, delete on all tables in schema portal to portal_app""",
    )
    with psycopg.connect(dsn, user="portal_app", autocommit=True) as connection:
        yield connection


@contextmanager
def clone_of(template: NoopExecutor, cluster: Cluster, name: LiteralString) -> Iterator[Db]:
    """Make a database at head for the rest of the run; the server goes when that ends."""
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as connection:
        run(connection, "create database {d} template {t}", d=name, t=str(template.template_dbname))
    with psycopg.connect(cluster.server.dsn(name), autocommit=True) as connection:
        yield connection


def separate_ids(db: Db) -> Db:
    """Let users begin at 1, profiles at 5001, enrollments at 9001: no mix-up goes unseen."""
    for table, start in (("auth_userprofile", 5001), ("student_courseenrollment", 9001)):
        place = value(db, "select rollbook.portal_table(%s)::text", table)
        db.execute(f"alter table {place} alter id set start {start} restart".encode())
    return db


def begin_ids(db: Db) -> Db:
    """Let ids begin again: a sequence does not roll back."""
    run(
        db,
        """select setval(pg_get_serial_sequence(rollbook.portal_table(t.name)::text, 'id'), t.start, false)
        from (values ('auth_user', 1), ('auth_userprofile', 5001), ('student_courseenrollment', 9001))
            as t (name, start)""",
    )
    return db


def found(db: Db) -> Db:
    """Make the two courses."""
    for course, on_leave in COURSES.items():
        create(db, course, on_leave)
    return db
