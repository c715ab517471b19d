"""`course move`: from one server to another while people write; what the course added is never lost unsaid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.conftest import Cluster
from tests.databases import Databases
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, Site, database, drop_subscriptions, new_ids, settled, until
from tests.replication.scenes import POISON, allow_poison, another_user, refuse_poison
from tests.replication.test_first_copy import writers
from tests.replication.test_interrupted import CATALOG, COPY, NOTE, READER, VERDICT, Step, kill_at

pytestmark = pytest.mark.slow  # servers or sites of its own


@dataclass
class Two(Site):
    """A site with a second course server, west, beside east."""

    west: Db = field(kw_only=True)
    west_dsn: str = field(kw_only=True)

    def move(self, *options: str, to: str = "west") -> Result:
        """Move the course KEEP."""
        return self.run("course", "move", KEEP, "--to", to, "--yes", "--json", *options)

    def placed(self, course: str = KEEP) -> tuple[Any, ...] | None:
        """Where the portal records a course: server, moving_to, leaving, state."""
        return self.portal.execute(
            "select server, moving_to, leaving, state from rollbook.course where course_id = %s", [course]
        ).fetchone()

    def line(self, course: str = KEEP) -> dict[str, Any]:
        """The course's line of status."""
        found = self.run("status", course, "--json").data
        return dict(found["courses"][0])

    def is_on(self, side: Db, course: str = KEEP) -> bool:
        """Say whether one server holds exactly what the portal's copy holds."""
        return all(
            self.copy(course, table, on=side) == self.copy(course, table, on=self.portal)
            for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
        )

    def has_schema(self, side: Db, schema: str = KEEP_SCHEMA) -> bool:
        """Say whether a server has the schema of a course."""
        return side.execute("select to_regnamespace(%s) is not null", [schema]).fetchone() == (True,)

    def follows(self, side: Db, course: str = KEEP) -> None:
        """See that the next changes of all kinds arrive on a server."""
        self.portal.execute("update portal.auth_user set email = email || 'x' where username = 'ada'")
        self.wait()
        assert self.is_on(side, course)
        self.ok("replication", "verify")


@pytest.fixture
def two(site: Site, course_server: PrivateServer, course_databases: Databases) -> Iterator[Two]:
    """Two course servers, with both courses of `populate` on east."""
    with ExitStack() as stack:
        west = stack.enter_context(course_databases.lent())
        where = course_server.dsn(west.info.dbname)
        stack.callback(drop_subscriptions, west)
        found = Two(site.portal, site.portal_dsn, site.server, site.server_dsn, site.call, west=west, west_dsn=where)
        found.add()
        found.attach(KEEP, REMOVE)
        found.ok("server", "add", "west", "--admin-dsn", where, "--subscription-dsn", site.portal_dsn)
        yield found


def test_a_course_moves_and_the_old_server_has_nothing_of_it(two: Two) -> None:
    moved = two.move()
    print(moved)
    assert moved.code == 0
    assert two.placed() == ("west", None, None, "ok")
    assert not two.has_schema(two.server)
    two.follows(two.west)
    assert two.states() == {KEEP: "ok", REMOVE: "ok"}
    assert two.is_equal(REMOVE)


