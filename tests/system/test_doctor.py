"""`rollbook doctor` without a course server: before Rollbook is there, and the files of this machine."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.replication.heartbeat import Clock
from rollbook.replication.link import Server
from rollbook.system import migration
from rollbook.system.demo.server import PrivateServer
from rollbook.system.doctor import examine, upkeep
from tests.conftest import FAST, in_memory
from tests.school import Rollbook

Db = Connection[Any]

# What makes each of these a trap.
POOR = {
    **FAST, "wal_level": "replica", "max_replication_slots": "1", "archive_mode": "on", "archive_command": "false",
    "max_prepared_transactions": "3", "max_wal_size": "512MB", "max_locks_per_transaction": "10",
    "max_slot_wal_keep_size": "1MB",
}  # fmt: skip


def lines(rollbook: Rollbook, dsn: str, *checks: str) -> list[dict[str, Any]]:
    """What doctor finds of these checks, `ok` apart."""
    answer = rollbook("doctor", "--json", dsn=dsn)
    assert answer.code == 4, answer
    return [each for each in answer.data if each["check"] in checks]


@pytest.fixture
def poor() -> Iterator[PrivateServer]:
    """A cluster of the test's own with poor settings."""
    with tempfile.TemporaryDirectory(prefix="rb-test-", dir=in_memory(), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(Path(folder) / "pg", settings=POOR)
        server.start()
        try:
            yield server
        finally:
            server.remove()


def restart(server: PrivateServer, fix: str) -> None:
    """Do what the printed `pg_ctl restart` does, as the server's user."""
    assert fix == f"pg_ctl restart -D '{server.data}'"
    server.stop()
    server.start()


@pytest.mark.slow
def test_a_cluster_is_made_fit_before_rollbook_is_there_and_after(
    rollbook: Rollbook, poor: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = poor.dsn()
    monkeypatch.setattr(upkeep, "OLD", "0 s")  # nobody waits an hour here
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as idle:
        conn.execute("begin; create table public.held (n int); prepare transaction 'dr_held'")
        idle.execute("select pg_current_xact_id()")
        for _ in range(6):
            conn.execute("select pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()")
        conn.execute("alter system set max_wal_size = '32MB'")
        conn.execute("select pg_reload_conf()")
        deadline = time.monotonic() + 20
        while not (archive := lines(rollbook, dsn, "archive")) and time.monotonic() < deadline:
            time.sleep(0.2)
        words = {each["found"]: each["fix"] for each in lines(rollbook, dsn, "setting", "transaction", "WAL", "room")}
        assert archive[0]["fix"].startswith(f"cd '{poor.data}' && false")
        assert subprocess.run(["bash", "-c", archive[0]["fix"]], check=False).returncode != 0  # it shows the error
        conn.execute("alter system set archive_command = 'true'")  # what a DBA does then
        conn.execute("select pg_reload_conf()")
        deadline = time.monotonic() + 30
        while lines(rollbook, dsn, "archive") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert lines(rollbook, dsn, "archive") == []
        for found, start in (
            ("transaction 'dr_held' is prepared", "rollback prepared"),
            ("a transaction of postgres (pid", "select pg_terminate"),
            ("wal_level is replica", "alter system set wal_level"),
            ("replication slots of the portal: 0 of 1", "alter system set max_replication_slots = 10; then: restart"),
            ("pg_wal holds", "checkpoint;"),
        ):  # fmt: skip
            assert [fix for text, fix in words.items() if found in text and fix.startswith(start)], (found, words)
        for fix in words.values():
            if not fix.startswith(("alter system set fsync", "alter system set full")):
                for statement in fix.split("; or: ")[0].removesuffix("; then: restart it").split("; "):
                    conn.execute(statement.encode())
        (waiting, *_) = lines(rollbook, dsn, "restart")
        idle.close()
    restart(poor, waiting["fix"])
    assert [each["check"] for each in lines(rollbook, dsn, "restart", "transaction", "WAL", "room", "revision")] == [
        "revision"
    ]
    migration.upgrade(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into rollbook.course (course_id, schema_name) select n, 'x' || n from generate_series(1, 99) n"
        )
        (locks,) = lines(rollbook, dsn, "locks")
        for statement in locks["fix"].split("; "):
            conn.execute(statement.encode())
        (waiting,) = lines(rollbook, dsn, "restart")
    restart(poor, waiting["fix"])
    assert lines(rollbook, dsn, "locks", "revision", "restart") == []


def test_files_that_others_may_read_are_named(
    rollbook: Rollbook, db: Db, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords, services = tmp_path / "my pass", tmp_path / "services"
    passwords.write_text("*:*:*:*:secret\n")
    services.write_text("[east]\npassword=secret\n")
    passwords.chmod(0o640)
    services.chmod(0o644)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("HOME", str(tmp_path))
    db.execute("insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) values "
               "('east', 'host=/nonexistent dbname=it''s password=secret', 'host=x dbname=y', '1/1')")  # fmt: skip
    answer = rollbook("doctor", "--json", dsn=dsn)
    assert "secret" not in answer.out + answer.err
    found = [each for each in answer.data if each["check"] in ("file mode", "password")]
    assert len(found) == 3
    for each in found:
        shell, *then = each["fix"].split("; then: on the portal: ")
        subprocess.run(["bash", "-c", shell], check=True)
        for statement in then:
            db.execute(statement.encode())
    assert (passwords.stat().st_mode & 0o777, services.stat().st_mode & 0o777) == (0o600, 0o600)
    assert (tmp_path / ".pgpass").read_text() == "/nonexistent:*:it's:*:PASSWORD\n"
    left = rollbook("doctor", "--json", dsn=dsn)
    assert left.code == 3
    assert [each for each in left.data if each["check"] in ("file mode", "password")] == []
    screen = rollbook("doctor", "--format", "table", dsn=dsn)
    assert "? server (east): it does not answer" in screen.out


@pytest.mark.parametrize(("ahead", "words"), [(3.0, "3.0 s ahead of"), (-3.0, "3.0 s behind"), (0.4, None)])
def test_a_clock_that_differs_is_named(ahead: float, words: str | None) -> None:
    """No test can set the clock of a server: what was read of both is given."""
    answer = examine.Answer([], [], Clock(100 + ahead, 0.01), None, [], {})  # type: ignore[arg-type]
    found = list(examine.clocks(Server("east", "", "", ""), answer, Clock(100.0, 0.01)))
    assert [each.found for each in found] == ([f"its clock is {words} the portal's"] if words else [])
