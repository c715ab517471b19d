"""Faults of course servers at a relay, and behind one: the printed fix leads to `ok`, and nothing else is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from rollbook.replication import write_rows
from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.replication.conftest import (
    database,
    drop_slots,
    drop_subscriptions,
    remedy,
    started,
    until,
    waits_for,
)
from tests.replication.relays import Relayed, RelayedStanding, behind, relay_standing, schemas
from tests.replication.scenes import count_arrivals, enroll, line
from tests.replication.test_fixes import ON_SERVER, Follower, harm
from tests.replication.test_verify_repair import versions

__all__ = ["behind", "relay_standing"]
ANY_ROLE = ("a revoked right", "a trigger without a right", "row security")
BEHIND = ("a row with its key", "a check", "a missing column", "a dropped subscription")  # the others differ in nothing


@pytest.mark.slow
@pytest.mark.parametrize(("at", "name"), [*(("hub", name) for name in ON_SERVER), *(("east", name) for name in BEHIND)])
def test_the_printed_fix_of_a_fault_on_a_relay_or_behind_it_leads_to_ok(behind: Relayed, name: str, at: str) -> None:
    case, site = ON_SERVER[name], behind
    if name in ANY_ROLE and site.hub.info.server_version < 160000:
        pytest.skip("a worker acts for the subscription's owner")
    site.portal.execute("update portal.auth_user set last_name = '' where last_name <> ''")
    site.wait()
    harm(site, case, name, at)
    row = line(site)
    assert row["state"] == "broken", row
    assert row["reason"].startswith("on its relay hub: ") == (at == "hub"), row
    shown = site.run("replication", "show", KEEP, "--json").data
    assert shown["fix"].split("; or: ")[0] == row["fix"]
    follower = Follower(site)
    follower.follow(row["fix"])
    follower.until_ok()
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    site.at(at).execute(case.undo.replace("{0}", KEEP_SCHEMA).encode() or b"select")


# --- rows that differ -------------------------------------------------------------------------------------------------


def places(site: Relayed) -> list[tuple[Any, ...]]:
    """Where verify finds differences: table, finding, row and server."""
    rows = site.run("replication", "verify", "--rows", "--json").data
    return [(row["table"], row["finding"], row["row_id"], row["server"]) for row in rows]


def arrivals(site: Relayed) -> list[tuple[Any, ...]]:
    """What has been written to the users of the course on the server since `count_arrivals`."""
    return site.server.execute(f"select user_id, operation from {KEEP_SCHEMA}.arrival order by 1, 2").fetchall()


@pytest.mark.slow
def test_verify_names_the_relay_or_the_server_that_differs_and_repair_writes_each_row_once(behind: Relayed) -> None:
    site = behind
    count_arrivals(site)
    for at, user in (("east", 101), ("hub", 102)):
        site.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = email || 'x' where id = {user}", at=at)
    site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301", at="hub")
    site.as_worker(f"insert into {KEEP_SCHEMA}.student_courseenrollment values (-1, 101, 'x', now())", at="east")
    site.wait()  # what is written on a relay goes on
    assert places(site) == [
        ("auth_user", "changed", 102, "hub"), ("student_courseenrollment", "missing", 301, "hub"),
        ("auth_user", "changed", 101, "east"), ("auth_user", "changed", 102, "east"),
        ("student_courseenrollment", "extra", -1, "east"), ("student_courseenrollment", "missing", 301, "east"),
    ]  # fmt: skip
    assert line(site)["state"] == "drifted"
    before = (versions(site.hub, REMOVE_SCHEMA), versions(site.server, REMOVE_SCHEMA))
    site.server.execute(f"delete from {KEEP_SCHEMA}.arrival")
    assert remedy(site, line(site)["fix"]).code == 0
    assert places(site) == []
    assert arrivals(site) == [(101, "UPDATE"), (102, "UPDATE")]
    assert (versions(site.hub, REMOVE_SCHEMA), versions(site.server, REMOVE_SCHEMA)) == before
    there = versions(site.hub, KEEP_SCHEMA)
    site.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = email || 'x' where id = 101")
    site.ok("replication", "repair", "--yes")
    assert versions(site.hub, KEEP_SCHEMA) == there  # a relay that is equal is left alone
    assert site.is_equal(KEEP)
    site.server.execute(f"drop function {KEEP_SCHEMA}.note_arrival() cascade; drop table {KEEP_SCHEMA}.arrival")


@pytest.mark.slow
def test_what_is_truncated_on_a_relay_alone_is_brought_back_though_the_server_has_it(behind: Relayed) -> None:
    site = behind
    for table in COPIED:
        site.as_worker(f"truncate {KEEP_SCHEMA}.{table}", at="hub")
    assert {row[3] for row in places(site)} == {"hub"}
    before = versions(site.server, KEEP_SCHEMA)
    site.ok("replication", "repair", "--yes")
    assert places(site) == []
    assert versions(site.server, KEEP_SCHEMA) == before
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


@pytest.mark.slow
def test_repair_writes_on_a_relay_where_nobody_may_make_temporary_tables(behind: Relayed) -> None:
    site = behind
    database, role = site.hub.info.dbname, "keeper"
    site.hub.execute(f"revoke temporary on database {database} from public".encode())  # as docs/relay.md has it
    for arguments in ((KEEP,), ("--user", "ada")):
        site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301", at="hub")
        site.ok("replication", "repair", *arguments, "--yes")
        assert site.is_equal(KEEP)
    site.hub.execute(f"create role {role} login; grant rollbook_owner to {role}".encode())
    route = make_conninfo(site.hub_dsn, user=role)
    site.portal.execute("update rollbook.server set admin_dsn = %s where name = 'hub'", [route])
    try:
        site.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = email || 'x' where id = 101", at="hub")
        refused = site.run("replication", "repair", "--yes")
        assert refused.code in (3, 5)
        assert "the role on server hub may not create temporary tables" in refused.err
        fix = f'grant temporary on database "{database}" to "{role}"'
        assert f"on server hub: {fix}" in refused.err
        site.hub.execute(fix.encode())
        site.ok("replication", "repair", "--yes")
        assert site.is_equal(KEEP)
    finally:
        site.portal.execute("update rollbook.server set admin_dsn = %s where name = 'hub'", [site.hub_dsn])
        site.hub.execute(f"grant temporary on database {database} to public; drop owned by {role}".encode())
        site.hub.execute(f"drop role {role}".encode())


@pytest.mark.parametrize("at", ["hub", pytest.param("east", marks=pytest.mark.slow)])
def test_a_transaction_that_is_skipped_on_the_way_is_missing_until_repair(behind: Relayed, at: str) -> None:
    case, site = ON_SERVER["a check"], behind
    site.portal.execute("update portal.auth_user set last_name = '' where last_name <> ''")
    site.wait()
    harm(site, case, "a check", at)
    shown = site.run("replication", "show", KEEP, "--json").data
    error = (shown["relay"] if at == "hub" else shown)["error"]
    assert (error["table"], error["sqlstate"]) == ("auth_user", "23514")
    assert f"--skip {error['lsn']}" in shown["fix"]
    (listed,) = (row for row in site.run("replication", "conflicts", "--json").data if row["kind"] != "counted")
    assert (listed["server"], listed["sqlstate"]) == (at, "23514")
    assert listed["resolution"] == line(site)["fix"]
    follower = Follower(site)
    follower.follow(shown["fix"], alternative=1)
    follower.until_ok()
    assert "--skip" in follower.followed[0]


# --- a server that keeps a repair waiting -----------------------------------------------------------------------------

DEAF = f"""
create function {KEEP_SCHEMA}.deaf() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    for turn in 1..300 loop  -- 15 s
        begin
            perform pg_sleep(0.05);
        exception when query_canceled then
            null;
        end;
    end loop;
    return null;
