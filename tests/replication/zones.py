"""Two relays, servers behind them and one beside: where the tests of courses behind relays start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST
from tests.program import KEEP, Result
from tests.replication.conftest import (
    QUICK,
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    new_ids,
    private_server,
)  # fmt: skip
from tests.replication.relays import TABLES, schemas

BEHIND = {"hub": None, "hub2": None, "east": "hub", "west": "hub", "south": "hub2", "north": None}
ROOM = {
    "max_logical_replication_workers": "24", "max_worker_processes": "40", "max_replication_slots": "40",
    "max_wal_senders": "40", "wal_level": "logical",
}  # fmt: skip
LEFT = """
select 'slot ' || slot_name from pg_replication_slots where database = current_database()
union all
select 'publication ' || pubname from pg_publication
union all
select 'subscription ' || subname from pg_subscription as s
inner join pg_database as d on d.oid = s.subdbid and d.datname = current_database()
union all
select 'schema ' || nspname from pg_namespace where nspname = 'rollbook' or starts_with(nspname, 'course_')
order by 1
"""


@dataclass
class Zones(Site):
    """Relays hub (east and west behind it) and hub2 (south), north beside them; `server` is east."""

    sides: dict[str, Db] = field(kw_only=True)
    routes: dict[str, str] = field(kw_only=True)

    def add_server(self, name: str, *options: str) -> Result:
        """Add a server where BEHIND has it."""
        relay = BEHIND[name]
        through = ["--through", relay] if relay else []
        return self.run(
            "server", "add", name, *through, "--admin-dsn", self.routes[name], "--subscription-dsn",
            self.routes[relay] if relay else self.portal_dsn, *options,
        )  # fmt: skip

    def add_all(self, *names: str) -> None:
        """Add these servers; relays come first."""
        for name in names:
            added = self.add_server(name)
            assert added.code == 0, added

    def move(self, to: str, *options: str, course: str = KEEP) -> Result:
        """Move a course."""
        return self.run("course", "move", course, "--to", to, "--yes", "--json", *options)

    def placed(self, course: str = KEEP) -> tuple[Any, ...] | None:
        """Where the portal records a course: server, moving_to, leaving, state."""
        return self.portal.execute(
            "select server, moving_to, leaving, state from rollbook.course where course_id = %s", [course]
        ).fetchone()

    def holders(self, schema: str) -> set[str]:
        """The servers and relays that have the schema of a course."""
        return {name for name, side in self.sides.items() if schema in schemas(side)}

    def is_on(self, name: str, course: str = KEEP) -> bool:
        """Say whether a server, and the relay before it, hold exactly what the portal's copy holds."""
        return all(
            self.copy(course, table, on=self.sides[side]) == self.copy(course, table, on=self.portal)
            for side in filter(None, (name, BEHIND[name]))
            for table in TABLES
        )

    def follows(self, name: str, course: str = KEEP) -> None:
        """See that the next changes of all kinds arrive on a server."""
        self.portal.execute("update portal.auth_user set email = email || 'x' where username = 'ada'")
        self.wait()
        assert self.is_on(name, course)
        self.ok("replication", "verify")

    def left(self) -> dict[str, list[str]]:
        """What Rollbook has made on each side: slots, publications, subscriptions, schemas; and its records."""
        found = {name: [row[0] for row in side.execute(LEFT.encode())] for name, side in self.sides.items()}
        found["portal"] = [row[0] for row in self.portal.execute(LEFT.encode())]
        found["records"] = [str(row) for row in self.portal.execute(
            "select name, through::text from rollbook.server union all "
            "select course_id, concat_ws(' ', server, moving_to, leaving, state) from rollbook.course order by 1"
        )]  # fmt: skip
        return found

    def lose(self, *names: str) -> None:
        """Let no command reach these servers any more."""
        for name in names:
            route = f"host=/nowhere dbname={name}"
            self.portal.execute("update rollbook.server set admin_dsn = %s where name = %s", [route, name])

    def find(self, *names: str) -> None:
        """Let commands reach them again."""
        for name in names:
            self.portal.execute("update rollbook.server set admin_dsn = %s where name = %s", [self.routes[name], name])


@contextmanager
def zones(portal: Db, portal_dsn: str, server: PrivateServer, call: Callable[..., Result]) -> Iterator[Zones]:
    """Yield a portal, and an empty database for each server; nothing is added yet."""
    with ExitStack() as stack:
        routes = {name: stack.enter_context(database(server)) for name in BEHIND}
        sides = {name: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for name, dsn in routes.items()}
        for conn in (portal, sides["hub"], sides["hub2"]):
            stack.callback(drop_slots, conn)
        for conn in sides.values():
            stack.callback(drop_subscriptions, conn)
        made = Zones(portal, portal_dsn, sides["east"], routes["east"], call, sides=sides, routes=routes)
        new_ids(made)
        yield made


def comment(conn: Db, schema: str) -> str | None:
    """The comment on a schema."""
    found = conn.execute(sql.SQL("select obj_description(to_regnamespace(%s), 'pg_namespace')"), [schema]).fetchone()
    return found[0] if found else None


@pytest.fixture(scope="module")
def room() -> Iterator[PrivateServer]:
    """A PostgreSQL server with room for many databases that receive and feed."""
    with private_server({**FAST, **QUICK, **ROOM}) as server:
        yield server


@pytest.fixture
def site(school: Db, dsn: str, room: PrivateServer, call: Callable[..., Result]) -> Iterator[Zones]:
    """Two relays, hub and hub2, and the servers behind them and beside; no course is anywhere."""
    with zones(school, dsn, room, call) as made:
        yield made
