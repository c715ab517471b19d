"""Moves behind a relay and back that are killed at each statement, while people write: nothing is lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.program import Result
from tests.replication.conftest import Db, Site, private_server
from tests.replication.many import course_ids, enroll_all, load, make_courses
from tests.replication.relays import Relayed, relayed
from tests.replication.scenes import count_arrivals, stream_early
from tests.replication.test_crash import SETTINGS, kill_postmaster

pytestmark = pytest.mark.slow

SCHEMA = "course_many_c0000_2013"
# Ends itself right before the first statement that has these words.
KILLED = """
import os, signal, sys
from rollbook import cli
from rollbook.replication.steps import Steps

run = Steps._run

def killed(self, conn, where, statements):
    if sys.argv[1] in statements[0].as_string(conn):
        os.kill(os.getpid(), signal.SIGKILL)
    run(self, conn, where, statements)

Steps._run = killed
sys.exit(cli.run(sys.argv[2:]))
"""
SWITCHED = "update rollbook.server set through"
STEPS = (
    "pg_create_logical_replication_slot", "disable", "set (slot_name = none)", SWITCHED,
    "pg_replication_origin_advance", "set (slot_name = 'rollbook_east')", "drop subscription",
    "pg_drop_replication_slot", "refresh publication with (copy_data = false)", "moving_through = null",
)  # fmt: skip


@pytest.fixture
def site(school: Db, dsn: str, course_server: PrivateServer, call: Callable[..., Result]) -> Iterator[Relayed]:
    """A portal with two servers: hub has no courses, and east three; each change of users is counted on both sides."""
    with relayed(school, dsn, course_server, call) as made:
        made.add_hub()
        Site.add(made)
        make_courses(school, 3, 60)
        enroll_all(school, 3)
        made.attach(*course_ids(3))
        count_arrivals(made, SCHEMA)
        count_arrivals(replace(made, server=made.portal), SCHEMA)
        yield made


@contextmanager
def on_own_servers(call: Callable[..., Result]) -> Iterator[tuple[Relayed, list[PrivateServer]]]:
    """The same with a server of the portal's own, and one that has both relay and server, which a test can kill."""
    with private_server(SETTINGS) as here, private_server(SETTINGS) as there:
        for server, name in ((here, "site"), (there, "hub"), (there, "east")):
            with psycopg.connect(server.dsn(), autocommit=True) as conn:
                conn.execute(f"create database {name} template template0".encode())
        schema.upgrade(here.dsn("site"))
        dsns = (here.dsn("site"), there.dsn("hub"), there.dsn("east"))
        portal, hub, east = (psycopg.connect(dsn, autocommit=True) for dsn in dsns)
        site = Relayed(portal, dsns[0], east, dsns[2], call, hub=hub, hub_dsn=dsns[1])
        try:
            site.add_hub()
            Site.add(site)
            make_courses(portal, 3, 60)
            enroll_all(portal, 3)
            site.attach(*course_ids(3))
            count_arrivals(site, SCHEMA)
            count_arrivals(replace(site, server=site.portal), SCHEMA)
            yield site, [here, there]
        finally:
            for each in (site.portal, site.hub, site.server):
                each.close()


def connect_anew(site: Relayed) -> None:
    """Connect again after a kill."""
    for each in (site.portal, site.hub, site.server):
        each.close()
    site.portal, site.hub, site.server = (
        psycopg.connect(dsn, autocommit=True) for dsn in (site.portal_dsn, site.hub_dsn, site.server_dsn)
    )


def command(site: Relayed, *, to_hub: bool) -> list[str]:
    """The command that moves the server."""
    where = ["--through", "hub", "--subscription-dsn", site.hub_dsn]
    if not to_hub:
        where = ["--direct", "--subscription-dsn", site.portal_dsn]
    return ["server", "move", "east", *where, "--yes", "--json"]