end $$;
create trigger deaf before delete on {KEEP_SCHEMA}.student_courseenrollment execute function {KEEP_SCHEMA}.deaf()
"""  # it cannot be cancelled
SLOW = f"""
create function {KEEP_SCHEMA}.slow() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    perform pg_sleep(0.4);
    return old;
end $$;
create trigger slow before delete on {KEEP_SCHEMA}.student_courseenrollment
    for each row execute function {KEEP_SCHEMA}.slow()
"""
COMMANDS = "select pid from pg_stat_activity where application_name like 'rollbook%' and datname = current_database()"


@contextmanager
def writing(site: Relayed) -> Iterator[list[float]]:
    """Write a user, and enroll her elsewhere, again and again; the seconds that each time took."""
    took: list[float] = []
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(site.portal_dsn, autocommit=True) as conn:
            while not done.is_set():
                began = time.monotonic()
                conn.execute("update portal.auth_user set last_name = 'x' where id = 101")
                for write in (
                    "delete from portal.student_courseenrollment where user_id = 102 and course_id = %s",
                    "insert into portal.student_courseenrollment (user_id, course_id) values (102, %s)",
                ):
                    conn.execute(write, [REMOVE])
                took.append(time.monotonic() - began)
                done.wait(0.1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield took
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_a_server_that_keeps_a_repair_waiting_holds_up_nobody_on_the_portal(
    behind: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = behind
    monkeypatch.setattr(write_rows, "BATCH_SECONDS", 0.5)
    enroll(site, 3)
    site.wait()
    for schema in (KEEP_SCHEMA, REMOVE_SCHEMA):
        site.as_worker(
            f"insert into {schema}.student_courseenrollment select -id, id, 'x', now() from {schema}.auth_user"
        )
    site.server.execute(DEAF)
    with writing(site) as took:
        partly = site.run("replication", "repair", "--yes", "--json")  # its neighbor is repaired
    assert max(took) < 5, took
    assert len(took) > 5
    assert partly.code == 5, (partly.out, partly.err)
    assert {row["course"] for row in partly.data} == {REMOVE}
    assert f"server east did not write the rows of course {KEEP} within 0.5 s" in partly.err
    for (pid,) in site.server.execute(COMMANDS).fetchall():
        site.server.execute("select pg_terminate_backend(%s, 10000)", [pid])
    site.server.execute(f"drop function {KEEP_SCHEMA}.deaf() cascade")
    with psycopg.connect(site.server_dsn) as other:
        other.execute(f"lock table {KEEP_SCHEMA}.student_courseenrollment in share row exclusive mode")
        with writing(site) as took:
            late = site.run("replication", "repair", KEEP, "--yes")
    assert max(took) < 5, took
    assert late.code == 3, late
    monkeypatch.setattr(write_rows, "BATCH_SECONDS", 1.5)
    site.server.execute(SLOW)
    assert site.run("replication", "repair", "--yes").code == 0  # fewer users at a time
    site.server.execute(f"drop function {KEEP_SCHEMA}.slow() cascade")
    site.wait()
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)


# --- what is gone -----------------------------------------------------------------------------------------------------


def lose_slot(site: Relayed, at: str) -> None:
    site.at(at).execute(f"alter subscription rollbook_{at} disable".encode())
    drop_slots(site.source(at))


def lose_subscription(site: Relayed, at: str) -> None:
    drop_subscriptions(site.at(at))


def lose_publication(site: Relayed, at: str) -> None:
    site.source(at).execute(f"drop publication rollbook_{at}".encode())


def lose_table(site: Relayed, at: str) -> None:
    site.at(at).execute(f"drop table {KEEP_SCHEMA}.auth_userprofile".encode())


def lose_schema(site: Relayed, at: str) -> None:
    site.at(at).execute(f"drop schema {KEEP_SCHEMA} cascade".encode())


def lose_machinery(site: Relayed, at: str) -> None:
    site.at(at).execute("drop schema rollbook cascade")


def lose_publishing(site: Relayed, at: str) -> None:
    """The relay's function that publishes, and what was published."""
    site.hub.execute("drop function rollbook.publish")
    lose_publication(site, at)


