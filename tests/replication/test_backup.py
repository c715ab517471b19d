"""A portal or a server is restored from an older copy of its data directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, REMOVE
from tests.replication.conftest import (
    Own,
    copied,
    remedy,
    until,
)
from tests.replication.scenes import comes_back, enroll, go_on, later, line


def backup(server: PrivateServer) -> Path:
    """Stop a server and copy its data directory."""
    server.stop()
    subprocess.run(["cp", "-a", str(server.data), str(server.home / "backup")], check=True)
    return server.home / "backup"


@pytest.mark.slow
def test_a_portal_restored_with_its_slots_is_seen_to_be_behind_and_resync_makes_the_server_follow(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    data = backup(site.here)
    site.again()
    go_on(site)
    later(site, "lost")
    assert len(site.copy(KEEP)) == 7
    site.here.stop()
    copied(data, site.here)
    site.again()
    assert site.run("replication", "wait", "--timeout", "1").code == 3  # a heartbeat of that number is there: another's
    assert site.run("replication", "canary", "--timeout", "1").code in (3, 4)
    assert site.run("replication", "verify", "--timeout", "1").code in (3, 4)
    comes_back(site)


@pytest.mark.slow
def test_a_portal_restored_with_its_slots_is_seen_to_be_behind_where_no_heartbeat_tells(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    data = backup(site.here)
    site.again()
    go_on(site)
    enroll(site, 200)
    until(lambda: site.is_equal(KEEP))
    site.here.stop()
    copied(data, site.here)
    site.again()
    found = line(site)
    assert found["state"] == "unknown"
    assert "never sent" in found["reason"]
    assert found["fix"] == f"rollbook replication resync '{KEEP}'"
    assert remedy(site, found["fix"]).code == 0
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"


@pytest.mark.slow
def test_a_portal_restored_without_its_slots_is_seen_to_have_lost_them_and_resync_makes_the_server_follow(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    site.here._run("pg_basebackup", "-d", site.here.dsn(), "-D", str(site.here.home / "backup"), "-c", "fast")
    enroll(site, 5)
    site.wait()
    site.here.stop()
    copied(site.here.home / "backup", site.here)
    site.again()
    found = line(site)
    assert found["state"] == "broken"
    assert "its slot is gone" in found["reason"]
    enroll(site, 2)
    assert remedy(site, found["fix"]).code == 0
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"


def put_back(site: Own, data: Path) -> None:
    """Restore the course server from an older copy, when the portal knows that it had got all."""
    until(
        lambda: (
            site.portal.execute(
                "select bool_and(confirmed_flush_lsn >= pg_current_wal_insert_lsn()) from pg_replication_slots"
            ).fetchone()
            == (True,)
        )
    )
    site.there.stop()
    copied(data, site.there)
    site.again()


@pytest.mark.slow
def test_a_server_restored_from_an_older_copy_is_unknown_and_resync_brings_back_what_it_missed(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    data = backup(site.there)
    site.again()
    later(site, "missed")
    put_back(site, data)
    site.wait()
    assert not site.is_equal(KEEP)
    found = line(site)
    assert found["state"] == "unknown"
    assert "heartbeats never arrived" in found["reason"]
    assert found["fix"] == f"rollbook replication resync '{KEEP}'"
    comes_back(site)


@pytest.mark.slow
def test_what_a_restored_server_missed_between_two_heartbeats_is_found_by_verify_and_repaired(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    data = backup(site.there)
    site.again()
    enroll(site, 5)
    until(lambda: site.is_equal(KEEP))
    put_back(site, data)
    assert site.run("replication", "verify", KEEP).code == 4
    assert line(site)["state"] == "drifted"
    site.ok("replication", "repair", KEEP, "--yes")
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"