def kill_before(site: Relayed, words: str, *arguments: str) -> list[str]:
    """Run a command as a process that ends itself before a statement; return the one that `status` prints then."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, words, *arguments, "-d", site.portal_dsn],
        capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done
    seen, fix = site.run("status", "--json").data, "rollbook " + " ".join(arguments[:-4])
    (course, *_) = seen["courses"]
    assert (course["state"], course["fix"]) == ("moving", fix), course
    (east,) = [server for server in seen["servers"] if server["server"] == "east"]
    assert (east["state"], east["reason"], east["fix"]) == ("moving", course["reason"], fix)
    if words == "disable":
        shown = site.run("server", "show", "east", "--json").data
        assert (shown["state"], shown["reason"], shown["fix"]) == ("moving", course["reason"], fix)
    return [*arguments[:-4], "--yes", "--json"]


def arrivals(conn: Db) -> list[tuple[int, str, int]]:
    """How often each user of the course was written, by operation."""
    query = f"select user_id, operation, count(*) from {SCHEMA}.arrival group by 1, 2 order by 1, 2"
    return conn.execute(query.encode()).fetchall()


def counted_once(site: Relayed) -> None:
    """See that the server has each write exactly once, and equals the portal."""
    site.wait()
    assert arrivals(site.server) == arrivals(site.portal)
    site.ok("replication", "verify")


def start_counting(site: Relayed) -> None:
    """Count from here on."""
    site.wait()
    for conn in (site.portal, site.server):
        conn.execute(f"truncate {SCHEMA}.arrival".encode())


@pytest.mark.timeout(600)
def test_a_move_killed_at_any_step_goes_on(site: Relayed) -> None:
    start_counting(site)
    with load(site.portal_dsn, pause=0.005) as written:
        for words in STEPS:
            for to_hub in (True, False):
                if to_hub and "refresh" in words:  # of the relay that lets courses go
                    site.ok(*command(site, to_hub=True))
                    continue
                again = site.ok(*kill_before(site, words, *command(site, to_hub=to_hub)))  # the route is kept
                assert {row["verdict"] for row in again.data} == {"match"}
    assert written.broken == []
    counted_once(site)


@pytest.mark.timeout(600)
def test_a_killed_move_is_taken_back(site: Relayed) -> None:
    start_counting(site)
    with load(site.portal_dsn, pause=0.005) as written:
        for words in ("pg_create", "disable", "set (slot_name = none)", SWITCHED, "pg_replication_origin_advance"):
            for to_hub in (True, False):
                kill_before(site, words, *command(site, to_hub=to_hub))
                back = site.run(*command(site, to_hub=not to_hub))
                if words == SWITCHED:  # the server is there, and nobody has recorded it
                    assert (back.code, "it can be taken back then" in back.err) == (1, True), back
                else:
                    assert back.code == 0, back
                site.ok(*command(site, to_hub=to_hub))
    assert written.broken == []
    counted_once(site)


@pytest.mark.timeout(600)
def test_five_times_there_and_back(site: Relayed) -> None:
    start_counting(site)
    with load(site.portal_dsn, pause=0.005) as written:
        for _ in range(5):
            site.ok(*command(site, to_hub=True))
            site.ok(*command(site, to_hub=False))
    assert written.broken == []
    counted_once(site)


def test_a_large_transaction_is_open_while_the_source_changes(site: Relayed) -> None:
    """It would delay the slots: the command has come past them."""
    stream_early(site)
    stream_early(replace(site, portal=site.hub))
    start_counting(site)
    for words, to_hub in (("pg_create_logical", True), ("disable", False)):
        kill_before(site, words, *command(site, to_hub=to_hub))
        with psycopg.connect(site.portal_dsn) as open_one:
            open_one.execute(
                "with new as (insert into portal.auth_user (username, email) select %s || n, %s || n || '@example.org' "
                "from generate_series(1, 3000) as n returning id) "
                "insert into portal.student_courseenrollment (user_id, course_id) select id, %s from new",
                [f"open{to_hub}", f"open{to_hub}", course_ids(1)[0]],
            )
            site.ok(*command(site, to_hub=to_hub))
        counted_once(site)
    assert len([row for row in arrivals(site.server) if row[1] == "INSERT"]) >= 6000


@pytest.mark.timeout(600)
def test_servers_that_crash_between_the_steps_lose_nothing(call: Callable[..., Result]) -> None:
    with on_own_servers(call) as (site, machines):
        start_counting(site)
        turn = 0
        for words in STEPS[:7]:
            for to_hub in (True, False):
                write = "update portal.auth_user set first_name = %s where username like 'many%%'"
                site.portal.execute(write, [f"before {turn}"])
                kill_before(site, words, *command(site, to_hub=to_hub))
                site.portal.execute(write, [f"meanwhile {turn}"])
                kill_postmaster(machines[turn // 2 % 2])
                turn += 1
                connect_anew(site)
                site.portal.execute(write, [f"after {turn}"])
                site.ok(*command(site, to_hub=to_hub))
        counted_once(site)
