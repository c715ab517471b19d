"""A portal or a server is dumped and restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests import runbook
from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Own,
    drop_subscriptions,
    remedy,
)
from tests.replication.scenes import enroll, later, line, slots


def dumped(server: PrivateServer, dbname: str) -> Path:
    """Dump a database with pg_dump, as its DBA would."""
    file = server.home / f"{dbname}.dump"
    server._run("pg_dump", "-Fc", "-f", str(file), "-d", server.dsn(dbname))
    return file


def restored(file: Path, server: PrivateServer, dbname: str) -> None:
    """Restore it into a new database of the same name."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(dbname)))
    server._run("pg_restore", "-d", server.dsn(dbname), str(file))


def gone(site: Own) -> None:
    """Lose the course server's database; a lost one cannot tell the portal."""
    drop_subscriptions(site.server)
    site.server.close()
    with psycopg.connect(site.there.dsn(), autocommit=True) as conn:
        conn.execute("drop database site with (force)")


@pytest.mark.slow
def test_a_portal_restored_on_another_machine_is_a_copy_until_it_takes_over_and_then_all_is_right_again(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    new = place()
    new.start()
    runbook.follow(
        "The portal on another machine, by dump and restore", new, OLD_PORTAL=site.portal_dsn, NEW_ADMIN=new.dsn()
    )
    later(site, "lost")  # somebody still wrote to the old one
    old, site.here, site.portal_dsn = site.here, new, new.dsn("site")
    site.again()
    assert set(site.states().values()) == {"unknown"}
    assert "restored backup of the portal" in line(site)["reason"]
    refused = site.run("replication", "resync", KEEP, "--yes")
    assert refused.code == 1
    assert "--take-over" in refused.err
    runbook.take_over(new, site.portal_dsn)
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    old.stop("immediate")


@pytest.mark.slow
def test_a_server_whose_database_was_restored_from_a_dump_gets_its_stream_back_by_resync(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column points int not null default 7")
    file = dumped(site.there, "site")
    later(site, "missed")
    gone(site)
    restored(file, site.there, "site")
    site.again()
    assert "ok" not in site.states().values()
    for course in (KEEP, REMOVE):
        resynced = remedy(site, f"rollbook replication resync '{course}'")
        assert resynced.code == 0, resynced
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    assert site.server.execute(f"select distinct points from {KEEP_SCHEMA}.auth_user").fetchall() == [(7,)]
    with pytest.raises(psycopg.Error, match="is a copy"):
        site.server.execute(f"delete from {KEEP_SCHEMA}.auth_user")
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert slots(site) == ["rollbook_east"]
