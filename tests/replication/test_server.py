"""`server add`, `list`, `show`, `ping`, `remove`: what they refuse, what they make, and what they leave."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST, Cluster
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import (
    QUICK,
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    private_server,
    settled,
    until,
)  # fmt: skip
from tests.replication.scenes import refusal
from tests.school import database as portal_database
from tests.school import populate

pytestmark = pytest.mark.slow  # `make check` runs it

NOWHERE = "host=/nonexistent dbname=courses user=postgres"
OWNER = "select from pg_roles where rolname = 'rollbook_owner'"
SENDERS = "select application_name from pg_stat_replication"


def add(site: Site, *options: str, name: str = "east", admin: str = "", subscription: str = "") -> Result:
    """Run `server add` with the site's own routes, or others."""
    return site.run(
        "server", "add", name, "--admin-dsn", admin or site.server_dsn,
        "--subscription-dsn", subscription or site.portal_dsn, *options,
    )  # fmt: skip


def has_owner(conn: Db) -> bool:
    """Say whether the role rollbook_owner is there."""
    return conn.execute(OWNER).fetchone() is not None


@pytest.fixture
def ownerless(site: Site) -> Site:
    """The server without the role rollbook_owner, which an earlier test may have left to kept schemas."""
    site.server.execute("drop role if exists rollbook_owner")
    return site


@contextmanager
def other_database(server: PrivateServer) -> Iterator[tuple[Db, str]]:
    """A further database of a server, with a session on it."""
    with database(server) as where, psycopg.connect(where, autocommit=True) as conn:
        yield conn, where


