"""`course attach`, `course detach`: what they make, what they leave, and what a course keeps for its own."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import errors

from rollbook.core.db import connect
from rollbook.replication.catalog import local_objects
from rollbook.system.demo.server import PrivateServer
from tests.catalog import catalog
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result, snapshot
from tests.replication.conftest import (
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    settled,
    started,
    until,
    waits_for,
)  # fmt: skip
from tests.replication.scenes import stands_still
from tests.school import populate

pytestmark = pytest.mark.slow  # `make check` runs it


def versions(site: Site, schema: str) -> list[Any]:
    """By which transaction each row of a course on the server was written."""
    return [
        site.server.execute(f"select id, xmin::text from {schema}.{table} order by 1".encode()).fetchall()
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
    ]


def fed(site: Site, schema: str) -> list[tuple[str, str, str]]:
    """The tables of a course in the subscription: name, state, position of the copy."""
    return site.server.execute(
        "select c.relname, r.srsubstate::text, r.srsublsn::text from pg_subscription_rel as r "
        "join pg_class as c on c.oid = r.srrelid where c.relnamespace = to_regnamespace(%s) order by 1", [schema],
    ).fetchall()  # fmt: skip


def inside(site: Site) -> list[Any]:
    """Both catalogs, what the streams are made of, and the rows of the portal but heartbeats and verdicts."""
    rows = snapshot(site.portal)
    return [
        catalog(site.portal), catalog(site.server), site.remains(), fed(site, KEEP_SCHEMA), fed(site, REMOVE_SCHEMA),
        site.server.execute("select oid, subenabled from pg_subscription").fetchall(),
        site.portal.execute("select schemaname, tablename from pg_publication_tables order by 1, 2").fetchall(),
        {name: rows for name, rows in rows.items() if name not in ("rollbook.heartbeat", "rollbook.verification")},
    ]  # fmt: skip


def both(site: Site) -> list[Any]:
    """The same with the rows on the server, without what tells one look from another."""
    rows = snapshot(site.server)
    rows.pop("rollbook.heartbeat")
    return [*inside(site), rows]


def test_an_attached_course_is_copied_and_then_follows_every_change(site: Site) -> None:
    site.add()
    attached = site.ok("course", "attach", KEEP, "--to", "east", "--json")
    assert [(row["table"], row["rows"], row["outcome"]) for row in attached.data] == [
        ("auth_user", 2, "attached"), ("auth_userprofile", 2, "attached"), ("student_courseenrollment", 2, "attached"),
    ]  # fmt: skip
    assert site.is_equal(KEEP)
    site.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
    site.portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP])
    site.portal.execute("delete from portal.auth_user where username = 'bob'")
    site.wait()
    assert [row[1] for row in site.copy(KEEP)] == ["ada", "eve"]
    assert site.is_equal(KEEP)


def test_one_publication_one_slot_one_subscription_list_the_tables_with_their_columns(streaming: Site) -> None:
    portal, server = streaming.portal, streaming.server
    assert portal.execute("select slot_name from pg_replication_slots").fetchall() == [("rollbook_east",)]
    assert server.execute("select subname, subslotname, subpublications from pg_subscription").fetchall() == [
        ("rollbook_east", "rollbook_east", ["rollbook_east"])
    ]
    listed = portal.execute(
        "select schemaname, tablename, attnames::text[] from pg_publication_tables where pubname = 'rollbook_east' "
        "and schemaname <> 'rollbook'"
    ).fetchall()
    assert {(schema, table) for schema, table, _ in listed} == {
        (schema, table) for schema in (KEEP_SCHEMA, REMOVE_SCHEMA)
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
    }  # fmt: skip
    for _, table, columns in listed:
        assert [tuple(columns)] == [
            tuple(row[0]) for row in portal.execute("select rollbook.replicated_columns(%s)", [table])
        ]


def test_nothing_is_left_when_all_is_taken_back(streaming: Site) -> None:
    streaming.ok("course", "detach", KEEP, REMOVE, "--yes")
    streaming.ok("server", "remove", "east", "--yes")
    assert streaming.remains() == []


# --- twice, several, unknown, elsewhere -------------------------------------------------------------------------------


def test_attaching_twice_changes_nothing(streaming: Site) -> None:
    streaming.wait()
    before = inside(streaming)
    written = versions(streaming, KEEP_SCHEMA)
    again = streaming.ok("course", "attach", KEEP, REMOVE, "--to", "east", "--json")
    assert set(again.column("outcome")) == {"unchanged"}
    assert {(row["course"], row["table"]): row["rows"] for row in again.data}[REMOVE, "auth_user"] == 1
    assert inside(streaming) == before
    assert versions(streaming, KEEP_SCHEMA) == written


def test_the_next_course_is_copied_alone(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    site.wait()
    rows, tables = versions(site, KEEP_SCHEMA), fed(site, KEEP_SCHEMA)
    writers = site.portal.execute("select slot_name from pg_replication_slots").fetchall()
    site.attach(REMOVE)
    assert site.is_equal(REMOVE)
    assert versions(site, KEEP_SCHEMA) == rows  # no row of the first has been written again
    assert fed(site, KEEP_SCHEMA) == tables  # nor has its copy begun anew
    assert {state for _, state, _ in fed(site, REMOVE_SCHEMA)} == {"r"}
    assert site.portal.execute("select slot_name from pg_replication_slots").fetchall() == writers


def test_an_unknown_course_or_server_is_refused_and_nothing_happens(site: Site) -> None:
    site.add()
    before = settled(site)
    for arguments, why in (
        ((KEEP, "MITx/6.002x/2012_Fal", "--to", "east"), f"the nearest is {KEEP}"),
        ((KEEP, "--to", "zzz"), None), ((KEEP, "--to", "eas"), "the nearest is east"),
    ):  # fmt: skip
        answer = site.run("course", "attach", *arguments, "--json")
        assert (answer.code, answer.out) == (1, "")
        assert json.loads(answer.err)["error"]["why"] == why
    assert site.run("course", "detach", "nowhere", "--yes").code == 1
    assert site.ok("course", "detach", KEEP, "--yes", "--json").column("outcome") == ["unchanged"]  # on no server
    assert site.remains() == before


def test_a_course_is_on_one_server_at_a_time(site: Site, course_server: PrivateServer) -> None:
    site.add()
    site.attach(KEEP)
    with database(course_server) as where, psycopg.connect(where, autocommit=True) as server:
        west = Site(site.portal, site.portal_dsn, server, where, site.call, name="west")
        try:
            west.add()
            before = settled(site) + settled(west)
            answer = west.run("course", "attach", REMOVE, KEEP, "--to", "west", "--json")
            assert answer.code == 1
            error = json.loads(answer.err)["error"]
            assert error["message"] == f"course {KEEP} is on server east"
            assert error["hint"] == f"rollbook course move '{KEEP}' --to west"
            assert site.remains() + west.remains() == before
            west.attach(REMOVE)  # each server has its own
            site.portal.execute("update portal.auth_user set email = 'both@example.org' where username = 'ada'")
            site.wait()
            assert site.is_equal(KEEP)
            assert west.is_equal(REMOVE)
            site.ok("course", "detach", KEEP, REMOVE, "--yes")  # one command takes them off both
            west.ok("server", "remove", "west", "--yes")
        finally:
            drop_subscriptions(server)


def test_a_schema_that_somebody_else_has_on_the_server_is_never_taken_over(site: Site) -> None:
    site.add()
    site.server.execute(f"create schema {REMOVE_SCHEMA}")
    site.server.execute(f"create table {REMOVE_SCHEMA}.auth_user (id bigint primary key, theirs text)")
    site.server.execute(f"insert into {REMOVE_SCHEMA}.auth_user values (7, 'precious')")
    before = settled(site)
    for courses in ((REMOVE,), (KEEP, REMOVE)):
        answer = site.run("course", "attach", *courses, "--to", "east", "--json")
        assert answer.code == 1
        assert f"has a schema {REMOVE_SCHEMA} that is not Rollbook's" in json.loads(answer.err)["error"]["message"]
        assert site.server.execute(f"select * from {REMOVE_SCHEMA}.auth_user").fetchall() == [(7, "precious")]
        assert site.remains() == before  # both courses are local again, and no other schema was made on the way
        assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    site.server.execute(f"alter schema {REMOVE_SCHEMA} rename to theirs")
    site.attach(KEEP, REMOVE)
    assert site.is_equal(REMOVE)


@pytest.mark.parametrize("lost", ["slot", "subscription"])
def test_no_stream_is_made_anew_behind_the_back_of_courses_that_miss_what_came_since(site: Site, lost: str) -> None:
    site.add()
    site.attach(KEEP)
    if lost == "subscription":
        drop_subscriptions(site.server)
    else:
        site.server.execute("alter subscription rollbook_east disable")
        until(lambda: site.portal.execute("select from pg_replication_slots where active").fetchone() is None)
        site.portal.execute("select pg_drop_replication_slot('rollbook_east')")
    site.portal.execute("update portal.auth_user set email = 'lost@example.org' where username = 'ada'")
    add = ("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)
    for command in (("course", "attach", REMOVE, "--to", "east"), add):
        answer = site.run(*command, "--json")
        assert answer.code == 1, answer
        error = json.loads(answer.err)["error"]
        assert error["message"] == f"the {lost} of server east is gone"
        assert error["hint"] == f"rollbook replication resync '{KEEP}'"
    assert site.states()[KEEP] == "broken"
    site.ok("replication", "resync", KEEP, "--yes")
    site.attach(REMOVE)
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)


def test_a_course_that_is_attached_is_not_dropped(streaming: Site) -> None:
    for arguments in (("--confirm", KEEP), ("--confirm", KEEP, "--drop-local")):
        answer = streaming.run("course", "delete", KEEP, *arguments, "--json")
        assert answer.code == 1
        assert json.loads(answer.err)["error"]["hint"] == f"rollbook course detach '{KEEP}'"
    for drop_local in (False, True):
        with pytest.raises(psycopg.Error, match="is on server east") as caught:
            streaming.portal.execute("select rollbook.drop_course(%s, %s)", [KEEP, drop_local])
        assert caught.value.sqlstate == "RB011"
    assert streaming.is_equal(KEEP)
    assert streaming.states()[KEEP] == "ok"


# --- a dry run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_statements_and_changes_nothing_on_either_side(site: Site) -> None:
    site.add()
    site.attach(REMOVE)
    site.wait()
    before = both(site)
    planned = site.ok("course", "attach", KEEP, "--to", "east", "-n", "--format", "table")
    for words in ("-- on the portal", "-- on server east", f'create schema "{KEEP_SCHEMA}"', "publish_courses",
                  "refresh publication", f"create table {KEEP_SCHEMA}.auth_user", "rollbook_guard_copy"):  # fmt: skip
        assert words in planned.out, words
    assert set(site.ok("course", "attach", KEEP, "--to", "east", "-n", "--json").column("outcome")) == {"would attach"}
    off = site.ok("course", "detach", REMOVE, "-n", "--format", "table")  # asks nothing: it does nothing
    for words in (f'drop schema if exists "{REMOVE_SCHEMA}"', "publish_courses", "refresh publication"):
        assert words in off.out, words
    assert site.ok("course", "detach", REMOVE, "-n", "--json").column("outcome") == ["would be removed"]
    assert site.ok("course", "detach", REMOVE, "-n", "--keep-data", "--json").column("outcome") == ["would be kept"]
    assert both(site) == before


def test_the_statements_of_a_dry_run_are_those_that_the_command_would_run(site: Site) -> None:
    site.add()
    planned = site.ok("course", "attach", KEEP, "--to", "east", "-n", "--format", "table").out
    statements, _, _ = planned.partition("\nCOURSE ")
    side = site.portal
    for part in re.split(r"^(?=-- on )|;$", statements, flags=re.MULTILINE):
        where, _, words = part.strip().partition("\n") if part.strip().startswith("-- on ") else ("", "", part.strip())
        if where:
            side = site.portal if "portal" in where else site.server
        if words.strip():
            side.execute(words.encode())
    until(lambda: {state for _, state, _ in fed(site, KEEP_SCHEMA)} == {"r"})
    assert site.is_equal(KEEP)
    assert site.ok("course", "attach", KEEP, "--to", "east", "--json").column("rows") == [2, 2, 2]


# --- what a course has of its own -------------------------------------------------------------------------------------


def test_people_may_not_write_copies_on_the_server_but_columns_of_the_courses_own(streaming: Site) -> None:
    server = streaming.server
    server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column nickname text")
    for statement in (
        f"update {KEEP_SCHEMA}.auth_user set email = 'x'", f"delete from {KEEP_SCHEMA}.student_courseenrollment",
        f"truncate {KEEP_SCHEMA}.auth_userprofile", f"insert into {KEEP_SCHEMA}.auth_user (id) values (1)",
    ):  # fmt: skip
        with pytest.raises(psycopg.Error, match="is a copy") as caught:
            server.execute(statement.encode())
        assert caught.value.sqlstate == "23R01"
    server.execute(f"update {KEEP_SCHEMA}.auth_user set nickname = 'the countess' where username = 'ada'")
    streaming.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
    streaming.wait()
    assert server.execute(f"select email, nickname from {KEEP_SCHEMA}.auth_user where username = 'ada'").fetchall() == [
        ("new@example.org", "the countess")
    ]
    assert streaming.ok("replication", "verify", KEEP).code == 0


def test_a_view_of_another_schema_is_not_dropped_with_the_course(streaming: Site) -> None:
    streaming.server.execute(f"create view public.report as select id from {KEEP_SCHEMA}.auth_user".encode())
    detached = streaming.run("course", "detach", KEEP, "--yes", "--json")
    assert (detached.code, detached.row["outcome"]) == (5, "kept: view public.report")
    assert len(streaming.server.execute("select from public.report").fetchall()) == 2


def furnish(server: Db) -> None:
    """A course makes itself at home on the server."""
    for statement in (
        f"alter table {KEEP_SCHEMA}.auth_user add column nickname text default 'none'",
        f"update {KEEP_SCHEMA}.auth_user set nickname = 'the countess' where username = 'ada'",
        f"create index by_email on {KEEP_SCHEMA}.auth_user (email)",
        f"create table {KEEP_SCHEMA}.note (id int generated always as identity primary key, user_id bigint not null "
        f"references {KEEP_SCHEMA}.auth_user on delete cascade, words text)",
        f"insert into {KEEP_SCHEMA}.note (user_id, words) select id, 'hello ' || username from {KEEP_SCHEMA}.auth_user",
        f"create view {KEEP_SCHEMA}.roll as select username, nickname from {KEEP_SCHEMA}.auth_user",
    ):
        server.execute(statement.encode())


def furniture(server: Db) -> dict[str, Any]:
    """What `furnish` has made, as it stands."""
    return {
        query: server.execute(query.encode()).fetchall()
        for query in (
            f"select n.user_id, n.words, u.nickname from {KEEP_SCHEMA}.note as n "
            f"join {KEEP_SCHEMA}.auth_user as u on u.id = n.user_id order by 1",
            f"select indexdef from pg_indexes where schemaname = '{KEEP_SCHEMA}' order by 1",
            f"select conname, pg_get_constraintdef(oid) from pg_constraint "
            f"where connamespace = '{KEEP_SCHEMA}'::regnamespace order by 1",
            f"select * from {KEEP_SCHEMA}.roll order by 1",
        )
    }  # fmt: skip


def test_the_program_and_the_database_agree_on_what_a_course_added(site: Site) -> None:
    """A server does not have rollbook.local_objects: it gets the body of the function."""
    furnish(site.portal)
    site.portal.execute(f"create type {KEEP_SCHEMA}.mark as enum ('pass'); create sequence {KEEP_SCHEMA}.ticket")
    with connect(site.portal_dsn, name="test") as conn:
        for on_copies in (False, True):
            found = local_objects(conn, KEEP_SCHEMA, on_copies=on_copies)
            asked = site.portal.execute("select rollbook.local_objects(%s, %s)", [KEEP_SCHEMA, on_copies])
            assert [(name,) for name in found] == asked.fetchall()
    assert [name for name in found if not name.startswith(("index", "constraint", "trigger"))] == [
        "column auth_user.nickname",
        "sequence note_id_seq",
        "sequence ticket",
        "table note",
        "type mark",
        "view roll",
    ]


def test_what_a_course_has_of_its_own_survives_changes_detach_and_attach(streaming: Site) -> None:
    furnish(streaming.server)
    mine = furniture(streaming.server)
    portal = streaming.portal
    portal.execute("update portal.auth_user set email = upper(email)")
    streaming.wait()
    assert furniture(streaming.server) == mine
    detached = streaming.run("course", "detach", KEEP, "--yes", "--json")
    assert detached.code == 5  # what should have gone is left there
    assert detached.row["outcome"] == "kept: column auth_user.nickname, sequence note_id_seq, table note, view roll"
    portal.execute(
        "update portal.auth_user set email = 'while@example.org' where username = 'ada'"
    )  # nobody carries it
    portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP])
    assert furniture(streaming.server) == mine
    assert not streaming.is_equal(KEEP)
    streaming.attach(KEEP)
    assert streaming.is_equal(KEEP)
    query = f"select username, nickname from {KEEP_SCHEMA}.auth_user order by 1"
    assert streaming.server.execute(query.encode()).fetchall() == [
        ("ada", "the countess"), ("bob", "none"), ("eve", "none")
    ]  # fmt: skip
    notes = f"select words from {KEEP_SCHEMA}.note order by 1"
    assert streaming.server.execute(notes.encode()).fetchall() == [("hello ada",), ("hello bob",)]
    portal.execute("update portal.auth_user set email = 'after@example.org' where username = 'eve'")
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.is_equal(REMOVE)  # the neighbour was there all the time


def test_a_row_of_the_courses_own_that_needs_a_user_who_left_is_named_at_the_next_attach(streaming: Site) -> None:
    server = streaming.server
    server.execute(f"create table {KEEP_SCHEMA}.grade (user_id bigint references {KEEP_SCHEMA}.auth_user)")
    server.execute(f"insert into {KEEP_SCHEMA}.grade values (102)")
    assert streaming.run("course", "detach", KEEP, "--yes").code == 5
    streaming.portal.execute("delete from portal.auth_user where username = 'bob'")
    answer = streaming.run("course", "attach", KEEP, "--to", "east")
    assert answer.code == 1
    assert KEEP in answer.err
    assert "102" in answer.err
    assert KEEP_SCHEMA in answer.err
    assert server.execute(f"select * from {KEEP_SCHEMA}.grade").fetchall() == [(102,)]
    server.execute(f"delete from {KEEP_SCHEMA}.grade")
    streaming.attach(KEEP)
    assert streaming.is_equal(KEEP)


# --- detach -----------------------------------------------------------------------------------------------------------


def schemas(site: Site) -> list[str]:
    """The courses' schemas on the server."""
    query = "select nspname from pg_namespace where nspname like 'course\\_%' order by 1"
    return [row[0] for row in site.server.execute(query)]


