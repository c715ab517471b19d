"""Revision 0002 on databases in a cluster of its own: up, down and up, online, offline, and without superuser."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from rollbook import cli
from rollbook.core.migrating import known_revisions
from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.catalog import catalog, changed
from tests.conftest import FAST, in_memory
from tests.program import postgres_program

ROOT = Path(__file__).parents[2]
ROLES = [
    "rollbook_application", "rollbook_monitor", "rollbook_operator", "rollbook_owner", "rollbook_relay",
    "rollbook_writer",
]  # fmt: skip
COURSE = "MITx/6.002x/2012_Fall"
Make = Callable[[], str]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """A cluster in which nobody has Rollbook: roles are cluster-wide."""
    with tempfile.TemporaryDirectory(prefix="rb-mig-", dir=in_memory(), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        private = PrivateServer(Path(folder) / "pg", settings=FAST)
        private.start()
        try:
            yield private
        finally:
            private.remove()


@pytest.fixture
def make(server: PrivateServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Make empty databases and return their conninfo; all are dropped at the end, and Rollbook's role."""
    for name in [name for name in os.environ if name.startswith(("PG", "ROLLBOOK_")) and name != "PG_BINDIR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLLBOOK_LOG_FILE", str(tmp_path / "rollbook.log"))
    names = (f"own_{number}" for number in itertools.count())
    made: list[str] = []
    with psycopg.connect(server.dsn(), autocommit=True) as conn:

        def new() -> str:
            made.append(next(names))
            conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(made[-1])))
            return server.dsn(made[-1])

        yield new
        for name in made:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        conn.execute(f"drop role if exists {', '.join(ROLES)}, builder")


@contextmanager
def connected(dsn: str) -> Iterator[Connection[Any]]:
    """An autocommit session."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def remains(dsn: str) -> list[str]:
    """What is in the database that a fresh one has not."""
    with connected(dsn) as conn:
        return [
            row[0]
            for row in conn.execute(
                """select 'schema ' || nspname from pg_namespace
                where nspname !~ '^pg_' and nspname not in ('public', 'information_schema')
                union all select 'public ' || relname from pg_class where relnamespace = 'public'::regnamespace
                union all select 'role ' || rolname from pg_roles where rolname ~ '^rollbook_'"""
            )
        ]


def objects(dsn: str) -> dict[tuple[str, str], tuple[str | None, ...]]:
    """The catalog of a database, see `catalog`."""
    with connected(dsn) as conn:
        return catalog(conn)


def school(dsn: str) -> None:
    """Make a course with one student and a table of the course's own."""
    with connected(dsn) as conn:
        conn.execute("insert into portal.auth_user (id, username) values (1, 'ada')")
        conn.execute("insert into portal.student_courseenrollment (user_id, course_id) values (1, %s)", [COURSE])
        conn.execute("select rollbook.create_course(%s)", [COURSE])
        conn.execute("create table course_mitx_6_002x_2012_fall.note (id int)")


