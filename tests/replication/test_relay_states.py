"""What is reported of servers behind a relay: well, late, paused, stuck, cut off, and when something is lost."""

from __future__ import annotations

import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from rollbook.core.db import Caller
from rollbook.replication import apply_error, heartbeat, link, observe
from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.core.test_top import Terminal
from tests.program import KEEP, KEEP_SCHEMA, PROGRAM, REMOVE, REMOVE_SCHEMA, Result
from tests.replication.conftest import SCHEMAS, Db, remedy, until
from tests.replication.doctor import Trap, findings, named, run_sql
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
    keys = ["server", "through", "state", "courses", "lag_bytes", "lag_seconds", "hop_seconds", "reason", "fix"]
    assert [list(each) for each in found] == [keys, keys]
    hub, east = found
    assert (hub["server"], hub["through"], hub["state"], hub["courses"]) == ("hub", None, "ok", 2)
    assert (east["server"], east["through"], east["state"], east["courses"]) == ("east", "hub", "ok", 2)
    assert hub["hop_seconds"] == hub["lag_seconds"]
    assert hub["lag_seconds"] <= east["lag_seconds"]
    assert east["hop_seconds"] is None or 0 < east["hop_seconds"] <= east["lag_seconds"]
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


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_server_lags_no_less_than_its_relay_whichever_was_looked_at_first(
    site: Relayed, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    arrival = heartbeat.arrival

    def late(conn: Any, server: link.Server, beat: Any, seconds: float) -> float | None:
        waited = arrival(conn, server, beat, seconds)
        return waited and {"hub": 0.012, "east": 0.008}[server.name]

    monkeypatch.setattr(observe, "arrival", late)
    if not is_recorded:  # as where an older version added the server
        monkeypatch.setattr(observe, "travelled", lambda *asked: asked[-1])
    with psycopg.connect(site.portal_dsn, autocommit=True, row_factory=dict_row) as portal:
        servers = [link.find_server(portal, name) for name in ("hub", "east")]
        hub, east = observe.look(portal, servers, Caller("rollbook test", 30))
    query = "select extract(epoch from arrived_at - sent_at)::float8 from rollbook.heartbeat order by beat desc limit 1"
    took = [lag for conn in (site.hub, site.server) for (lag,) in conn.execute(query)] if is_recorded else [0.012] * 2
    assert [hub.lag_seconds(), east.lag_seconds()] == [pytest.approx(each, abs=0.0006) for each in took]
    assert (east.hop_seconds() or 0) == pytest.approx(took[1] - took[0], abs=0.0011)
    assert east.hop_seconds() != 0


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
                shown = site.run("server", "show", "east", "--json").data
                assert shown["reason"].startswith("unreachable through hub: ")
                lags = {row["check"]: row["message"] for row in site.run("check", "replication", "--json").data}
                assert lags["courses unreachable"].partition(": ")[2].startswith("unreachable through hub: ")
                assert lags["lag east"] == "not known: its courses are unreachable"
                repaired = site.run("replication", "repair", KEEP, "--dry-run")
                assert f"{KEEP}: unreachable through hub: " in " ".join(repaired.err.split())
                removed = site.run("server", "remove", "hub", "--yes")
                assert "server hub is the relay of east" in removed.err
                fix = "rollbook server remove east; or keep it: rollbook server move east --direct"
                assert removed.err.endswith(f"fix:   {fix}\n")
                routes = site.run("server", "ping", "east", "--json")
                assert routes.code == 3
                assert [row["verdict"] for row in routes.data] == ["ok", "ok", "unreachable"]
    with cut(site, f"host={folder} port=5432 dbname=postgres user=postgres", "east"):
        found = line(site)
        assert (found["state"], found["fix"]) == ("unreachable", "rollbook server ping east")


def steps(site: Relayed, fix: str, where: str = "portal") -> None:
    """Run what is printed, step by step, each at its place: SQL that names none where the finding is."""
    sides = {"portal": site.portal, "hub": site.hub, "east": site.server}
    for step in fix.partition("; or: ")[0].split("; then: "):
        if step.startswith("rollbook "):
            assert remedy(site, step).code == 0, step
        elif found := re.match(r"on (?:server )?(?:the )?(\w+): (.*)", step, re.DOTALL):
            run_sql(sides[found[1]], found[2])
        else:
            run_sql(sides[where], step)


@pytest.mark.slow
def test_top_draws_both_hops(site: Relayed) -> None:
    seen = r"(?m)^portal .*\n└─ hub +{}.*\n   └─ east +{}.*\n\nCOURSE"
    terminal = Terminal([PROGRAM, "top", "--interval", "0.5", "-d", site.portal_dsn], size=(24, 80))
    well = r"\S (ok|lagging) +2 +[\d.]+ s +[\d.]+ s"
    terminal.until(seen.format(well, well))
    with cut(site, "host=/nowhere dbname=postgres"):
        gone = r"✗ unreachable{} +2 +– +–"
        terminal.until(seen.format(gone.format(""), gone.format(" through hub")))
        assert re.search(r"─ east +✗ unreachable through hub", site.run("status", "--format", "table").out)
    terminal.until(seen.format(well, well))
    terminal.child.send("q")
    assert terminal.ended() == 0


@pytest.mark.slow
def test_a_relay_that_is_paused_or_stuck_is_named_and_its_printed_fix_works(site: Relayed) -> None:
    site.ok("replication", "pause", "--server", "hub")
    found = line(site)
    assert found["state"] == "paused"
    assert found["reason"].startswith("on its relay hub: paused since ")
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
        slots = site.run("replication", "slots")
        names = " ".join(f"'{course}'" for course in sorted((KEEP, REMOVE)))
        assert f"gone on server hub: rollbook replication resync {names}" in " ".join(slots.err.split())
        lags = {row["check"]: row["message"] for row in site.run("check", "replication", "--json").data}
        assert lags["lag east"] == "not known: its courses are broken"
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
    lag = site.run("replication", "lag", "--json")
    rebuilt = {"east"} if hop == "relay" else {"east", "hub"}
    assert rebuilt <= set(re.findall(r"lag of server (\w+) not known from .* to .*: the stream was rebuilt", lag.err))
    for name in rebuilt:
        assert next(row for row in lag.data if row["server"] == name)["lag_seconds"] is None
    other = line(site, REMOVE)
    assert other["state"] == "unknown"
    assert remedy(site, other["fix"]).code == 0
    enroll(site, 2)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)