ADDED = f"""
create type {KEEP_SCHEMA}.level as enum ('low', 'high');
create sequence {KEEP_SCHEMA}.ticket start 50;
create function {KEEP_SCHEMA}.shout(text) returns text language sql immutable as 'select upper($1) || ''!''';
alter table {KEEP_SCHEMA}.auth_user
    add column nick text not null default 'no "nick"', add column level {KEEP_SCHEMA}.level,
    add column number integer default nextval('{KEEP_SCHEMA}.ticket'),
    add column place bigint generated always as identity,
    add column loud text generated always as ({KEEP_SCHEMA}.shout(username)) stored,
    add constraint has_nick check (nick <> '');
update {KEEP_SCHEMA}.auth_user set nick = E'it''s\\t' || username, level = 'high' where username <> 'bob';
create table {KEEP_SCHEMA}.note (
    id bigint generated always as identity primary key, body text,
    user_id bigint references {KEEP_SCHEMA}.auth_user
);
insert into {KEEP_SCHEMA}.note (body, user_id) select 'hi', id from {KEEP_SCHEMA}.auth_user;
create view {KEEP_SCHEMA}."the Roll" as select id, nick from {KEEP_SCHEMA}.auth_user;
create index nick_search on {KEEP_SCHEMA}.auth_user (lower(nick)) where nick <> '';
create function {KEEP_SCHEMA}.log() returns trigger language plpgsql as 'begin return null; end';
create trigger log after insert on {KEEP_SCHEMA}.auth_user for each row execute function {KEEP_SCHEMA}.log();
alter table {KEEP_SCHEMA}.auth_user enable always trigger log;
create statistics {KEEP_SCHEMA}.stat on nick, level from {KEEP_SCHEMA}.auth_user;
alter table {KEEP_SCHEMA}.auth_userprofile enable row level security;
create policy all_rows on {KEEP_SCHEMA}.auth_userprofile for select to public using (id > 0);
grant usage on schema {KEEP_SCHEMA} to public;
grant select on {KEEP_SCHEMA}.auth_user, {KEEP_SCHEMA}.note to public;
create view public.report as select id, nick from {KEEP_SCHEMA}.auth_user;
create table public.fan (user_id bigint references {KEEP_SCHEMA}.auth_user, rank {KEEP_SCHEMA}.level);
create function public.nick_of(person {KEEP_SCHEMA}.auth_user) returns text language sql begin atomic
    select (person).nick;
end;
grant update (nick) on {KEEP_SCHEMA}.auth_user to public;
"""
NAMES = [
    f"function {KEEP_SCHEMA}.log()", f"function {KEEP_SCHEMA}.shout(text)", "sequence ticket", "table note",
    "type level", "column auth_user.level", "column auth_user.loud", "column auth_user.nick",
    "column auth_user.number", "column auth_user.place", "view the Roll", "index nick_search",
    "constraint has_nick of auth_user", "policy all_rows of auth_userprofile",
    "row level security of auth_userprofile", "statistics stat of auth_user", "trigger log of auth_user",
    "right select on auth_user of public", "right update on auth_user.nick of public",
    "right usage on schema of public", f"function public.nick_of({KEEP_SCHEMA}.auth_user)",
    "table column public.fan.rank", "table constraint fan_user_id_fkey on public.fan", "view public.report",
]  # fmt: skip


def shell(command: str) -> None:
    """Run a command that the program printed, with PostgreSQL's own programs."""
    path = f"{find_bindir()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), (command, done.stderr)


def catalog_of(side: Db) -> list[Any]:
    """What the schema of KEEP has of the course's own, in PostgreSQL's words."""
    return [
        side.execute(query.encode(), [KEEP_SCHEMA]).fetchall()
        for query in (
            "select c.relname, c.relkind, c.relrowsecurity, c.relacl::text from pg_class as c "
            "where c.relnamespace = to_regnamespace(%s) order by 1",
            "select a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
            "a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text "
            "from pg_attribute as a left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum "
            "inner join pg_class as c on c.oid = a.attrelid and c.relkind = 'r' "
            "where c.relnamespace = to_regnamespace(%s) and a.attnum > 0 order by 1, 2",
            "select indexdef from pg_indexes where schemaname = %s order by 1",
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint "
            "where connamespace = to_regnamespace(%s) order by 1, 2",
            "select pg_get_triggerdef(t.oid), t.tgenabled from pg_trigger as t inner join pg_class as c "
            "on c.oid = t.tgrelid where c.relnamespace = to_regnamespace(%s) and not t.tgisinternal order by 1",
            "select proname, prosrc from pg_proc where pronamespace = to_regnamespace(%s) order by 1",
            "select tablename, policyname, permissive, roles, cmd, qual from pg_policies where schemaname = %s",
            "select stxname from pg_statistic_ext where stxnamespace = to_regnamespace(%s)",
        )
    ]