def lose_heartbeats(site: Relayed, at: str) -> None:
    site.at(at).execute("drop table rollbook.heartbeat")


def lose_guard(site: Relayed, at: str) -> None:
    site.at(at).execute(f"drop trigger rollbook_guard_copy on {KEEP_SCHEMA}.auth_user".encode())


def stream(site: Relayed, at: str) -> list[tuple[Any, ...]]:
    """What tells one stream from another: the slot's first position, and the subscription."""
    query = "select oid from pg_subscription where subname = %s"
    return site.at(at).execute(query, [f"rollbook_{at}"]).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "east"])
@pytest.mark.parametrize(
    "lose",
    [
        lose_slot, lose_subscription, lose_publication, lose_publishing, lose_table, lose_schema, lose_machinery,
        lose_heartbeats, lose_guard,
    ],
)  # fmt: skip
def test_what_is_gone_on_one_hop_is_rebuilt_there_and_the_other_hop_is_left_alone(
    behind: Relayed, lose: Callable[[Relayed, str], None], at: str
) -> None:
    site, other = behind, {"hub": "east", "east": "hub"}[at]
    kept = stream(site, other)
    lose(site, at)
    site.portal.execute("update portal.auth_user set first_name = first_name || '+' where id in (101, 102)")
    enroll(site, 3)
    enroll(site, 3, REMOVE)
    row = line(site)
    assert row["state"] in ("broken", "unknown"), row
    assert row["reason"].startswith("on its relay hub: ") == (at == "hub"), row
    assert row["fix"] == f"rollbook replication resync '{KEEP}'"
    follower = Follower(site)
    follower.follow(row["fix"])
    assert line(site)["state"] == "ok"
    follower.until_ok()
    assert stream(site, other) == kept
    enroll(site, 1)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.run("replication", "verify").code == 0


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_paused_on_either_hop_goes_on_by_resume_and_by_resync(behind: Relayed) -> None:
    site = behind
    paused = site.ok("replication", "pause", "--server", "hub", "--json")
    assert {(row["course"], row["outcome"]) for row in paused.data} == {(KEEP, "paused"), (REMOVE, "paused")}
    assert "the portal keeps its WAL" in paused.err
    assert "server hub keeps its WAL" in site.ok("replication", "pause", KEEP).err
    enroll(site, 2)
    row = line(site)
    assert row["state"] == "paused"
    assert site.run("replication", "repair", KEEP, "--yes").code == 4
    assert remedy(site, row["fix"]).code == 0
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    for name in ("hub", "east"):
        site.ok("replication", "pause", "--server", name)
    resynced = site.ok("replication", "resync", KEEP, "--yes")
    for name in ("hub", "east"):
        assert f"server {name} was paused; its replication resumes" in resynced.err
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