def test_detach_asks_takes_the_copies_away_and_leaves_the_portals_current(streaming: Site) -> None:
    before = settled(streaming)
    assert streaming.run("course", "detach", KEEP).code == 6
    assert streaming.remains() == before
    detached = streaming.ok("course", "detach", KEEP, "--yes", "--json").row
    assert (detached["course"], detached["server"], detached["rows"], detached["outcome"]) == (
        KEEP,
        "east",
        6,
        "removed",
    )
    assert schemas(streaming) == [REMOVE_SCHEMA]
    assert fed(streaming, KEEP_SCHEMA) == []
    streaming.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
    streaming.wait()
    assert streaming.is_equal(REMOVE)
    assert streaming.portal.execute(f"select email from {KEEP_SCHEMA}.auth_user where username = 'ada'").fetchall() == [
        ("new@example.org",)
    ]
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def test_detach_keeps_the_copies_as_they_are_if_told_so(streaming: Site) -> None:
    rows = streaming.copy(KEEP)
    assert streaming.ok("course", "detach", KEEP, "--keep-data", "--yes", "--json").row["outcome"] == "kept"
    streaming.portal.execute("update portal.auth_user set email = upper(email)")
    streaming.wait()
    assert streaming.copy(KEEP) == rows
    with pytest.raises(psycopg.Error, match="is a copy"):
        streaming.server.execute(f"delete from {KEEP_SCHEMA}.auth_user")