def own_rows(side: Db) -> list[Any]:
    """The rows of the course's own columns and tables."""
    return [
        side.execute(query.encode()).fetchall()
        for query in (
            f"select id, nick, level::text, number, place, loud from {KEEP_SCHEMA}.auth_user order by id",
            f"select * from {KEEP_SCHEMA}.note order by id", f'select * from {KEEP_SCHEMA}."the Roll" order by id',
        )
    ]  # fmt: skip


def test_what_the_course_added_is_listed_with_the_commands_that_carry_it(two: Two) -> None:
    two.server.execute(ADDED.encode())
    before = catalog_of(two.server)
    waiting = two.move()
    assert waiting.code == 4
    assert "--finish" in waiting.err
    own = [
        row
        for row in waiting.data
        if row["object"] not in ("auth_user", "auth_userprofile", "student_courseenrollment")
    ]
    assert [row["object"] for row in own] == NAMES
    assert {row["outcome"] for row in own} == {"missing there"}
    assert two.placed() == ("east", "west", None, "ok")
    assert two.is_on(two.server)
    assert two.is_on(two.west)
    line = two.line()
    assert (line["state"], line["target"]) == ("moving", "server east")
    assert two.move("--finish").code == 1
    assert two.has_schema(two.server)
    two.west.execute("create table public.fan (user_id bigint)")  # in another schema, so it is not the course's
    ticket = two.server.execute(f"select last_value, is_called from {KEEP_SCHEMA}.ticket".encode()).fetchone()
    for command in dict.fromkeys(row["command"] for row in own):
        if command is None:  # the column of a table in another schema: a person's part
            two.west.execute(f"alter table public.fan add column rank {KEEP_SCHEMA}.level".encode())
        else:
            shell(command)
    assert two.server.execute(f"select last_value, is_called from {KEEP_SCHEMA}.ticket".encode()).fetchone() == ticket
    assert catalog_of(two.west) == before
    assert own_rows(two.west) == own_rows(two.server)
    two.portal.execute("update portal.auth_user set email = email || 'y' where username = 'bob'")
    again = two.move()
    assert (again.code, {row["outcome"] for row in again.data}) == (4, {"moving", "carried"})
    done = two.move("--finish")
    assert done.code == 0, done
    assert not two.has_schema(two.server)
    two.follows(two.west)
    assert two.states() == {KEEP: "ok", REMOVE: "ok"}


# --- killed anywhere --------------------------------------------------------------------------------------------------

STEPS = (
    ("west", Step("begin", "portal", NOTE)),
    ("west", Step("schema", "server", f"create schema {KEEP_SCHEMA}")),
    ("west", Step("publication", "portal", COPY.format(schema=KEEP_SCHEMA, table="auth_userprofile"))),
    ("west", Step("refresh", "server", CATALOG)),
    ("west", Step("switch", "portal", VERDICT, before=("server", CATALOG))),
    ("west", Step("old publication", "portal", COPY.format(schema=KEEP_SCHEMA, table="auth_user"),
                  before=("server", CATALOG))),
    ("east", Step("old refresh", "server", CATALOG)),
    ("east", Step("old schema", "server", READER)),
    ("east", Step("end", "portal", NOTE, before=("server", READER))),
)  # fmt: skip


def remains(two: Two) -> set[str]:
    """What there is on the portal and on east, once no first copy is under way on either server."""
    slots = "select from pg_replication_slots where slot_name like '%sync%'"
    until(lambda: two.portal.execute(slots).fetchone() is None)
    return set(settled(two))


def truthful(two: Two) -> None:
    """See that the course is on a server that has all of it, and that status shows a move that is not finished."""
    server, moving_to, leaving, state = two.placed() or (None, None, None, None)
    here = {"east": two.server, "west": two.west}[str(server)]
    assert state == "ok"
    two.wait()
    assert two.is_on(here)
    line = two.line()
    assert line["target"] == f"server {server}"
    if moving_to or leaving:
        assert (line["state"], line["reason"][:5]) == ("moving", "from " if moving_to else "its c")
        assert line["fix"].startswith(f"rollbook course move '{KEEP}' --to ")
        assert two.run("course", "detach", KEEP, "--yes").code == 1
    else:
        assert line["state"] == "ok"