def psql(dsn: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in psql as a DBA does, stopping at the first error."""
    quiet = f"{dsn} options='-c client_min_messages=warning'"
    return subprocess.run(
        [postgres_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", quiet],
        input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip


def offline(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `rollbook schema sql` prints."""
    assert cli.run(["schema", "sql", *arguments]) == 0
    return capsys.readouterr().out


def test_down_to_base_leaves_nothing_and_up_again_gives_the_same(make: Make) -> None:
    dsn = make()
    schema.upgrade(dsn)
    first = objects(dsn)
    school(dsn)
    schema.move(dsn, "base", up=False)
    assert remains(dsn) == []
    schema.upgrade(dsn)
    assert changed(first, objects(dsn)) == []


def test_each_revision_can_be_taken_back_alone(make: Make) -> None:
    dsn = make()
    schema.upgrade(dsn, "0001")
    portal = objects(dsn)
    schema.upgrade(dsn)
    school(dsn)
    schema.move(dsn, "0001", up=False)
    assert changed(portal, objects(dsn)) == []
    with connected(dsn) as conn:
        assert conn.execute("select count(*) from portal.student_courseenrollment").fetchone() == (1,)
        assert conn.execute("select version_num from public.rollbook_revision").fetchall() == [("0001",)]


def test_students_who_were_there_before_are_copied_after_an_upgrade(make: Make) -> None:
    dsn = make()
    schema.upgrade(dsn, "0001")
    with connected(dsn) as conn:
        conn.execute("insert into portal.auth_user (id, username) values (1, 'ada')")
        conn.execute("insert into portal.student_courseenrollment (user_id, course_id) values (1, %s)", [COURSE])
        schema.upgrade(dsn)
        conn.execute("select rollbook.create_course(%s)", [COURSE])
        conn.execute("update portal.auth_user set email = 'ada@example.org'")
        assert conn.execute("select id, email from course_mitx_6_002x_2012_fall.auth_user").fetchall() == [
            (1, "ada@example.org")
        ]


def test_an_upgrade_at_head_changes_nothing(make: Make) -> None:
    dsn = make()
    schema.upgrade(dsn)
    school(dsn)
    before = objects(dsn)
    schema.upgrade(dsn)
    assert changed(before, objects(dsn)) == []


def test_the_role_stays_while_another_database_uses_it(make: Make) -> None:
    one, other = make(), make()
    schema.upgrade(one)
    schema.upgrade(other)
    schema.move(one, "base", up=False)
    assert sorted(remains(one)) == [f"role {name}" for name in ROLES]
    school(other)
    with connected(other) as conn:
        assert conn.execute("select count(*) from course_mitx_6_002x_2012_fall.auth_user").fetchone() == (1,)
    schema.move(other, "base", up=False)
    assert remains(other) == []


def test_a_failed_upgrade_leaves_the_revision_before_it(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = make()
    schema.upgrade(dsn, "0001")
    with connected(dsn) as conn:
        conn.execute("create schema rollbook")
        before = catalog(conn)
        assert cli.run(["schema", "upgrade", "-d", dsn]) != 0
        assert capsys.readouterr().out == ""
        assert changed(before, catalog(conn)) == []
        assert conn.execute("select version_num from public.rollbook_revision").fetchall() == [("0001",)]


def test_sql_through_psql_gives_the_catalog_of_an_upgrade(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    online, piped = make(), make()
    schema.upgrade(online)
    done = psql(piped, offline(capsys))
    assert (done.returncode, done.stderr) == (0, "")
    assert changed(objects(online), objects(piped)) == []
    with connected(piped) as conn:
        assert conn.execute("select version_num from public.rollbook_revision").fetchall() == [(known_revisions()[-1],)]
    school(piped)


def test_sql_down_through_psql_leaves_an_empty_version_table(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = make()
    schema.upgrade(dsn)
    school(dsn)
    done = psql(dsn, offline(capsys, "--from", "head", "--to", "0001"))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted({name for kind, name in objects(dsn) if kind == "schema"}) == ["portal"]
    done = psql(dsn, offline(capsys, "--from", "0001", "--to", "base"))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(remains(dsn)) <= {"public rollbook_revision", "public rollbook_revision_pkc"}


def test_sql_from_a_revision_to_itself_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert [offline(capsys, "--from", name, "--to", "head") for name in ("head", known_revisions()[-1])] == ["", ""]
    assert offline(capsys, "--from", "0001") in offline(capsys)


def test_alembic_alone_upgrades_and_prints_sql_from_the_repository(make: Make) -> None:
    online, alone = make(), make()
    schema.upgrade(online)
    alembic = [str(Path(sys.executable).parent / "alembic"), "upgrade", "head"]
    environment = {**os.environ, "ROLLBOOK_DSN": alone}
    subprocess.run(alembic, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert changed(objects(online), objects(alone)) == []
    printed = subprocess.run([*alembic, "--sql"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    piped = make()
    done = psql(piped, printed)
    assert (done.returncode, done.stderr) == (0, "")
    assert changed(objects(online), objects(piped)) == []


def test_an_owner_of_the_database_who_may_create_roles_needs_no_superuser(make: Make) -> None:
    dsn = make()
    with connected(dsn) as conn:
        conn.execute("create role builder login createrole")
        conn.execute(sql.SQL("alter database {} owner to builder").format(sql.Identifier(conn.info.dbname)))
    own = dsn.replace("user=postgres", "user=builder")
    schema.upgrade(own)
    with connected(own) as conn:
        school(own)
        conn.execute("update portal.auth_user set email = 'ada@example.org'")
        copies = conn.execute("select email from course_mitx_6_002x_2012_fall.auth_user").fetchall()
        assert copies == [("ada@example.org",)]
        assert conn.execute("select * from rollbook.verify()").fetchall() == []
        conn.execute("select setval(seqrelid, 1000) from pg_sequence")  # the rows came with ids
        assert cli.run(["schema", "check", "-d", own]) == 0
        conn.execute("select rollbook.drop_course(%s, true)", [COURSE])
    schema.move(own, "base", up=False)
    assert remains(dsn) == []


def test_a_stranger_is_told_that_a_right_is_missing_and_nothing_is_left(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = make()
    with connected(dsn) as conn:
        conn.execute("create role builder login")
    before = remains(dsn)
    assert cli.run(["schema", "upgrade", "-d", dsn.replace("user=postgres", "user=builder")]) == 3
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "error: permission is missing")
    assert remains(dsn) == before


@pytest.mark.parametrize("taken", ["portal", "rollbook"])
def test_a_schema_of_somebody_else_is_a_refusal_not_a_bug(
    make: Make, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    dsn = make()
    with connected(dsn) as conn:
        conn.execute(sql.SQL("create schema {}").format(sql.Identifier(taken)))
    assert cli.run(["schema", "upgrade", "-d", dsn]) == 1  # also what the later of two upgrades at once meets
    out, err = capsys.readouterr()
    assert (out, err.startswith("error: "), taken in err) == ("", True, True)