@pytest.mark.parametrize("hop", ["portal", "relay"])
def test_a_publication_that_lacks_a_column_is_named_and_resync_brings_back_what_was_sent_without_it(
    site: Relayed, hop: str
) -> None:
    source, where, stream, table, column = (
        (site.portal, "the portal", "rollbook_hub", "auth_userprofile", "goals") if hop == "portal"
        else (site.hub, "server hub", "rollbook_east", "auth_user", "last_name")  # NOT NULL in the copies
    )  # fmt: skip
    copy = f"{KEEP_SCHEMA}.{table}"
    (names,) = source.execute(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute "
        "where attrelid = %s::regclass and attnum > 0 and attname <> %s", [copy, column],
    ).fetchone() or ("",)  # fmt: skip
    source.execute(f"alter publication {stream} drop table {copy}".encode())
    source.execute(f"alter publication {stream} add table {copy} ({names})".encode())
    enroll(site, 2)
    site.portal.execute("update portal.auth_userprofile set goals = 'Not sent' where user_id = 101")
    if hop == "relay":
        until(lambda: "replication stopped" in (line(site, REMOVE)["reason"] or ""))
        shown = site.run("replication", "show", KEEP, "--json").data
        assert (shown["error"]["sqlstate"], "--skip" in shown["fix"]) == ("23502", False)
        assert shown["error"]["message"].endswith("; it was sent without last_name")
        assert line(site, REMOVE)["fix"] == f"rollbook replication resync '{KEEP}'"
    found = line(site)
    assert (found["state"], found["fix"]) == ("broken", f"rollbook replication resync '{KEEP}'")
    assert found["reason"].endswith(f"its publication on {where} sends {table} without {column}")
    assert remedy(site, found["fix"]).code == 0
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.is_equal(KEEP)


def servers_seen(site: Relayed) -> list[tuple[str, str, int]]:
    """The servers of the tree, each with its state and lag; `server list` has the same."""
    drawn = {row["server"]: row for row in site.run("status", "--json").data["servers"]}
    listed = {row["server"]: row for row in site.run("server", "list", "--json").data}
    assert {name: row["state"] for name, row in drawn.items()} == {name: row["state"] for name, row in listed.items()}
    return [(name, drawn[name]["state"], listed[name]["lag_bytes"]) for name in ("hub", "east")]


