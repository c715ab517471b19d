"""Where the database is: libpq's ways, one of ours, and no secret in any message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

from rollbook.core import db
from rollbook.core.db import session
from rollbook.replication.queries import courses
from tests.conftest import Cluster
from tests.school import Rollbook


def test_every_way_to_name_the_database_connects(
    rollbook: Rollbook, seen: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = str(conninfo_to_dict(seen)["dbname"])
    (tmp_path / "services").write_text(f"[school]\nhost={cluster.host}\ndbname={name}\nuser=postgres\n")
    uri = f"postgresql://postgres@/{name}?host={cluster.host}"
    ways: list[tuple[str | None, dict[str, str]]] = [
        (uri, {}),
        (uri.replace("postgresql:", "postgres:"), {}),
        (seen, {}),
        (name, {"PGHOST": cluster.host, "PGUSER": "postgres"}),
        (None, {"PGHOST": cluster.host, "PGUSER": "postgres", "PGDATABASE": name}),
        (None, {"ROLLBOOK_DSN": seen}),
        (None, {"ROLLBOOK_DSN": name, "PGHOST": cluster.host, "PGUSER": "postgres"}),
        (None, {"PGSERVICE": "school", "PGSERVICEFILE": str(tmp_path / "services")}),
        ("service=school", {"PGSERVICEFILE": str(tmp_path / "services")}),
        (seen, {"ROLLBOOK_DSN": "host=/nonexistent", "PGHOST": "/nonexistent"}),
    ]
    for dsn, variables in ways:
        with monkeypatch.context() as patch:
            for variable, text in variables.items():
                patch.setenv(variable, text)
            answer = rollbook("schema", "current", "--json", dsn=dsn)
            assert (answer.code, answer.row["database"]) == (0, name), (dsn, variables)


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, f"rollbook {command}") for command in ("user count", "status", "replication verify", "schema current")],
)
def test_the_server_is_told_which_command_runs(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    said: list[str] = []

    def listening(*args: Any, **kwargs: Any) -> Connection[Any]:
        conn = session(*args, **kwargs)
        with conn.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("select application_name from pg_stat_activity where pid = pg_backend_pid()")
            said.extend(row[0] for row in cursor)
        conn.rollback()
        return conn

    monkeypatch.setattr(db, "session", listening)
    assert rollbook(*command.split(), dsn=seen).code == 0
    assert set(said) == {name}
    monkeypatch.setenv("PGAPPNAME", "mine")
    rollbook(*command.split(), dsn=seen)
    assert said[-1] == "mine"


SECRETS = [
    "postgresql://user:{}@/portal?host=/nonexistent",
    "postgresql://user:{}@[bad/portal",
    "postgresql://user:{}@host:port/portal",
    "postgresql://user:x@{}@/portal?host=/nonexistent",
    "postgresql://user:%zz{}@host/portal",
    "postgresql://user@/portal?host=/nonexistent&password={}",
    "postgresql://user@/portal?nonsense=1&password={}",
    "postgresql://user:{}/more@/portal?host=/nonexistent",
    "postgresql://user:1/{}@host/portal",
    "postgresql://user:1{}2@@host/portal",
    "postgresql://user:{}?more@host/portal",
    "postgresql://user:some@{}@host/portal",
    "host=/nonexistent password={}",
    "host=/nonexistent password = '{} and more' nonsense=1",
    "host=/nonexistent password='{}",
    "host=/nonexistent password=two {}",
    "host=/nonexistent sslpassword={} nonsense=1",
    "host=/nonexistent oauth_client_secret={}",
    "host=/nonexistent scram_client_key={}",
    "postgresql://user@/portal?host=/nonexistent&pass%77ord={}",
]


@pytest.mark.parametrize("conninfo", SECRETS)
def test_a_secret_in_the_conninfo_is_never_shown(
    rollbook: Rollbook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, conninfo: str
) -> None:
    secret = "pl4nted"
    commands = [
        ("status",),
        ("status", "--json"),
        ("status", "--debug"),
        ("version",),
        ("schema", "upgrade", "--debug"),
    ]
    for command in commands:
        answer = rollbook(*command, dsn=conninfo.format(secret))
        codes = {0} if command == ("version",) else {2, 3}  # not a conninfo, or one that leads nowhere
        assert (answer.code in codes, secret in answer.out + answer.err) == (True, False), answer.err

    monkeypatch.setenv("ROLLBOOK_DSN", conninfo.format(secret))
    monkeypatch.setattr("rollbook.core.sqlstate.translate", lambda exc: ZeroDivisionError(str(exc)))  # a bug on the way
    answer = rollbook("status", "--debug", dsn=None)
    written = tmp_path / "rollbook.log"
    log = written.read_text() if answer.code == 70 else ""
    assert (answer.code in {2, 70}, secret in answer.err + log) == (True, False), answer.err


def test_the_log_of_a_bug_has_no_password_of_the_conninfo(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(courses, "list_courses", fail)
    answer = rollbook("course", "list", "--debug", dsn=make_conninfo(seen, password="pl4nted"))
    assert (answer.code, "pl4nted" in answer.err + (tmp_path / "rollbook.log").read_text()) == (70, False)
