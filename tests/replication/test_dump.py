"""A portal or a server is dumped and restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Own,
    drop_slots,
    drop_subscriptions,
    remedy,
)
from tests.replication.scenes import comes_back, enroll, later, line, slots


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


def gone(site: Own, server: PrivateServer) -> None:
    """Lose the site's database on a server; a lost one cannot tell the other side."""
    server_is_portal = server is site.here
    with psycopg.connect(server.dsn("site"), autocommit=True) as conn:
        if server_is_portal:
            drop_slots(conn)
        else:
            drop_subscriptions(conn)
    (site.portal if server_is_portal else site.server).close()
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("drop database site with (force)")


@pytest.mark.slow
def test_a_portal_restored_from_a_dump_is_a_copy_until_it_takes_over_and_then_all_is_right_again(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    file = dumped(site.here, "site")
    later(site, "lost")
    gone(site, site.here)
    restored(file, site.here, "site")
    site.again()
    assert set(site.states().values()) == {"unknown"}
    assert "restored backup of the portal" in line(site)["reason"]
    refused = site.run("replication", "resync", KEEP, "--yes")
    assert refused.code == 1
    assert "--take-over" in refused.err
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
            "--take-over")  # fmt: skip
    assert site.run("schema", "check").code == 0  # functions, triggers, guards, column lists
    comes_back(site)


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
    gone(site, site.there)
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
