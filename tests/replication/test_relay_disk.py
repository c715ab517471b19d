"""The disk of a relay is full: its data's, or its WAL's because of a server that is down. The portal goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, REMOVE
from tests.replication.conftest import remedy, until
from tests.replication.doctor import findings, run_sql
from tests.replication.scenes import enroll, line, stands_still, stream_early
from tests.replication.test_relay_lost import Machines, machines

__all__ = ["machines"]
pytestmark = pytest.mark.slow
ROOM = 128 << 20


@dataclass
class Disk:
    """A file system in memory that is as large as its server needs it to be."""

    path: Path

    def resize(self, size: int) -> None:
        """Make it as large as this."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no room."""
        now = os.statvfs(self.path)
        self.resize((now.f_blocks - now.f_bfree) * now.f_frsize)


@contextmanager
def disk_of(server: PrivateServer) -> Iterator[Disk]:
    """Give a server a second disk; the server is stopped in the end."""
    path = server.home / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)], check=False).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        shutil.chown(path, server.data.owner(), server.data.group())
        yield Disk(path)
    finally:
        server.stop("immediate")
        subprocess.run(["umount", str(path)], check=True)


def test_a_relay_without_room_for_its_data_is_named_and_goes_on_when_it_has_room(
    machines: Callable[..., Machines],
) -> None:
    site = machines()
    hub = site.servers["hub"]
    with disk_of(hub) as disk:
        site.hub.execute(f"create tablespace small location '{disk.path}'".encode())
        site.hub.close()
        with psycopg.connect(hub.dsn(), autocommit=True) as conn:
            conn.execute("alter database site set tablespace small")
        site.again()
        stream_early(site)
        site.build(KEEP, REMOVE)
        disk.fill()
        enroll(site, 300)
        stands_still(site, "hub")
        row, fix = line(site), f"free disk space on server hub; then: rollbook replication resume '{KEEP}'"
        assert (row["state"], row["fix"], line(site, REMOVE)["fix"]) == ("broken", fix, fix)
        assert row["reason"].startswith("on its relay hub: insert auth_user row ")
        assert "No space left on device (SQLSTATE 53100)" in row["reason"]
        (alarm,) = (each for each in site.run("check", "--json").data if each["check"] == "courses broken")
        assert (alarm["state"], fix in alarm["message"]) == ("critical", True)
        refused = site.run("replication", "resume", KEEP)
        assert (refused.code, refused.err.splitlines()[-1]) == (1, f"fix:   {fix}")  # no row is at fault: no --skip
        disk.resize(ROOM)
        assert remedy(site, fix.split("; then: ")[1]).code == 0
        assert site.is_equal(KEEP)
        disk.fill()
        with psycopg.connect(site.portal_dsn) as other:
            other.execute("insert into portal.auth_user (username, email) select 'u' || n, 'u' || n || '@example.org' "
                          "from generate_series(5000, 6000) as n")  # fmt: skip
            other.execute("insert into portal.student_courseenrollment (user_id, course_id) "
                          "select id, %s from portal.auth_user where username like 'u5%%'", [KEEP])  # fmt: skip
            stands_still(site, "hub")  # which keeps in files what is sent of an open transaction
            row = line(site)
            assert row["state"] == "lagging"
            assert "the log of server hub has the error, such as a full disk" in row["reason"]
            assert row["fix"] == "rollbook server ping hub; or: read the last errors in the log of server hub"
        disk.resize(ROOM)
        site.fixed(KEEP, REMOVE)


def write_wal(site: Machines, megabytes: int) -> None:
    """Let the relay write WAL, as its courses do in some hours."""
    for _ in range(megabytes // 5):
        site.hub.execute("select pg_logical_emit_message(true, '', repeat('x', 1000000)) from generate_series(1, 5)")


def test_a_server_that_is_down_fills_the_wal_disk_of_its_relay_unless_its_slot_has_a_bound(
    machines: Callable[..., Machines],
) -> None:
    site = machines(max_wal_size="32MB", min_wal_size="32MB")
    hub, east = site.servers["hub"], site.servers["east"]
    with disk_of(hub) as disk:
        hub.stop()
        shutil.move(hub.data / "pg_wal", disk.path / "pg_wal")
        subprocess.run(["chown", "-R", f"--reference={hub.data}", str(disk.path / "pg_wal")], check=True)
        (hub.data / "pg_wal").symlink_to(disk.path / "pg_wal")
        site.again()
        site.build(KEEP, REMOVE)
        east.stop()
        enroll(site, 5)
        (alarm,) = (each for each in site.run("check", "--json").data if each["check"] == "slot rollbook_east on hub")
        assert alarm["message"].endswith("a server that is down fills the disk of server hub")
        with pytest.raises(psycopg.OperationalError, match="No space left on device"):
            write_wal(site, 300)
        assert "PANIC:  could not write to file" in (hub.home / "postgres.log").read_text()
        hub.stop("immediate")  # if it could start again at all
        enroll(site, 5)  # the portal goes on
        row = line(site)
        assert (row["state"], row["fix"]) == ("unreachable", "rollbook server ping hub")
        assert row["reason"].startswith("unreachable through hub: ")
        disk.resize(3 * ROOM)
        site.again()
        site.wait()
        assert site.is_equal(KEEP)
        held = "select pg_current_wal_lsn() - restart_lsn < 8 * 1024 * 1024 from pg_replication_slots"
        until(lambda: site.hub.execute("checkpoint").connection.execute(held).fetchone() == (True,))
        run_sql(site.hub, "alter system set max_slot_wal_keep_size = '48MB'; select pg_reload_conf(); checkpoint")
        east.stop()
        safe = "select safe_wal_size > 12 * 1024 * 1024 from pg_replication_slots"
        while site.hub.execute(safe).fetchone() == (True,):
            write_wal(site, 5)
        row = line(site)
        assert (row["state"], row["fix"]) == ("unreachable", "rollbook server ping east")
        assert row["reason"].endswith("; its slot on relay hub is about to be lost")
        (near,) = (each for each in findings(site) if "is near its bound of 48MB" in each["found"])
        assert (near["where"], near["fix"].split("'")[0]) == (
            "hub", "on server hub: alter system set max_slot_wal_keep_size = "
        )  # fmt: skip
        site.hub.execute("checkpoint")
        disk.resize(ROOM)
        write_wal(site, 300)  # more than there is room for: the slot is given up before that
        assert line(site)["reason"].split("; ")[1].startswith("its slot on relay hub was lost: ")
        site.again()
        site.fixed(KEEP, REMOVE)