@pytest.mark.slow
def test_a_server_is_no_better_than_what_was_lost_on_its_way_until_a_resync(site: Relayed) -> None:
    site.hub.execute("drop publication rollbook_east")
    assert [state for _, state, _ in servers_seen(site)] == ["ok", "broken"]
    shown = site.run("server", "show", "east", "--json").data
    assert "its publication is missing" in shown["reason"]
    refused = site.run("server", "move", "east", "--direct", "--subscription-dsn", site.portal_dsn, "--yes")
    assert (refused.code, "server east is broken" in refused.err) == (1, True)
    assert "rollbook server show east" in refused.err
    assert shown["fix"] == f"rollbook replication resync '{KEEP}' '{REMOVE}'"
    assert remedy(site, shown["fix"]).code == 0
    assert [state for _, state, _ in servers_seen(site)] == ["ok", "ok"]
    for _ in range(3):
        site.wait()
    beat = site.hub.execute(
        "delete from rollbook.heartbeat where beat = (select beat from rollbook.heartbeat order by beat desc offset 1 "
        "limit 1) returning beat, sent_at, lsn, portal_identity, timeline"
    ).fetchone()
    assert beat is not None
    site.wait()
    assert [state for _, state, _ in servers_seen(site)] == ["unknown", "unknown"]
    shown = site.run("server", "show", "hub", "--json").data
    assert shown["reason"].startswith("1 heartbeats never arrived, the last of ")
    assert remedy(site, f"rollbook replication resync '{KEEP}'").code == 0
    assert [state for _, state, _ in servers_seen(site)] == ["unknown", "unknown"], "the other course lacks something"
    shown = site.run("server", "show", "east", "--json").data
    assert shown["fix"] == f"rollbook replication resync '{REMOVE}'"
    assert remedy(site, shown["fix"]).code == 0
    assert [state for _, state, _ in servers_seen(site)] == ["ok", "ok"], "the gap is still there, and is healed"
    site.hub.execute("insert into rollbook.heartbeat (beat, sent_at, lsn, portal_identity, timeline) "
                     "values (%s, %s, %s, %s, %s)", beat)  # fmt: skip


TRAPS = (
    Trap("create publication rollbook_gone", "publication", "rollbook_gone belongs to no server", "hub"),
    Trap("alter publication rollbook_east set (publish = 'insert, update, delete, truncate')", "publication",
         "publishes TRUNCATE", "hub"),
    Trap("alter publication rollbook_east add table rollbook.portal", "publication",
         "rollbook.portal, which is not a copy", "hub"),
    Trap("select pg_create_logical_replication_slot('dr_left', 'pgoutput')", "slot",
         "slot dr_left belongs to no server", "hub"),
    Trap(f"alter publication rollbook_east drop table {KEEP_SCHEMA}.auth_userprofile", "publication",
         "does not list auth_userprofile of course", "hub"),
)  # fmt: skip


def test_a_course_that_its_relay_does_not_get_right_has_drifted(site: Relayed) -> None:
    copy = f"{SCHEMAS[KEEP]}.auth_user"
    site.hub.execute(f"set session_replication_role = replica; update {copy} set first_name = 'Wrong'".encode())
    site.hub.execute("reset session_replication_role")
    site.hub.execute("create function public.stubborn() returns trigger language plpgsql as 'begin return null; end'")
    stubborn = f"create trigger stubborn before update on {copy} for each row execute function public.stubborn()"
    site.hub.execute(f"{stubborn}; alter table {copy} enable always trigger stubborn".encode())
    assert site.run("replication", "repair", KEEP, "--yes").code == 4
    assert site.copy(KEEP) == site.copy(KEEP, on=site.portal) != site.copy(KEEP, on=site.hub)
    assert site.states()[KEEP] == "drifted"
    site.hub.execute("drop function public.stubborn cascade")
    site.ok("replication", "repair", KEEP, "--yes")
    assert site.copy(KEEP, on=site.hub) == site.copy(KEEP, on=site.portal)


