"""What is reported of servers behind a relay: well, late, paused, stuck, cut off, and when something is lost."""

from __future__ import annotations

import re
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, remedy, until
from tests.replication.relays import Relayed, relayed
from tests.replication.scenes import POISON, becomes, enroll, line
from tests.replication.test_unreachable import quietly
from tests.school import database as portal_database
from tests.school import populate


@pytest.fixture(scope="module")
def standing_relay(cluster: Cluster, template: Any, course_server: PrivateServer) -> Iterator[Relayed]:
    """What `site` hands to each test."""
    with ExitStack() as stack:
        where = stack.enter_context(portal_database(cluster, f"p_{uuid.uuid4().hex[:10]}", template.template_dbname))
        portal = stack.enter_context(psycopg.connect(where, autocommit=True))
        populate(portal)
        made = stack.enter_context(relayed(portal, where, course_server, quietly))
        made.add_hub()
        made.add()
        made.attach(KEEP, REMOVE)
        yield made


@pytest.fixture
def site(standing_relay: Relayed, call: Callable[..., Result]) -> Iterator[Relayed]:
    """Server east behind the relay hub, with both courses: well before, and after."""
    standing_relay.call = call
    yield standing_relay
    standing_relay.wait()
    assert standing_relay.states() == {KEEP: "ok", REMOVE: "ok"}


def test_each_look_shows_both_hops(site: Relayed) -> None:
    found = site.run("status", "--json").data["servers"]
    keys = ["server", "through", "state", "courses", "lag_bytes", "lag_seconds", "hop_seconds"]
    assert [list(each) for each in found] == [keys, keys]
    hub, east = found
    assert (hub["server"], hub["through"], hub["state"], hub["courses"]) == ("hub", None, "ok", 2)
    assert (east["server"], east["through"], east["state"], east["courses"]) == ("east", "hub", "ok", 2)
    assert hub["hop_seconds"] == hub["lag_seconds"]
    assert east["hop_seconds"] <= east["lag_seconds"]
    for words in (["status"], ["replication", "status"]):
        drawn = site.run(*words, "--format", "table").out
        assert re.search(r"^portal .*\n└─ hub +✓ ok +2 .*\n   └─ east +✓ ok +2 .*\n\nCOURSE", drawn, re.MULTILINE)
    listed = site.run("server", "list", "--csv").out.splitlines()
    assert [row.split(",")[:4] for row in listed[1:]] == [["east", "hub", "2", "ok"], ["hub", "", "2", "ok"]]
    shown = site.run("server", "show", "hub", "--json").data
    assert (shown["behind"], shown["courses"], shown["slot"]["server"]) == (["east"], [KEEP, REMOVE], "hub")
    shown = site.run("server", "show", "east", "--format", "table").out
    assert "Slot on server hub" in shown
    assert re.search(r"through +hub", shown)
    routes = site.run("server", "ping", "east", "--json").data
    assert [(row["server"], row["route"], row["verdict"]) for row in routes] == [
        ("east", "admin", "ok"), ("east", "subscription", "ok"), ("hub", "admin", "ok"),
    ]  # fmt: skip
    both = site.run("replication", "show", KEEP, "--json").data
    assert (both["slot"]["slot_name"], both["relay"]["slot"]["slot_name"]) == ("rollbook_east", "rollbook_hub")
    assert "Slot on server hub" in site.run("replication", "show", KEEP, "--format", "table").out


@contextmanager
def cut(site: Relayed, route: str, server: str = "hub") -> Iterator[None]:
    """The program cannot reach the relay; its stream goes on."""
    update = "update rollbook.server set admin_dsn = %s where name = %s"
    site.portal.execute(update, [route, server])
    try:
        yield
    finally:
        site.portal.execute(update, [site.hub_dsn if server == "hub" else site.server_dsn, server])