def test_detach_drops_what_the_course_has_of_its_own_only_if_told_so(streaming: Site) -> None:
    furnish(streaming.server)
    detached = streaming.ok("course", "detach", KEEP, "--drop-local", "--yes", "--json")
    assert detached.row["outcome"] == "removed"
    assert schemas(streaming) == [REMOVE_SCHEMA]


def test_a_course_is_let_go_of_when_its_server_is_gone_and_can_come_back(
    db: Db, dsn: str, call: Callable[..., Result], course_server: PrivateServer
) -> None:
    populate(db)
    with ExitStack() as stack:
        where = stack.enter_context(database(course_server))
        stack.callback(drop_slots, db)
        with psycopg.connect(where, autocommit=True) as server:
            site = Site(db, dsn, server, where, call)
            site.add()
            site.attach(KEEP, REMOVE)
        course_server.stop()
        stack.callback(course_server.start)
        assert site.run("course", "detach", KEEP, "--yes").code == 3
        assert site.states() == {KEEP: "unreachable", REMOVE: "unreachable"}
        gone = site.run("course", "detach", KEEP, "--unreachable", "--yes", "--json")
        assert (gone.code, gone.row["outcome"]) == (5, f"left there: schema {KEEP_SCHEMA}")
        assert site.states() == {KEEP: "ok", REMOVE: "unreachable"}
        db.execute("update portal.auth_user set email = 'while@example.org' where username = 'ada'")
        db.execute("delete from portal.auth_user where username = 'bob'")
        course_server.start()
        with psycopg.connect(where, autocommit=True) as site.server:
            site.wait()
            assert site.is_equal(REMOVE)
            site.attach(KEEP)
            assert site.is_equal(KEEP)
            db.execute("update portal.auth_user set email = 'after@example.org' where username = 'ada'")
            site.wait()
            assert site.is_equal(KEEP)
            site.ok("course", "detach", KEEP, REMOVE, "--yes")
            site.ok("server", "remove", "east", "--yes")
            assert site.remains() == []


