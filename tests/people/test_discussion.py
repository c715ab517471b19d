"""`rollbook discussion`: against a real HTTP server that the test starts, with all that can go wrong there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.people import discussion as delivery
from tests.people.discussion_service import KEY, OK, Reply, Service, failing, messages, until, users_of
from tests.program import ROOT, environment, rows, snapshot
from tests.school import Rollbook

pytestmark = pytest.mark.slow  # `make check` runs it

OUTBOX = "rollbook.discussion_outbox"
CODE = "from rollbook.cli import main; main()"
ADA, BOB, DAN, EVE = 101, 102, 103, 104


@pytest.fixture
def service() -> Iterator[Service]:
    """A running service."""
    started = Service()
    yield started
    with suppress(OSError):
        started.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """A file with the key, as an editor leaves it."""
    path = tmp_path / "discussion.key"
    path.write_text(f"{KEY}\n")
    return str(path)


@pytest.fixture
def forum(school: Connection[Any], rollbook: Rollbook, service: Service, key_file: str) -> Service:
    """The service, active for the platform; nothing is noted yet."""
    assert school.info.dbname
    assert rollbook("discussion", "activate", "--url", service.url, "--api-key-file", key_file).code == 0
    return service


def mail(db: Connection[Any], *emails: str, user: int = ADA) -> None:
    """Change a user's address, one commit for each."""
    for email in emails:
        db.execute("update portal.auth_user set email = %s where id = %s", [email, user])


def waiting(db: Connection[Any]) -> list[tuple[Any, ...]]:
    """What the outbox holds."""
    return [row[1:] for row in rows(db, OUTBOX, "id", "user_id", "operation", "username", "email", "attempts")]


def make_due(db: Connection[Any]) -> None:
    """Let the time of back-off pass."""
    db.execute("update rollbook.discussion_outbox set next_try_at = now()")


def process(dsn: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the program as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "discussion", *arguments, "-d", dsn],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip


# --- switching --------------------------------------------------------------------------------------------------------


def test_it_is_off_by_default_and_then_nothing_is_noted_or_sent(school: Connection[Any], rollbook: Rollbook) -> None:
    mail(school, "ada@example.com")
    assert waiting(school) == []
    status = rollbook("discussion", "status", "--json")
    assert (status.code, status.row) == (
        0,
        {"active": False, "url": "http://localhost:4567", "pending": 0, "failed": 0, "oldest_seconds": None,
         "last_error": None, "reachable": None},
    )  # fmt: skip
    before = snapshot(school)
    for more in ((), ("--all",), ("--follow",)):
        refused = rollbook("discussion", "sync", *more)
        assert (refused.code, refused.out) == (1, "")
        assert "not active" in refused.err
        assert "rollbook discussion activate" in refused.err
    assert snapshot(school) == before


def test_activate_keeps_address_and_key_and_says_what_it_did(
    school: Connection[Any], rollbook: Rollbook, key_file: str
) -> None:
    first = rollbook("discussion", "activate", "--url", "https://f.example/x/", "--api-key-file", key_file, "--json")
    expected = {"active": True, "url": "https://f.example/x", "has_api_key": True}
    assert (first.code, first.row) == (0, {**expected, "outcome": "activated"})
    assert "sync --all" in first.err
    assert rows(school, "rollbook.discussion", "active", "url", "api_key") == [(True, "https://f.example/x", KEY)]
    again = rollbook("discussion", "activate", "--json")
    assert (again.code, again.row) == (0, {**expected, "outcome": "unchanged"})
    moved = rollbook("discussion", "activate", "--url", "http://g.example", "--json")
    assert moved.row == {**expected, "url": "http://g.example", "outcome": "changed"}
    off = rollbook("discussion", "deactivate", "--json", "--reason", "retired")
    assert off.row == {**expected, "url": "http://g.example", "active": False, "outcome": "deactivated"}
    assert rollbook("discussion", "deactivate", "--json").row["outcome"] == "unchanged"
    noted = rows(school, "rollbook.history", "id", "command", "object", "outcome", "reason", "before", "after")
    assert [row[1:5] for row in noted] == [
        ("discussion activate", "discussion", "activated", None),
        ("discussion activate", "discussion", "changed", None),
        ("discussion deactivate", "discussion", "deactivated", "retired"),
    ]
    assert noted[0][6] == {"active": True, "url": "https://f.example/x", "api_key": "(secret)"}
    assert KEY not in str(noted)


def test_the_scheme_of_an_address_may_be_in_capitals(school: Connection[Any], rollbook: Rollbook) -> None:
    assert rollbook("discussion", "activate", "--url", "HTTP://F.example/x//").code == 0
    assert rows(school, "rollbook.discussion", "url") == [("http://F.example/x",)]