@pytest.mark.slow
def test_a_move_that_is_killed_at_any_step_while_people_write_ends_right(two: Two) -> None:
    views = {"east": two, "west": Site(two.portal, two.portal_dsn, two.west, two.west_dsn, two.call, "west")}
    before = None
    for number, (view, step) in enumerate(STEPS):
        with writers(two, 2):
            how = signal.SIGINT if number % 2 else signal.SIGKILL
            kill_at(views[view], step, how, "course", "move", KEEP, "--to", "west", "--yes")
        truthful(two)
        with writers(two, 2):
            assert two.move().code == 0, step
        assert two.placed() == ("west", None, None, "ok")
        assert not two.has_schema(two.server)
        two.follows(two.west)
        with writers(two, 2):
            assert two.move(to="east").code == 0, step
        two.follows(two.server)
        assert not two.has_schema(two.west)
        now = remains(two)
        assert before in (None, now), step
        before = now
        assert two.states() == {KEEP: "ok", REMOVE: "ok"}


@pytest.mark.slow
def test_a_move_that_was_killed_is_taken_back(two: Two) -> None:
    views = {"east": two, "west": Site(two.portal, two.portal_dsn, two.west, two.west_dsn, two.call, "west")}
    before = remains(two)
    for view, step in STEPS[1:5]:
        kill_at(views[view], step, signal.SIGKILL, "course", "move", KEEP, "--to", "west", "--yes")
        back = two.move(to="east")
        assert back.code == 0, (step, back)
        assert two.placed() == ("east", None, None, "ok")
        assert not two.has_schema(two.west)
        assert remains(two) == before
        two.follows(two.server)


# --- refused, before anything changes ---------------------------------------------------------------------------------


@contextmanager
def lost(two: Site, server: str) -> Iterator[None]:
    """A server that does not answer the program; its stream runs."""
    row = two.portal.execute("select admin_dsn from rollbook.server where name = %s", [server]).fetchone()
    assert row is not None
    update = "update rollbook.server set admin_dsn = %s where name = %s"
    two.portal.execute(update, ["host=/nowhere dbname=none", server])
    yield
    two.portal.execute(update, [row[0], server])


@contextmanager
def full(two: Two) -> Iterator[None]:
    """A portal that has no replication slot left."""
    names: list[str] = []
    with suppress(psycopg.errors.ConfigurationLimitExceeded):
        while True:
            names.append(f"full_{len(names)}")
            two.portal.execute("select pg_create_physical_replication_slot(%s)", [names[-1]])
    yield
    for name in names[:-1]:
        two.portal.execute("select pg_drop_replication_slot(%s)", [name])


def test_a_server_that_cannot_take_the_course_is_refused_before_anything_changes(two: Two) -> None:
    def refused(code: int, *options: str, to: str = "west") -> str:
        answer = two.move(*options, to=to)
        assert answer.code == code, answer
        assert two.placed() == ("east", None, None, "ok")
        assert two.west.execute(f"select to_regclass('{KEEP_SCHEMA}.auth_user')".encode()).fetchone() == (None,)
        error = json.loads(answer.err.strip().splitlines()[-1])["error"]
        return f"{error['message']} {error['why']} {error['hint']}"

    remains(two)
    assert "no server nowhere" in refused(1, to="nowhere")
    assert "does not move to server west" in refused(1, "--finish")
    assert two.move("--prepare", "--finish").code == 2
    with lost(two, "west"):
        assert "server west cannot be reached" in refused(3)
    with lost(two, "east"):
        assert "--unreachable" in refused(3)
    two.ok("replication", "pause", "--server", "west")
    assert "server west is paused" in refused(1)
    two.ok("replication", "resume", "--server", "west")
    two.west.execute(f"create schema {KEEP_SCHEMA}".encode())
    assert "not Rollbook's" in refused(1)
    two.west.execute(f"drop schema {KEEP_SCHEMA}".encode())
    with full(two):
        assert "no room for a first copy: replication slots" in refused(1)
    two.ok("course", "pause", KEEP)
    assert "paused" in refused(1)
    two.ok("course", "resume", KEEP)
    before = two.remains()
    planned = two.ok("course", "move", KEEP, "--to", "west", "-n", "--format", "table").out
    for words in ("-- on server west", f'create schema "{KEEP_SCHEMA}"', "moving_to", "-- on server east",
                  f'drop schema if exists "{KEEP_SCHEMA}"', "would move"):  # fmt: skip
        assert words in planned, words
    assert two.remains() == before
    assert two.run("course", "move", KEEP, "--to", "west").code == 6
    assert two.placed() == ("east", None, None, "ok")
    unchanged = two.move(to="east")
    assert (unchanged.code, unchanged.row["outcome"]) == (0, "unchanged")
    assert two.move().code == 0


