"""A person is erased from every database of every server: a byte search of all dumps finds nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.people.test_privacy import ALIASES, WORDS, dump, found, live
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.replication.conftest import Own, until

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

EXTRA, EXTRA_SCHEMA = "extra/1", "course_extra_1"


def dumps(server: PrivateServer) -> str:
    """All databases of a server as text."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        names = conn.execute("select datname from pg_database where datallowconn and datname <> 'template1'").fetchall()
    return "".join(dump(server.dsn(name)) for (name,) in names)


def test_a_person_is_erased_from_all_servers_one_that_was_down_and_a_detached_course(
    own: Callable[..., Own], place: Callable[..., PrivateServer], seeds: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    site, west = own(), place(seeds[1])
    site.add()
    site.ok("server", "add", "west", "--admin-dsn", west.dsn("site"), "--subscription-dsn", site.portal_dsn)
    site.ok("course", "create", EXTRA)
    live(site.run, site.portal)
    site.ok("enrollment", "add", EXTRA, "zelda77")
    site.attach(KEEP, EXTRA)
    site.ok("course", "attach", REMOVE, "--to", "west")
    site.wait()
    site.server.execute(
        f"""alter table {KEEP_SCHEMA}.auth_user add column nickname text;
        update {KEEP_SCHEMA}.auth_user set nickname = 'qwirky there' where username = 'zelda77';
        create table {KEEP_SCHEMA}.essay (author bigint references {KEEP_SCHEMA}.auth_user (id) on delete cascade,
            body text);
        insert into {KEEP_SCHEMA}.essay
        select id, 'Xylander there' from {KEEP_SCHEMA}.auth_user where username = 'zelda77';
        create table {KEEP_SCHEMA}.page (body text);
        create table {EXTRA_SCHEMA}.essay (author bigint references {EXTRA_SCHEMA}.auth_user (id));
        insert into {EXTRA_SCHEMA}.essay select id from {EXTRA_SCHEMA}.auth_user where username = 'zelda77'"""
    )
    site.ok("course", "detach", EXTRA, "--keep-data", "--yes")
    row = site.portal.execute("select id from portal.auth_user where username = 'zelda77'").fetchone()
    assert row is not None
    number, erase = row[0], ("user", "erase", "zelda77", "--confirm", "zelda77")
    for server, words in ((site.here, WORDS), (site.there, WORDS[:3]), (west, WORDS[:3])):
        assert found(dumps(server), *words) == list(words)
    assert found(dumps(site.here), *ALIASES) == list(ALIASES)
    west.stop()

    told = site.run("user", "report", "zelda77", "--json")
    there = {each["object"]: each["rows"] for each in told.data["places"] if each["place"] == "server east"}
    assert (told.code, [each["place"] for each in told.data["open"]]) == (3, ["server west"]), told.err
    assert there[f"{KEEP_SCHEMA}.auth_user"][0]["nickname"] == "qwirky there"
    assert there[f"{KEEP_SCHEMA}.essay"] == [{"author": number, "body": "Xylander there"}]
    assert f"{EXTRA_SCHEMA}.auth_userprofile" in there
    assert {"place": "server east", "object": f"{KEEP_SCHEMA}.page"} in told.data["not_searched"]

    refused = site.run(*erase)  # by the detached course's own table
    assert (refused.code, f"server east: {EXTRA_SCHEMA}.essay: 1" in refused.err) == (1, True), refused
    assert found(dumps(site.there), *WORDS[:3]) == list(WORDS[:3])

    first = site.run(*erase, "--remove-references", "--json")
    assert first.code == 3, first
    places: dict[tuple[str, str], Any] = {(line["place"], line["object"]): line for line in first.data}
    for name in (f"{KEEP_SCHEMA}.auth_user", f"{KEEP_SCHEMA}.essay", f"{EXTRA_SCHEMA}.auth_user"):
        line = places["server east", name]
        assert (line["rows"], line["outcome"], bool(line["lsn"] and line["at"])) == (1, "removed", True)
    assert places["server west", "all courses"]["outcome"] == "open"
    assert places["server east", f"{KEEP_SCHEMA}.page"]["outcome"] == "unknown"
    for server in (site.here, site.there):
        assert [line for line in dumps(server).splitlines() if found(line, *WORDS, *ALIASES)] == []

    # The service has it, the server comes back, and the command that was printed finishes it.
    site.portal.execute("delete from rollbook.discussion_outbox where user_id = %s", [number])
    west.start()
    again = ("user", "erase", f"id:{number}", "--confirm", f"id:{number}", "--json")
    assert " ".join(again[:-1]) in first.err
    until(lambda: site.run(*again).code == 0)
    for server in (site.here, site.there, west):
        assert [line for line in dumps(server).splitlines() if found(line, *WORDS, *ALIASES)] == []
    assert site.portal.execute("select count(*) from rollbook.erasure").fetchone() == (0,)
    assert site.portal.execute(f"select count(*) from {REMOVE_SCHEMA}.auth_user").fetchone() == (1,)  # ada's
    site.wait()
    assert site.run("replication", "verify").code == 0
