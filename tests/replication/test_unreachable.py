"""Servers that are dead, frozen or silent: what each look costs and says, while the other servers answer.

A file of its own: its sites stand in the cluster of the other tests, and a test of slots bounds what that keeps.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from rollbook import cli
from rollbook.core.db import Caller, Conn, Session, session
from rollbook.core.errors import UnreachableError
from rollbook.replication import link, verify
from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST, Cluster
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import (
    QUICK,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    private_server,
    remedy,
    until,
)
from tests.replication.scenes import line, refusal
from tests.school import database as portal_database
from tests.school import populate


@dataclass
class Pair:
    """A portal with two servers: `south`, which the tests stop and freeze, has KEEP; `west` has REMOVE."""

    site: Site
    south: PrivateServer

    def postmaster(self, number: int) -> None:
        """Send the postmaster of south a signal."""
        os.kill(int((self.south.data / "postmaster.pid").read_text().split()[0]), number)


@pytest.fixture(scope="module")
def standing_pair(cluster: Cluster, template: Any, course_server: PrivateServer) -> Iterator[Pair]:
    """What `pair` hands to each test."""
    with ExitStack() as stack:
        where = stack.enter_context(portal_database(cluster, f"p_{uuid.uuid4().hex[:10]}", template.template_dbname))
        portal = stack.enter_context(psycopg.connect(where, autocommit=True))
        south = stack.enter_context(private_server({**FAST, **QUICK}))
        west = stack.enter_context(database(course_server))
        server = stack.enter_context(psycopg.connect(west, autocommit=True))
        stack.callback(drop_slots, portal)
        stack.callback(drop_subscriptions, server)
        populate(portal)
        site = Site(portal, where, server, west, quietly, "west")
        site.add()
        site.ok("server", "add", "south", "--admin-dsn", south.dsn(), "--subscription-dsn", where)
        site.ok("course", "attach", REMOVE, "--to", "west")
        site.ok("course", "attach", KEEP, "--to", "south")
        yield Pair(site, south)


def quietly(*arguments: str) -> Result:
    """Run the program where no test is under way to keep what it says."""
    return Result(cli.run(list(arguments)), "", "")


@pytest.fixture
def pair(standing_pair: Pair, call: Callable[..., Result]) -> Iterator[Pair]:
    """Both servers up and well, before and after."""
    standing_pair.site.call = call
    yield standing_pair
    standing_pair.site.ok("replication", "wait", "--timeout", "20")
    assert standing_pair.site.states() == {KEEP: "ok", REMOVE: "ok"}


@contextmanager
def stopped(pair: Pair) -> Iterator[None]:
    """The server is down."""
    pair.south.stop("immediate")
    try:
        yield
    finally:
        pair.south.start()


@contextmanager
def frozen(pair: Pair) -> Iterator[None]:
    """The postmaster accepts nobody, while the kernel still takes connections for it."""
    pair.postmaster(signal.SIGSTOP)
    try:
        yield
    finally:
        pair.postmaster(signal.SIGCONT)


@contextmanager
def silent(pair: Pair) -> Iterator[None]:
    """The route leads to somebody who listens and never says a word."""
    with tempfile.TemporaryDirectory(prefix="rb-test-") as folder, socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(f"{folder}/.s.PGSQL.5432")
        nobody.listen(64)
        route = "update rollbook.server set admin_dsn = %s where name = 'south'"
        pair.site.portal.execute(route, [f"host={folder} port=5432 dbname=postgres user=postgres"])
        try:
            yield
        finally:
            pair.site.portal.execute(route, [pair.south.dsn()])


DEAD = pytest.mark.parametrize(
    "dead", [stopped, *(pytest.param(each, marks=pytest.mark.slow) for each in (frozen, silent))],
    ids=["stopped", "frozen", "silent"],
)  # fmt: skip


@DEAD
def test_unreachable_costs_its_timeout_knows_no_lag_and_leaves_the_others_alone(
    pair: Pair, dead: Callable[[Pair], Any]
) -> None:
    site = pair.site
    assert line(site)["lag_seconds"] is not None
    with dead(pair):
        for command in (("replication", "status"), ("status",)):
            answer = in_time(site, 0.6, *command)
            assert answer.code == 3, "nothing is known of a course"
            assert answer.out, answer
            south, west = answer.data if command[0] == "replication" else answer.data["courses"]
            assert (south["course"], south["state"], south["lag_seconds"]) == (KEEP, "unreachable", None)
            assert (south["oldest_pending_seconds"], south["error_count"]) == (None, None)
            assert south["reason"]
            assert south["observed_at"]
            assert (west["course"], west["state"]) == (REMOVE, "ok")
            assert west["lag_seconds"] < 1
        listed = in_time(site, 0.6, "server", "list")
        assert [(row["server"], row["state"], row["lag_seconds"], row["version"] is None) for row in listed.data] == [
            ("south", "unreachable", None, True), ("west", "ok", pytest.approx(0, abs=0.9), False),
        ]  # fmt: skip
        verified = in_time(site, 1, "replication", "verify")
        assert verified.code == 3
        assert [(row["course"], row["verdict"], row["missing"]) for row in verified.data] == [
            *[(KEEP, "unreachable", None)] * 3, *[(REMOVE, "match", 0)] * 3,
        ]  # fmt: skip
        assert remedy(site, f"{south['fix']} --timeout 0.6").code == 3
    site.ok("replication", "wait", "--timeout", "20")
    assert line(site)["state"] == "ok"  # nothing had to be done


def in_time(site: Site, seconds: float, *command: str) -> Result:
    """Run a command that may take twice its timeout, and three seconds for all else; without it, it would be five."""
    began = time.monotonic()
    answer = site.run(*command, "--timeout", str(seconds), "--json")
    assert time.monotonic() - began < 2 * seconds + 3, command
    return answer


def test_a_server_that_is_down_lags_in_the_bytes_that_its_slot_holds_now(pair: Pair) -> None:
    with stopped(pair):
        before = line(pair.site, KEEP, "--timeout", "1")["lag_bytes"]
        pair.site.portal.execute("update portal.auth_user set last_name = repeat('x', 150)")
        until(lambda: line(pair.site, KEEP, "--timeout", "1")["lag_bytes"] > before)
        assert line(pair.site, REMOVE)["state"] == "ok"
        until(lambda: line(pair.site, REMOVE)["lag_bytes"] < before)
    pair.site.ok("replication", "wait", "--timeout", "20")
    assert line(pair.site)["lag_bytes"] < before + 100_000


def test_each_command_says_which_server_gave_no_answer_and_answers_for_the_other(pair: Pair) -> None:
    site, patience = pair.site, ("--timeout", "0.5", "--json")
    with stopped(pair):
        waited = site.run("replication", "wait", *patience)
        assert (waited.code, [list(row.values()) for row in waited.data]) == (
            3, [[KEEP, None, False], [REMOVE, pytest.approx(0, abs=0.5), True]],
        )  # fmt: skip
        assert json.loads(waited.err.splitlines()[-1])["error"]["message"] == "server south cannot be reached"
        canary = site.run("replication", "canary", *patience)
        assert (canary.code, [(row["course"], row["server"], row["state"]) for row in canary.data]) == (
            3, [(KEEP, "south", "unreachable"), (REMOVE, "west", "ok")],
        )  # fmt: skip
        assert [row["seconds"] is None for row in canary.data] == [True, False]
        assert site.run("replication", "canary", REMOVE, *patience).code == 0
        conflicts = site.run("replication", "conflicts", *patience)
        assert (conflicts.code, conflicts.data) == (3, [])
        shown = site.run("replication", "show", KEEP, *patience)
        assert (shown.code, shown.data["state"], shown.data["subscription"], shown.data["tables"]) == (
            3, "unreachable", None, [],
        )  # fmt: skip
        for command in ("pause", "resume"):
            refused = site.run("replication", command, KEEP, *patience)
            assert (refused.code, refusal(refused)["code"]) == (3, "unknown")
        mended = site.run("replication", "repair", "--yes", *patience)
        assert (mended.code, mended.data) == (3, [])
        assert site.run("replication", "resync", KEEP, "--yes", *patience).code == 3


def unbounded(*given: Any, **options: Any) -> Session:
    """A session with a server that keeps to no statement_timeout."""
    conn = session(*given, **options)
    conn.settings = {**conn.settings, "statement_timeout": "0"}
    return conn


def test_an_answer_that_cannot_be_read_is_that_servers_alone(pair: Pair) -> None:
    site = pair.site
    with psycopg.connect(pair.south.dsn(), autocommit=True) as south:
        kept = south.execute("select sent_at, beat from rollbook.heartbeat order by beat desc limit 1").fetchone()
        assert kept is not None
        south.execute("update rollbook.heartbeat set sent_at = 'infinity' where beat = %s", [kept[1]])
        told = site.run("status", "--json")
        found = {row["course"]: row for row in told.data["courses"]}
        assert (told.code, found[KEEP]["state"], found[REMOVE]["state"]) == (3, "unreachable", "ok")
        assert found[KEEP]["reason"].startswith("its answer cannot be read: timestamp too")
        assert "on server south" in found[KEEP]["fix"]
        for command in (("replication", "lag"), ("server", "list"), ("check",)):
            answer = site.run(*command, "--json")
            assert answer.code in {3, 4}, (command, answer)
            assert REMOVE in answer.out or "west" in answer.out, (command, answer)
        south.execute("update rollbook.heartbeat set sent_at = %s where beat = %s", kept)


def test_a_server_that_keeps_to_no_timeout_is_hung_up_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    site, before = pair.site, threading.active_count()
    with psycopg.connect(pair.south.dsn()) as south:
        south.execute(f"lock table {KEEP_SCHEMA}.auth_user in access exclusive mode")
        monkeypatch.setattr(verify, "LOCK_SECONDS", 0.5)
        told = site.run("replication", "verify", "--json")
        words = {(row["course"], row["verdict"]) for row in told.data}
        assert (told.code, words) == (3, {(KEEP, "not_comparable"), (REMOVE, "match")})
        assert "lock" in told.err
        monkeypatch.setattr(verify, "LOCK_SECONDS", 0)  # as if that server knew no lock_timeout
        monkeypatch.setattr(verify, "SILENT_SECONDS", 1)
        told = site.run("replication", "verify", "--json")
        words = {(row["course"], row["verdict"]) for row in told.data}
        assert (told.code, words) == (3, {(KEEP, "not_comparable"), (REMOVE, "match")})
        south.execute("lock table rollbook.heartbeat in access exclusive mode")
        with monkeypatch.context() as patch:
            patch.setattr(link, "session", unbounded)
            assert line(site, KEEP, "--timeout", "0.5")["state"] == "unreachable"
        until(lambda: threading.active_count() <= before)


# As a role that may do anything there can write it: no timeout of PostgreSQL ends it.
STUBBORN = """
create function public.slow() returns boolean language plpgsql as $$
begin
    loop
        begin
            perform pg_sleep(1);
        exception when query_canceled then null;
        end;
    end loop;