# --- triggers and constraints of a course on the server ---------------------------------------------------------------

LOG = """
create table {schema}.log (at timestamptz default now(), words text);
grant insert on {schema}.log to rollbook_owner;
create function {schema}.write_log() returns trigger language plpgsql as $$
begin
    insert into {place} (words) values (tg_op || ' ' || new.username);
    return null;
end $$;
create trigger log after insert or update on {schema}.auth_user
    for each row execute function {schema}.write_log();
alter table {schema}.auth_user enable always trigger log
"""


def test_a_row_trigger_with_qualified_names_fires_on_what_arrives(streaming: Site) -> None:
    streaming.server.execute(LOG.format(schema=KEEP_SCHEMA, place=f"{KEEP_SCHEMA}.log").encode())
    streaming.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
    streaming.portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP]
    )
    streaming.wait()
    words = streaming.server.execute(f"select words from {KEEP_SCHEMA}.log order by at, words").fetchall()
    assert words == [("UPDATE ada",), ("INSERT eve",)]
    assert streaming.is_equal(KEEP)


def test_a_trigger_with_an_unqualified_name_stops_the_stream_and_is_named(streaming: Site) -> None:
    streaming.server.execute(f"alter database {streaming.server.info.dbname} set search_path = {KEEP_SCHEMA}")
    streaming.server.execute(LOG.format(schema=KEEP_SCHEMA, place="log").encode())
    streaming.portal.execute("update portal.auth_user set email = 'new@example.org' where username = 'ada'")
    stands_still(streaming)
    shown = streaming.run("replication", "show", KEEP, "--json")
    assert shown.code == 4
    assert shown.data["state"] == "broken"
    error = shown.data["error"]
    assert (error["course"], error["table"], error["key"], error["sqlstate"]) == (KEEP, "auth_user", "101", "42P01")
    assert 'relation "log" does not exist' in error["message"]
    assert streaming.states() == {KEEP: "broken", REMOVE: "broken"}
    assert streaming.run("replication", "resume", KEEP).code == 1  # the error is still there
    streaming.server.execute(f"alter function {KEEP_SCHEMA}.write_log() set search_path = {KEEP_SCHEMA}")
    streaming.ok("replication", "resume", KEEP)
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def empty_and_kept(site: Site, statement: str) -> None:
    """A course with something of its own was attached before, and its copies there are empty now."""
    site.add()
    site.attach(KEEP, REMOVE)
    site.server.execute(statement.encode())
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    for table in ("student_courseenrollment", "auth_userprofile", "auth_user"):
        site.as_worker(f"delete from {KEEP_SCHEMA}.{table}")


