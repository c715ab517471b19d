"""A standby of the portal is promoted, with and without the slot of the server; the old primary comes back.

Also tests portal_identity.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from rollbook.replication import feeding
from rollbook.system.demo.server import PrivateServer
from tests import runbook
from tests.program import KEEP, REMOVE
from tests.replication.conftest import (
    ACTIVE,
    Own,
    Site,
    copied,
    until,
)
from tests.replication.doctor import findings, follow, run_sql
from tests.replication.scenes import line

PROMOTED = "A standby of the portal is promoted"


def standby_of(primary: PrivateServer, place: Callable[..., PrivateServer], **settings: str) -> PrivateServer:
    """Make a standby of a server, which follows it by a slot of its own."""
    standby = place()
    standby._make_home()
    with psycopg.connect(primary.dsn()) as conn:
        conn.execute("select pg_create_physical_replication_slot('standby', true)")
    primary._run("pg_basebackup", "-d", primary.dsn(), "-D", str(primary.home / "backup"), "-X", "stream",
                 "-c", "fast", "-S", "standby")  # fmt: skip
    (primary.home / "backup").rename(primary.home / "standby")
    standby.settings = {
        "primary_conninfo": f"{primary.dsn('site')} application_name=standby", "primary_slot_name": "standby",
        "hot_standby_feedback": "on", "wal_retrieve_retry_interval": "100ms", **settings,
    }  # fmt: skip
    copied(primary.home / "standby", standby)
    (standby.data / "standby.signal").touch()
    standby.start()
    return standby


def fed_through(site: Own, standby_home: Path) -> None:
    """Add the server by a route that leads to whichever of the two is the primary; attach a course."""
    route = (
        f"host={site.here.home},{standby_home} port=5432,5432 dbname=site user=postgres target_session_attrs=primary"
    )
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", route)
    site.attach(KEEP)


def fail_over(site: Own, standby: PrivateServer) -> None:
    """Lose the primary, and let its standby take over."""
    site.here.stop("immediate")
    runbook.follow(PROMOTED, standby, NEW=standby._program("postgres").parent, NEW_DATA=standby.data)
    site.here, site.portal_dsn = standby, standby.dsn("site")
    site.again()


@pytest.mark.slow
def test_copies_go_on_from_a_promoted_standby_whose_readiness_was_provable(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    if site.portal.info.server_version < 170000:
        pytest.skip("a slot is carried over to a standby from PostgreSQL 17 on; below, the next test is what happens")
    standby = standby_of(site.here, place, sync_replication_slots="on")
    site.add()
    site.attach(KEEP)
    run_sql(site.server, "alter subscription rollbook_east disable; "
                         "alter subscription rollbook_east set (failover = false); "
                         "alter subscription rollbook_east enable")  # fmt: skip
    lines = [each for each in findings(site) if each["check"] == "standby"]
    assert len(lines) == 2
    for each in lines:
        follow(site, each)
    assert [each for each in findings(site) if each["check"] == "standby"] == []
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:
        ready = runbook.query(PROMOTED)

        def is_ready() -> bool:
            site.run("replication", "canary")  # something happens on a portal
            return conn.execute(ready).fetchone() == (1,)

        until(is_ready)
        site.portal.execute("update portal.auth_user set first_name = 'before' where username = 'ada'")
        site.wait()
        until(
            lambda: conn.execute("select count(*) from portal.auth_user where first_name = 'before'").fetchone() == (1,)
        )
    fail_over(site, standby)
    site.portal.execute("update portal.auth_user set first_name = 'after' where username = 'bob'")
    assert line(site)["state"] in ("lagging", "broken")  # the server still looks for the old primary
    refused = site.run("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)
    assert refused.code == 1
    assert "--take-over" in refused.err
    runbook.take_over(standby, site.portal_dsn)
    site.wait()
    assert [row[2] for row in site.copy(KEEP)] == ["before", "after"]
    assert site.run("replication", "verify", KEEP).code == 0
    assert line(site)["state"] == "ok"


@pytest.mark.slow
def test_a_promoted_standby_without_the_slot_says_so_and_resync_brings_each_course_back(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    standby = standby_of(site.here, place)
    fed_through(site, standby.home)
    site.portal.execute("update portal.auth_user set first_name = 'before' where username = 'ada'")
    site.wait()
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:
        until(
            lambda: conn.execute("select count(*) from portal.auth_user where first_name = 'before'").fetchone() == (1,)
        )
    fail_over(site, standby)
    site.portal.execute("update portal.auth_user set first_name = 'after' where username = 'bob'")
    found = line(site)
    assert (found["state"], found["fix"]) == ("broken", f"rollbook replication resync '{KEEP}'")
    assert "its slot is gone" in found["reason"]
    runbook.take_over(standby, site.portal_dsn)
    assert [row[2] for row in site.copy(KEEP)] == ["before", "after"]
    assert line(site)["state"] == "ok"


def comes_back(old: Own, site: Own) -> None:
    """Start the old primary again, as one that knows of no promotion."""
    old.here.start()
    old.portal, old.server = site.portal, site.server  # to look at the server; the program connects by itself


CHANGES = (
    ("course", "attach", REMOVE, "--to", "east"),
    ("course", "attach", REMOVE, "--to", "east", "--dry-run"),
    ("course", "detach", KEEP, "--yes"),
    ("course", "detach", KEEP, "--yes", "--drop-local"),
    ("replication", "resync", KEEP, "--yes"),
    ("replication", "pause", KEEP),
    ("replication", "resume", KEEP),
    ("replication", "resume", KEEP, "--skip", "0/1"),
    ("server", "remove", "east", "--unreachable", "--yes"),
)


def is_refused_everything(site: Site, words: str) -> None:
    """No command of this portal changes the server; status says why, and sends nobody to destroy newer rows."""
    before = [site.copy(KEEP, table) for table in ("auth_user", "auth_userprofile", "student_courseenrollment")]
    routes = ("--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)
    found = line(site)
    assert found["state"] == "unknown"
    assert words in found["reason"]
    assert "new portal" in found["fix"] or "portal that feeds it" in found["fix"]
    for command in (
        *CHANGES, ("server", "add", "east", *routes), ("server", "add", "east", *routes, "--take-over"),
        ("server", "add", "east", *routes, "--take-over", "--dry-run"),
    ):  # fmt: skip
        result = site.run(*command)
        assert result.code == 1, (command, result)
        assert words in result.err or "add --take-over" in result.err, (command, result)
    result = site.run("replication", "repair", KEEP, "--yes")
    assert result.code not in (0, 70)
    assert words in result.err, result
    result = site.run("replication", "verify", KEEP)
    assert result.code == 3
    assert words in result.err, result
    assert before == [site.copy(KEEP, table) for table in ("auth_user", "auth_userprofile", "student_courseenrollment")]


@pytest.mark.slow
def test_an_old_primary_that_comes_back_changes_no_server(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    standby = standby_of(site.here, place)
    site.add()
    site.attach(KEEP)
    old = replace(site)
    site.wait()
    fail_over(site, standby)
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
            "--take-over")  # fmt: skip
    site.ok("replication", "resync", KEEP, "--yes")
    site.portal.execute("update portal.auth_user set first_name = 'newer' where username = 'ada'")
    site.wait()
    timeline = "select timeline from rollbook.heartbeat order by beat desc limit 1"
    assert site.portal.execute(timeline).fetchone() == site.server.execute(timeline).fetchone() == (2,)

    comes_back(old, site)
    with psycopg.connect(old.portal_dsn, autocommit=True) as conn:
        conn.execute("update portal.auth_user set first_name = 'older' where username = 'ada'")
    is_refused_everything(old, "this database is an old primary")
    site.server.execute("delete from rollbook.heartbeat")  # what the commands recorded is enough
    is_refused_everything(old, "this database is an old primary")
    site.ok("replication", "pause", KEEP)
    is_refused_everything(old, "this database is an old primary")
    site.ok("replication", "resume", KEEP)
    assert site.copy(KEEP)[0][2] == "newer"
    assert line(site)["state"] == "ok"

    site.there.stop("immediate")
    for command in CHANGES[:-1]:
        assert old.run(*command, "--timeout", "1").code == 3, command
    assert line(old)["state"] == "unreachable"


@pytest.mark.slow
def test_a_server_that_follows_the_new_portal_is_not_changed_by_the_old_one_before_it_has_heard_a_heartbeat(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    if site.portal.info.server_version < 170000:
        pytest.skip("a slot is carried over to a standby from PostgreSQL 17 on")
    standby = standby_of(site.here, place, sync_replication_slots="on")
    fed_through(site, standby.home)
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:
        ready = (
            "select count(*) from pg_replication_slots where slot_name = 'rollbook_east' and synced and not temporary"
        )

        def is_ready() -> bool:
            site.run("replication", "canary")
            return conn.execute(ready.encode()).fetchone() == (1,)

        until(is_ready)
    old = replace(site)
    fail_over(site, standby)
    site.portal.execute("update portal.auth_user set first_name = 'newer' where username = 'ada'")
    site.server.execute("alter subscription rollbook_east enable")
    until(lambda: site.copy(KEEP)[0][2] == "newer")
    assert site.server.execute("select max(timeline) from rollbook.heartbeat").fetchone() == (1,)
    comes_back(old, site)

    def is_known() -> bool:
        site.portal.execute("update portal.auth_user set last_name = last_name || 'x' where username = 'ada'")
        return bool(line(old)["state"] == "unknown")

    until(is_known)
    is_refused_everything(old, "receives changes from another database")
    assert line(site)["state"] == "ok"
    assert site.server.execute("select max(timeline) from rollbook.heartbeat").fetchone() == (2,)
    is_refused_everything(old, "this database is an old primary")


def test_a_server_that_waits_for_a_machine_that_is_off_receives_nothing_and_can_be_taken_over(
    streaming: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = streaming
    monkeypatch.setattr(feeding, "SLACK_SECONDS", 0.0)  # both servers are of this machine
    trying = (
        "select from pg_stat_subscription as t inner join pg_subscription as s on s.oid = t.subid "
        "inner join pg_database as d on d.oid = s.subdbid and d.datname = current_database() "
        "where isfinite(t.last_msg_receipt_time)"
    )
    take_over = ("server", "add", "east", "--subscription-dsn", site.portal_dsn, "--take-over", "--json")
    with tempfile.TemporaryDirectory(prefix="rb-off-") as folder, socket.socket(socket.AF_UNIX) as nobody:
        Path(folder).chmod(0o755)
        nobody.bind(f"{folder}/.s.PGSQL.5432")
        Path(f"{folder}/.s.PGSQL.5432").chmod(0o777)
        nobody.listen()  # and never answers
        off = f"host={folder} port=5432 dbname=off"
        site.server.execute("alter subscription rollbook_east disable")
        until(lambda: site.portal.execute(ACTIVE).fetchone() == (False,))
        site.server.execute(f"alter subscription rollbook_east connection '{off}'")
        site.portal.execute("update rollbook.server set subscription_dsn = %s", [off])
        site.server.execute("alter subscription rollbook_east enable")
        until(lambda: site.server.execute(trying).fetchone() is not None)
        assert line(site)["state"] == "lagging"
        assert site.ok(*take_over, "--dry-run").row["outcome"] == "would take over"
    assert site.ok(*take_over).row["outcome"] == "taken over"
    site.wait()
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"