end $$;
alter table rollbook.portal rename to portal_t;
create view rollbook.portal as select * from rollbook.portal_t where public.slow()
"""
DOCILE = "drop view rollbook.portal; alter table rollbook.portal_t rename to portal; drop function public.slow()"


@pytest.mark.slow
def test_what_a_server_is_asked_before_all_else_has_a_bound_and_leaves_it_to_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site, words = pair.site, {(KEEP, "unreachable"), (REMOVE, "match")}
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.4)
    with psycopg.connect(pair.south.dsn()) as south:
        south.execute("lock table rollbook.portal in access exclusive mode")
        told = site.run("replication", "verify", "--json")
        assert (told.code, {(row["course"], row["verdict"]) for row in told.data}) == (3, words)
        assert "server south: another session holds a lock" in told.err
    with psycopg.connect(pair.south.dsn(), autocommit=True) as south:
        south.execute(STUBBORN)
        try:
            for patience in ((), ("--timeout", "0.3")):
                told = site.run("replication", "verify", *patience, "--json")
                assert (told.code, {(row["course"], row["verdict"]) for row in told.data}) == (3, words)
                assert "server south cannot be reached: no answer within" in told.err
            assert "waiting for server south" in caplog.text
            for command in (("replication", "pause", "--server", "south"), ("replication", "resync", KEEP, "--yes")):
                refused = site.run(*command)
                assert (refused.code, "server south cannot be reached" in refused.err) == (3, True), refused
        finally:
            ended = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where query ~ 'p.identity'"
            south.execute(ended + " and pid <> pg_backend_pid()")
            south.execute(DOCILE)
    monkeypatch.undo()
    site.ok("replication", "pause", "--server", "south")  # nobody has kept it
    site.ok("replication", "resume", "--server", "south")


def test_more_servers_than_are_asked_at_once_are_asked_in_turn(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "AT_ONCE", 2)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        silent = f"host=127.0.0.1 port={nobody.getsockname()[1]} dbname=gone user=postgres"
        routes = {"a": silent, "b": cluster.server.dsn(), "c": silent, "d": cluster.server.dsn(), "e": silent}
        asked = [link.Server(name, route, None, "") for name, route in routes.items()]

        def question(server: link.Server, conn: Conn) -> list[dict[str, Any]]:
            return conn.execute("select %s::text as name", [server.name]).fetchall()

        found = link.ask(asked, question, Caller("rollbook test", 0.5))
    assert [found[name] for name in "bd"] == [[{"name": "b"}], [{"name": "d"}]]
    assert all(isinstance(found[name], UnreachableError) for name in "ace")
