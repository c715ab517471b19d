"""A portal or a course server is upgraded by pg_upgrade, as docs/upgrade.md has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests import runbook
from tests.program import KEEP, KEEP_SCHEMA, Result
from tests.replication.conftest import (
    Own,
    new_ids,
    older_bindir,
)
from tests.replication.scenes import enroll, line, slots
from tests.school import populate

PORTAL, SERVER = "PostgreSQL of the portal, such as from 15 to 18", "PostgreSQL of a course server"


def successor(old: PrivateServer, place: Callable[..., PrivateServer]) -> PrivateServer:
    """Make a new cluster, stopped, with the settings and at the address of an old one."""
    new = place(bindir=find_bindir())
    new.settings = {**old.settings, "unix_socket_directories": str(old.home)}
    new._make_home()
    new._initdb()
    return new


def upgraded(heading: str, old: PrivateServer, new: PrivateServer, **variables: str | Path) -> None:
    """Follow a runbook; what stops the old cluster in the end then stops the new one, which has its address."""
    programs = [each._program("postgres").parent for each in (old, new)]
    runbook.follow(
        heading, old, OLD=programs[0], NEW=programs[1], OLD_DATA=old.data, NEW_DATA=new.data, **variables
    )  # fmt: skip


@contextmanager
def older_site(place: Callable[..., PrivateServer], call: Callable[..., Result], older: Path) -> Iterator[Own]:
    """Make a site whose portal and whose course server are of an older version."""
    here, there = place(bindir=older), place(bindir=older, wal_retrieve_retry_interval="100ms")
    sessions: list[psycopg.Connection[Any]] = []
    for each in (here, there):
        each.start()
        with psycopg.connect(each.dsn(), autocommit=True) as conn:
            conn.execute("create database site template template0")
        sessions.append(psycopg.connect(each.dsn("site"), autocommit=True))
    schema.upgrade(here.dsn("site"))
    populate(sessions[0])
    site = Own(sessions[0], here.dsn("site"), sessions[1], there.dsn("site"), call, here=here, there=there)
    new_ids(site)
    try:
        yield site
    finally:
        site.portal.close()
        site.server.close()


def reconnected(site: Own) -> None:
    """Connect again: the addresses are as before."""
    site.portal.close()
    site.server.close()
    site.portal = psycopg.connect(site.portal_dsn, autocommit=True)
    site.server = psycopg.connect(site.server_dsn, autocommit=True)


def goes_on(site: Own) -> None:
    """Change somebody, and see the course follow."""
    site.portal.execute("update portal.auth_user set first_name = 'upgraded' where username = 'ada'")
    site.wait()
    assert site.is_equal(KEEP)
    assert site.server.execute(f"select first_name from {KEEP_SCHEMA}.auth_user order by id").fetchone() == (
        "upgraded",
    )
    assert line(site)["state"] == "ok"


@pytest.fixture
def older() -> Path:
    """The programs of an older PostgreSQL."""
    found = older_bindir()
    if found is None:
        pytest.skip("there is no PostgreSQL 15 here (Debian: apt install postgresql-15), or it is the one under test")
    return found


@pytest.mark.slow
def test_slots_survive_an_upgrade_from_17_on_and_no_resync_is_needed(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    """From 18 to 18, where pg_upgrade does what it does from 17 to 18."""
    site = own()
    if site.portal.info.server_version < 170000:
        pytest.skip("pg_upgrade keeps slots from PostgreSQL 17 on; the next test has what is done for an older portal")
    site.add()
    site.attach(KEEP)
    enroll(site, 5)
    new = successor(site.here, place)
    upgraded(PORTAL, site.here, new, ROLLBOOK_DSN=site.portal_dsn)
    reconnected(site)
    assert slots(site) == ["rollbook_east"]
    site.portal.execute("update portal.auth_user set first_name = 'early' where username = 'bob'")
    assert line(site)["state"] == "unknown"  # another cluster, until it is said to be the portal
    runbook.take_over(site.here, site.portal_dsn)
    assert "resynced" not in site.run("history", "list", "--json").out
    goes_on(site)
    assert [row[2] for row in site.copy(KEEP)][:2] == ["upgraded", "early"]
    site.here = new


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_portal_and_then_its_server_go_from_15_to_18_and_nothing_is_copied_twice(
    call: Callable[..., Result], place: Callable[..., PrivateServer], older: Path
) -> None:
    with older_site(place, call, older) as site:
        site.add()
        site.attach(KEEP)
        enroll(site, 5)
        site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column points int not null default 7")
        for old in (site.here, site.there):
            old.stop()
            old._run("pg_checksums", "--enable", "-D", str(old.data))
            old.start()
        reconnected(site)
        new = successor(site.here, place)
        upgraded(PORTAL, site.here, new, ROLLBOOK_DSN=site.portal_dsn)
        reconnected(site)
        assert slots(site) == []
        runbook.take_over(site.here, site.portal_dsn)
        assert site.portal.info.server_version >= 180000
        goes_on(site)

        later = successor(site.there, place)
        upgraded(SERVER, site.there, later, ROLLBOOK_DSN=site.portal_dsn, SERVER="east")
        reconnected(site)
        assert site.server.info.server_version >= 180000
        goes_on(site)
        assert site.server.execute(f"select distinct points from {KEEP_SCHEMA}.auth_user").fetchall() == [(7,)]