def sync_slots(site: Site) -> list[Any]:
    """The slots of first copies."""
    return site.portal.execute(
        "select slot_name from pg_replication_slots where slot_name <> 'rollbook_east'"
    ).fetchall()


@pytest.mark.parametrize(
    ("statement", "mended", "sqlstate"),
    [
        (f"alter table {KEEP_SCHEMA}.auth_user add constraint short check (length(email) < 12) not valid",
         f"alter table {KEEP_SCHEMA}.auth_user drop constraint short", "23514"),
        (f"create unique index one_staff on {KEEP_SCHEMA}.auth_user (is_active) where false or is_active",
         f"drop index {KEEP_SCHEMA}.one_staff", "23505"),
        (LOG.format(schema=KEEP_SCHEMA, place="log"),
         f"alter function {KEEP_SCHEMA}.write_log() set search_path = {KEEP_SCHEMA}", "42P01"),
    ],
    ids=["check", "unique index", "trigger"],
)  # fmt: skip
def test_a_first_copy_that_the_course_refuses_is_named_and_completes_when_that_is_mended(
    site: Site, statement: str, mended: str, sqlstate: str
) -> None:
    if sqlstate == "23505":  # nobody can keep the index while the rows stand there: the course makes it meanwhile
        empty_and_kept(site, "select")
        site.server.execute(statement.encode())
    else:
        empty_and_kept(site, statement)
    answer = site.run("course", "attach", KEEP, "--to", "east", "--json")
    assert answer.code == 4, answer
    assert KEEP in answer.err
    shown = site.run("replication", "show", KEEP, "--json").data
    assert shown["state"] == "broken"
    error = shown["error"]
    assert (error["course"], error["table"], error["operation"], error["sqlstate"]) == (
        KEEP, "auth_user", "copy", sqlstate
    )  # fmt: skip
    assert site.copy(KEEP) == []
    assert site.run("replication", "resume", KEEP).code == 1
    site.server.execute(mended.encode())
    site.ok("replication", "resume", KEEP)
    until(lambda: {state for _, state, _ in fed(site, KEEP_SCHEMA)} == {"r"})
    site.ok("replication", "verify")
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    assert sync_slots(site) == []
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_kept_copy_that_cannot_be_brought_level_is_named_and_attached_once_it_can(streaming: Site) -> None:
    streaming.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint short check (length(email) < 20)")
    streaming.ok("course", "detach", KEEP, "--yes", "--keep-data")
    streaming.portal.execute("update portal.auth_user set email = 'long-address-of-ada@example.org' where id = 101")
    answer = streaming.run("course", "attach", KEEP, "--to", "east")
    assert answer.code == 1
    assert KEEP in answer.err
    assert "short" in answer.err
    streaming.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop constraint short")
    streaming.attach(KEEP)
    assert streaming.is_equal(KEEP)


