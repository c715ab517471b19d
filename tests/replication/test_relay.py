"""A server behind a relay: added, given courses, and freed of them; also tests publish, published_copies, slots_of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db
from tests.replication.relays import Relayed, listed, relayed, schemas
from tests.replication.scenes import enroll


@pytest.fixture
def site(school: Db, dsn: str, course_server: PrivateServer, call: Callable[..., Result]) -> Iterator[Relayed]:
    """A portal and empty databases for a relay and a server; nothing is added yet."""
    with relayed(school, dsn, course_server, call) as made:
        yield made


def test_a_course_goes_through_the_relay_and_leaves_it_with_the_last_server_behind_it(site: Relayed) -> None:
    site.add_hub()
    added = site.add()
    assert added.code == 0
    assert [(row["server"], row["through"], row["courses"]) for row in site.run("server", "list", "--json").data] == [
        ("east", "hub", 0), ("hub", None, 0)
    ]  # fmt: skip
    site.attach(KEEP, REMOVE)
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    assert listed(site.hub, "rollbook_east") == listed(site.portal, "rollbook_hub")
    assert len(listed(site.hub, "rollbook_east")) == 7
    assert site.portal.execute(
        "select slot_name from pg_replication_slots where database = current_database()"
    ).fetchall() == [("rollbook_hub",)]
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.run("replication", "verify").code == 0
    site.ok("course", "detach", KEEP, "--yes")
    assert KEEP_SCHEMA not in schemas(site.server) + schemas(site.hub)
    assert len(listed(site.hub, "rollbook_east")) == len(listed(site.portal, "rollbook_hub")) == 4
    site.ok("course", "detach", REMOVE, "--yes")
    site.ok("server", "remove", "east", "--yes")
    site.ok("server", "remove", "hub", "--yes")
    assert schemas(site.server) + schemas(site.hub) == []