def test_a_server_that_is_asked_after_its_relay_is_not_ahead_of_it(
    site: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_read, is_written = threading.Event(), threading.Event()

    def first_the_relay(conn: Db, slots: Any, copied: Any) -> observe.Source:
        found = read_source(conn, slots, copied)
        if conn.info.dbname == site.hub.info.dbname:
            is_read.set()
            assert is_written.wait(30)
        return found

    def then_the_server(conn: Db, server: link.Server) -> int:
        if server.name == site.name:
            assert is_read.wait(30)
            site.portal.execute("update portal.auth_user set first_name = 'Later' where id = 101")
            site.wait()
            is_written.set()
        return applied_until(conn, server)

    read_source, applied_until = observe.read_source, apply_error.applied_until
    monkeypatch.setattr(observe, "read_source", first_the_relay)
    monkeypatch.setattr(apply_error, "applied_until", then_the_server)
    with psycopg.connect(site.portal_dsn, autocommit=True, row_factory=dict_row) as portal:
        (seen,) = observe.look(portal, [link.find_server(portal, site.name)], Caller("rollbook test", 30))
    assert seen.reached is not None
    assert seen.relay is not None
    assert seen.relay.reached is not None
    assert (seen.lost_beats, seen.reached.applied <= seen.position) == (([], False), True)


@pytest.mark.slow
def test_doctor_looks_for_slots_and_publications_at_the_relay(site: Relayed) -> None:
    well = findings(site)
    of_streams = ("slot", "publication", "left-over", "schema", "subscription", "subscription login", "portal")
    assert [each for each in well if each["check"] in of_streams and each["state"] != "ok"] == []
    logins = [each["where"] for each in well if each["found"].startswith("the subscription of server ")]
    assert logins == ["portal", "hub"], "hub logs in at the portal, east at hub"
    assert [each["found"] for each in well if "max_slot_wal_keep_size" in each["found"] and each["where"] == "hub"]
    for trap in TRAPS:
        site.hub.execute(trap.harm.encode())
        (found,) = named(findings(site), trap)
        if "does not list" in trap.found:
            row = line(site)
            assert (row["state"], row["fix"]) == ("broken", f"rollbook replication resync '{KEEP}'")
            assert row["reason"].startswith("publication rollbook_east does not list all its tables")
        assert found["fix"].startswith(("on server hub: ", "rollbook "))
        steps(site, found["fix"])
        assert named(findings(site), trap) == []
    assert line(site)["state"] == "ok"
    assert [each for each in findings(site, KEEP) if each["where"] == "hub"], "the relay of a course is looked at too"


def test_doctor_compares_the_columns_that_a_relay_sends_with_those_that_the_portal_sends(site: Relayed) -> None:
    other = Trap("", "publication", "publication rollbook_east lists auth_user", "hub")
    too_few, too_many = f"{KEEP_SCHEMA}.auth_userprofile (id, user_id)", f"{REMOVE_SCHEMA}.auth_user"
    listed = "select attnames::text[] from pg_publication_tables where schemaname || '.' || tablename = any (%s)"
    names = [[KEEP_SCHEMA + ".auth_userprofile"], [REMOVE_SCHEMA + ".auth_user"]]
    before = [site.hub.execute(listed, [each]).fetchall() for each in names]
    site.hub.execute(f"alter table {REMOVE_SCHEMA}.auth_user add column nickname text".encode())
    try:
        for each in (too_few, too_many):
            site.hub.execute(f"alter publication rollbook_east drop table {each.partition(' ')[0]}".encode())
            site.hub.execute(f"alter publication rollbook_east add table {each}".encode())
        with watcher(site) as seen:
            (found,) = named(findings(seen), other)
        assert re.search(f"auth_userprofile of course {re.escape(KEEP)} without .*name", found["found"])
        assert re.search(f"auth_user of course {re.escape(REMOVE)} with nickname", found["found"])
        assert found["wanted"] == "the columns that the portal sends"
        assert KEEP not in named(findings(site, REMOVE), other)[0]["found"]
        steps(site, found["fix"], "hub")  # nobody has written: the rows are equal, and the lists are not
        assert named(findings(site), other) == []
        assert [site.hub.execute(listed, [each]).fetchall() for each in names] == before
        site.hub.execute(f"alter publication rollbook_east drop table {too_few.partition(' ')[0]}".encode())
        site.hub.execute(f"alter publication rollbook_east add table {too_few}".encode())
        site.portal.execute("update portal.auth_userprofile set name = 'Not sent'")
        site.wait()
        assert site.run("replication", "verify", KEEP).code == 4
        steps(site, named(findings(site), other)[0]["fix"], "hub")
        assert site.is_equal(KEEP)
    finally:
        site.hub.execute(f"alter table {REMOVE_SCHEMA}.auth_user drop column nickname".encode())


@contextmanager
def watcher(site: Relayed) -> Iterator[Relayed]:
    """The site as a monitor sees it, who sends no heartbeats."""
    name = f"rl_{uuid.uuid4().hex[:8]}"
    site.portal.execute(f"create role {name} login; grant rollbook_monitor to {name}".encode())
    try:
        yield replace(site, portal_dsn=make_conninfo(site.portal_dsn, user=name))
    finally:
        site.portal.execute(f"drop owned by {name}; drop role {name}".encode())


def test_slots_lag_canary_and_wait_go_through_both_hops(site: Relayed) -> None:
    slots = site.run("replication", "slots", "--json")
    assert [(row["slot"], row["server"], row["where"], row["courses"], row["alarm"]) for row in slots.data] == [
        ("rollbook_hub", "hub", "portal", 2, "unbounded"), ("rollbook_east", "east", "hub", 2, "unbounded"),
    ]  # fmt: skip
    assert (slots.code, "unbounded on server hub: " in slots.err) == (4, True)
    (oid,) = site.portal.execute("select subscription from rollbook.server where name = 'east'").fetchone() or (None,)
    copy = f"pg_{oid}_sync_16999_7345000000000000001"
    site.hub.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [copy])
    found = site.run("replication", "slots", "--json").data
    assert {(row["slot"], row["server"], row["alarm"]) for row in found if row["where"] == "hub"} == {
        ("rollbook_east", "east", "unbounded"), (copy, "east", "unbounded"),
    }  # fmt: skip
    assert [each for each in findings(site) if copy in each["found"]] == []
    site.hub.execute("select pg_drop_replication_slot(%s)", [copy])
    canary = site.run("replication", "canary", "--json").data
    assert [(row["course"], row["server"], row["state"]) for row in canary] == [
        (None, "hub", "ok"), (KEEP, "east", "ok"), (REMOVE, "east", "ok"),
    ]  # fmt: skip
    assert canary[0]["seconds"] <= canary[1]["seconds"] + 0.1
    beats = site.run("replication", "lag", "--json").data
    last = {row["server"]: row for row in beats}
    assert {row["arrived_at"] is not None for row in last.values()} == {True}
    waited = site.run("replication", "wait", "--json").data
    assert [(row["course"], row["reached"]) for row in waited] == [(KEEP, True), (REMOVE, True)]
    with watcher(site) as seen:
        enroll(site, 2)
        assert [row["reached"] for row in seen.run("replication", "wait", "--json").data] == [True, True]
        assert site.is_equal(KEEP)
        assert seen.states() == {KEEP: "ok", REMOVE: "ok"}
        assert [row["where"] for row in seen.run("replication", "slots", "--json").data] == ["portal", "hub"]
        assert seen.run("replication", "show", KEEP, "--json").data["relay"]["slot"]["slot_name"] == "rollbook_hub"
        site.server.execute("alter subscription rollbook_east disable")
        enroll(site, 1)
        late = seen.run("replication", "wait", "--json", "--timeout", "1")
        assert (late.code, [row["reached"] for row in late.data]) == (3, [False, False])
        site.server.execute("alter subscription rollbook_east enable")
    with cut(site, "host=/nonexistent port=5432 dbname=postgres"):
        silent = site.run("replication", "slots", "--json")
        assert silent.code == 3
        assert [row["where"] for row in silent.data] == ["portal"]
        assert site.run("replication", "canary", "--json").code == 3
        wait = site.run("replication", "wait", "--timeout", "2")
        assert (wait.code, "server east is unreachable through hub" in wait.err) == (3, True)


