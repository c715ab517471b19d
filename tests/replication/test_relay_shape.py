"""The shape changes for servers behind a relay while everybody writes; also tests what a relay sends on meanwhile."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.replication import forward, rollout, shape
from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.program import Result
from tests.replication.conftest import Db, database, drop_slots, drop_subscriptions, until
from tests.replication.many import attach_empty, course_ids, enroll_all, load, make_courses
from tests.replication.relays import Relayed, listed, schemas
from tests.school import database as portal_database

pytestmark = pytest.mark.slow  # three databases, and many commands

COURSES = 6
NAMES = course_ids(COURSES)
ONE = NAMES[0]  # on east
NEW = "alter table portal.auth_userprofile add column pronouns varchar(20) not null default ''"


@dataclass
class Pair(Relayed):
    """A relay with two servers behind it, east and west, and some courses on each; two are in the portal alone."""

    west: Db = field(kw_only=True)
    west_dsn: str = field(kw_only=True)

    @property
    def sides(self) -> dict[str, Db]:
        """All databases."""
        return {"portal": self.portal, "hub": self.hub, "east": self.server, "west": self.west}

    def schema(self, course: str) -> str:
        """The schema of a course."""
        found = self.portal.execute("select rollbook.course_schema(%s)::text", [course]).fetchone()
        assert found is not None
        return str(found[0])

    def values(self, column: str, table: str, course: str = ONE) -> dict[str, dict[int, Any]]:
        """What a column holds on each side where the course has a copy, by the key of the row."""
        query = sql.SQL("select id, {} from {}").format(
            sql.Identifier(column), sql.Identifier(self.schema(course), table)
        )
        found = {name: conn for name, conn in self.sides.items() if self.schema(course) in schemas(conn)}
        return {name: dict(conn.execute(query).fetchall()) for name, conn in found.items()}

    def has(self, column: str, table: str = "auth_userprofile") -> set[tuple[str, str]]:
        """In which copies, on which side, a column is."""
        query = (
            "select n.nspname from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid and c.relname = %s "
            "inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname like 'course\\_%%' "
            "where a.attname = %s and not a.attisdropped"
        )
        return {(side, name) for side, conn in self.sides.items() for (name,) in conn.execute(query, [table, column])}

    def done(self, *arguments: str) -> dict[str, Any]:
        """Run a command of `shape`; return its row."""
        return dict(self.ok("shape", *arguments, "--json").row)

    def sound(self) -> None:
        """Assert that nothing is wrong anywhere, nothing under way, and that the relay sends what the portal sends."""
        until(lambda: set(self.states().values()) == {"ok"})
        self.ok("replication", "verify", "--timeout", "30")
        found = [row for row in self.run("schema", "check", "--json").data if row["kind"] != "sequence"]
        assert found == []
        assert self.portal.execute("select course_id from rollbook.course where due <> '{}'").fetchall() == []
        lists = "select schemaname, tablename, attnames from pg_publication_tables where pubname = any (%s)"
        sent, through = (
            {(schema, table): set(names) for schema, table, names in conn.execute(lists, [streams])}
            for conn, streams in ((self.portal, ["rollbook_hub"]), (self.hub, ["rollbook_east", "rollbook_west"]))
        )
        assert sent == through


class Kept:
    """The pair that the tests of this file share."""

    def __init__(self, cluster: Cluster, template: str, server: PrivateServer) -> None:
        self.cluster, self.template, self.server = cluster, template, server
        self.stack = ExitStack()
        self.now: Pair | None = None

    def pair(self, call: Callable[..., Result]) -> Pair:
        """The shared pair; a new one if the test before has left it unwell."""
        if self.now is not None:
            self.now.call = call
            if not self.is_well(self.now):
                self.close()
        self.now = self.now or self.made(call)
        return self.now

    def made(self, call: Callable[..., Result]) -> Pair:
        """A new one."""
        enter = self.stack.enter_context
        where = enter(portal_database(self.cluster, f"p_{uuid.uuid4().hex[:10]}", self.template))
        dsns = [where, *(enter(database(self.server)) for _ in range(3))]
        portal, hub, east, west = (enter(psycopg.connect(dsn, autocommit=True)) for dsn in dsns)
        for conn in (portal, hub):
            self.stack.callback(drop_slots, conn)
        for conn in (hub, east, west):
            self.stack.callback(drop_subscriptions, conn)
        pair = Pair(portal, where, east, dsns[2], call, hub=hub, hub_dsn=dsns[1], west=west, west_dsn=dsns[3])
        make_courses(portal, COURSES, 8 * COURSES)
        portal.execute("alter table portal.student_courseenrollment add is_active boolean not null default true")
        portal.execute(NEW)
        portal.execute("update portal.auth_userprofile set pronouns = 'she' where user_id % 3 = 0")
        pair.add_hub()
        pair.add()
        pair.ok("server", "add", "west", "--through", "hub", "--admin-dsn", pair.west_dsn,
                "--subscription-dsn", pair.hub_dsn)  # fmt: skip
        attach_empty(where, "east", NAMES[:2])
        attach_empty(where, "west", NAMES[2:4])
        enroll_all(portal, COURSES)
        pair.sound()
        return pair

    @staticmethod
    def is_well(pair: Pair) -> bool:
        """Say whether the last test left all well."""
        try:
            pair.sound()
        except (AssertionError, psycopg.Error):
            return False
        partial = pair.portal.execute("select course_id from rollbook.course where without <> '{}'").fetchall()
        return (pair.has("pronouns") | pair.has("pronoun"), partial) == (set(), [])

    def close(self) -> None:
        """Take it away."""
        self.now = None
        self.stack.close()


@pytest.fixture(scope="module")
def kept(cluster: Cluster, template: Any, course_server: PrivateServer) -> Iterator[Kept]:
    """What `pair` hands to each test."""
    held = Kept(cluster, template.template_dbname, course_server)
    yield held
    held.close()


@pytest.fixture
def pair(kept: Kept, call: Callable[..., Result]) -> Pair:
    """A relay with two servers behind it, all well, whose profiles have pronouns that do not travel."""
    found = kept.pair(call)
    found.portal.execute(
        "update portal.auth_userprofile set pronouns = case when user_id % 3 = 0 then 'she' else '' end"
    )
    return found


def test_a_column_joins_gets_a_name_and_a_type_and_leaves_under_load(pair: Pair) -> None:
    profile = ("auth_userprofile", "pronouns")
    planned = pair.done("column", "add", *profile, "-n")
    assert (planned["courses"], pair.has("pronouns")) == (COURSES, set())
    with load(pair.portal_dsn) as writers:
        row = pair.done("column", "add", *profile)
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES)
    pair.sound()
    assert len(pair.has("pronouns")) == COURSES + 4 + 4
    assert set(pair.values("pronouns", "auth_userprofile")["east"].values()) == {"she", ""}
    assert pair.done("column", "add", *profile)["outcome"] == "unchanged"

    with load(pair.portal_dsn) as writers:
        row = pair.done("column", "rename", *profile, "pronoun")
    assert (writers.broken, row["outcome"], pair.has("pronouns")) == ([], "updated", set())
    pair.sound()
    found = pair.values("pronoun", "auth_userprofile")
    assert found["hub"] == found["east"] == found["portal"]

    with load(pair.portal_dsn) as writers:
        row = pair.done("column", "widen", "auth_userprofile", "pronoun", "varchar(300)")
        pair.portal.execute("update portal.auth_userprofile set pronoun = repeat('x', 250) where user_id % 2 = 0")
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES)
    pair.sound()
    assert pair.done("column", "widen", "auth_userprofile", "pronoun", "varchar(300)")["outcome"] == "unchanged"

    with load(pair.portal_dsn) as writers:
        row = pair.done("column", "drop", "auth_userprofile", "pronoun", "--yes")
    assert (writers.broken, row["outcome"], row["courses"], pair.has("pronoun")) == ([], "updated", COURSES, set())
    pair.portal.execute("alter table portal.auth_userprofile rename pronoun to pronouns")
    pair.sound()


def test_a_column_stays_at_home_and_travels_again_under_load(pair: Pair) -> None:
    own = sql.SQL("update {} set last_login = '2001-01-01'").format(sql.Identifier(pair.schema(ONE), "auth_user"))
    known = sql.SQL(
        "select concat(most_common_vals, histogram_bounds) from pg_stats "
        "where schemaname = {} and attname = 'last_login'"
    ).format(pair.schema(ONE))
    pair.portal.execute("update portal.auth_user set last_login = now() - id * interval '1 hour'")
    pair.wait()
    pair.hub.execute("analyze")
    assert [found for (found,) in pair.hub.execute(known) if found]
    with load(pair.portal_dsn) as writers:
        pair.ok("course", "update", ONE, "--without", "last_login,goals")
        pair.server.execute(own)
    assert writers.broken == []
    pair.sound()
    pair.portal.execute("update portal.auth_user set last_login = now(), last_name = 'New'")
    pair.portal.execute("update portal.auth_userprofile set goals = 'none of yours'")
    pair.sound()
    assert {str(value)[:10] for value in pair.values("last_login", "auth_user")["east"].values()} == {"2001-01-01"}
    assert set(pair.values("last_login", "auth_user")["hub"].values()) == {None}  # all of the zone could read it
    assert [found for (found,) in pair.hub.execute(known) if found] == []  # nor in what the planner knows of it
    assert "none of yours" not in pair.values("goals", "auth_userprofile")["east"].values()
    with load(pair.portal_dsn) as writers:
        pair.ok("course", "update", ONE, "--without", "goals")
    assert writers.broken == []
    pair.sound()
    found = pair.values("last_login", "auth_user")
    assert found["hub"] == found["east"] == found["portal"]
    # What the portal's copy holds already is not sent again when goals travel: the emptied relay is repaired.
    pair.portal.execute(sql.SQL(
        "update portal.auth_userprofile as p set goals = c.goals from {} as c where c.id = p.id"
    ).format(sql.Identifier(pair.schema(ONE), "auth_userprofile")))  # fmt: skip
    pair.ok("course", "pause", ONE)
    pair.ok("course", "update", ONE, "--without", "last_name")
    pair.portal.execute("update portal.auth_user set last_name = 'Newest', first_name = 'Newer'")
    pair.ok("course", "resume", ONE)
    pair.sound()
    assert "Newest" not in pair.values("last_name", "auth_user")["east"].values()
    assert set(pair.values("first_name", "auth_user")["east"].values()) == {"Newer"}
    pair.ok("course", "update", ONE, "--without", "")
    pair.sound()
    assert set(pair.values("last_name", "auth_user")["east"].values()) == {"Newest"}


STEPS = ["run_locked", "on_portal", "settle", "drop_columns"]  # each place that writes was killed too, once


@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_killed_runs_it_again(pair: Pair, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*given: Any, **options: Any) -> Any:
        if next(calls) == (5 if step == "run_locked" else 1):
            raise KeyboardInterrupt
        return original(*given, **options)

    module = next(module for module in (rollout, forward) if hasattr(module, step))
    original = getattr(module, step)
    with load(pair.portal_dsn, clients=1) as writers:
        for words in (
            ("column", "add", "auth_userprofile", "pronouns"),
            ("column", "rename", "auth_userprofile", "pronouns", "pronoun"),
            ("column", "drop", "auth_userprofile", "pronoun", "--yes"),
        ):
            calls = itertools.count()
            with monkeypatch.context() as patch:
                patch.setattr(module, step, killed)
                pair.run("shape", *words)
            until(lambda: "stopped" not in pair.states().values())  # the stream goes on, whatever was done
            pair.done(*words)
            if words[1] == "rename":
                assert pair.has("pronouns") == set()
                found = pair.values("pronoun", "auth_userprofile")
                assert set(found["east"].values()) == {"she", ""}
    assert writers.broken == []
    assert pair.has("pronouns") | pair.has("pronoun") == set()
    pair.portal.execute("alter table portal.auth_userprofile rename pronoun to pronouns")
    pair.sound()


@pytest.mark.parametrize("step", ["update_course", "forward_as_sent", "finish"])
def test_an_update_that_was_killed_is_run_again(pair: Pair, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with load(pair.portal_dsn, clients=1) as writers:
        for without in ("last_login,first_name", ""):
            with monkeypatch.context() as patch:
                patch.setattr(shape, step, killed)
                pair.run("course", "update", ONE, "--without", without)
            until(lambda: "stopped" not in pair.states().values())
            pair.ok("course", "update", ONE, "--without", without)
    assert writers.broken == []
    pair.sound()
    found = pair.values("first_name", "auth_user")
    assert found["hub"] == found["east"] == found["portal"]


def test_the_condition_and_a_whole_file_change_under_load(pair: Pair, tmp_path: Path) -> None:
    with load(pair.portal_dsn) as writers:
        row = pair.done("where", "is_active")
        pair.portal.execute("update portal.student_courseenrollment set is_active = user_id % 3 <> 0")
    assert (writers.broken, row["outcome"], row["courses"]) == ([], "updated", COURSES)
    pair.sound()
    file = tmp_path / "shape.toml"
    before = pair.ok("shape", "show", "--toml").out
    text = before.replace('"goals"', '"pronouns"').replace('condition = "is_active"\n', "")
    file.write_text(text + f'\n[without]\n"{ONE}" = ["last_login"]\n')
    with load(pair.portal_dsn) as writers:
        done = pair.ok("shape", "apply", str(file), "--yes", "--json")
    assert (writers.broken, {row["outcome"] for row in done.data}) == ([], {"updated"})
    pair.sound()
    assert pair.has("goals") == set()
    file.write_text(before.replace('condition = "is_active"\n', ""))
    pair.ok("shape", "apply", str(file), "--yes")
    pair.ok("course", "update", ONE, "--without", "")  # of which the file says nothing
    pair.sound()
    found = pair.values("goals", "auth_userprofile")
    assert found["hub"] == found["east"] == found["portal"]


def test_a_table_that_was_dropped_is_made_again(pair: Pair) -> None:
    drop = sql.SQL("drop table {}").format(sql.Identifier(pair.schema(ONE), "auth_userprofile"))
    for side in ("hub", "east"):
        with load(pair.portal_dsn, clients=1) as writers:
            pair.sides[side].execute(drop)
            pair.ok("replication", "resync", ONE, "--yes")
        assert writers.broken == []
        pair.sound()
    pair.portal.execute(drop)
    pair.ok("replication", "repair", ONE, "--yes")
    pair.sound()
    pair.portal.execute("update portal.auth_userprofile set goals = 'Again'")
    pair.sound()
    assert set(pair.values("goals", "auth_userprofile")["east"].values()) == {"Again"}
    assert len(listed(pair.hub, "rollbook_east")) == len(listed(pair.hub, "rollbook_west")) == 7


def test_a_relay_that_is_down_or_sends_too_little_on_is_caught_up_with(pair: Pair) -> None:
    add = ("shape", "column", "add", "auth_userprofile", "pronouns", "--json")
    moving = "update rollbook.server set moving_through = %s, moving_direct = %s where name = 'east'"
    pair.portal.execute(moving, ["hub", True])
    failed = pair.run(*add)
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 4, 1)
    assert "rollbook server move east --direct" in " ".join(failed.err.split())
    pair.portal.execute(moving, [None, False])
    down = "update rollbook.server set admin_dsn = %s where name = 'hub'"
    pair.portal.execute(down, [pair.hub_dsn.replace("port=5432", "port=5431")])
    failed = pair.run(*add)
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 0, 1)
    assert "server east is unreachable through hub" in " ".join(failed.err.split())
    pair.portal.execute(down, [pair.hub_dsn])
    assert pair.ok(*add).row["courses"] == 2
    pair.sound()

    table = sql.Identifier(pair.schema(ONE), "auth_userprofile")
    pair.hub.execute(sql.SQL("alter publication rollbook_east drop table {}").format(table))
    pair.hub.execute(sql.SQL("alter publication rollbook_east add table {} (id, user_id, name)").format(table))
    pair.portal.execute("update portal.auth_userprofile set pronouns = 'they'")
    pair.wait()
    assert pair.run("replication", "verify", ONE).code == 4
    refused = pair.run("replication", "repair", ONE, "--yes")
    assert (refused.code, f"rollbook replication resync '{ONE}'" in refused.err) == (4, True)
    pair.ok("replication", "resync", ONE, "--yes")
    pair.portal.execute("update portal.auth_userprofile set goals = 'Repaired'")
    pair.sound()
    found = pair.values("pronouns", "auth_userprofile")
    assert set(found["east"].values()) == {"they"}
    pair.done("column", "drop", "auth_userprofile", "pronouns", "--yes")
    pair.sound()
