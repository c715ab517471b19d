"""A server behind a relay: added, given courses, and freed of them; also tests publish, published_copies, slots_of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, ROOT, Result
from tests.replication.conftest import QUICK, Db, private_server, remedy
from tests.replication.relays import Relayed, listed, relayed, schemas
from tests.replication.scenes import enroll, refusal
from tests.replication.zones import ROOM, Zones, room, zones
from tests.runbook import section

__all__ = ["room"]


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
    beats = site.run("replication", "lag", "east", "--json").data
    assert beats[0]["lag_seconds"] is None, "what came with the first copy has no time of arrival"
    assert beats[-1]["lag_seconds"] is not None
    site.portal.execute("alter table portal.auth_userprofile add column pronouns text not null default ''")
    site.ok("shape", "column", "add", "auth_userprofile", "pronouns")
    site.ok("shape", "where", "created > '2000-01-01'")
    texts = "select rollbook.replicated_columns('auth_userprofile')::text || max(source) from rollbook.copied_tables()"
    assert len({side.execute(texts).fetchone() for side in (site.portal, site.hub, site.server)}) == 1, (
        "without courses"
    )
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
    for words in (("move", KEEP, "--to", "hub", "--yes"), ("attach", KEEP, "--to", "hub")):
        refused = refusal(site.run("course", *words, "--json"))
        assert (refused["message"], refused.get("hint")) == ("server hub is a relay", None), "it is behind hub already"
        assert refused["why"].endswith(f"{KEEP} is on east, behind it")
    assert refusal(site.run("server", "remove", "hub", "--json"))["message"] == "server hub is the relay of east"
    unknown = site.run("server", "add", "new", "--through", "hub", "--json")
    assert "rollbook server add new --through hub --admin-dsn" in unknown.err
    site.ok("course", "detach", KEEP, "--yes")
    assert KEEP_SCHEMA not in schemas(site.server) + schemas(site.hub)
    assert len(listed(site.hub, "rollbook_east")) == len(listed(site.portal, "rollbook_hub")) == 4
    site.ok("course", "detach", REMOVE, "--yes")
    site.ok("server", "remove", "east", "--yes")
    site.ok("server", "remove", "hub", "--yes")
    assert schemas(site.server) + schemas(site.hub) == []


@pytest.fixture
def wide(school: Db, dsn: str, room: PrivateServer, call: Callable[..., Result]) -> Iterator[Zones]:
    """Two relays, hub and hub2, and the servers behind them and beside; nothing is added yet."""
    with zones(school, dsn, room, call) as made:
        yield made


@pytest.mark.slow
def test_a_server_without_courses_that_is_not_well_is_seen_and_its_printed_fix_works(wide: Zones) -> None:
    def seen(name: str, state: str, code: int) -> dict[str, str]:
        """See what JSON has of the server."""
        answer = wide.run("status", "--json", "--timeout", "2")
        (hop,) = (row for row in answer.data["servers"] if row["server"] == name)
        assert (answer.code, hop["state"]) == (code, state), hop
        return dict(hop)

    def drawn(hop: dict[str, str], code: int, judged: str) -> None:
        """See what people and monitors get of it."""
        name = hop["server"]
        for words in (["status"], ["replication", "status"]):
            screen = wide.run(*words, "--format", "table", "--timeout", "2")
            assert screen.code == code
            assert re.search(rf"─ {name} +\S {hop['state']}", screen.out), screen.out
            assert f"  {name}: {hop['reason']}" in " ".join(screen.out.split("\n    ")), screen.out
            assert f"\n  {hop['fix']}\n" in screen.out
            assert "1 server without courses needs" in screen.out, "what is behind an unwell relay waits for it"
        check = wide.run("check", "replication", "--json", "--timeout", "2")
        assert (check.code, {row["check"]: row["state"] for row in check.data}[f"server {name}"]) == (code, judged)

    wide.add_all("north", "hub")
    wide.lose("hub")
    assert seen("hub", "unreachable", 3)["fix"] == "rollbook server ping hub"
    assert "server ping hub" in wide.run("status", "--html", "-", "--timeout", "2").out
    wide.ok("course", "attach", KEEP, "--to", "north")
    named = wide.run("status", KEEP, "--json")  # of that course alone
    assert (named.code, [row["server"] for row in named.data["servers"]]) == (0, ["north"])
    wide.find("hub")
    assert seen("hub", "ok", 0)["reason"] is None
    wide.add_all("east")
    wide.lose("hub")
    drawn(seen("hub", "unreachable", 3), 3, "unknown")
    wide.find("hub")
    wide.ok("replication", "pause", "--server", "east")
    hop = seen("east", "paused", 4)
    drawn(hop, 4, "warning")
    assert remedy(wide, hop["fix"]).code == 0
    hub = wide.sides["hub"]
    hub.execute("alter subscription rollbook_hub disable")
    assert seen("east", "broken", 4)["reason"].startswith("on its relay hub: ")
    assert remedy(wide, seen("hub", "broken", 4)["fix"]).code == 0
    hub.execute("alter subscription rollbook_hub disable")
    hub.execute("alter subscription rollbook_hub set (slot_name = none)")
    hub.execute("drop subscription rollbook_hub")
    assert remedy(wide, seen("hub", "broken", 4)["fix"]).code == 0
    seen("east", "ok", 0)


@pytest.mark.slow
def test_what_cannot_be_a_relay_or_go_behind_one_is_refused_and_leaves_nothing(wide: Zones) -> None:
    wide.add_all("hub", "hub2", "south", "north")
    wide.ok("course", "attach", KEEP, "--to", "north")
    before = wide.left()

    def refused(*options: str, through: str = "hub", admin: str = "east", route: str = "hub", code: int = 1) -> str:
        subscription = wide.portal_dsn if route == "portal" else wide.routes[route]
        answer = wide.run(
            "server", "add", "east", "--through", through, "--admin-dsn",
            wide.portal_dsn if admin == "portal" else wide.routes[admin], "--subscription-dsn", subscription,
            "--json", *options,
        )  # fmt: skip
        assert answer.code == code, answer
        error = refusal(answer)
        assert error["hint"]
        assert wide.left() == before
        return f"{error['message']}; {error['hint']}"

    assert "there is no server nowhere" in refused(through="nowhere")
    assert "server south is itself behind hub2; --through hub2" in refused(through="south")
    assert f"course move '{KEEP}' --to" in refused(through="north", route="north")
    assert "is that of its relay, server hub" in refused(admin="hub")
    assert "already receives copies" in refused(admin="south")
    assert "the portal's own database" in refused(admin="portal")
    for elsewhere in ("portal", "hub2", "north"):
        assert "no heartbeat of the portal reached server east" in refused("--timeout", "2", route=elsewhere, code=3)
    wide.ok("replication", "pause", "--server", "hub")
    paused = refused()
    assert paused == "server hub is paused; rollbook replication resume --server hub"
    assert remedy(wide, paused.partition("; ")[2]).code == 0
    wide.sides["hub"].execute("alter subscription rollbook_hub disable")
    assert refused() == "server hub is broken; rollbook server show hub"
    wide.sides["hub"].execute("alter subscription rollbook_hub enable")
    wide.lose("hub")
    assert "server hub cannot be reached" in refused(code=3)
    wide.find("hub")
    moving = wide.move("hub", "--prepare")  # not a relay yet
    assert moving.code == 0, moving
    before = wide.left()
    assert f"rollbook course move '{KEEP}' --to north" in refused()
    assert wide.move("north").code == 0
    before = wide.left()  # hub is prepared for courses
    planned = wide.add_server("east", "--dry-run", "--format", "table")
    assert planned.code == 0
    assert "-- on server hub\nselect rollbook.publish('rollbook_east'" in planned.out
    assert "-- on server east\n" in planned.out
    assert wide.left() == before
    wide.add_all("east")
    assert wide.ok("server", "add", "east", "--json").row["outcome"] == "unchanged"
    assert wide.ok("server", "add", "east", "--through", "hub", "--json").row["outcome"] == "unchanged"
    for name, through in (("east", "hub2"), ("north", "hub"), ("hub", "hub2")):
        again = refusal(wide.run("server", "add", name, "--through", through, "--json"))
        assert again["hint"] == f"rollbook server move {name} --through {through}"
    for command, message in (
        (("add", "hub", "--through", "hub"), "server hub cannot feed itself"),
        (("remove", "hub", "--yes"), "server hub is the relay of east"),
    ):
        assert refusal(wide.run("server", *command, "--json"))["message"] == message
    assert refusal(wide.move("hub"))["message"] == "server hub is a relay"
    query = "select after ->> 'through' from rollbook.history where object = 'east' and outcome = 'created'"
    assert wide.portal.execute(query).fetchall() == [("hub",)]


@pytest.mark.slow
def test_a_relay_whose_wal_is_not_logical_is_told_the_lines_that_change_that(
    school: Db, dsn: str, call: Callable[..., Result]
) -> None:
    with (
        private_server({**FAST, **QUICK, **ROOM, "wal_level": "replica"}) as server,
        relayed(school, dsn, server, call) as site,
    ):
        site.add_hub()
        answer = site.run("server", "add", "east", "--through", "hub", "--admin-dsn", site.server_dsn,
                          "--subscription-dsn", site.hub_dsn, "--json")  # fmt: skip
        error = refusal(answer)
        assert "wal_level of server hub is replica" in error["message"]
        assert error["hint"] == "on server hub: alter system set wal_level = 'logical'; then restart it"
        assert schemas(site.server) == []
        site.ok("server", "remove", "hub", "--yes")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [("east",), ("hub",), ("hub", "east")], ids="-".join)
def test_a_server_is_removed_while_it_or_its_relay_is_lost_and_what_is_left_is_cleaned(
    wide: Zones, lost: tuple[str, ...]
) -> None:
    wide.add_all("hub", "west")
    before = wide.left()
    wide.add_all("east")
    wide.ok("course", "attach", KEEP, REMOVE, "--to", "east")
    wide.ok("course", "move", REMOVE, "--to", "west", "--yes")
    wide.ok("course", "move", REMOVE, "--to", "east", "--prepare")  # on both
    wide.lose(*lost)
    silent = wide.run("server", "remove", "east", "--unreachable", "--json")
    assert silent.code == 6
    cut = wide.run("server", "remove", "east", "--yes", "--json")
    assert cut.code == 1  # it has courses
    removed = wide.run("server", "remove", "east", "--unreachable", "--yes", "--json")
    assert removed.code == 5, removed
    left = {row["what"] for row in removed.data if row["outcome"] != "removed"}
    there = {"subscription on the server", "schema rollbook on the server", f"schema {KEEP_SCHEMA} on the server",
             f"schema {REMOVE_SCHEMA} on the server"}  # fmt: skip
    on_relay = {"slot on server hub", "publication on server hub", f"schema {KEEP_SCHEMA} on server hub"}
    assert left == there | (on_relay if "hub" in lost else set())
    assert wide.placed() == (None, None, None, "ok")
    assert wide.placed(REMOVE) == ("west", None, None, "ok")
    wide.find(*lost)
    script = removed.err.partition("run there:\n")[2].partition("\nwhen ")[0].partition("\nnote: ")[0]
    for line in filter(None, map(str.strip, script.splitlines())):
        if line.startswith(("alter ", "drop ")) and "drop role" not in line:
            wide.server.execute(line.encode())
    if "hub" in lost:
        fix = "rollbook server add hub"
        assert fix in removed.err
        assert remedy(wide, fix).code == 0
    assert wide.holders(REMOVE_SCHEMA) == {"hub", "west"}
    wide.follows("west", REMOVE)
    wide.ok("course", "detach", REMOVE, "--yes")
    assert wide.left() == before


@pytest.mark.parametrize(
    ("heading", "printed", "made"),
    [
        ("Move servers that are there", "csrv", "grant usage on schema rollbook to csrv; "
         "grant select on rollbook.heartbeat to csrv; select rollbook.grant_course('{course}', 'csrv')"),
        ("Take down", "hub", "grant rollbook_relay to hub"),
    ],
)  # fmt: skip
def test_who_made_a_login_drops_it_by_the_lines_of_the_page(
    school: Db, dsn: str, heading: str, printed: str, made: str
) -> None:
    (lines,) = re.findall(
        r"^```sql\n(.*?)^```$", section(heading, ROOT / "docs" / "relay.md"), re.MULTILINE | re.DOTALL
    )
    dba, login = f"{printed}_dba", f"{printed}_login"
    school.execute(f"create role {dba} login createrole replication; grant rollbook_owner, rollbook_operator to {dba}; "
                   f"grant rollbook_relay to {dba} with admin option; alter schema rollbook owner to {dba}; "
                   f"alter table rollbook.heartbeat owner to {dba}".encode())  # fmt: skip
    if school.info.server_version < 160000:
        school.execute(f"alter role {dba} superuser".encode())  # nobody else makes a role with REPLICATION
    try:
        with psycopg.connect(dsn.replace("user=postgres", f"user={dba}"), autocommit=True) as conn:
            conn.execute(f"create role {login} login replication password 'x'".encode())
            conn.execute(re.sub(rf"\b{printed}\b", login, made.format(course=KEEP)).encode())
            for line in re.sub(rf"\b{printed}\b", login, lines).split(";"):
                conn.execute(line.encode())
        left = "select count(*) from pg_roles where rolname = %s"
        assert school.execute(left, [login]).fetchone() == (0,)
    finally:
        school.execute(f"reassign owned by {dba} to postgres; drop owned by {dba}; drop role {dba}".encode())