def test_monitors_see_relays(site: Relayed) -> None:
    lines = site.run("check", "--json").data
    slots = {row["check"]: row for row in lines if row["check"].startswith("slot ")}
    assert list(slots) == ["slot rollbook_hub", "slot rollbook_east on hub"]
    assert "fills the disk of server hub" in slots["slot rollbook_east on hub"]["message"]
    with tempfile.TemporaryDirectory() as folder:
        site.ok("metrics", "--textfile", f"{folder}/rollbook.prom")
        text = Path(f"{folder}/rollbook.prom").read_text()
    assert 'rollbook_slot_lost{slot="rollbook_east",through="hub"} 0.0' in text
    assert 'rollbook_slot_lost{slot="rollbook_hub"} 0.0' in text
    assert 'rollbook_collect_success{part="server",server="hub"} 1.0' in text
    assert f'rollbook_course_info{{course="{KEEP}",kind="server",target="server east",through="hub"}} 1.0' in text
    page = site.run("status", "--html", "-").out
    assert "Servers" in page
    with cut(site, "host=/nonexistent port=5432 dbname=postgres"):
        lines = site.run("check", "--json").data
        by_check = {row["check"]: row["state"] for row in lines}
        assert (by_check["courses unreachable"], by_check["lag east"]) == ("unknown", "unknown")