# --- under load -------------------------------------------------------------------------------------------------------


def write_until(stop: threading.Event, dsn: str, number: int, count: list[int]) -> None:
    """Be one of several clients: enroll, leave, rename, edit, delete and make students, each in its own commit."""
    random = Random(number)
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not stop.wait(0.001):  # the machine has other work too
            student = 1000 + random.randrange(60)
            course = random.choice((KEEP, REMOVE))
            statement, parameters = random.choice((
                ("insert into portal.auth_user (id, username, email) values (%s, %s, %s) on conflict do nothing",
                 [student, f"s{student}", f"s{student}@example.org"]),
                ("insert into portal.auth_userprofile (user_id, name) select id, %s from portal.auth_user "
                 "where id = %s on conflict do nothing", [f"name {random.random()}", student]),
                ("insert into portal.student_courseenrollment (user_id, course_id) select id, %s from portal.auth_user "
                 "where id = %s on conflict do nothing", [course, student]),
                ("insert into portal.student_courseenrollment (user_id, course_id) select id, %s from portal.auth_user "
                 "where id between %s and 2000 on conflict do nothing", [course, student]),
                ("update portal.auth_user set email = %s where id = %s",
                 [f"{number}-{random.random()}@example.org", student]),
                ("update portal.auth_userprofile set goals = %s where user_id = %s", [f"{random.random()}", student]),
                ("delete from portal.student_courseenrollment where user_id = %s and course_id = %s",
                 [student, course]),
                ("delete from portal.auth_user where id = %s", [student]),
            ))  # fmt: skip
            try:
                conn.execute(statement.encode(), parameters)
                count[number] += 1
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.ForeignKeyViolation):
                continue  # two clients at one student: the one who loses would try again


