"""Courses of servers behind relays: attached, detached and moved in all directions; the relay has what they need."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from psycopg import sql

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.replication.conftest import Site, remedy, until
from tests.replication.scenes import enroll, line, refusal
from tests.replication.test_first_copy import writers
from tests.replication.test_interrupted import CATALOG, COPY, NOTE, READER, VERDICT, Step, kill_at
from tests.replication.zones import Zones, room, site

__all__ = ["room", "site"]
pytestmark = pytest.mark.slow  # a server of its own; `make check` runs it


def execute(site: Zones, statements: str) -> list[str]:
    """Execute what a dry run has printed, each statement where it says; return the places."""
    places: list[str] = []
    side = site.portal
    for part in re.split(r"^(?=-- on )|;$", statements, flags=re.MULTILINE):
        where, _, words = part.strip().partition("\n") if part.strip().startswith("-- on ") else ("", "", part.strip())
        if where:
            places.append(where.removeprefix("-- on ").removeprefix("the "))
            side = site.portal if "portal" in where else site.sides[where.removeprefix("-- on server ")]
        if words.strip():
            side.execute(words.encode())
    return list(dict.fromkeys(places))


def test_the_relay_has_what_the_servers_behind_it_need_and_nothing_else(site: Zones) -> None:
    before = site.left()
    site.add_all("hub", "east", "west")
    empty = site.left()
    hub = site.sides["hub"]
    refused = site.run("course", "attach", KEEP, "--to", "hub")
    assert refused.code == 1
    assert "server hub is a relay" in refused.err
    assert "--to east" in refused.err
    hub.execute(f"create schema {KEEP_SCHEMA}")  # somebody else's
    for action in (("attach", KEEP, "--to", "east"), ("attach", KEEP, "--to", "east", "--dry-run")):
        theirs = site.run("course", *action)
        assert (theirs.code, f"server hub has a schema {KEEP_SCHEMA} that is not Rollbook's" in theirs.err) == (1, True)
    hub.execute(f"drop schema {KEEP_SCHEMA}")
    assert site.left() == empty
    planned = site.ok("course", "attach", KEEP, REMOVE, "--to", "east", "--dry-run", "--format", "table").out
    assert site.left() == empty
    assert execute(site, planned.partition("\nCOURSE ")[0]) == ["portal", "server hub", "server east"]
    until(lambda: site.is_on("east") and site.is_on("east", REMOVE))
    site.attach(KEEP, REMOVE)
    site.follows("east")
    assert site.is_on("east", REMOVE)
    for verb in ("attach", "move"):
        refused = site.run("course", verb, REMOVE, "--to", "hub", "--json")
        assert refusal(refused)["hint"] == f"rollbook course move '{REMOVE}' --to west", "it is on east already"
    moved = site.move("west", course=REMOVE)  # behind the same relay
    assert moved.code == 0, moved
    site.follows("west", REMOVE)
    assert site.holders(KEEP_SCHEMA) == {"hub", "east"}
    assert site.holders(REMOVE_SCHEMA) == {"hub", "west"}
    hub.execute(f"create table {KEEP_SCHEMA}.note (body text)")  # by hand, on the relay
    planned = site.run("course", "detach", KEEP, "--dry-run", "--format", "table").out
    assert "-- on server hub\nselect rollbook.publish('rollbook_east', '[]'" in planned
    detached = site.run("course", "detach", KEEP, "--yes", "--json")
    assert detached.code == 5
    assert [(row["server"], row["outcome"]) for row in detached.data] == [
        ("east", "removed"), ("hub", "kept: table note")
    ]  # fmt: skip
    assert f"drop schema {KEEP_SCHEMA} cascade" in str(detached.data[1]["remains"])
    assert site.holders(KEEP_SCHEMA) == {"hub"}
    shown = site.run("server", "show", "hub", "--json").data
    assert shown["kept_schemas"] == [KEEP_SCHEMA]
    assert site.run("course", "detach", KEEP, "--yes", "--json").code == 0
    enroll(site, 2)
    site.attach(KEEP)  # what is kept on the relay is brought up to date first
    site.follows("east")
    hub.execute(f"drop table {KEEP_SCHEMA}.note")
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    assert site.holders(KEEP_SCHEMA) == {"east"}
    site.attach(KEEP)
    site.follows("east")
    site.ok("course", "detach", KEEP, REMOVE, "--yes")
    assert site.left() == empty
    for name in ("east", "west", "hub"):
        site.ok("server", "remove", name, "--yes")
    assert site.left() == before


def test_an_attach_through_a_relay_without_room_is_refused_before_anything_changes(site: Zones) -> None:
    site.add_all("hub", "east")
    empty, hub = site.left(), site.sides["hub"]
    free = "current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)"
    hub.execute("select pg_create_physical_replication_slot('full_' || n) "
                f"from generate_series(1, {free}) as n".encode())  # fmt: skip
    full = site.run("course", "attach", KEEP, "--to", "east", "--json")
    hub.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name ~ '^full_'")
    error = refusal(full)
    assert full.code == 1
    assert error["message"] == "there is no room for a first copy: replication slots of server hub: 40 of 40 are used"
    assert error["hint"] == "free one; or: on server hub: alter system set max_replication_slots = 48; then restart it"
    assert site.left() == empty
    site.attach(KEEP)
    site.follows("east")


def test_what_a_relay_has_missed_concerns_the_servers_whose_courses_were_not_compared_since(site: Zones) -> None:
    site.add_all("hub", "east", "west")
    for course, server in ((KEEP, "east"), (REMOVE, "west")):
        site.ok("course", "attach", course, "--to", server)
    for _ in range(3):
        site.ok("replication", "wait")
    site.sides["hub"].execute("delete from rollbook.heartbeat where beat = "
                              "(select beat from rollbook.heartbeat order by beat desc offset 1 limit 1)")  # fmt: skip

    def states() -> dict[str, str]:
        return {row["server"]: row["state"] for row in site.run("server", "list", "--json").data}

    assert states() == {"hub": "unknown", "east": "unknown", "west": "unknown"}
    assert "server west is unknown" in site.move("west").err
    site.lose("west")
    shown = site.run("server", "show", "hub", "--json").data
    assert remedy(site, shown["fix"]).code == 5, "the one course is not reached, the other is ok"
    assert states() == {"hub": "unknown", "east": "ok", "west": "unreachable"}
    site.ok("server", "move", "east", "--direct", "--subscription-dsn", site.portal_dsn, "--yes")
    assert site.copy(KEEP, on=site.sides["east"]) == site.copy(KEEP, on=site.portal)
    for side in ("hub", "west"):  # lost with that heartbeat
        site.sides[side].execute(f"set session_replication_role = replica; delete from {REMOVE_SCHEMA}.auth_user; "
                                 "reset session_replication_role")  # fmt: skip
    assert site.run("replication", "verify").code == 3
    site.ok("server", "move", "east", "--through", "hub", "--subscription-dsn", site.routes["hub"], "--yes")
    site.ok("server", "add", "south", "--through", "hub", "--admin-dsn", site.routes["south"],
            "--subscription-dsn", site.routes["hub"])  # fmt: skip
    lines = {row["server"]: row for row in site.run("status", "--json").data["servers"]}
    assert {name: row["state"] for name, row in lines.items()} == states()
    assert states() == {"hub": "unknown", "east": "ok", "south": "ok", "west": "unreachable"}
    assert site.move("south", "--prepare").code == 0
    assert line(site)["state"] == "moving"
    assert site.move("south").code == 0
    assert line(site)["state"] == "ok"
    assert all(site.copy(KEEP, on=site.sides[name]) == site.copy(KEEP, on=site.portal) for name in ("hub", "south"))
    site.find("west")
    assert states() == {"hub": "unknown", "east": "ok", "south": "ok", "west": "unknown"}
    assert line(site, REMOVE)["fix"] == f"rollbook replication resync '{REMOVE}'"
    site.ok("replication", "resync", REMOVE, "--yes")
    assert states() == {"hub": "ok", "east": "ok", "south": "ok", "west": "ok"}
    assert site.is_on("west", REMOVE)


def test_a_course_moves_in_all_directions_while_people_write(site: Zones) -> None:
    site.add_all("hub", "hub2", "north", "east", "west", "south")
    site.ok("course", "attach", KEEP, "--to", "north")
    site.ok("course", "attach", REMOVE, "--to", "west")
    before = "north"
    for to in ("east", "west", "south", "north"):
        with writers(site, 2):
            moved = site.move(to)
        assert moved.code == 0, (to, moved)
        assert site.placed() == (to, None, None, "ok")
        relay = {"east": {"hub"}, "west": {"hub"}, "south": {"hub2"}, "north": set()}[to]
        assert site.holders(KEEP_SCHEMA) == {to} | relay, (before, to)
        site.follows(to)
        assert site.states() == {KEEP: "ok", REMOVE: "ok"}
        before = to
    refused = site.move("hub")
    assert refused.code == 1
    assert "server hub is a relay" in refused.err
    own = f"create table {KEEP_SCHEMA}.note (body text); alter table {KEEP_SCHEMA}.auth_user add nick text"
    site.sides["north"].execute(own.encode())
    stopped = site.move("east")
    assert stopped.code == 4
    assert site.placed() == ("north", "east", None, "ok")
    assert site.holders(KEEP_SCHEMA) == {"north", "hub", "east"}
    site.follows("north")
    assert site.is_on("east")
    back = site.move("north")
    assert back.code == 0, back
    assert site.holders(KEEP_SCHEMA) == {"north"}
    assert site.move("east", "--prepare").code == 4
    site.sides["east"].execute(own.encode())
    assert site.move("east", "--finish").code == 0
    assert site.holders(KEEP_SCHEMA) == {"hub", "east"}
    site.follows("east")
    assert site.holders(REMOVE_SCHEMA) == {"hub", "west"}


def seen_from(site: Zones, name: str) -> Site:
    """The site as a test of one server has it."""
    return Site(site.portal, site.portal_dsn, site.sides[name], site.routes[name], site.call, name)


ON_PORTAL = COPY.format(schema=KEEP_SCHEMA, table="auth_userprofile")
ATTACH = (
    ("hub", Step("relay's schema", "server", f"create schema {KEEP_SCHEMA}")),
    ("hub", Step("portal's publication", "portal", ON_PORTAL)),
    ("hub", Step("relay's refresh", "server", CATALOG)),
    ("hub", Step("relay's comparison", "portal", "lock table rollbook.heartbeat in row exclusive mode")),
    ("hub", Step("relay's publication", "server", ON_PORTAL, before=("portal", ON_PORTAL))),
    ("east", Step("schema", "server", f"create schema {KEEP_SCHEMA}")),
    ("east", Step("verdict", "portal", VERDICT, before=("server", CATALOG))),
)
DETACH = (
    ("hub", Step("record", "portal", NOTE)),
    ("hub", Step("relay's publication", "server", ON_PORTAL)),
    ("east", Step("schema", "server", READER)),
    ("hub", Step("portal's publication", "portal", ON_PORTAL)),
    ("hub", Step("relay's refresh", "server", CATALOG, before=("portal", ON_PORTAL))),
    ("hub", Step("relay's schema", "server", READER)),
    ("hub", Step("last record", "portal", NOTE, before=("server", READER))),
)


def test_an_attach_that_is_killed_at_any_hop_is_completed_or_taken_back(site: Zones) -> None:
    site.add_all("hub", "east")
    empty = site.left()
    for number, (name, step) in enumerate(ATTACH):
        kill_at(seen_from(site, name), step, signal.SIGKILL, "course", "attach", KEEP, "--to", "east")
        if number % 2 == 0:
            site.attach(KEEP)
            site.follows("east")
        site.ok("course", "detach", KEEP, "--yes")
        until(lambda: site.left() == empty)  # a first copy that was killed may still drop its slot


def test_a_detach_that_is_killed_at_any_hop_is_completed_by_the_next(site: Zones) -> None:
    site.add_all("hub", "east")
    empty = site.left()
    for number, (name, step) in enumerate(DETACH):
        site.attach(KEEP)
        kill_at(seen_from(site, name), step, signal.SIGKILL, "course", "detach", KEEP, "--yes")
        if number == 3:
            site.attach(KEEP)  # or thought better of
            site.follows("east")
        site.ok("course", "detach", KEEP, "--yes")
        assert site.left() == empty, step


def test_an_add_behind_a_relay_that_is_killed_is_completed_by_the_next(site: Zones) -> None:
    site.add_all("hub")
    empty = site.left()
    add = ("server", "add", "west", "--through", "hub", "--admin-dsn", site.routes["west"], "--subscription-dsn",
           site.routes["hub"])  # fmt: skip
    heartbeats = "lock table rollbook.heartbeat in share update exclusive mode"
    for name, step in (
        ("hub", Step("record", "portal", "lock table rollbook.server in exclusive mode")),
        ("hub", Step("publication", "server", heartbeats)),
        ("west", Step("schema", "server", "create schema rollbook")),
        ("hub", Step("beat", "portal", "lock table rollbook.heartbeat in row exclusive mode")),
    ):
        kill_at(seen_from(site, name), step, signal.SIGKILL, *add)
        site.ok(*add)
        site.ok("server", "ping", "west")
        site.ok("server", "remove", "west", "--yes")
        assert site.left() == empty, step


def test_a_person_is_compared_repaired_reported_and_erased_on_the_relay_too(site: Zones) -> None:
    site.add_all("hub", "east", "west")
    site.attach(KEEP)
    site.ok("course", "attach", REMOVE, "--to", "west")
    hub = seen_from(site, "hub")
    user, enrollment = f"{KEEP_SCHEMA}.auth_user", f"{KEEP_SCHEMA}.student_courseenrollment"
    kept = site.server.execute(f"select * from {enrollment} where user_id = 101").fetchall()
    hub.as_worker(f"update {user} set last_name = 'relay' where id = 101")  # reaches east
    hub.as_worker(f"delete from {enrollment} where user_id = 101")
    until(lambda: not site.server.execute(f"select from {enrollment} where user_id = 101").fetchall())
    values = ", ".join(["%s"] * len(kept[0]))
    site.as_worker(f"insert into {enrollment} values ({values})", *kept[0])  # what the relay lacks is in the way there
    found = site.run("replication", "verify", "--user", "ada", "--rows", "--json")
    assert found.code == 4
    assert [(row["server"], row["table"], row["finding"]) for row in found.data] == [
        ("east", "auth_user", "changed"), ("hub", "auth_user", "changed"),
        ("hub", "student_courseenrollment", "missing"),
    ]  # fmt: skip
    lines = site.run("replication", "verify", "--user", "ada", "--json").data
    assert [
        (row["verdict"], row["missing"], row["changed"], row["course_rows"]) for row in lines if row["course"] == KEEP
    ] == [("differs", 0, 1, 1), ("match", 0, 0, 1), ("differs", 1, 0, 1)]
    repaired = site.ok("replication", "repair", "--user", "ada", "--yes", "--json")
    assert {row["verdict_after"] for row in repaired.data} == {"match"}
    site.follows("east")
    site.sides["hub"].execute(f"create table {KEEP_SCHEMA}.note (who bigint references {user} (id) on delete cascade)")
    site.sides["hub"].execute(f"insert into {KEEP_SCHEMA}.note values (101)")
    told = site.ok("user", "report", "ada", "--json").data
    places = {(each["place"], each["object"]) for each in told["places"]}
    assert {("server hub", user), ("server east", user), ("server hub", f"{KEEP_SCHEMA}.note")} <= places
    assert ("server hub", f"{REMOVE_SCHEMA}.auth_user") in places
    erased = site.ok("user", "erase", "ada", "--confirm", "ada", "--json").data
    gone = {(line["place"], line["object"]) for line in erased if line["outcome"] == "removed"}
    assert {("server hub", user), ("server east", user), ("server hub", f"{KEEP_SCHEMA}.note")} <= gone
    for name in ("hub", "east", "west"):
        for schema in (KEEP_SCHEMA, REMOVE_SCHEMA):
            if name in site.holders(schema):
                query = sql.SQL("select from {} where id = 101").format(sql.Identifier(schema, "auth_user"))
                assert site.sides[name].execute(query).fetchall() == []
    site.ok("replication", "verify")
    site.lose("hub")
    cut = site.run("user", "show", "bob", "--json")
    assert cut.code == 3
    assert {each["state"] for each in cut.data[0]["not_compared"]} == {"unreachable"}
    assert {each["server"] for each in cut.data[0]["not_compared"]} == {"east", "west"}
    site.find("hub")


def test_the_life_of_a_course_behind_a_relay(site: Zones, tmp_path: Path) -> None:
    site.add_all("hub", "east")
    site.attach(KEEP)
    hub = seen_from(site, "hub")
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    site.ok("course", "attach", KEEP, "--to", "east")
    site.ok("course", "rename", KEEP, "new/1")
    site.ok("course", "close", "new/1")
    site.ok("replication", "wait", "new/1", "--timeout", "20")
    for side in (site.sides["hub"], site.server):
        ids = side.execute(f"select distinct course_id from {KEEP_SCHEMA}.student_courseenrollment").fetchall()
        assert ids == [("new/1",)]
    site.ok("course", "open", "new/1")
    site.ok("course", "rename", "new/1", KEEP)
    site.portal.execute("insert into portal.auth_user (username, email) values ('carol', 'carol@example.org')")
    site.ok("enrollment", "add", KEEP, "carol", "--wait", "20")
    assert site.is_on("east")
    granted = site.run("course", "grant", KEEP, "nobodys_team", "-n")
    assert "server hub" not in granted.err + granted.out
    site.ok("user", "merge", "carol", "bob", "--yes")
    site.follows("east")
    site.ok("schema", "check")
    downgrade = site.run("schema", "downgrade", "--to", "0001", "--yes", "--json")
    assert refusal(downgrade)["hint"] == "rollbook server remove east"
    site.sides["hub"].execute(f"alter table {KEEP_SCHEMA}.auth_user drop constraint auth_user_pkey cascade")
    assert "on server hub" in site.run("schema", "check").out
    site.sides["hub"].execute(f"alter table {KEEP_SCHEMA}.auth_user add primary key (id)")
    site.sides["hub"].execute(f"create table {KEEP_SCHEMA}.note (body text)")
    file = str(tmp_path / "course.tar.gz")
    archived = site.run("course", "archive", KEEP, "-o", file, "--drop", "--confirm", KEEP, "--json")
    assert (archived.code, archived.row["place"]) == (5, "server east"), archived
    assert f"drop schema {KEEP_SCHEMA} cascade" in archived.err
    assert site.holders(KEEP_SCHEMA) == {"hub"}
    hub.server.execute(f"drop schema {KEEP_SCHEMA} cascade")
