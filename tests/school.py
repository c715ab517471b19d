"""The program in process on the test's database, and a small platform to work on."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString, Protocol

import psycopg
import pytest
from psycopg import Connection, sql

from rollbook import cli
from tests.conftest import Cluster
from tests.databases import Databases
from tests.program import KEEP, REMOVE, Result, damage


class Rollbook(Protocol):
    """Run the program; `dsn` None leaves the connection to the environment."""

    def __call__(self, *arguments: str, dsn: str | None = ..., stdin: bytes | None = ...) -> Result: ...


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's reaches the program; its log and a demo would be the test's own."""
    for name in list(os.environ):
        if name.startswith(("PG", "ROLLBOOK_")) and name != "PG_BINDIR":
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROLLBOOK_LOG_FILE", str(tmp_path / "rollbook.log"))
    monkeypatch.setenv("ROLLBOOK_DEMO_DIR", str(tmp_path / "no-demo"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))


@pytest.fixture
def rollbook(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Rollbook:
    """Run the program in process, on the test's database unless told otherwise."""

    def call(*arguments: str, dsn: str | None = "", stdin: bytes | None = None) -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin or b""), encoding="utf-8"))
        readable = {"empty", "seen", "broken"} & set(request.fixturenames)
        where = request.getfixturevalue(readable.pop() if readable else "dsn") if dsn == "" else dsn
        capsys.readouterr()
        code = cli.run([*arguments, *(("-d", where) if where else ())])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


def advance_sequences(db: Connection[Any]) -> None:
    """Let the sequences follow the ids that `populate` gave: else `schema check` names them."""
    for table in ("auth_user", "auth_userprofile", "student_courseenrollment", "student_testcenteruser",
                  "student_testcenterregistration", "auth_registration"):  # fmt: skip
        db.execute(
            sql.SQL(
                "select setval(pg_get_serial_sequence(rollbook.portal_table({})::text, 'id'), "
                "(select coalesce(max(id), 1) from {}))"
            ).format(sql.Literal(table), sql.Identifier("portal", table))
        )


def write_old(db: Connection[Any], statement: LiteralString, *values: str) -> None:
    """Write a row from before there was a rule for it: no trigger fires."""
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(statement, values)


def populate(db: Connection[Any]) -> None:
    """Two courses, one of each policy; ada and bob are in the first, ada in the second, eve in none, dan waits."""
    db.execute("select rollbook.create_course(%s), rollbook.create_course(%s, 'remove')", [KEEP, REMOVE])
    db.execute(
        """insert into portal.auth_user (id, username, email, is_active, is_staff, date_joined) values
            (101, 'ada', 'ada@example.org', true, true, '2012-09-01 10:00+02'),
            (102, 'bob', 'Bob@Example.org', true, false, '2012-09-30 23:30+00'),
            (103, 'dan', 'dan@example.org', false, false, '2012-10-01 00:00+00'),
            (104, 'eve', '', false, false, '2012-10-02 00:00+00')"""
    )
    db.execute(
        """insert into portal.auth_userprofile (id, user_id, name, goals)
        select id + 100, id, initcap(username) || ' Foo', 'World peace' from portal.auth_user"""
    )
    db.execute(
        """insert into portal.student_courseenrollment (id, user_id, course_id, created) values
            (301, 101, %(keep)s, '2012-09-02 00:00+00'), (302, 102, %(keep)s, '2012-09-02 23:59+00'),
            (303, 101, %(remove)s, '2012-09-03 00:00+00'), (304, 103, 'edX/later/2014', '2012-10-03 00:00+00')""",
        {"keep": KEEP, "remove": REMOVE},
    )
    db.execute("insert into portal.auth_registration (user_id, activation_key) values (103, 'key-of-dan')")
    db.execute(
        """insert into portal.student_testcenteruser
            (user_id, client_candidate_id, first_name, last_name, address_1, city, country, phone, phone_country_code)
        values (101, 'edX000000000101', 'Ada', 'Foo', '1 Main St', 'London', 'GBR', '1', '44')"""
    )