# --- while it moves ---------------------------------------------------------------------------------------------------


def test_what_other_commands_do_with_a_course_that_moves(two: Two) -> None:
    prepared = two.move("--prepare")
    assert (prepared.code, set(prepared.column("outcome"))) == (0, {"moving"})
    assert two.ok("course", "list", "--match", KEEP, "--json").row["moving_to"] == "west"
    two.follows(two.server)
    assert two.is_on(two.west)
    for command, fix in (
        (("course", "detach", KEEP, "--yes"), f"rollbook course move '{KEEP}' --to east"),
        (("course", "attach", KEEP, "--to", "west"), f"rollbook course move '{KEEP}' --to west"),
        (("server", "remove", "west", "--yes"), f"end its move: rollbook course move '{KEEP}' --to east"),
        (("course", "delete", KEEP, "--confirm", KEEP), f"rollbook course detach '{KEEP}'"),
    ):
        answer = two.run(*command, "--json")
        assert (answer.code, json.loads(answer.err)["error"]["hint"]) == (1, fix), command
    assert two.ok("user", "show", "ada", "--json").data[0]["not_compared"] == []
    shown = two.run("server", "show", "west", "--json").data
    assert (shown["moving_here"], shown["kept_schemas"]) == ([KEEP], [])
    two.ok("course", "attach", REMOVE, "--to", "east")

    # The copies in the portal's database are gone for a while: both servers are fed again.
    two.ok("course", "pause", KEEP)
    two.portal.execute(f"drop table {KEEP_SCHEMA}.auth_userprofile".encode())
    two.ok("course", "resume", KEEP)
    two.portal.execute("update portal.auth_userprofile set name = 'Countess' where user_id = 101")

    # A row on the way to the new server meets one that should not be there.
    west = Site(two.portal, two.portal_dsn, two.west, two.west_dsn, two.call, "west")
    west.as_worker(another_user(500))
    new_ids(two)
    two.portal.execute(
        "insert into portal.auth_user (id, username, email) overriding system value values (500, 'new', 'n@x.org')"
    )
    two.portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (500, %s)", [KEEP])
    until(lambda: two.line()["state"] == "broken")
    line = two.line()
    assert (line["target"], line["fix"]) == ("server east", f"rollbook course move '{KEEP}' --to west")
    assert "on server west, to which it moves" in line["reason"]
    refuse_poison(west)
    two.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    stopped = two.move()
    assert stopped.code == 1
    assert f"rollbook course move '{KEEP}' --to west" in json.loads(stopped.err.splitlines()[-1])["error"]["hint"]
    shown = two.run("replication", "show", KEEP, "--json").data
    assert (shown["server"], shown["state"], shown["moving_to"]["error"]["table"]) == ("east", "broken", "auth_user")
    assert shown["fix"].endswith(f"rollbook course move '{KEEP}' --to west")
    assert two.is_on(two.server)
    allow_poison(west)
    moved = two.move()
    assert moved.code == 0, moved
    two.follows(two.west)
    assert two.states() == {KEEP: "ok", REMOVE: "ok"}
    history = two.ok("history", "list", "--course", KEEP, "--command", "course move", "--json").data
    assert [row["outcome"] for row in history] == ["moved", "moving"]