@contextmanager
def busy(site: Site) -> Iterator[list[int]]:
    """Four clients write all the time; yields how much each has written."""
    stop, count = threading.Event(), [0] * 4
    threads = [threading.Thread(target=write_until, args=(stop, site.portal_dsn, n, count)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: min(count) > 10)
        yield count
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_attach_under_load_misses_nothing(site: Site) -> None:
    site.add()
    with busy(site) as count:
        before = sum(count)
        attached = site.run("course", "attach", KEEP, REMOVE, "--to", "east", "--timeout", "20")
        assert attached.code == 0, attached
        assert sum(count) - before > 20
    site.wait()
    site.ok("replication", "verify")
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)


@pytest.mark.parametrize("kept", [(), ("--keep-data",)], ids=["removed", "kept"])
def test_detach_and_attach_under_load_end_equal(streaming: Site, kept: tuple[str, ...]) -> None:
    with busy(streaming):
        for _ in range(2):
            streaming.ok("course", "detach", KEEP, "--yes", *kept)
            again = streaming.run("course", "attach", KEEP, "--to", "east", "--timeout", "20")
            assert again.code == 0, again
    streaming.wait()
    streaming.ok("replication", "verify")
    assert streaming.is_equal(KEEP)
    assert streaming.is_equal(REMOVE)