def furnish(db: Connection[Any]) -> None:
    """What the lists of groups, of changes that wait and of allowed addresses need besides."""
    db.execute(
        """insert into portal.student_usertestgroup (name, description) values ('testers', 'See pages first');
        insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
        select g.id, 102 from portal.student_usertestgroup as g;
        select rollbook.request_name_change(102, 'Bob Bar', 'Marriage');
        select rollbook.request_email_change(102, 'bob@new.org');
        insert into portal.student_testcenterregistration (testcenter_user_id, client_authorization_id, course_id,
            exam_series_code, eligibility_appointment_date_first, eligibility_appointment_date_last)
        select c.id, 'edXexam000000000101', 'MITx/6.002x/2012_Fall', 'Final', '2013-01-25', '2013-01-26'
        from portal.student_testcenteruser as c;
        insert into rollbook.exam values ('MITx/6.002x/2012_Fall', 'Final', 'Final', 'Final Exam', '2013-01-25',
            '2013-01-26', '2013-01-01', '2013-01-21');
        insert into rollbook.exchange_file (direction, kind, name, os_user) values ('out', 'cdd', 'cdd-1.dat', 'ada')"""
    )
    allowed = "insert into portal.student_courseenrollmentallowed (email, course_id) values ('fay@example.org', %s)"
    db.execute(allowed, [KEEP])


@pytest.fixture(scope="session")
def schools(databases: Databases) -> Databases:
    """Databases with a small platform, which is made once."""
    return databases.filled("school", populate)


@pytest.fixture
def school(db: Connection[Any]) -> Connection[Any]:
    """A small platform to write to, see `populate`: `db` gets it with its rows."""
    return db


@pytest.fixture(scope="session")
def furnished_schools(schools: Databases) -> Databases:
    """The same with what `furnish` adds; the sequences follow the ids."""

    def fill(db: Connection[Any]) -> None:
        furnish(db)
        advance_sequences(db)

    return schools.filled("furnished", fill)


@pytest.fixture
def furnished(db: Connection[Any]) -> Connection[Any]:
    """A small platform to write to, with groups, requests, a candidate and an exam: `db` gets it with its rows."""
    return db


@contextmanager
def database(cluster: Cluster, name: str, template: str) -> Iterator[str]:
    """Make a database, yield its conninfo, drop it."""
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as server:
        server.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        yield cluster.server.dsn(name)
        server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def made_once(cluster: Cluster, template: Any) -> Iterator[dict[str, str]]:
    """Databases for the tests that only read, made once: an empty one, a platform, and a damaged one."""
    with ExitStack() as stack:
        where = {
            name: stack.enter_context(database(cluster, f"read_{name}", template.template_dbname))
            for name in ("empty", "seen", "broken")
        }
        for name in ("seen", "broken"):
            with psycopg.connect(where[name], autocommit=True) as conn:
                populate(conn)
                furnish(conn)
                if name == "broken":
                    damage(conn)
                    conn.execute("drop trigger rollbook_route_truncate on portal.auth_user")
                    conn.execute("set session_replication_role = replica")  # past the rules
                    conn.execute("update portal.student_testcenteruser set country = 'XXX'")
                    conn.execute("reset session_replication_role")
                    conn.execute("insert into rollbook.discussion_outbox (user_id, operation) values (101, 'put')")
        yield where


@pytest.fixture
def empty(made_once: dict[str, str]) -> str:
    """A database at head without rows, to read."""
    return made_once["empty"]


@pytest.fixture
def seen(made_once: dict[str, str]) -> str:
    """The platform of `populate`, to read."""
    return made_once["seen"]


@pytest.fixture
def broken(made_once: dict[str, str]) -> str:
    """A damaged platform, to read."""
    return made_once["broken"]


@pytest.fixture
def bare(cluster: Cluster) -> Iterator[str]:
    """The conninfo of an empty database that was never migrated."""
    with database(cluster, f"bare_{uuid.uuid4().hex[:8]}", "template0") as where:
        yield where


@pytest.fixture
def stranger(db: Connection[Any], dsn: str) -> str:
    """The conninfo of a login without any right in the test's database."""
    db.execute(
        "do $$ begin create role rb_stranger login; "
        "exception when duplicate_object or unique_violation then null; end $$"
    )
    return dsn.replace("user=postgres", "user=rb_stranger")