# --- what is refused before anything is made --------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["admin", "subscription"])
def test_a_conninfo_must_name_its_database_and_host_whatever_the_environment_says(
    site: Site, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("PGDATABASE", site.server.info.dbname)
    for given in ("host=east.example user=postgres", "postgresql://postgres@east.example"):
        answer = add(site, **{option: given})
        assert (answer.code, answer.out) == (2, "")
        assert f"--{option}-dsn does not name its database" in answer.err
    monkeypatch.setenv("PGHOST", str(site.server.info.host))  # nor may it lead wherever a variable points
    for given in (f"dbname={site.server.info.dbname}", f"postgresql:///{site.server.info.dbname}"):
        answer = add(site, **{option: given})
        assert (answer.code, answer.out) == (2, "")
        assert f"--{option}-dsn does not name its host" in answer.err
    assert site.remains() == []


@pytest.mark.parametrize("option", ["admin", "subscription"])
def test_a_conninfo_that_cannot_be_read_is_not_repeated(site: Site, option: str) -> None:
    for given in ("host=x dbname=y password=s3cret loose", "dbname=y s3cret", "postgresql://u:s3cret@[x/y", "s3cret"):
        answer = add(site, "--debug", **{option: given})
        assert answer.code == 2
        assert f"--{option}-dsn" in answer.err
        assert "s3cret" not in answer.out + answer.err


@pytest.mark.parametrize("name", ["East", "9east", "a-b", "", "ost é", "a" * 41, "east;drop"])
def test_a_name_that_no_slot_can_bear_is_a_usage_error(site: Site, name: str) -> None:
    answer = add(site, name=name)
    assert (answer.code, answer.out) == (2, "")
    assert "is not a valid server name" in answer.err
    assert site.remains() == []


def test_an_unknown_server_is_refused_and_the_nearest_is_named(site: Site) -> None:
    site.add()
    for command in (("server", "show"), ("server", "ping"), ("server", "remove"), ("course", "attach", KEEP, "--to")):
        answer = site.run(*command, "eats", "--json")
        assert answer.code == 1, command
        error = refusal(answer)
        assert "eats" in error["message"]
        assert error["why"] == "the nearest is east"


def test_neither_the_portals_own_database_nor_another_portal_becomes_a_course_server(
    ownerless: Site, cluster: Cluster, template: Any
) -> None:
    answer = add(ownerless, "--json", admin=ownerless.portal_dsn)
    assert answer.code == 1
    assert "the portal's own database" in refusal(answer)["message"]
    with portal_database(cluster, "other_portal", template.template_dbname) as where:  # copies never flow in a ring
        answer = add(ownerless, "--json", admin=where)
        assert answer.code == 1
        assert "is a portal itself" in refusal(answer)["message"]
    assert ownerless.remains() == []
    assert not has_owner(ownerless.server)


def test_a_database_takes_one_stream(site: Site) -> None:
    site.add()
    answer = add(site, "--json", name="west")
    assert answer.code == 1
    assert "already receives copies, by subscription rollbook_east" in refusal(answer)["message"]
    assert site.run("server", "list", "--json").column("server") == ["east"]
    assert site.run("server", "list", "--json", "--since", "-1h", "--until", "now").column("server") == ["east"]
    assert site.run("server", "list", "--json", "--until", "yesterday").data == []
    assert site.portal.execute("select pubname from pg_publication").fetchall() == [("rollbook_east",)]


def test_a_database_that_another_portal_feeds_under_the_same_name_is_refused(
    site: Site, course_server: PrivateServer
) -> None:
    site.add()
    before = site.server.execute("select oid, subconninfo from pg_subscription").fetchall()
    with database(course_server) as where:  # a portal in another cluster, where the slot's name is free
        schema.upgrade(where)
        with psycopg.connect(where, autocommit=True) as portal:
            try:
                second = Site(portal, where, site.server, site.server_dsn, site.call)
                answer = add(second, "--json")
                assert answer.code == 1, answer
                assert "already receives copies, by subscription rollbook_east" in refusal(answer)["message"]
                assert [line for line in second.remains() if line.startswith("portal")] == []
            finally:
                drop_slots(portal)
    assert site.server.execute("select oid, subconninfo from pg_subscription").fetchall() == before
    site.wait()


def test_a_slot_of_another_database_in_the_cluster_is_nobodys_to_take(ownerless: Site, cluster: Cluster) -> None:
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as elsewhere:
        elsewhere.execute("select pg_create_logical_replication_slot('rollbook_east', 'pgoutput')")
        try:
            answer = add(ownerless, "--json")
            assert answer.code == 1
            assert "the slot rollbook_east belongs to the database postgres" in refusal(answer)["message"]
            assert "another name" in refusal(answer)["hint"]
            assert ownerless.remains() == ["portal slot rollbook_east"]
            assert not has_owner(ownerless.server)
        finally:
            drop_slots(elsewhere)


@pytest.mark.parametrize("slot", ["logical_replication_slot('rollbook_east', 'test_decoding')",
                                  "logical_replication_slot('rollbook_east', 'pgoutput')",
                                  "logical_replication_slot('rollbook_east', 'pgoutput', temporary => true)",
                                  "physical_replication_slot('rollbook_east')"])  # fmt: skip
def test_a_slot_of_somebody_else_is_named_and_the_fix_drops_it(ownerless: Site, slot: str) -> None:
    somebody = psycopg.connect(ownerless.portal_dsn, autocommit=True)
    somebody.execute(f"select pg_create_{slot}".encode())
    if "temporary" not in slot:  # that one is read by its session, and ends with it
        somebody.close()
    error = refusal(add(ownerless, "--json"))
    assert error["message"] == "the portal has a slot rollbook_east that is not Rollbook's"
    assert ownerless.remains() == ["portal slot rollbook_east"]
    *statements, again = error["hint"].removeprefix("on the portal: ").split("; ")
    for statement in statements:
        ownerless.portal.execute(statement.encode())
    assert again == "then the same command again"
    assert add(ownerless).code == 0
    somebody.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_server_or_a_portal_that_is_not_in_utf8_is_refused_at_the_door(
    ownerless: Site, course_server: PrivateServer, cluster: Cluster, encoding: str
) -> None:
    name = f"c_{encoding.lower()}"
    make = f"create database {name} template template0 encoding '{encoding}' locale_provider libc locale 'C'"
    for home in (course_server, cluster.server):
        with psycopg.connect(home.dsn(), autocommit=True) as boss:
            boss.execute(make.encode())
    try:
        for option in ("--dry-run", "--json"):
            answer = add(ownerless, "--json", option, admin=course_server.dsn(name))
            assert answer.code == 1, answer
            words = f"the database of server east has the encoding {encoding}, not UTF8"
            assert refusal(answer)["message"] == words
            assert "encoding 'UTF8' template template0" in refusal(answer)["hint"]
        assert ownerless.remains() == []
        portal = cluster.server.dsn(name)
        answer = ownerless.call("schema", "upgrade", "-d", portal)
        assert (answer.code, f"the encoding {encoding}, not UTF8" in answer.err) == (1, True), answer
        with psycopg.connect(cluster.server.dsn(), autocommit=True) as boss:
            boss.execute(answer.err.partition("fix:")[2].partition(", and")[0].encode())
        assert ownerless.call("schema", "upgrade", "-d", cluster.server.dsn(f"{name}_utf8")).code == 0
        if encoding == "LATIN1":
            return  # no revision can be there
        schema.upgrade(portal)  # as one that was made before
        for command, code in (("upgrade", 0), ("check", 4)):
            answer = ownerless.call("schema", command, "-d", portal)
            assert answer.code == code, answer
            assert f"{encoding}, not UTF8: it cannot hold every name" in answer.out + answer.err
        with psycopg.connect(portal, autocommit=True) as conn:
            answer = add(Site(conn, portal, ownerless.server, ownerless.server_dsn, ownerless.call), "--json")
        assert answer.code == 1, answer
        assert refusal(answer)["message"] == f"the portal's database has the encoding {encoding}, not UTF8"
        assert not has_owner(ownerless.server)
    finally:
        for home in (course_server, cluster.server):
            with psycopg.connect(home.dsn(), autocommit=True) as boss:
                boss.execute(f"drop database {name} with (force)".encode())
                boss.execute(f"drop database if exists {name}_utf8 with (force)".encode())


def test_other_routes_for_a_name_that_is_taken_are_refused(site: Site) -> None:
    site.add()
    before = site.portal.execute("select * from rollbook.server").fetchall()
    for other in ({"admin": site.server_dsn + " application_name=x"}, {"subscription": site.portal_dsn + " port=5432"}):
        answer = add(site, "--json", **other)
        assert answer.code == 1
        assert "with other routes" in refusal(answer)["message"]
    assert site.portal.execute("select * from rollbook.server").fetchall() == before


def test_a_server_takes_new_routes_when_told_that_they_lead_to_it(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    before = site.server.execute("select oid from pg_subscription").fetchall()
    routes = {"admin": site.server_dsn + " application_name=x", "subscription": site.portal_dsn + " application_name=y"}
    taken = add(site, "--take-over", "--json", **routes)
    assert (taken.code, taken.row["outcome"]) == (0, "taken over")
    assert add(site, "--json", **routes).row["outcome"] == "unchanged"
    site.server.execute("comment on schema rollbook is 'Rollbook: version 0'")  # as another version has left it
    outcomes = [site.ok("server", "add", "east", "--json", *options).row["outcome"] for options in (["-n"], [], [])]
    assert outcomes == ["updated", "updated", "unchanged"]
    assert site.server.execute("select oid, subconninfo from pg_subscription").fetchall() == [
        (before[0][0], routes["subscription"])
    ]
    site.wait()
    assert site.states()[KEEP] == "ok"


# --- is there room ----------------------------------------------------------------------------------------------------


def settings_of(error: dict[str, Any]) -> list[str]:
    """The `alter system` lines of a refusal, as one would copy them."""
    return re.findall(r"alter system [^;]+", error["hint"])


def test_a_portal_without_room_is_told_the_lines_that_make_it_and_they_do(
    course_server: PrivateServer, call: Callable[..., Result]
) -> None:
    cramped = {"wal_level": "replica", "max_replication_slots": "2", "max_wal_senders": "2"}
    with private_server({**FAST, **cramped}) as small, other_database(course_server) as (server, server_dsn):
        where = small.dsn()
        server.execute("drop role if exists rollbook_owner")
        schema.upgrade(where)
        with psycopg.connect(where, autocommit=True) as portal:
            site = Site(portal, where, server, server_dsn, call)
            answer = add(site, "--json")
            assert answer.code == 1
            error = refusal(answer)
            assert settings_of(error) == [
                "alter system set wal_level = 'logical'", "alter system set max_replication_slots = 10",
                "alter system set max_wal_senders = 10",
            ]  # fmt: skip
            assert error["hint"].startswith("on the portal: alter system")
            assert "replication slots of the portal: 0 of 2" in error["message"]
            assert site.remains() == []
            assert not has_owner(server)
            for line in settings_of(error):
                portal.execute(line.encode())
        small.stop()
        small.start()
        with psycopg.connect(where, autocommit=True) as portal:
            populate(portal)
            site = Site(portal, where, server, server_dsn, call)
            site.add()
            site.attach(KEEP)
            site.ok("course", "detach", KEEP, "--yes")
            site.ok("server", "remove", "east", "--yes")
            assert site.remains() == []


def test_a_server_without_room_is_told_the_lines_that_make_it_and_they_do(site: Site) -> None:
    cramped = {"max_replication_slots": "2", "max_logical_replication_workers": "1", "max_worker_processes": "2"}
    origins = "max_replication_slots"
    if site.portal.info.server_version >= 180000:
        cramped |= {"max_active_replication_origins": "2"}
        origins = "max_active_replication_origins"
    with private_server({**FAST, **QUICK, **cramped}) as small:
        site.server_dsn = small.dsn()
        with psycopg.connect(site.server_dsn, autocommit=True) as server:
            site.server = server
            answer = add(site, "--json")
            assert answer.code == 1
            error = refusal(answer)
            assert settings_of(error) == [
                f"alter system set {origins} = 10", "alter system set max_logical_replication_workers = 9",
                "alter system set max_worker_processes = 10",
            ]  # fmt: skip
            assert error["hint"].startswith("on server east: alter system")
            assert "of server east" in error["message"]
            assert site.remains() == []
            assert not has_owner(server)
            for line in settings_of(error):
                server.execute(line.encode())
        small.stop()
        small.start()
        with psycopg.connect(site.server_dsn, autocommit=True) as site.server:
            site.add()
            site.attach(KEEP, REMOVE)
            site.ok("course", "detach", KEEP, REMOVE, "--yes")
            site.ok("server", "remove", "east", "--yes")
            assert site.remains() == []


def test_a_role_without_the_right_to_replicate_makes_nothing(ownerless: Site) -> None:
    ownerless.portal.execute("create role rb_weak login")
    try:
        ownerless.portal.execute("grant usage on schema rollbook, portal to rb_weak")
        ownerless.portal.execute("grant all on all tables in schema rollbook to rb_weak")
        ownerless.portal.execute("grant execute on all functions in schema rollbook to rb_weak")
        ownerless.portal.execute("grant select on public.rollbook_revision to rb_weak")
        ownerless.portal_dsn = ownerless.portal_dsn.replace("user=postgres", "user=rb_weak")
        answer = add(ownerless, "--json")
        assert answer.code == 3
        assert "replication" in refusal(answer)["hint"]
        assert ownerless.remains() == []
        assert not has_owner(ownerless.server)
    finally:
        ownerless.portal.execute("drop owned by rb_weak")
        ownerless.portal.execute("drop role rb_weak")


# --- routes that do not work ------------------------------------------------------------------------------------------


def test_a_subscription_route_that_leads_nowhere_leaves_nothing_on_either_side(ownerless: Site) -> None:
    host = ownerless.portal_dsn.split()[0]
    for given in (NOWHERE, f"{host} port=5999 dbname=postgres user=postgres", ownerless.portal_dsn + "x user=nobody_x",
                  ownerless.portal_dsn.replace("dbname=", "dbname=not_")):  # fmt: skip
        answer = add(ownerless, "--json", subscription=given)
        assert answer.code == 3, (given, answer)
        error = refusal(answer)
        assert "cannot reach the portal by its subscription route" in error["message"]
        assert error["why"]
        assert "--subscription-dsn" in error["hint"]
        assert ownerless.remains() == []
        assert not has_owner(ownerless.server)


def test_a_subscription_route_to_another_database_is_found_out_by_the_heartbeat(
    ownerless: Site, cluster: Cluster
) -> None:
    answer = add(ownerless, "--json", "--timeout", "2", subscription=cluster.server.dsn("postgres"))
    assert answer.code == 3
    assert "heartbeat" in refusal(answer)["message"]
    assert "--subscription-dsn" in refusal(answer)["hint"]
    assert ownerless.remains() == []
    assert not has_owner(ownerless.server)


def test_a_server_that_cannot_be_reached_gets_nothing_made_for_it(site: Site) -> None:
    answer = add(site, "--json", admin=NOWHERE)
    assert refusal(answer)["hint"].startswith("correct --admin-dsn")  # there is no server yet to ping
    assert answer.code == 3
    assert "server east cannot be reached" in refusal(answer)["message"]
    assert site.remains() == []


# --- what is made -----------------------------------------------------------------------------------------------------


def test_a_server_is_added_once_however_often_it_is_asked_for(site: Site) -> None:
    first = add(site, "--json")
    assert (first.code, first.row["server"], first.row["outcome"]) == (0, "east", "created")
    assert 0 <= first.row["lag_seconds"] < 10
    before = settled(site)
    subscription = site.server.execute("select oid from pg_subscription").fetchall()
    for _ in range(2):
        again = add(site, "--json")
        assert (again.code, again.row["outcome"]) == (0, "unchanged")
    assert site.remains() == before
    assert site.server.execute("select oid from pg_subscription").fetchall() == subscription


def test_heartbeats_that_come_with_the_first_copy_have_no_time_of_arrival(site: Site) -> None:
    for _ in range(2):
        site.portal.execute("select rollbook.beat()")
    site.add()

    def lags() -> list[float | None]:
        site.wait()  # sends one more
        return [row["lag_seconds"] for row in site.ok("replication", "lag", "--json").data]

    until(lambda: lags()[-1] is not None)  # the first copy may take a moment to end
    assert lags()[:2] == [None, None]


def test_a_subscription_goes_on_after_errors_streams_and_fails_over_where_both_sides_can(site: Site) -> None:
    site.add()
    row = site.server.execute(
        "select s.subname, s.subenabled, s.subdisableonerr, to_jsonb(s) ->> 'substream', to_jsonb(s) ->> 'subfailover' "
        "from pg_subscription as s join pg_database as d on d.oid = s.subdbid where d.datname = current_database()"
    ).fetchall()
    is_new = min(site.portal.info.server_version, site.server.info.server_version) >= 170000
    streams = "true" if site.server.info.server_version < 160000 else "t"
    assert row == [("rollbook_east", True, False, streams, "true" if is_new else None)]
    slot = site.portal.execute("select plugin, to_jsonb(s) ->> 'failover' from pg_replication_slots as s").fetchall()
    assert slot == [("pgoutput", "true" if is_new else None)]


def test_a_subscription_that_stops_at_errors_is_switched_by_the_next_add_or_resync(site: Site) -> None:
    """As servers have it that were added before streams went on by themselves."""
    site.add()
    site.attach(KEEP)
    for command in (add, lambda site: site.ok("replication", "resync", KEEP, "--yes")):
        site.server.execute("alter subscription rollbook_east set (disable_on_error = true)")
        site.server.execute("alter subscription rollbook_east disable")
        command(site)
        found = site.server.execute(
            "select subenabled, subdisableonerr from pg_subscription as s "
            "join pg_database as d on d.oid = s.subdbid where d.datname = current_database()"
        ).fetchall()
        assert found == [(True, False)]
        assert site.states()[KEEP] == "ok"


def test_a_dry_run_prints_the_statements_and_makes_nothing(ownerless: Site) -> None:
    printed = add(ownerless, "-n", "--format", "table")
    assert printed.code == 0
    for words in ("rollbook.publish_courses", "pg_create_logical_replication_slot", "create subscription",
                  "create role %I nologin", "-- on the portal", "-- on server east"):  # fmt: skip
        assert words in printed.out
    assert add(ownerless, "-n", "--json").row["outcome"] == "would create"
    assert ownerless.remains() == []
    assert not has_owner(ownerless.server)


def test_a_course_server_may_be_a_database_of_the_portals_own_cluster(site: Site, cluster: Cluster) -> None:
    with other_database(cluster.server) as (site.server, site.server_dsn):
        site.add()
        site.attach(KEEP)
        site.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
        site.wait()
        assert site.is_equal(KEEP)
        site.ok("course", "detach", KEEP, "--yes")
        site.ok("server", "remove", "east", "--yes")
        assert site.remains() == []
        assert has_owner(site.portal)  # the portal's own


def test_list_and_show_say_what_a_server_holds(site: Site) -> None:
    assert site.run("server", "list", "--json").data == []
    site.add()
    site.attach(KEEP)
    row = site.ok("server", "list", "--json").row
    version = site.server.execute("show server_version").fetchone()
    assert version is not None
    assert (row["server"], row["courses"], row["state"], row["version"]) == ("east", 1, "ok", version[0].split()[0])
    shown = site.ok("server", "show", "east", "--json").data
    assert (shown["server"], shown["state"], shown["courses"], shown["kept_schemas"]) == ("east", "ok", [KEEP], [])
    assert shown["slot"]["slot_name"] == shown["subscription"]["name"] == "rollbook_east"
    assert shown["subscription"]["enabled"] is True
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    shown = site.ok("server", "show", "east", "--json").data
    assert (shown["courses"], shown["kept_schemas"]) == ([], [KEEP_SCHEMA])


# --- passwords --------------------------------------------------------------------------------------------------------


def test_passwords_in_conninfos_are_never_shown(site: Site, course_server: PrivateServer) -> None:
    log = course_server.home / "postgres.log"
    began = len(log.read_bytes())
    name = sql.Identifier(site.server.info.dbname)
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):  # passwords must not reach logs either
        site.server.execute(sql.SQL("alter database {} set {}").format(name, sql.SQL(setting)))
    plain, quoted = " password=s3cret", r" password='s3cret w0rd \' w0rd'"
    for secret in (plain, quoted):
        admin, subscription = site.server_dsn + secret, site.portal_dsn + secret
        routes = {"admin": admin, "subscription": subscription}
        said = [
            add(site, "-n", "--format", "table", **routes), add(site, "-n", "-v", "--format", "table", **routes),
            add(site, "-v", "--debug", **routes), add(site, "--json", **routes), add(site, "-n", "--json", **routes),
            add(site, "--debug", admin=admin, subscription=NOWHERE + secret),
            add(site, "--debug", "--json", name="west", admin=NOWHERE + secret, subscription=subscription),
            site.run("server", "show", "east"), site.run("server", "show", "east", "--json", "-v"),
            site.run("server", "list", "--json", "-v"), site.run("server", "ping", "east", "-v"),
            site.run("course", "attach", KEEP, "--to", "east", "-n", "-v", "--format", "table"),
            site.run("replication", "show", KEEP), site.run("replication", "status", "-v", "--json"),
            site.run("server", "remove", "east", "-n", "-v", "--format", "table"),
            site.run("server", "remove", "east", "-v", "--yes"),
        ]  # fmt: skip
        assert [answer.code for answer in said] == [0] * 5 + [1, 3] + [0] * 5 + [0] * 4, said
        for lost in (NOWHERE, site.portal_dsn.replace("dbname=", "dbname=not_")):
            failed = add(site, "--debug", admin=admin, subscription=lost + secret)
            assert failed.code == 3
            said.append(failed)
        for answer in said:
            text = answer.out + answer.err
            assert "s3cret" not in text, answer
            assert "w0rd" not in text, answer
        assert "contains a password" in said[2].err
    written = log.read_bytes()[began:].decode()
    assert "subscription" in written  # something has been logged
    assert "s3cret" not in written
    trace = Path(os.environ["ROLLBOOK_LOG_FILE"])
    assert not trace.exists() or "s3cret" not in trace.read_text()
    assert site.remains() == []


def test_a_uri_is_shown_without_its_password(site: Site) -> None:
    here, there = (
        f"postgresql://postgres:s3cret@/{conn.info.dbname}?host={conn.info.host}&password=s3cret"
        for conn in (site.portal, site.server)
    )
    added = add(site, "-v", admin=there, subscription=here)
    assert added.code == 0
    for answer in (added, site.ok("server", "show", "east", "--json"), add(site, "-n", "--format", "table",
                   admin=there, subscription=here)):  # fmt: skip
        assert "s3cret" not in answer.out + answer.err
    shown = site.ok("server", "show", "east", "--json").data
    assert shown["admin_dsn"].startswith("postgresql://postgres:***@")
    site.ok("server", "remove", "east", "--yes")


# --- ping -------------------------------------------------------------------------------------------------------------


def test_ping_leaves_a_server_of_any_name_alone(site: Site) -> None:
    site.name = "probe"
    site.add()
    before = settled(site)
    site.ok("server", "ping", "probe")
    assert site.remains() == before


def test_ping_says_which_of_the_two_routes_fails(site: Site) -> None:
    site.portal.execute("create role rb_route login superuser")
    try:
        dsn = site.portal_dsn.replace("user=postgres", "user=rb_route")
        assert add(site, subscription=dsn).code == 0
        both = site.ok("server", "ping", "east", "--json")
        assert [(row["route"], row["verdict"]) for row in both.data] == [("admin", "ok"), ("subscription", "ok")]
        site.portal.execute("alter role rb_route nologin")
        one = site.run("server", "ping", "east", "--json")
        assert one.code == 3
        assert [(row["route"], row["verdict"]) for row in one.data] == [
            ("admin", "ok"), ("subscription", "unreachable")
        ]  # fmt: skip
        assert "not permitted to log in" in one.data[1]["reason"]
        assert [row["seconds"] is None for row in one.data] == [False, True]
        site.portal.execute("update rollbook.server set admin_dsn = %s", [NOWHERE])
        none = site.run("server", "ping", "east", "--json")
        assert none.code == 3
        assert [row["verdict"] for row in none.data] == ["unreachable", "unreachable"]
        assert "/nonexistent" in none.data[0]["reason"]
        assert site.server.execute("select subname from pg_subscription").fetchall() == [("rollbook_east",)]
    finally:
        drop_subscriptions(site.server)
        site.portal.execute("drop role rb_route")


# --- remove -----------------------------------------------------------------------------------------------------------


def test_remove_asks_and_refuses_while_courses_are_attached(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    before = settled(site)
    held = site.run("server", "remove", "east", "--yes", "--json")
    assert held.code == 1
    assert KEEP in refusal(held)["hint"]
    alive = site.run("server", "remove", "east", "--unreachable", "--yes", "--json")  # it answers: no need to forget it
    assert alive.code == 1
    assert site.remains() == before
    site.ok("course", "detach", KEEP, "--yes")
    before = settled(site)
    assert site.run("server", "remove", "east").code == 6
    assert site.ok("server", "remove", "east", "-n", "--json").column("outcome") == ["would remove"] * 3
    assert site.remains() == before
    removed = site.ok("server", "remove", "east", "--yes", "--json")
    assert removed.column("what") == ["subscription", "slot", "publication"]
    assert site.run("server", "remove", "east", "--yes").code == 1


def test_remove_takes_everything_away_and_the_role_when_nobody_needs_it(
    ownerless: Site, course_server: PrivateServer
) -> None:
    ownerless.add()
    with other_database(course_server) as (west, west_dsn):
        second = Site(ownerless.portal, ownerless.portal_dsn, west, west_dsn, ownerless.call, name="west")
        second.add()
        ownerless.ok("server", "remove", "east", "--yes")
        assert has_owner(ownerless.server)  # the other database has its heartbeats
        second.ok("server", "remove", "west", "--yes")
        assert not has_owner(ownerless.server)
        assert ownerless.remains() == second.remains() == []
    assert ownerless.portal.execute(SENDERS).fetchall() == []


def test_a_schema_that_was_kept_survives_the_removal_of_its_server(ownerless: Site) -> None:
    ownerless.add()
    ownerless.attach(KEEP)
    rows = ownerless.copy(KEEP)
    ownerless.ok("course", "detach", KEEP, "--keep-data", "--yes")
    removed = ownerless.run("server", "remove", "east", "--yes", "--json")
    assert removed.code == 5  # something is left there
    assert (f"schema {KEEP_SCHEMA} on the server", "kept") in [(row["what"], row["outcome"]) for row in removed.data]
    assert ownerless.copy(KEEP) == rows
    assert ownerless.remains() == [f"server schema {KEEP_SCHEMA}"]
    ownerless.add()  # and a new server of that name takes it up again
    ownerless.attach(KEEP)
    assert ownerless.is_equal(KEEP)


def on_portal(site: Site) -> list[tuple[Any, ...]]:
    """What a stream needs on the portal, as far as it is there; its server is not asked."""
    return [
        row
        for query in (
            "select slot_name from pg_replication_slots", "select pubname from pg_publication", SENDERS,
            "select name from rollbook.server", "select course_id from rollbook.course where server is not null",
        )
        for row in site.portal.execute(query.encode())
    ]  # fmt: skip


def cleaning_sql(note: str) -> list[str]:
    """The statements that `remove --unreachable` prints for the day on which the server is back."""
    return [line.strip() for line in note.splitlines() if line.startswith("  ")]


def test_an_unreachable_server_leaves_the_portal_clean_and_the_sql_printed_cleans_the_server(
    db: Db, dsn: str, call: Callable[..., Result], course_server: PrivateServer
) -> None:
    populate(db)
    with ExitStack() as stack:
        where = stack.enter_context(database(course_server))
        stack.callback(drop_slots, db)
        with psycopg.connect(where, autocommit=True) as server:
            server.execute("drop role if exists rollbook_owner")
            site = Site(db, dsn, server, where, call)
            site.add()
            site.attach(KEEP, REMOVE)
        course_server.stop()
        stack.callback(course_server.start)
        assert site.run("server", "remove", "east", "--yes").code == 1  # courses are attached
        assert site.run("server", "remove", "east", "--unreachable").code == 6
        before = on_portal(site)
        planned = site.run("server", "remove", "east", "--unreachable", "-n", "--json")
        assert (planned.code, on_portal(site)) == (5, before)
        gone = site.run("server", "remove", "east", "--unreachable", "--yes", "--json")
        assert gone.code == 5
        outcomes = {row["what"]: row["outcome"] for row in gone.data}
        assert outcomes["slot"] == outcomes["publication"] == "removed"
        assert outcomes["subscription on the server"] == outcomes[f"schema {KEEP_SCHEMA} on the server"] == "left there"
        assert on_portal(site) == []
        assert site.states() == {KEEP: "ok", REMOVE: "ok"}
        course_server.start()
        with psycopg.connect(where, autocommit=True) as site.server:
            for line in cleaning_sql(gone.err):
                site.server.execute(line.encode())
            assert site.remains() == []
            assert not has_owner(site.server)
            site.add()  # nothing stands in the way of the next one
            site.attach(KEEP)
            site.ok("course", "detach", KEEP, "--yes")
            site.ok("server", "remove", "east", "--yes")
            assert site.remains() == []


@contextmanager
def frozen(server: PrivateServer) -> Iterator[None]:
    """Stop all processes of a server where they are; let them go on at the end."""
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    stopped = [postmaster]
    os.kill(postmaster, signal.SIGSTOP)  # first, so that nobody is born any more
    try:
        for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
            stopped.append(int(child))
            os.kill(int(child), signal.SIGSTOP)  # one that has ended is a zombie, as its parent does not wait for it
        yield
    finally:
        for pid in reversed(stopped):  # the postmaster last: until then no process is reaped, and each has its pid
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_hangs_is_forgotten_within_the_timeout_and_its_walsender_sent_away(
    site: Site, course_server: PrivateServer
) -> None:
    site.add()
    until(lambda: site.portal.execute(SENDERS).fetchall() == [("rollbook_east",)])
    with frozen(course_server):
        gone = site.run("server", "remove", "east", "--unreachable", "--yes", "--timeout", "1", "--json")
        assert gone.code == 5
        assert on_portal(site) == []
    for line in cleaning_sql(gone.err):
        site.server.execute(line.encode())
    assert site.remains() == []


# --- a copy of the portal ---------------------------------------------------------------------------------------------


def test_a_clone_of_the_portal_does_not_touch_its_servers_until_it_takes_over(
    call: Callable[..., Result], cluster: Cluster, template: Any, course_server: PrivateServer
) -> None:
    with ExitStack() as stack:
        original = stack.enter_context(portal_database(cluster, "original", template.template_dbname))
        server, server_dsn = stack.enter_context(other_database(course_server))
        with psycopg.connect(original, autocommit=True) as portal:
            populate(portal)
            first = Site(portal, original, server, server_dsn, call)
            first.add()
            first.attach(KEEP)
            server.execute("alter subscription rollbook_east disable")  # a database in use cannot be a template
            until(lambda: portal.execute(SENDERS).fetchall() == [])
        clone = stack.enter_context(portal_database(cluster, "cloned", "original"))
        portal = stack.enter_context(psycopg.connect(original, autocommit=True))
        copy = stack.enter_context(psycopg.connect(clone, autocommit=True))
        stack.callback(drop_slots, copy)
        stack.callback(drop_slots, portal)
        stack.callback(drop_subscriptions, server)
        server.execute("alter subscription rollbook_east enable")
        first = Site(portal, original, server, server_dsn, call)
        second = Site(copy, clone, server, server_dsn, call)
        before = server.execute("select oid, subenabled from pg_subscription").fetchall()
        for command in (
            ("course", "attach", REMOVE, "--to", "east"), ("course", "detach", KEEP, "--yes"),
            ("course", "detach", KEEP, "--unreachable", "--yes"), ("replication", "resync", KEEP, "--yes"),
            ("replication", "pause", "--server", "east"), ("server", "remove", "east", "--unreachable", "--yes"),
            ("server", "add", "east", "--admin-dsn", server_dsn, "--subscription-dsn", original),
        ):  # fmt: skip
            answer = second.run(*command)
            assert answer.code == 1, (command, answer)
            assert "does not feed server east" in answer.err
            assert "--take-over" in answer.err
        assert second.states()[KEEP] == "unknown"
        copy.execute("update portal.auth_user set email = 'clone@example.org' where username = 'ada'")
        portal.execute("update portal.auth_user set email = 'portal@example.org' where username = 'ada'")
        first.wait()
        assert first.is_equal(KEEP)
        assert server.execute("select oid, subenabled from pg_subscription").fetchall() == before


def test_a_restored_portal_takes_its_servers_over_and_brings_them_level(
    call: Callable[..., Result], cluster: Cluster, template: Any, course_server: PrivateServer
) -> None:
    with ExitStack() as stack:
        original = stack.enter_context(portal_database(cluster, "before_loss", template.template_dbname))
        server, server_dsn = stack.enter_context(other_database(course_server))
        with psycopg.connect(original, autocommit=True) as portal:
            populate(portal)
            site = Site(portal, original, server, server_dsn, call)
            site.add()
            site.attach(KEEP)
            server.execute("alter subscription rollbook_east disable")  # a database in use cannot be a template
            until(lambda: portal.execute(SENDERS).fetchall() == [])
        restored = stack.enter_context(portal_database(cluster, "restored", "before_loss"))
        with psycopg.connect(original, autocommit=True) as portal:
            drop_slots(portal)  # the old portal is gone, and what it had
        portal = stack.enter_context(psycopg.connect(restored, autocommit=True))
        stack.callback(drop_slots, portal)
        stack.callback(drop_subscriptions, server)
        site = Site(portal, restored, server, server_dsn, call)
        portal.execute("update portal.auth_user set email = 'later@example.org' where username = 'ada'")
        old_route = ("server", "add", "east", "--admin-dsn", server_dsn, "--subscription-dsn", original)
        new_route = ("server", "add", "east", "--admin-dsn", server_dsn, "--subscription-dsn", restored)
        assert site.run(*new_route).code == 1
        taken = site.run(*new_route, "--take-over")
        assert taken.code == 0, taken
        site.ok("replication", "resync", KEEP, "--yes")
        assert site.is_equal(KEEP)
        assert site.states()[KEEP] == "ok"
        with psycopg.connect(original, autocommit=True) as portal_before:
            before = Site(portal_before, original, server, server_dsn, call)
            for command in (("replication", "resync", KEEP, "--yes"), ("course", "detach", KEEP, "--yes"), old_route):
                answer = before.run(*command)
                assert answer.code == 1, (command, answer)
                assert "another portal has taken over server east" in answer.err
            assert before.states()[KEEP] == "unknown"
            again = before.run(*old_route, "--take-over")  # only by saying so; here its slot is the other's
            assert "the slot rollbook_east belongs to the database restored" in again.err
        portal.execute("update portal.auth_user set email = 'after@example.org' where username = 'ada'")
        site.wait()
        assert site.is_equal(KEEP)
        assert site.run(*old_route).code == 1
        site.ok("course", "detach", KEEP, "--yes")
        site.ok("server", "remove", "east", "--yes")
        assert site.remains() == []


# --- the schema -------------------------------------------------------------------------------------------------------


def test_a_downgrade_is_refused_while_there_are_servers(site: Site) -> None:
    site.add()
    for revision in ("0001", "base"):
        answer = site.run("schema", "downgrade", "--to", revision, "--yes", "--json")
        assert answer.code == 1, answer
        assert "there are course servers: east" in refusal(answer)["message"]
        assert "rollbook server remove east" in refusal(answer)["hint"]
    assert site.run("schema", "current", "--json").row["is_head"] is True
    with pytest.raises(psycopg.Error, match="there are course servers: east"):
        site.portal.execute(schema.offline("0002", "0001").encode())
    site.portal.rollback()
    site.ok("server", "remove", "east", "--yes")
    site.ok("schema", "downgrade", "--to", "0001", "--yes")