def test_a_dry_run_switches_nothing(school: Connection[Any], rollbook: Rollbook, key_file: str) -> None:
    before = snapshot(school)
    answer = rollbook("discussion", "activate", "--url", "http://f.example", "--api-key-file", key_file, "-n", "--json")
    assert (answer.code, answer.row["outcome"]) == (0, "would activate")
    assert snapshot(school) == before


@pytest.mark.parametrize(
    "url",
    ["ftp://f.example", "f.example", "http://", "http://f.example:0", "http://f.example:x", "http://f.example/ a",
     "http://[::1", "http://f.example/?api_key=s3cr", "http://f.example/#s3cr", "http://me:s3cr@f.example", "/x"],
)  # fmt: skip
def test_an_address_that_is_none_or_holds_a_secret_is_usage(
    school: Connection[Any], rollbook: Rollbook, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    before = snapshot(school)
    answer = rollbook("discussion", "activate", "--url", url)
    assert (answer.code, answer.out) == (2, "")
    assert "the address of the discussion service" in answer.err
    assert "s3cr" not in answer.err
    assert snapshot(school) == before
    monkeypatch.setenv("ROLLBOOK_DISCUSSION_URL", url)
    assert rollbook("discussion", "status").code == 2


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines\n", b"a\x00b", b"\xff\xfe"])
def test_a_file_without_a_key_is_usage(
    school: Connection[Any], rollbook: Rollbook, tmp_path: Path, content: bytes
) -> None:
    before = snapshot(school)
    (tmp_path / "key").write_bytes(content)
    answer = rollbook("discussion", "activate", "--api-key-file", str(tmp_path / "key"))
    assert (answer.code, answer.out) == (2, "")
    assert "lines" not in answer.err
    absent = rollbook("discussion", "activate", "--api-key-file", str(tmp_path / "absent"))
    assert (absent.code, "cannot read" in absent.err) == (2, True)
    assert snapshot(school) == before


def test_the_key_comes_from_stdin_too(school: Connection[Any], rollbook: Rollbook) -> None:
    answer = rollbook("discussion", "activate", "--api-key-file", "-", stdin=b"\xef\xbb\xbfabc\r\n")
    assert answer.code == 2  # a byte order mark is no part of a key, and nobody types one
    assert rollbook("discussion", "activate", "--api-key-file", "-", stdin=b"abc\r\n").code == 0
    assert rows(school, "rollbook.discussion", "api_key") == [("abc",)]


def test_the_environment_names_address_and_key(
    school: Connection[Any], rollbook: Rollbook, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLBOOK_DISCUSSION_URL", service.url)
    monkeypatch.setenv("ROLLBOOK_DISCUSSION_API_KEY", "from the environment")
    assert rollbook("discussion", "activate").code == 0
    assert rows(school, "rollbook.discussion", "url", "api_key") == [(service.url, None)]
    mail(school, "ada@example.com")
    assert rollbook("discussion", "sync").code == 0
    assert service.told[0].form["api_key"] == "from the environment"
    school.execute("update rollbook.discussion set url = 'http://127.0.0.1:1', api_key = 'other'")
    mail(school, "ada@example.net")
    assert rollbook("discussion", "sync").code == 0
    assert service.told[1].form["api_key"] == "from the environment"


def test_without_a_key_none_is_sent(school: Connection[Any], rollbook: Rollbook, service: Service) -> None:
    rollbook("discussion", "activate", "--url", service.url)
    mail(school, "ada@example.com")
    school.execute("delete from portal.auth_user where id = %s", [EVE])
    assert rollbook("discussion", "sync").code == 0
    assert [sorted(told.form) for told in service.told] == [["email", "external_id", "username"], []]


# --- delivering -------------------------------------------------------------------------------------------------------


def test_each_change_is_delivered_in_its_order_and_struck_out(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    mail(school, "ada@example.com", "ada@example.net")
    school.execute("insert into portal.auth_user (id, username, email) values (200, 'zoë+@', 'zoë@example.org')")
    school.execute("update portal.auth_user set username = 'ada2' where id = 101")
    school.execute("delete from portal.auth_user where id = 102")
    answer = rollbook("discussion", "sync", "--json")
    assert answer.code == 0
    assert answer.data == [
        {"username": name, "operation": operation, "outcome": "delivered", "http_status": 200, "error": None}
        for name, operation in (
            ("ada", "put"), ("ada", "put"), ("zoë+@", "put"), ("ada2", "put"), ("bob", "delete"),
        )
    ]  # fmt: skip
    assert forum.words() == [
        ("PUT", ADA, "ada", "ada@example.com"), ("PUT", ADA, "ada", "ada@example.net"),
        ("PUT", 200, "zoë+@", "zoë@example.org"), ("PUT", ADA, "ada2", "ada@example.net"),
        ("DELETE", BOB, None, None),
    ]  # fmt: skip
    first = forum.told[0]
    assert (first.path, first.content_type) == ("/api/v1/users/101", "application/x-www-form-urlencoded")
    assert first.form == {"username": "ada", "external_id": "101", "email": "ada@example.com", "api_key": KEY}
    assert forum.told[-1].form == {"api_key": KEY}
    assert waiting(school) == []
    nothing = rollbook("discussion", "sync", "--json")
    assert (nothing.code, nothing.data) == (0, [])
    status = rollbook("discussion", "status", "--json")
    assert (status.code, status.row["pending"], status.row["reachable"]) == (0, 0, True)
    assert len(forum.told) == 5


FAULTS: dict[str, tuple[Reply, int | None, str]] = {
    "messages": (Reply(400, messages("Email has already been taken", "No")), 400, "Email has already been taken; No"),
    "unauthorized": (Reply(401, '{"why": "no key"}'), 401, '401: {"why": "no key"}'),
    "not found": (Reply(404, "<h1>not found</h1>"), 404, "404: <h1>not found</h1>"),
    "created": (Reply(201), 201, "201: {}"),
    "no content": (Reply(204, ""), 204, "204"),
    "error": (Reply(500, "oops\n\x1b[31mred"), 500, "500: oops [31mred"),
    "unavailable": (Reply(503, ""), 503, "503"),
    "broken JSON": (Reply(200, '{"id": '), 200, '200, but the answer is not JSON: {"id":'),
    "not JSON": (Reply(200, "<html>login</html>"), 200, "200, but the answer is not JSON: <html>"),
    "nested JSON": (Reply(200, "[" * 200_000), 200, "200, but the answer is not JSON: [[["),
    "empty": (Reply(200, ""), 200, "200, but the answer is empty"),
    "endless": (Reply(200, '"' + "x" * 3_000_000 + '"'), 200, "200, but the answer is not JSON"),
    "redirect": (Reply(302, "", headers={"Location": "/elsewhere"}), 302, "302"),
    "hung up": (Reply(hang_up=True), None, "no answer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_200_with_json_is_not_delivered_and_tried_later(
    school: Connection[Any], rollbook: Rollbook, forum: Service, fault: str
) -> None:
    reply, status, error = FAULTS[fault]
    forum.plan = lambda _: reply
    mail(school, "ada@example.com")
    answer = rollbook("discussion", "sync", "--json")
    assert (answer.code, answer.row["outcome"], answer.row["http_status"]) == (4, "failed", status)
    assert error in answer.row["error"]
    assert len(answer.row["error"]) <= delivery.MOST_WORDS
    assert answer.row["error"].isprintable()
    assert len(forum.told) == 1
    (row,) = rollbook("discussion", "list", "--state", "failed", "--json").data
    assert (row["username"], row["operation"], row["attempts"], row["error"]) == ("ada", "put", 1, answer.row["error"])
    state = rollbook("discussion", "status", "--json")
    assert (state.code, state.row["pending"], state.row["failed"]) == (4, 1, 1)
    assert (state.row["last_error"], state.row["reachable"]) == (answer.row["error"], True)
    forum.plan = lambda _: OK
    early = rollbook("discussion", "sync", "--json")
    assert (early.code, early.data, len(forum.told)) == (4, [], 1)
    assert rollbook("discussion", "sync", "--failed").code == 0
    assert (waiting(school), forum.by_user()) == ([], {ADA: ["ada@example.com"] * 2})


def test_a_refused_connection_is_not_delivered(school: Connection[Any], rollbook: Rollbook, forum: Service) -> None:
    forum.stop()
    mail(school, "ada@example.com")
    answer = rollbook("discussion", "sync", "--json")
    assert (answer.code, answer.row["http_status"]) == (4, None)
    assert "cannot connect" in answer.row["error"]
    status = rollbook("discussion", "status", "--json")
    assert (status.code, status.row["reachable"]) == (4, False)


@pytest.mark.parametrize("reply", [Reply(seconds=60), Reply(drip=0.2)], ids=["hanging", "dripping"])
def test_a_request_takes_no_longer_than_its_limit_and_holds_up_nobody_else(
    school: Connection[Any], rollbook: Rollbook, forum: Service, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    assert delivery.SECONDS == 5
    monkeypatch.setattr(delivery, "SECONDS", 1.0)
    forum.plan = lambda told: reply if told.user_id == ADA else OK
    mail(school, "ada@example.com", "ada@example.net")
    mail(school, "bob@example.com", user=BOB)
    began = time.monotonic()
    answer = rollbook("discussion", "sync", "--json")
    assert time.monotonic() - began < 4
    assert (answer.code, answer.column("outcome"), answer.column("username")) == (
        5, ["failed", "delivered"], ["ada", "bob"],
    )  # fmt: skip
    assert "no answer within 1 s" in answer.data[0]["error"]
    assert forum.by_user() == {ADA: ["ada@example.com"], BOB: ["bob@example.com"]}


def test_a_slow_answer_within_the_limit_counts(school: Connection[Any], rollbook: Rollbook, forum: Service) -> None:
    forum.plan = lambda _: Reply(seconds=0.7)
    mail(school, "ada@example.com")
    assert rollbook("discussion", "sync").code == 0


def test_a_sync_stops_when_the_service_is_silent_for_long(
    school: Connection[Any], rollbook: Rollbook, forum: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SECONDS", 0.3)
    monkeypatch.setattr(delivery, "SILENCE_SECONDS", 0.6)
    forum.plan = lambda _: Reply(seconds=60)
    school.execute("insert into portal.auth_user (id, username) select n, 'user' || n from generate_series(1, 9) as n")
    answer = rollbook("discussion", "sync", "--json")
    assert (answer.code, answer.column("outcome")) == (4, ["failed"] * 2)
    assert "the service does not answer; 9 changes not delivered" in answer.err
    assert [row[-1] for row in waiting(school)] == [1, 1] + [0] * 7


def test_after_a_failure_a_users_later_changes_wait_and_other_users_go_on(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    forum.plan = failing(500, only={ADA})
    mail(school, "a1@example.org", "a2@example.org")
    mail(school, "b1@example.org", user=BOB)
    school.execute("delete from portal.auth_user where id = %s", [ADA])
    answer = rollbook("discussion", "sync", "--json")
    assert (answer.code, answer.column("outcome")) == (5, ["failed", "delivered"])
    assert forum.by_user() == {ADA: ["a1@example.org"], BOB: ["b1@example.org"]}
    mail(school, "b2@example.org", user=BOB)
    assert rollbook("discussion", "sync").code == 5  # ada's wait for the first of them
    assert forum.by_user() == {ADA: ["a1@example.org"], BOB: ["b1@example.org", "b2@example.org"]}
    listed = rollbook("discussion", "list", "--json")
    assert [(row["username"], row["operation"], row["attempts"]) for row in listed.data] == [
        ("ada", "put", 1), ("ada", "put", 0), ("ada", "delete", 0),
    ]  # fmt: skip
    assert len(rollbook("discussion", "list", "--state", "failed", "--json").data) == 1
    assert len(rollbook("discussion", "list", "--state", "pending", "--json").data) == 3
    assert rollbook("discussion", "list", "--match", "zed", "--json").data == []
    forum.plan = lambda _: OK
    make_due(school)
    assert rollbook("discussion", "sync").code == 0
    assert forum.by_user()[ADA] == ["a1@example.org", "a1@example.org", "a2@example.org", "gone"]


def test_each_failure_doubles_the_time_until_the_next_try_up_to_an_hour(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    forum.plan = failing(503)
    mail(school, "ada@example.com")
    found = []
    for _ in range(11):
        assert rollbook("discussion", "sync", "--failed").code == 4
        found.append(
            school.execute(
                "select extract(epoch from next_try_at - tried_at)::int, attempts from rollbook.discussion_outbox"
            ).fetchone()
        )
    assert found == [(min(10 * 2**n, 3600), n + 1) for n in range(11)]


def test_a_refused_put_gives_way_to_what_the_user_became_since(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    forum.plan = lambda told: OK if told.form["email"] == "good@example.org" else Reply(400, messages("taken"))
    mail(school, "taken@example.org")
    assert rollbook("discussion", "sync", "--failed").code == 4
    assert rollbook("discussion", "sync", "--failed").code == 4  # nothing else is known of the user
    mail(school, "good@example.org")
    answer = rollbook("discussion", "sync", "ada", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["dropped", "delivered"])
    assert (waiting(school), forum.told[-1].form["email"]) == ([], "good@example.org")


def test_a_broken_service_makes_no_change_give_way(school: Connection[Any], rollbook: Rollbook, forum: Service) -> None:
    forum.plan = failing(500)
    mail(school, "a1@example.org", "a2@example.org")
    for _ in range(3):
        assert rollbook("discussion", "sync", "--failed").code == 4
    assert forum.by_user() == {ADA: ["a1@example.org"] * 3}
    assert len(waiting(school)) == 2


def test_names_that_users_hand_on_are_told_in_the_order_of_the_commits(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    names = {"ada": ADA, "bob": BOB}

    def strict(told: Any) -> Reply:
        if names.get(told.form["username"], told.user_id) != told.user_id:
            return Reply(400, messages("username is taken"))
        for name in [name for name, owner in names.items() if owner == told.user_id]:
            del names[name]
        names[told.form["username"]] = told.user_id
        return OK

    forum.plan = strict
    for name, user in (("x", ADA), ("ada", BOB), ("bob", ADA)):
        school.execute("update portal.auth_user set username = %s where id = %s", [name, user])
    assert rollbook("discussion", "sync").code == 0
    assert names == {"bob": ADA, "ada": BOB}


def test_only_the_users_named_are_told_and_at_once(school: Connection[Any], rollbook: Rollbook, forum: Service) -> None:
    mail(school, "ada@example.com")
    mail(school, "bob@example.com", user=BOB)
    school.execute("delete from portal.auth_user where id = %s", [DAN])
    assert rollbook("discussion", "sync", "ada").code == 0
    assert rollbook("discussion", "sync", f"id:{DAN}").code == 0
    assert forum.by_user() == {ADA: ["ada@example.com"], DAN: ["gone"]}
    forum.plan = failing(500)
    assert [rollbook("discussion", "sync", "bob@example.com").code for _ in range(2)] == [4, 4]
    assert len(forum.told) == 4
    before = snapshot(school)
    for stranger in ("zed", "id:9999", f"id:{DAN}"):
        answer = rollbook("discussion", "sync", "ada", stranger)
        assert (answer.code, f"there is no user {stranger}" in answer.err) == (1, True)
    assert (snapshot(school), len(forum.told)) == (before, 4)


def test_all_tells_every_user_as_they_are_when_it_is_their_turn(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    forum.plan = failing(503)
    assert rollbook("discussion", "sync", "--all").code == 4
    school.execute("update portal.auth_user set email = 'late@example.org' where id = %s", [BOB])
    school.execute("delete from portal.auth_user where id = %s", [DAN])
    forum.plan = lambda _: OK
    forum.told.clear()
    answer = rollbook("discussion", "sync", "--all", "--json")  # queues no user twice
    assert answer.code == 0
    assert [(row["username"], row["outcome"]) for row in answer.data] == [
        ("ada", "delivered"), ("bob", "delivered"), (None, "dropped"), ("eve", "delivered"), ("bob", "delivered"),
        ("dan", "delivered"),
    ]  # fmt: skip
    assert forum.by_user() == {
        ADA: ["ada@example.org"], BOB: ["late@example.org"] * 2, EVE: [""], DAN: ["gone"],
    }  # fmt: skip
    forum.told.clear()
    assert rollbook("discussion", "sync", "--all", "eve").code == 0
    assert forum.by_user() == {EVE: [""]}
    noted = rows(school, "rollbook.history", "id", "command", "outcome", "after")
    assert [row[1:] for row in noted[1:4]] == [
        ("discussion sync", "queued", {"users": 4}), ("discussion sync", "failed", {"delivered": 0, "failed": 4}),
        ("discussion sync", "queued", {"users": 0}),
    ]  # fmt: skip


def test_what_all_queues_never_overtakes_a_change_that_is_not_committed_yet(
    rollbook: Rollbook, forum: Service, session: Any
) -> None:
    writer = session()
    with writer.transaction():
        mail(writer, "new@example.org")
        writer.execute("delete from portal.auth_user where id = %s", [EVE])
        forum.plan = failing(503)
        assert rollbook("discussion", "sync", "--all").code == 4  # and it waits for nobody
    forum.plan = lambda _: OK
    assert rollbook("discussion", "sync", "--failed").code == 0
    assert users_of(forum)[ADA] == ("ada", "new@example.org")
    assert EVE not in users_of(forum)


def test_a_dry_run_sends_nothing_and_changes_nothing(
    school: Connection[Any], rollbook: Rollbook, forum: Service
) -> None:
    mail(school, "ada@example.com")
    before = snapshot(school)
    answer = rollbook("discussion", "sync", "--all", "-n", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["would deliver"] * 5)
    assert (snapshot(school), forum.told) == (before, [])


@pytest.mark.slow
def test_a_thousand_users_are_told_once_each(school: Connection[Any], rollbook: Rollbook, forum: Service) -> None:
    school.execute(
        """insert into portal.auth_user (id, username, email)
        select n, 'user' || n, 'user' || n || '@example.org' from generate_series(1001, 2000) as n"""
    )
    school.execute("update portal.auth_user set email = 'new.' || email where id > 1000")
    answer = rollbook("discussion", "sync", "--json")
    assert (answer.code, len(answer.data), waiting(school)) == (0, 2000, [])
    mails = ["user{}@example.org", "new.user{}@example.org"]
    assert forum.by_user() == {n: [text.format(n) for text in mails] for n in range(1001, 2001)}


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_the_key_is_told_to_the_service_alone(
    school: Connection[Any], rollbook: Rollbook, forum: Service, key_file: str
) -> None:
    echoes = [KEY, "s3cr%26t+key", "s3cr%26t%20key", "s3cr&amp;t key", f'{{"key": "{KEY}"}}']
    said = ""
    for echo in echoes:
        forum.plan = failing(500, f"wrong key {echo} given")
        mail(school, f"{len(said)}@example.com")
        for arguments in (
            ("sync", "-v", "--debug"), ("sync", "--failed", "--json"), ("status", "-v"), ("list", "--json"),
            ("sync", "--all", "-n"), ("activate", "-v", "--api-key-file", key_file),
        ):  # fmt: skip
            answer = rollbook("discussion", *arguments)
            said += answer.out + answer.err
    said += str([snapshot(school)[table] for table in (OUTBOX, "rollbook.history")])
    assert "wrong key *** given" in said
    assert not [echo for echo in ("s3cr", *echoes) if echo in said]
    assert forum.told[0].form["api_key"] == KEY


def test_neither_a_redirect_nor_a_proxy_leads_the_key_elsewhere(
    school: Connection[Any], rollbook: Rollbook, forum: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Service()
    try:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        for status in (301, 302, 307, 308):
            reply = Reply(status, "{}", headers={"Location": other.url})
            forum.plan = lambda _: reply  # noqa: B023
            mail(school, f"{status}@example.com")
            assert rollbook("discussion", "sync", "--failed").code == 4
        assert (other.told, other.probes) == ([], 0)
    finally:
        other.stop()


# --- writers, and several at a time -----------------------------------------------------------------------------------


def test_no_save_waits_for_a_sync_or_for_the_service(
    school: Connection[Any], forum: Service, dsn: str, session: Any
) -> None:
    forum.plan = lambda _: Reply(seconds=4)
    mail(school, "ada@example.com")
    running = process(dsn, "sync", "--json")
    try:
        until(lambda: forum.told)
        writer = session()
        writer.execute("set lock_timeout = '100ms'")
        began = time.monotonic()
        mail(writer, "a2@example.com", "a3@example.com")
        writer.execute("delete from portal.auth_user where id = %s", [ADA])
        writer.execute("insert into portal.auth_user (id, username) values (300, 'new')")
        assert time.monotonic() - began < 1
        open_ = school.execute(
            "select count(*) from pg_stat_activity where application_name like 'rollbook%' and xact_start is not null"
        ).fetchone()
        assert open_ == (0,)
        assert running.poll() is None
    finally:
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, b"delivered" in out) == (0, True)
    assert [row[:2] for row in waiting(school)] == [(ADA, "put"), (ADA, "put"), (ADA, "delete"), (300, "put")]


@pytest.mark.usefixtures("forum")
def test_a_save_that_is_rolled_back_is_not_told(school: Connection[Any], rollbook: Rollbook) -> None:
    with suppress(ZeroDivisionError), school.transaction():
        mail(school, "ada@example.com")
        raise ZeroDivisionError
    assert waiting(school) == []
    assert rollbook("discussion", "sync", "--json").data == []


def history_of(db: Connection[Any], users: range, times: int) -> dict[int, list[str]]:
    """Change each user so many times, in turn, and delete every tenth; return what the service must be told."""
    db.execute("insert into portal.auth_user (id, username) select n, 'u' || n from unnest(%s::int[]) n", [list(users)])
    for turn in range(times):
        db.execute(
            "update portal.auth_user set email = %s || id || '@example.org' where id between %s and %s",
            [f"t{turn}.", users[0], users[-1]],
        )
    gone = [user for user in users if user % 10 == 0]
    db.execute("delete from portal.auth_user where id = any(%s)", [gone])
    return {
        user: ["", *(f"t{turn}.{user}@example.org" for turn in range(times)), *(["gone"] if user in gone else [])]
        for user in users
    }


def test_killed_at_any_point_nothing_is_lost_or_reordered(school: Connection[Any], forum: Service, dsn: str) -> None:
    expected = history_of(school, range(501, 541), 4)
    forum.plan = lambda _: Reply(seconds=0.004)
    kills = 0
    for wanted in (1, 7, 20, 45, 80, 120):
        running = process(dsn, "sync")
        before = len(forum.told)
        until(lambda: len(forum.told) - before >= wanted or running.poll() is not None)  # noqa: B023
        time.sleep(0.0007 * kills)  # at another point each time: before the answer, after it, after the striking out
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=30)
        kills += running.returncode == -signal.SIGKILL
    last = process(dsn, "sync")
    _, said = last.communicate(timeout=60)
    assert (kills >= 3, last.returncode, said) == (True, 0, b"")
    assert waiting(school) == []
    told = forum.by_user()
    assert {user: [word for word, _ in groupby(words)] for user, words in told.items()} == expected
    assert sum(map(len, told.values())) - sum(map(len, expected.values())) <= kills  # at most one twice for each


def test_two_that_deliver_at_a_time_share_the_work_and_reorder_nothing(
    school: Connection[Any], forum: Service, dsn: str
) -> None:
    expected = history_of(school, range(501, 531), 5)
    forum.plan = lambda _: Reply(seconds=0.003)
    running = [process(dsn, "sync", "--csv") for _ in range(3)]
    said = [one.communicate(timeout=60) for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], said
    assert (waiting(school), forum.by_user()) == ([], expected)
    shares = [out.count(b",delivered,") for out, _ in said]
    assert sum(shares) == sum(map(len, expected.values()))


def test_writers_and_a_following_sync_end_with_the_same_users(
    school: Connection[Any], forum: Service, dsn: str, session: Any
) -> None:
    running = process(dsn, "sync", "--follow", "--format", "jsonl")
    levels = ["read committed", "repeatable read", "serializable"]
    ends = threading.Barrier(4)

    def write(number: int) -> None:
        db = session()
        db.execute(f"set default_transaction_isolation = '{levels[number % 3]}'")
        ends.wait()
        for turn in range(25):
            with suppress(psycopg.errors.SerializationFailure), db.transaction():
                mail(db, f"w{number}t{turn}@example.org", user=(ADA, BOB)[turn % 2])
                if turn % 5 == 0:
                    db.execute("delete from portal.auth_user where id = %s", [900 + number])
                    db.execute(
                        "insert into portal.auth_user (id, username) values (%s, %s)", [900 + number, f"w{number}"]
                    )

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: waiting(school) == [])
        round_is_over = "select from pg_stat_activity where state = 'idle' and query ~ 'min[(]h.next_try_at'"
        until(lambda: school.execute(round_is_over).fetchone() is not None)
    finally:
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=30)
    assert (running.returncode, b"Traceback" in said) == (130, False), said
    stands = {row[0]: row[1:] for row in rows(school, "portal.auth_user", "id", "username", "email")}
    told = users_of(forum)
    assert told == {user: stands[user] for user in told}
    made = stands.keys() & {900, 901, 902, 903}  # whom a serialization failure has not prevented each time
    assert {ADA, BOB} | made <= told.keys()
    assert out.count(b'"delivered"') == len(forum.told)


# --- giving up -----------------------------------------------------------------------------------------------------


def test_what_the_service_will_never_take_can_be_discarded_and_the_history_says_so(
    rollbook: Rollbook, school: Connection[Any], forum: Service
) -> None:
    school.execute("delete from portal.auth_user where id = 104")
    forum.plan = lambda _: Reply(404, "not found")
    assert rollbook("discussion", "sync").code == 4
    shown = rollbook("discussion", "list", "--state", "failed", "--json").row
    assert (shown["user_id"], shown["operation"], shown["error"]) == (104, "delete", "404: not found")
    before = snapshot(school)
    assert rollbook("discussion", "discard", "id:104", "--no-input").code == 6
    assert rollbook("discussion", "discard", "id:104", "-n", "--json").row["outcome"] == "would discard"
    assert rollbook("discussion", "discard", "ada").code == 1  # nothing of hers has failed
    assert rollbook("discussion", "discard", "id:999").code == 1
    assert snapshot(school) == before
    answer = rollbook("discussion", "discard", "id:104", "--yes", "--reason", "it never knew her", "--json")
    assert (answer.code, answer.row["outcome"], waiting(school)) == (0, "discarded", [])
    ((command, name, outcome, gone, reason),) = [
        row[1:] for row in rows(school, "rollbook.history", "id", "command", "object", "outcome", "before", "reason")
        if row[3] == "discarded"
    ]  # fmt: skip
    assert (command, name, outcome, reason) == ("discussion discard", "id:104", "discarded", "it never knew her")
    assert (gone["operation"], gone["http_status"]) == ("delete", 404)
    assert rollbook("discussion", "status", "--json").code == 0


# --- following --------------------------------------------------------------------------------------------------------


def test_follow_delivers_what_comes_at_once_tries_again_and_ends_with_ctrl_c(
    school: Connection[Any], forum: Service, dsn: str
) -> None:
    mail(school, "first@example.org")
    running = process(dsn, "sync", "--follow")
    try:
        until(lambda: waiting(school) == [])
        time.sleep(0.3)
        for number in range(3):
            began = time.monotonic()
            mail(school, f"next{number}@example.org")
            until(lambda: len(forum.told) == number + 2)  # noqa: B023
            assert time.monotonic() - began < 3  # not by looking now and then
        forum.plan = failing(503)
        mail(school, "late@example.org")
        until(lambda: [row[-1] for row in waiting(school)] == [1])
        forum.plan = lambda _: OK
        make_due(school)
        school.execute("notify rollbook_discussion")  # or it would look again within ten seconds
        until(lambda: waiting(school) == [])
    finally:
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=30)
    assert (running.returncode, b"Traceback" in said) == (130, False)
    lines = out.decode().splitlines()
    assert lines[0].split("\t") == ["username", "operation", "outcome", "http_status", "error"]
    # The last one is delivered, as its row is gone; whether it is printed before Ctrl-C is chance.
    assert [line.split("\t")[2] for line in lines[1:]][:5] == ["delivered"] * 4 + ["failed"]


@pytest.mark.usefixtures("forum")
def test_follow_ends_where_the_service_is_switched_off(school: Connection[Any], dsn: str) -> None:
    idle = """select 1 from pg_stat_activity
        where application_name = 'rollbook discussion sync' and strpos(query, 'h.next_try_at') > 0 and state = 'idle'"""
    running = process(dsn, "sync", "--follow")
    try:
        until(lambda: school.execute(idle).fetchone())
        school.execute("update rollbook.discussion set active = false")
        school.execute("notify rollbook_discussion")
        _, said = running.communicate(timeout=30)
        assert (running.returncode, b"not active" in said) == (1, True)
    finally:
        running.kill()


@pytest.mark.parametrize("more", ["--json", "-n"])
def test_follow_has_no_end_to_wait_for(rollbook: Rollbook, forum: Service, more: str) -> None:
    answer = rollbook("discussion", "sync", "--follow", more)
    assert (answer.code, answer.out, forum.told) == (2, "", [])


def test_ctrl_c_reports_what_was_delivered(school: Connection[Any], forum: Service, dsn: str) -> None:
    forum.plan = lambda told: Reply(seconds=60) if told.user_id == BOB else OK
    mail(school, "ada@example.com")
    mail(school, "bob@example.com", user=BOB)
    running = process(dsn, "sync", "--csv")
    until(lambda: len(forum.told) == 2)
    os.kill(running.pid, signal.SIGINT)
    out, said = running.communicate(timeout=30)
    assert (running.returncode, b"Traceback" in said) == (130, False)
    assert b"ada,put,delivered,200," in out
    assert [row[0] for row in waiting(school)] == [BOB]


@pytest.mark.slow  # a process for each moment
@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_a_signal_around_an_answer_ends_it_without_the_drivers_words_and_loses_nothing(
    school: Connection[Any], forum: Service, dsn: str, follow: tuple[str, ...]
) -> None:
    """The service answers after 5 ms; the signal comes 0 to 20 ms after the request."""
    odd = []
    forum.plan = lambda _: Reply(seconds=0.005)
    moments = [(signal.SIGINT, each / 1000) for each in (0, 4, 6, 7, 8, 10, 20)] + [(signal.SIGTERM, 0.006)]
    for number, (how, seconds) in enumerate(moments):
        mail(school, f"ada{number}@example.org")
        told = len(forum.told)
        running = process(dsn, "sync", *follow)
        until(lambda: len(forum.told) > told)  # noqa: B023
        time.sleep(seconds)
        running.send_signal(how)
        _, said = running.communicate(timeout=30)
        ends = {130, 0} if how == signal.SIGINT else {-signal.SIGTERM, 0}
        if running.returncode not in ends or not re.fullmatch(rb"(\ninterrupted.*\n)?", said):
            odd.append((seconds, running.returncode, said.decode()))
    assert odd == []
    running = process(dsn, "sync")  # what was cut off is delivered again
    running.communicate(timeout=30)
    assert (running.returncode, waiting(school)) == (0, [])
    assert users_of(forum)[ADA][1] == f"ada{len(moments) - 1}@example.org"


def test_a_role_without_rights_is_told_so(rollbook: Rollbook, stranger: str) -> None:
    for verb in ("status", "list", "sync", "activate", "deactivate"):
        assert rollbook("discussion", verb, dsn=stranger).code == 3