def test_behind_a_relay_that_does_not_answer_courses_are_unreachable_through_it(site: Relayed) -> None:
    with tempfile.TemporaryDirectory(prefix="rb-test-") as folder, socket.socket(socket.AF_UNIX) as nobody:
        for is_silent in (False, True):
            if is_silent:
                nobody.bind(f"{folder}/.s.PGSQL.5432")
                nobody.listen(64)
            with cut(site, f"host={folder} port=5432 dbname=postgres user=postgres"):
                began = time.monotonic()
                answer = site.run("status", "--json", "--timeout", "2")
                assert answer.code == 3
                assert time.monotonic() - began < 4, "the timeout costs once"
                for row in answer.data["courses"]:
                    assert (row["state"], row["lag_seconds"]) == ("unreachable", None)
                    assert row["reason"].startswith("unreachable through hub: ")
                    assert row["fix"] == "rollbook server ping hub"
                assert {row["state"] for row in answer.data["servers"]} == {"unreachable"}
                if is_silent:
                    continue
                assert {row["state"] for row in site.run("server", "list", "--json").data} == {"unreachable"}
                routes = site.run("server", "ping", "east", "--json")
                assert routes.code == 3
                assert [row["verdict"] for row in routes.data] == ["ok", "ok", "unreachable"]
    with cut(site, f"host={folder} port=5432 dbname=postgres user=postgres", "east"):
        found = line(site)
        assert (found["state"], found["fix"]) == ("unreachable", "rollbook server ping east")


def steps(site: Relayed, fix: str) -> None:
    """Run what is printed, step by step, each at its place."""
    for step in fix.partition("; or: ")[0].split("; then: "):
        if found := re.match(r"on server (\w+): (.*)", step, re.DOTALL):
            (site.hub if found[1] == "hub" else site.server).execute(found[2].encode())
        else:
            assert remedy(site, step).code == 0, step


def test_a_relay_that_is_paused_or_stuck_is_named_and_its_printed_fix_works(site: Relayed) -> None:
    site.ok("replication", "pause", "--server", "hub")
    found = line(site)
    assert found["state"] == "paused"
    assert found["reason"].startswith("on its relay hub: since ")
    assert [row["state"] for row in site.run("status", "--json").data["servers"]] == ["paused", "paused"]
    answer = remedy(site, found["fix"])
    assert answer.code == 0
    assert all(course in answer.out for course in (KEEP, REMOVE)), "all courses behind it flow again, and are listed"
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    site.hub.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint no_poison check (email <> '{POISON}')")
    site.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    found = becomes(site, "broken")
    assert found["reason"].startswith("on its relay hub: update auth_user row ")
    assert "on server hub: alter table" in found["fix"]
    both = site.run("replication", "show", KEEP, "--json").data
    assert (both["error"], both["relay"]["error"]["table"]) == (None, "auth_user")
    assert "--skip" in both["fix"]
    steps(site, found["fix"])
    site.portal.execute("update portal.auth_user set email = 'ada@example.org' where username = 'ada'")
    site.hub.execute("alter subscription rollbook_hub disable")
    found = becomes(site, "broken")
    assert found["reason"].startswith("on its relay hub: ")
    steps(site, found["fix"])


def lose_slot(source: Db, reader: Db, stream: str) -> None:
    """Drop a slot at its source, as a restored database has none."""
    reader.execute(sql.SQL("alter subscription {} disable").format(sql.Identifier(stream)))
    active = "select active from pg_replication_slots where slot_name = %s"
    until(lambda: source.execute(active, [stream]).fetchone() == (False,))
    source.execute("select pg_drop_replication_slot(%s)", [stream])
    reader.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(stream)))


@pytest.mark.parametrize("hop", ["portal", "relay", "subscription"])
def test_what_is_lost_on_either_hop_is_told_apart_and_brought_back(site: Relayed, hop: str) -> None:
    if hop == "portal":
        lose_slot(site.portal, site.hub, "rollbook_hub")
        reason = "on its relay hub: its slot on the portal is gone"
    elif hop == "relay":
        lose_slot(site.hub, site.server, "rollbook_east")
        reason = "its slot on relay hub is gone"
    else:
        site.hub.execute("alter subscription rollbook_hub disable")
        site.hub.execute("alter subscription rollbook_hub set (slot_name = none)")
        site.hub.execute("drop subscription rollbook_hub")
        reason = "on its relay hub: its subscription is gone"
    enroll(site, 2)
    found = line(site)
    assert found["state"] == "broken"
    assert found["reason"].startswith(reason)
    assert found["fix"].startswith("rollbook replication resync ")
    assert remedy(site, found["fix"]).code == 0
    assert line(site)["state"] == "ok"
    other = line(site, REMOVE)
    assert other["state"] == "unknown"
    assert remedy(site, other["fix"]).code == 0
    enroll(site, 2)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
