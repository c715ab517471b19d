"""A standby of the portal or of a relay is promoted, and the old one comes back.

Nothing is lost or comes twice where nothing had to be; the commands of docs/upgrade.md bring back what is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests import runbook
from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import until
from tests.replication.doctor import findings, run_sql
from tests.replication.scenes import count_arrivals, enroll, line
from tests.replication.test_failover import PROMOTED, is_refused_everything, standby_of
from tests.replication.test_relay_lost import Machines, machines

__all__ = ["machines"]
pytestmark = pytest.mark.slow

RELAY_PROMOTED = "A standby of a relay is promoted"
SYNCED = pytest.mark.parametrize("synced", [True, False], ids=["synced slot", "no slot"])


def follow(site: Machines, name: str, place: Callable[..., PrivateServer], *, synced: bool) -> PrivateServer:
    """Make a standby of the portal or of the relay; `synced`: it is to have the slot of what is fed there."""
    if synced and site.portal.info.server_version < 170000:
        pytest.skip("a slot is carried over to a standby from PostgreSQL 17 on")
    return standby_of(site.servers[name], place, **({"sync_replication_slots": "on"} if synced else {}))


def caught_up(site: Machines, standby: PrivateServer, *, synced: bool) -> None:
    """Wait until a standby has all that was sent, and the slot where it is to have it."""
    site.wait()
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:

        def is_ready() -> bool:
            site.run("replication", "canary")  # something happens on a portal
            return conn.execute(runbook.query(PROMOTED)).fetchone() == (1,)

        if synced:
            until(is_ready)
        site.wait()
        sent = site.portal.execute("select max(beat) from rollbook.heartbeat").fetchone()
        until(lambda: conn.execute("select max(beat) from rollbook.heartbeat").fetchone() == sent)


def arrived(site: Machines) -> list[tuple[str, int]]:
    """How many rows of users the course on the server was brought, by operation."""
    query = f"select operation, count(*) from {KEEP_SCHEMA}.arrival group by 1 order by 1"
    return site.server.execute(query.encode()).fetchall()


def test_an_old_relay_that_still_runs_is_to_be_stopped_before_servers_are_taken_over(
    machines: Callable[..., Machines], place: Callable[..., PrivateServer]
) -> None:
    site = machines()
    standby = follow(site, "hub", place, synced=True)
    site.build(KEEP)
    caught_up(site, standby, synced=True)
    new = standby.dsn("site")
    relay = ("server", "add", "hub", "--admin-dsn", new, "--take-over", "--timeout", "3")
    server = ("server", "add", "east", "--subscription-dsn", new, "--take-over")
    with psycopg.connect(new, autocommit=True) as conn:
        conn.execute("select pg_promote()")
    time.sleep(2.1)  # as far as two clocks may differ
    enroll(site, 2)
    taken = site.ok(*relay)
    assert "nothing arrives at server hub" in taken.err
    assert taken.err.count("rollbook server add hub\n") == 1
    refused = site.run(*server)
    assert (refused.code, "receives changes from another database" in refused.err) == (1, True), refused
    stop, command, _ = refused.err.split("fix:   ")[1].split("; ", 2)
    assert stop == "stop the old server hub, if a standby took its place"
    assert command == "then: rollbook server add east --subscription-dsn CONNINFO --take-over"
    assert line(site)["fix"] in refused.err

    site.servers["hub"].stop()
    assert "nothing arrives" not in site.ok("server", "add", "hub").err
    site.ok(*server)
    site.servers["hub"], site.hub_dsn = standby, new
    site.again()
    row = line(site)
    assert (row["state"], row["fix"]) == ("unknown", f"rollbook replication resync '{KEEP}'"), row
    site.fixed(KEEP)


def doctor_looks_at_the_slots(site: Machines) -> None:
    """Let the slot of the server follow to no standby of the relay; run what doctor prints, until it finds nothing."""
    run_sql(site.server, "alter subscription rollbook_east disable; "
                         "alter subscription rollbook_east set (failover = false); "
                         "alter subscription rollbook_east enable")  # fmt: skip
    lines = [each for each in findings(site) if each["check"] == "standby" and each["where"] == "hub"]
    assert [each["found"].partition(": ")[0] for each in lines] == [
        "a server can get ahead of the standby", "slot rollbook_east does not follow to a standby",
    ]  # fmt: skip
    for each in lines:
        run_sql(site.server if "on server east: " in each["fix"] else site.hub, each["fix"].split(": ", 1)[-1])
    found = [each for each in findings(site) if each["check"] == "standby"]
    assert [(each["where"], each["state"]) for each in found] == []


@SYNCED
def test_a_standby_of_the_portal_feeds_a_relay_on_and_the_old_primary_is_refused(
    machines: Callable[..., Machines], place: Callable[..., PrivateServer], synced: bool
) -> None:
    site = machines()
    standby = follow(site, "portal", place, synced=synced)
    site.build(KEEP)
    count_arrivals(site)
    caught_up(site, standby, synced=synced)
    old = replace(site, servers=dict(site.servers))
    site.servers["portal"].stop("immediate")
    runbook.follow(PROMOTED, standby, NEW=standby._program("postgres").parent, NEW_DATA=standby.data)
    site.servers["portal"], site.portal_dsn = standby, standby.dsn("site")
    site.again()
    enroll(site, 3)
    row = line(site)
    if not synced:
        assert (row["state"], row["fix"]) == ("broken", f"rollbook replication resync '{KEEP}'"), row
        assert row["reason"].startswith("on its relay hub: its slot on the portal is gone"), row
    runbook.take_over(standby, site.portal_dsn)
    site.wait()
    assert arrived(site) == [("INSERT", 3)]
    site.fixed(KEEP)

    old.servers["portal"].start()
    old.portal, old.server, old.hub = site.portal, site.server, site.hub
    is_refused_everything(old, "this database is an old primary")
    for command in (
        ("server", "add", "hub", "--take-over"),
        ("server", "move", "east", "--direct", "--subscription-dsn", old.portal_dsn, "--yes"),
    ):  # fmt: skip
        refused = old.run(*command)
        assert (refused.code, "this database is an old primary" in refused.err) == (1, True), (command, refused)
    site.fixed(KEEP)


@SYNCED
def test_a_standby_of_the_relay_takes_its_place_and_the_old_relay_that_comes_back_is_seen(
    machines: Callable[..., Machines], place: Callable[..., PrivateServer], synced: bool
) -> None:
    site = machines()
    standby = follow(site, "hub", place, synced=synced)
    site.build(KEEP, REMOVE)
    count_arrivals(site)
    if synced:
        doctor_looks_at_the_slots(site)
    caught_up(site, standby, synced=synced)
    old = site.servers["hub"]
    old.stop("immediate")
    enroll(site, 3)
    assert line(site)["state"] == "unreachable"
    runbook.follow(
        RELAY_PROMOTED, standby, NEW=standby._program("postgres").parent, NEW_DATA=standby.data, RELAY="hub",
        NEW_ADMIN=standby.dsn("site"), ROUTE=standby.dsn("site"), ROLLBOOK_DSN=site.portal_dsn,
    )  # fmt: skip
    site.servers["hub"], site.hub_dsn = standby, standby.dsn("site")
    site.again()
    site.wait()
    assert arrived(site) == [("INSERT", 3)]
    site.fixed(KEEP, REMOVE)

    old.start()  # and finds its slot at the portal in use, until the new one's connection breaks
    enroll(site, 2)
    site.wait()
    assert set(site.states().values()) == {"ok"}
    with psycopg.connect(old.dsn("site"), autocommit=True) as conn:
        site.hub.execute("alter subscription rollbook_hub disable")
        until(lambda: conn.execute("select pid from pg_stat_subscription where pid is not null").fetchone() is not None)
        site.hub.execute("alter subscription rollbook_hub enable")
        enroll(site, 20)
        site.run("replication", "canary", "--timeout", "1")
        sent = site.portal.execute("select max(beat) from rollbook.heartbeat").fetchone()
        until(lambda: conn.execute("select max(beat) from rollbook.heartbeat").fetchone() == sent)
    old.stop()
    site.run("replication", "canary")
    row = line(site)
    assert (row["state"], row["fix"]) == ("unknown", f"rollbook replication resync '{KEEP}'"), row
    assert "heartbeats never arrived" in row["reason"]
    site.fixed(KEEP, REMOVE)
