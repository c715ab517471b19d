"""Servers that move behind a relay and back while people write: nothing is copied twice, lost or applied twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, Site, until
from tests.replication.relays import Relayed, listed, relayed, schemas
from tests.replication.scenes import count_arrivals, enroll

SLOTS = "select slot_name from pg_replication_slots where database = current_database() order by 1"
PUBLICATIONS = "select pubname from pg_publication order by 1"


@pytest.fixture
def site(school: Db, dsn: str, course_server: PrivateServer, call: Callable[..., Result]) -> Iterator[Relayed]:
    """A portal with two servers: hub has no courses, and east two."""
    with relayed(school, dsn, course_server, call) as made:
        made.add_hub()
        Site.add(made)
        made.attach(KEEP, REMOVE)
        yield made


def to_hub(site: Relayed, *more: str) -> Result:
    """Move the server behind the relay."""
    return site.run("server", "move", "east", "--through", "hub", "--subscription-dsn", site.hub_dsn, "--yes", *more)


def to_portal(site: Relayed, *more: str) -> Result:
    """Move it back."""
    return site.run("server", "move", "east", "--direct", "--subscription-dsn", site.portal_dsn, "--yes", *more)


def names(conn: Db, query: str) -> list[str]:
    """The names that a query returns."""
    return [row[0] for row in conn.execute(query.encode())]


def arrived(site: Site) -> list[tuple[str, int]]:
    """How many rows of users the course on the server was brought, by operation."""
    query = f"select operation, count(*) from {KEEP_SCHEMA}.arrival group by 1 order by 1"
    return site.server.execute(query.encode()).fetchall()


def test_a_server_moves_behind_a_relay_and_back_without_a_second_copy(site: Relayed) -> None:
    site.wait()
    count_arrivals(site)
    wrong = site.run("server", "move", "east", "--through", "hub", "--yes")
    assert (wrong.code, "does not lead to server hub" in wrong.err) == (1, True)
    moved = to_hub(site, "--json")
    assert moved.code == 0, moved
    assert [(row["course"], row["through"], row["outcome"], row["verdict"]) for row in moved.data] == [
        (KEEP, "hub", "moved", "match"), (REMOVE, "hub", "moved", "match")
    ]  # fmt: skip
    assert names(site.portal, SLOTS) == ["rollbook_hub"]
    assert names(site.hub, SLOTS) == ["rollbook_east"]
    assert names(site.portal, PUBLICATIONS) == ["rollbook_hub"]
    assert listed(site.hub, "rollbook_east") == listed(site.portal, "rollbook_hub")
    assert arrived(site) == []
    enroll(site, 3)
    site.portal.execute("update portal.auth_user set first_name = 'Ada' where username = 'ada'")
    site.wait()
    assert arrived(site) == [("INSERT", 3), ("UPDATE", 1)]
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    back = to_portal(site, "--json")
    assert back.code == 0, back.err
    assert {row["verdict"] for row in back.data} == {"match"}
    assert names(site.portal, SLOTS) == ["rollbook_east", "rollbook_hub"]
    assert names(site.hub, SLOTS) + names(site.hub, PUBLICATIONS) + schemas(site.hub) == []
    assert len(listed(site.portal, "rollbook_hub")) == 1
    enroll(site, 2)
    site.wait()
    assert arrived(site) == [("INSERT", 5), ("UPDATE", 1)]
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.run("server", "move", "east", "--direct", "--yes", "--json").row["outcome"] == "unchanged"


def test_what_cannot_move_is_refused(site: Relayed) -> None:
    for command, words in (
        (("east", "--through", "east"), "cannot be its own relay"),
        (("hub", "--through", "east"), "has courses of its own"),
        (("east",), "where the server is to move is not clear"),
        (("nowhere", "--direct"), "there is no server nowhere"),
    ):
        refused = site.run("server", "move", *command, "--yes")
        assert refused.code in (1, 2), refused
        assert words in refused.err
    site.ok("replication", "pause", "--server", "hub")
    refused = to_hub(site)
    assert (refused.code, "server hub is paused" in refused.err) == (1, True)
    site.ok("replication", "resume", "--server", "hub")
    site.hub.execute("select pg_create_logical_replication_slot('rollbook_east', 'pgoutput')")
    refused = to_hub(site)
    assert (refused.code, "server hub has a slot rollbook_east that is not Rollbook's" in refused.err) == (1, True)
    site.hub.execute("select pg_drop_replication_slot('rollbook_east')")
    planned = to_hub(site, "--dry-run", "--format", "table")
    assert planned.code == 0, planned
    assert "pg_create_logical_replication_slot('rollbook_east'" in planned.out
    assert names(site.hub, SLOTS) + schemas(site.hub) == []
    assert to_hub(site).code == 0
    refused = site.run("server", "move", "hub", "--through", "east", "--yes")
    assert (refused.code, "is itself the relay of east" in refused.err) == (1, True)
    assert refused.err.endswith("fix:   rollbook server move east --direct; then the same command again\n")
    unnamed = " ".join(site.run("server", "move", "east", "--direct", "--yes").err.split())  # as it is printed
    assert "the subscription route of server east does not lead to the portal" in unnamed
    assert "add --subscription-dsn with the route by which server east reaches the portal" in unnamed


def test_a_lost_relay_is_left_and_what_it_holds_is_removed_with_it(site: Relayed) -> None:
    assert to_hub(site).code == 0
    for conn in (site.hub, site.server):  # as another portal left them
        conn.execute("update rollbook.portal set identity = '1/1'")
    site.portal.execute("update rollbook.server set portal_identity = '1/1'")
    late = site.run("server", "add", "east", "--take-over")
    assert (late.code, "rollbook server add hub --take-over" in late.err) == (1, True)
    site.ok("server", "add", "hub", "--take-over")
    site.ok("server", "add", "east", "--take-over")
    site.wait()
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}

    site.portal.execute("update rollbook.server set admin_dsn = 'host=/nowhere dbname=hub' where name = 'hub'")
    silent = to_portal(site)
    assert (silent.code, "rollbook server move east --direct --unreachable" in silent.err) == (3, True)
    left = to_portal(site, "--unreachable", "--json")
    assert (left.code, {row["verdict"] for row in left.data}) == (4, {"unknown"}), left
    assert site.states() == {KEEP: "unknown", REMOVE: "unknown"}
    site.ok("replication", "resync", KEEP, REMOVE, "--yes")
    site.portal.execute("update rollbook.server set admin_dsn = %s where name = 'hub'", [site.hub_dsn])
    assert (names(site.hub, SLOTS), names(site.hub, PUBLICATIONS)) == (["rollbook_east"], ["rollbook_east"])
    with closing(psycopg.connect(site.hub_dsn, autocommit=True, replication="database")) as reader:  # of somebody
        begin = (
            "START_REPLICATION SLOT rollbook_east LOGICAL 0/0 (proto_version '1', publication_names 'rollbook_east')"
        )
        answer = reader.pgconn.exec_(begin.encode())
        assert answer.status == psycopg.pq.ExecStatus.COPY_BOTH, answer.error_message
        kept = site.run("server", "remove", "hub", "--yes", "--dry-run", "--json")
        assert (kept.code, "slot and publication rollbook_east" in kept.out) == (5, True), kept
    until(lambda: site.hub.execute("select 1 from pg_replication_slots where active").fetchall() == [])
    removed = site.run("server", "remove", "hub", "--yes", "--json")
    assert (removed.code, {row["outcome"] for row in removed.data}) == (0, {"removed"}), removed
    freed = [row["what"] for row in removed.data if "behind it" in row["what"]]
    assert [word.split(" of a ")[0] for word in freed[:2]] == ["slot rollbook_east", "publication rollbook_east"]
    assert names(site.hub, SLOTS) + names(site.hub, PUBLICATIONS) + schemas(site.hub) == []
    assert names(site.portal, SLOTS) == ["rollbook_east"]
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.run("replication", "verify").code == 0
