"""Our session means the same whatever the role and the database set, and writes nothing where no trigger runs."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core.db import session
from rollbook.system import migration
from tests.conftest import Cluster
from tests.program import KEEP, snapshot
from tests.school import Rollbook


@pytest.mark.parametrize("way", ["role", "database", "role in database", "options"])
def test_a_session_without_triggers_writes_nothing_and_names_the_remedy(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    database = f'"{school.info.dbname}"'
    target = {"role": "role postgres", "database": f"database {database}"}.get(
        way, f"role postgres in database {database}"
    )
    if way == "options":
        monkeypatch.setenv("PGOPTIONS", "-c session_replication_role=replica")
    else:
        school.execute(f"alter {target} set session_replication_role = replica".encode())
    try:
        before = snapshot(school)
        for command in (
            ("enrollment", "add", KEEP, "dan"), ("user", "update", "ada", "--first-name", "A"),
            ("course", "create", "N"), ("user", "delete", "eve", "--confirm", "eve"), ("schema", "upgrade"),
        ):  # fmt: skip
            answer = rollbook(*command)
            assert (answer.code, "session_replication_role" in answer.err) == (1, True), (command, answer.err)
        assert snapshot(school) == before
        assert rollbook("user", "list").code == 0
        remedy = answer.err.split("fix:   ")[1].strip()
        if way == "options":
            assert "PGOPTIONS" in remedy
        else:
            school.execute(remedy.encode())
            assert rollbook("enrollment", "add", KEEP, "dan").code == 0
    finally:
        school.execute("alter role postgres reset session_replication_role")
        school.execute(f"alter role postgres in database {database} reset session_replication_role".encode())


def test_a_backslash_is_a_backslash_whatever_the_role_sets(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f'alter database "{school.info.dbname}" set standard_conforming_strings = off'.encode())
    school.execute(f'alter database "{school.info.dbname}" set backslash_quote = off'.encode())
    rows = b"username,email,goals\nxi,xi@example.org,\\N\nnew,new@example.org,a\\b\n"
    answer = rollbook("user", "import", "-", stdin=rows)
    assert answer.code == 0, answer.err
    found = school.execute(
        "select u.username, p.goals from portal.auth_user u join portal.auth_userprofile p on p.user_id = u.id "
        "where u.username in ('xi', 'new') order by 1"
    ).fetchall()
    assert found == [("new", "a\\b"), ("xi", None)]


def test_settings_end_with_the_transaction(dsn: str, school: Connection[Any]) -> None:
    school.execute(f'alter database "{school.info.dbname}" set search_path = portal'.encode())
    school.execute(f'alter database "{school.info.dbname}" set jit = on'.encode())
    with session(dsn, name="test", timeout=3) as conn:
        for _ in range(2):
            row = conn.execute("select current_setting('search_path') as p, current_setting('statement_timeout') as t")
            assert row.fetchone() == {"p": "pg_catalog, pg_temp", "t": "3s"}
            assert conn.execute("show jit").fetchone() == {"jit": "off"}
            with conn.transaction():
                assert conn.execute("show search_path").fetchone() == {"search_path": "pg_catalog, pg_temp"}
            conn.rollback()
            assert conn.pgconn.exec_(b"show search_path").get_value(0, 0) == b"portal"
        with conn.transaction():
            assert conn.execute("show search_path").fetchone() == {"search_path": "pg_catalog, pg_temp"}
        assert conn.pgconn.exec_(b"show search_path").get_value(0, 0) == b"portal"
        conn.autocommit = True
        assert conn.execute("show search_path").fetchone() == {"search_path": "pg_catalog, pg_temp"}


def test_a_row_that_is_no_utf8_is_named(rollbook: Rollbook, cluster: Cluster, db: Connection[Any]) -> None:
    db.execute("drop database if exists ascii")
    db.execute("create database ascii template template0 encoding 'SQL_ASCII' locale 'C' locale_provider libc")
    where = cluster.server.dsn("ascii")
    try:
        migration.upgrade(where)
        with psycopg.connect(where, client_encoding="SQL_ASCII") as conn:
            conn.execute(
                "insert into portal.auth_user (username, email) values ('ada', 'ada@x.org'), ('jo', 'jo@x.org')"
            )
            conn.execute(rb"insert into portal.auth_userprofile (id, user_id, name) values (2, 2, E'Jos\xe9')")
        for command in (("user", "list"), ("user", "export"), ("user", "show", "jo")):
            answer = rollbook(*command, dsn=where)
            assert (answer.code, "Jos\\xe9" in answer.err, "id 2, is not UTF-8" in answer.err) == (4, True, True), (
                answer
            )
    finally:
        db.execute("drop database ascii with (force)")