# --- a long transaction on the portal ---------------------------------------------------------------------------------


@contextmanager
def long_transaction(site: Site) -> Iterator[Db]:
    """Somebody has written a student of the course, and does not commit."""
    with psycopg.connect(site.portal_dsn) as conn:
        conn.execute("update portal.auth_user set email = 'late@example.org' where username = 'ada'")
        conn.execute("insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP])
        yield conn


def test_add_waits_for_a_long_transaction_or_gives_up_whole(site: Site) -> None:
    add = ("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)
    with long_transaction(site) as other:
        answer = site.run(*add, "--timeout", "1", "--json")
        assert answer.code == 3, answer
        error = json.loads(answer.err.splitlines()[-1])["error"]
        assert f"pid {other.info.backend_pid}" in error["why"]
        assert site.remains() == []
        with started(site, *add) as process:
            until(lambda: waits_for(other, site.portal))
            other.commit()
            assert process.wait(20) == 0
    site.attach(KEEP)
    assert site.is_equal(KEEP)


def test_attach_waits_for_a_long_transaction_and_has_it_in_the_end(site: Site) -> None:
    site.add()
    with long_transaction(site) as other, started(site, "course", "attach", KEEP, "--to", "east") as process:
        until(lambda: site.states()[KEEP] == "copying" and sync_slots(site) != [])
        assert process.poll() is None
        other.commit()
        assert process.wait(20) == 0
    site.wait()
    assert site.is_equal(KEEP)
    assert "late@example.org" in [row[4] for row in site.copy(KEEP)]
    assert site.states()[KEEP] == "ok"


def test_attach_with_a_timeout_leaves_the_copy_to_go_on_by_itself(site: Site) -> None:
    site.add()
    with long_transaction(site) as other:
        answer = site.run("course", "attach", KEEP, "--to", "east", "--timeout", "1")
        assert answer.code == 4, answer
        assert "continues by itself" in answer.err
        assert site.states()[KEEP] == "copying"
        other.commit()
    until(lambda: {state for _, state, _ in fed(site, KEEP_SCHEMA)} == {"r"})
    site.ok("replication", "verify", KEEP)
    assert site.states()[KEEP] == "ok"
    assert site.is_equal(KEEP)
    assert sync_slots(site) == []


def test_attach_that_gets_no_lock_on_the_portal_in_time_gives_up_whole(site: Site) -> None:
    site.add()
    before = settled(site)
    with psycopg.connect(site.portal_dsn) as other:
        other.execute(f"lock table {KEEP_SCHEMA}.auth_userprofile in share update exclusive mode")  # as VACUUM does
        answer = site.run("course", "attach", KEEP, "--to", "east", "--timeout", "1")
        assert answer.code == 3, answer
        assert site.remains() == before
        assert site.states()[KEEP] == "ok"
    site.attach(KEEP)
    assert site.is_equal(KEEP)
