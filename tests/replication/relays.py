"""A relay between a portal and course servers: what its tests start from."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.program import KEEP, REMOVE, Result
from tests.replication.conftest import Db, Site, Standing, database, drop_slots, drop_subscriptions, new_ids
from tests.school import database as portal_database
from tests.school import populate

TABLES = ("auth_user", "auth_userprofile", "student_courseenrollment")


@dataclass
class Relayed(Site):
    """A site whose server `east` is behind the relay `hub`; `server` is east."""

    hub: Db = field(kw_only=True)
    hub_dsn: str = field(kw_only=True)

    def at(self, name: str) -> Db:
        """The session with a server, or the relay."""
        return {"hub": self.hub, self.name: self.server}[name]

    def source(self, name: str) -> Db:
        """The session with what feeds a server, or the relay."""
        return {"hub": self.portal, self.name: self.hub}[name]

    def add_hub(self) -> Result:
        """Add the server that is to be the relay."""
        return self.ok("server", "add", "hub", "--admin-dsn", self.hub_dsn, "--subscription-dsn", self.portal_dsn)

    def add(self) -> Result:
        """Add the course server behind it."""
        return self.ok(
            "server", "add", self.name, "--through", "hub", "--admin-dsn", self.server_dsn,
            "--subscription-dsn", self.hub_dsn,
        )  # fmt: skip

    def is_equal(self, course: str = KEEP) -> bool:
        """Say whether relay and server hold exactly what the portal's copy holds."""
        return super().is_equal(course) and all(
            self.copy(course, table, on=self.hub) == self.copy(course, table, on=self.portal) for table in TABLES
        )


@contextmanager
def relayed(portal: Db, portal_dsn: str, server: PrivateServer, call: Callable[..., Result]) -> Iterator[Relayed]:
    """Yield a portal with two empty databases on another server, for a relay and for what is behind it."""
    with ExitStack() as stack:
        hub_dsn, east_dsn = (stack.enter_context(database(server)) for _ in range(2))
        hub, east = (stack.enter_context(psycopg.connect(dsn, autocommit=True)) for dsn in (hub_dsn, east_dsn))
        for conn in (portal, hub):
            stack.callback(drop_slots, conn)
        for conn in (hub, east):
            stack.callback(drop_subscriptions, conn)
        made = Relayed(portal, portal_dsn, east, east_dsn, call, hub=hub, hub_dsn=hub_dsn)
        new_ids(made)
        yield made


def schemas(conn: Db) -> list[str]:
    """The course schemas in a database."""
    query = "select nspname from pg_namespace where starts_with(nspname, 'course_') order by 1"
    return [row[0] for row in conn.execute(query)]


def listed(conn: Db, stream: str) -> list[str]:
    """The tables that a publication lists, with their schemas."""
    query = "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s order by 1"
    return [row[0] for row in conn.execute(sql.SQL(query), [stream])]


class RelayedStanding(Standing):
    """What `Standing` is, with a relay between the portal and the server."""

    def made(self, call: Callable[..., Result]) -> Relayed:
        """A new one."""
        name = f"p_{uuid.uuid4().hex[:10]}"
        where = self.stack.enter_context(portal_database(self.cluster, name, self.template))
        portal = self.stack.enter_context(psycopg.connect(where, autocommit=True))
        populate(portal)
        site = self.stack.enter_context(relayed(portal, where, self.server, call))
        for side in (site.portal, site.hub, site.server):
            side.execute("set statement_timeout = '20s'")  # whatever a test locks itself out of
        site.add_hub()
        site.add()
        site.attach(KEEP, REMOVE)
        return site

    @staticmethod
    def is_healthy(site: Site) -> bool:
        """Say whether the last test left all well, on the relay too."""
        assert isinstance(site, Relayed)
        streams = "select count(*) from pg_subscription where subenabled and subslotname = 'rollbook_hub'"
        try:
            return site.hub.execute(streams).fetchone() == (1,) and Standing.is_healthy(site)
        except psycopg.Error:
            return False


@pytest.fixture(scope="module")
def relay_standing(cluster: Cluster, template: Any, course_server: PrivateServer) -> Iterator[RelayedStanding]:
    """What `behind` hands to each test of a file."""
    held = RelayedStanding(cluster, template.template_dbname, course_server)
    yield held
    held.close()


@pytest.fixture
def behind(relay_standing: RelayedStanding, call: Callable[..., Result]) -> Relayed:
    """A site with both courses on a server behind a relay, and equal, which the tests of one file share."""
    site = relay_standing.site(call)
    assert isinstance(site, Relayed)
    return site