# --- first copies -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "east"])
def test_a_first_copy_that_is_refused_on_the_way_is_completed_as_the_fix_says(behind: Relayed, at: str) -> None:
    site, name, schema = behind, "edX/refused", "course_edx_refused"
    site.portal.execute("select rollbook.create_course(%s)", [name])
    site.portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (101, %s) "
                        "on conflict do nothing", [name])  # fmt: skip
    site.attach(name)
    site.ok("course", "detach", name, "--keep-data", "--yes")
    if at == "hub":
        site.hub.execute(f"create schema {schema} authorization rollbook_owner".encode())
        site.hub.execute(f"create table {schema}.auth_user (like {KEEP_SCHEMA}.auth_user including all)".encode())
        site.hub.execute(f"alter table {schema}.auth_user owner to rollbook_owner".encode())
    else:
        for table in ("student_courseenrollment", "auth_userprofile", "auth_user"):
            site.as_worker(f"delete from {schema}.{table}")
    site.at(at).execute(f"alter table {schema}.auth_user add constraint own check (username <> 'ada')".encode())
    attached = site.run("course", "attach", name, "--to", "east")
    assert attached.code == 4, attached
    assert f"first copy to server {at} stopped" in attached.err
    assert site.states()[KEEP] == "ok"
    row = line(site, name)
    assert row["state"] == "broken", row
    follower = Follower(site)
    follower.printed(attached)
    assert site.states()[name] == "ok"
    site.ok("course", "detach", name, "--yes")
    assert schema not in schemas(site.hub)
    site.portal.execute("select rollbook.drop_course(%s)", [name])


@pytest.mark.slow
def test_an_attach_that_is_killed_on_either_hop_is_completed_by_the_next(behind: Relayed) -> None:
    site = behind
    site.ok("course", "detach", KEEP, "--yes")
    for at in ("hub", "east"):
        with psycopg.connect({"hub": site.hub_dsn, "east": site.server_dsn}[at]) as other:
            other.execute(f"create schema {KEEP_SCHEMA}".encode())
            with started(site, "course", "attach", KEEP, "--to", "east") as process:
                until(lambda at=at, other=other: waits_for(other, site.at(at)))  # type: ignore[misc]
                process.kill()
                process.wait(20)
            other.rollback()
        site.attach(KEEP)
        assert site.is_equal(KEEP)
        site.ok("course", "detach", KEEP, "--yes")
        assert KEEP_SCHEMA not in schemas(site.hub) + schemas(site.server)
    site.attach(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


# --- two servers, and a role without heartbeats -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_conflict_on_a_relay_stops_both_servers_behind_it_and_names_its_course(
    behind: Relayed, relay_standing: RelayedStanding
) -> None:
    site = behind
    with database(relay_standing.server) as west:
        site.ok("server", "add", "west", "--through", "hub", "--admin-dsn", west, "--subscription-dsn", site.hub_dsn)
        site.ok("course", "move", REMOVE, "--to", "west", "--yes")
        harm(site, ON_SERVER["a row with its key"], "a row with its key", "hub")
        row = line(site, REMOVE)
        assert row["state"] == "broken", row
        assert row["reason"].startswith(f"on its relay hub: replication stopped because of {KEEP_SCHEMA}.auth_user")
        refused = site.run("replication", "repair", REMOVE, "--yes")
        assert (refused.code, f"rollbook replication repair '{KEEP}'" in refused.err) == (4, True)
        assert row["fix"] == f"rollbook replication repair '{KEEP}'"
        assert remedy(site, row["fix"]).code == 0
        assert site.states() == {KEEP: "ok", REMOVE: "ok"}
        assert site.run("replication", "verify").code == 0
        site.ok("course", "move", REMOVE, "--to", "east", "--yes")
        site.ok("server", "remove", "west", "--yes")
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


@pytest.mark.slow
def test_who_sends_no_heartbeat_waits_for_both_hops(behind: Relayed) -> None:
    site = behind
    with psycopg.connect(site.portal_dsn) as other:
        other.execute("lock table rollbook.heartbeat in exclusive mode")
        enroll(site, 2)
        site.ok("replication", "wait", "--timeout", "20")
        assert site.is_equal(KEEP)
        site.server.execute("alter subscription rollbook_east disable")
        enroll(site, 2)
        assert site.run("replication", "wait", "--timeout", "3").code == 3
        site.server.execute("alter subscription rollbook_east enable")
    site.wait()