def test_a_server_that_is_lost_in_the_middle(two: Two) -> None:
    two.ok("course", "move", KEEP, "--to", "west", "--prepare")
    with lost(two, "west"):
        line = two.line()
        assert (line["state"], line["fix"]) == ("unreachable", "rollbook server ping west")
        assert two.move(to="east").code == 3
        back = two.move("--unreachable", to="east")
        assert (back.code, back.row["outcome"]) == (5, "left there")
        assert two.placed() == ("east", None, None, "ok")
    assert two.line()["state"] == "ok"
    two.ok("course", "move", KEEP, "--to", "west", "--prepare")  # what was left there is compared and repaired
    assert two.is_on(two.west)
    with lost(two, "east"):
        assert two.line()["state"] == "unreachable"
        assert two.move().code == 3
        moved = two.move("--unreachable")
        assert (moved.code, moved.data[-1]["outcome"]) == (5, "left there")
        assert two.placed() == ("west", None, None, "ok")
        assert two.line()["state"] == "ok"
    two.follows(two.west)
    two.ok("course", "move", KEEP, "--to", "east", "--prepare")
    with lost(two, "west"):
        removed = two.run("server", "remove", "west", "--unreachable", "--yes", "--json")
        assert removed.code == 5
        assert (f"course {KEEP}", "moved to east; verify it") in {(row["what"], row["outcome"]) for row in removed.data}
    assert two.placed() == ("east", None, None, "copying")
    two.ok("replication", "verify", KEEP)
    assert two.line()["state"] == "ok"
    assert two.is_on(two.server)


def test_from_the_portal_alone_and_back_with_objects_of_its_own(two: Two) -> None:
    two.ok("course", "detach", KEEP, "--yes")
    attached = two.move()
    assert (attached.code, set(attached.column("outcome"))) == (0, {"attached"})
    assert "attaches" in attached.err
    two.west.execute(f"create table {KEEP_SCHEMA}.note as select generate_series(1, 3) as id".encode())
    waiting = two.move(to="east")
    assert waiting.code == 4
    (command,) = [row["command"] for row in waiting.data if row["command"]]
    shell(command)
    two.server.execute(f"delete from {KEEP_SCHEMA}.note where id = 1")
    fewer = two.move("--finish", to="east")
    assert fewer.code == 1
    assert "table note (only 2 rows there)" in fewer.err
    back = two.move()  # west keeps the course; east keeps what was carried there
    assert (back.code, back.row["outcome"]) == (5, "kept: table note")
    assert two.placed() == ("west", None, None, "ok")
    assert two.server.execute(f"select count(*) from {KEEP_SCHEMA}.note").fetchone() == (2,)
    two.follows(two.west)
    assert two.move("--prepare", to="east").code == 4
    dropped = two.move("--finish", "--drop-local", to="east")
    assert dropped.code == 0, dropped
    assert not two.has_schema(two.west)
    two.follows(two.server)


def test_roles_that_the_new_server_lacks_are_named_and_made(two: Two, cluster: Cluster) -> None:
    team = f"team_{uuid.uuid4().hex[:8]}"
    two.server.execute(f"create role {team}".encode())
    with database(cluster.server) as where, psycopg.connect(where, autocommit=True) as north:
        try:
            two.server.execute(
                f"create table {KEEP_SCHEMA}.note (id int); alter table {KEEP_SCHEMA}.note owner to {team};"
                f"grant usage on schema {KEEP_SCHEMA} to {team};"
                f"grant select on {KEEP_SCHEMA}.auth_user to {team}".encode()
            )
            two.ok("server", "add", "north", "--admin-dsn", where, "--subscription-dsn", two.portal_dsn)
            waiting = two.move(to="north")
            own = [row for row in waiting.data if row["command"]]
            assert own[0]["object"] == f"role {team}"
            for command in dict.fromkeys(row["command"] for row in own):
                shell(command)
            assert two.move("--finish", to="north").code == 0
            has = "select has_table_privilege(%s, %s, 'select'), has_schema_privilege(%s, %s, 'usage')"
            assert north.execute(has, [team, f"{KEEP_SCHEMA}.auth_user", team, KEEP_SCHEMA]).fetchone() == (True, True)
            two.follows(north)
        finally:
            two.ok("course", "detach", KEEP, "--drop-local", "--yes")
            two.ok("server", "remove", "north", "--yes")
            for side in (north, two.server):
                side.execute(f"drop owned by {team}; drop role {team}".encode())
