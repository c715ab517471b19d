"""A portal is upgraded by pg_upgrade."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.program import KEEP, Result
from tests.replication.conftest import (
    Own,
    Site,
    database,
    drop_subscriptions,
    new_ids,
    older_bindir,
    remedy,
)
from tests.replication.scenes import enroll, line, slots
from tests.school import populate


def upgraded(old: PrivateServer, new: PrivateServer) -> None:
    """Upgrade a server by pg_upgrade, with nothing under way, into the place of another one."""
    old.stop()
    new.start()
    new.stop()
    programs = [str(each._program("postgres").parent) for each in (old, new)]
    done = subprocess.run(
        [new._program("pg_upgrade"), "-b", programs[0], "-B", programs[1], "-d", old.data, "-D", new.data,
         "-U", "postgres", "-s", new.home, "--no-sync"],
        cwd=new.home, capture_output=True, text=True, check=False, user=new._user, extra_groups=[],
        group=pwd.getpwnam(new._user).pw_gid if new._user else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    new.start()


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
    new = place()
    new.settings = site.here.settings
    upgraded(site.here, new)  # the fast stop before it has sent all to the server
    site.here, site.portal_dsn = new, new.dsn("site")
    site.again()
    site.portal.execute("update portal.auth_user set first_name = 'upgraded' where username = 'ada'")
    assert line(site)["state"] == "unknown"  # another cluster, until it is said to be the portal
    taken = site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
                    "--take-over", "--json")  # fmt: skip
    assert taken.row["outcome"] == "taken over"
    site.wait()
    assert site.is_equal(KEEP)
    assert len(site.copy(KEEP)) == 7
    assert line(site)["state"] == "ok"
    assert site.run("replication", "verify", KEEP).code == 0


@pytest.mark.slow
def test_an_upgrade_from_15_loses_the_slot_and_a_planned_resync_brings_each_course_along(
    call: Callable[..., Result], place: Callable[..., PrivateServer], course_server: PrivateServer
) -> None:
    older = older_bindir()
    if older is None:
        pytest.skip("one version of PostgreSQL alone is here, or it is the older one that is under test")
    old = place(bindir=older)
    old.start()
    with psycopg.connect(old.dsn(), autocommit=True) as conn:
        conn.execute("create database site template template0")
    schema.upgrade(old.dsn("site"))
    with (
        database(course_server) as there, psycopg.connect(there, autocommit=True) as server,
        psycopg.connect(old.dsn("site"), autocommit=True) as portal,
    ):  # fmt: skip
        populate(portal)
        site = Site(portal, old.dsn("site"), server, there, call)
        new_ids(site)
        site.add()
        site.attach(KEEP)
        enroll(site, 5)
        site.wait()
        old.stop()
        old._run("pg_checksums", "--enable", "-D", str(old.data))  # as the new one has
        new = place(bindir=find_bindir())
        upgraded(old, new)
        with psycopg.connect(new.dsn("site"), autocommit=True) as upgrade:
            site.portal, site.portal_dsn = upgrade, new.dsn("site")
            assert slots(site) == []
            upgrade.execute("update portal.auth_user set first_name = 'upgraded' where username = 'ada'")
            assert line(site)["state"] == "unknown"
            site.ok("server", "add", "east", "--admin-dsn", there, "--subscription-dsn", site.portal_dsn, "--take-over")
            found = line(site)
            assert (found["state"], found["fix"]) == ("unknown", f"rollbook replication resync '{KEEP}'")
            assert remedy(site, found["fix"]).code == 0
            assert site.is_equal(KEEP)
            assert line(site)["state"] == "ok"
            assert "upgraded" in {row[2] for row in site.copy(KEEP)}
            drop_subscriptions(server)
