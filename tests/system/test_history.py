"""`rollbook history`: every write leaves who, command, object, before, after and reason; a secret never shows."""

from __future__ import annotations

import getpass
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, REMOVE, snapshot
from tests.school import Rollbook

NEW = "edX/new/2014"
# command -> the entries it leaves: object, outcome, before, after
WRITES: list[tuple[tuple[str, ...], list[tuple[str, str, Any, Any]]]] = [
    (("course", "create", NEW), [(NEW, "created", None, {"on_fault": "refuse", "on_leave": "keep", "without": []})]),
    (("course", "delete", REMOVE, "--confirm", REMOVE), [
        (REMOVE, "removed", {"schema_name": "course_edx_toy_2013_spring", "on_leave": "remove", "copied_users": 1,
                             "local_objects": []}, None)]),
    (("enrollment", "add", KEEP, "dan", "ada"), [("dan", "created", None, {"id": 2})]),
    (("enrollment", "remove", KEEP, "ada", "bob", "eve"), [
        ("ada", "removed", {"id": 301, "created": "2012-09-02T00:00:00+00:00"}, None),
        ("bob", "removed", {"id": 302, "created": "2012-09-02T23:59:00+00:00"}, None)]),
    (("user", "create", "zoe", "--email", "zoe@example.org", "--name", "Zoë", "--course", KEEP), [
        ("zoe", "created", None, {"username": "zoe", "email": "zoe@example.org", "name": "Zoë", "is_active": False,
                                  "courseware": "course.xml"}),
        ("zoe", "created", None, {"id": 1})]),
    (("user", "update", "ada", "--email", "ada@new.org", "--goals", "x", "--name", "Ada King"), [
        ("ada", "changed", {"email": "ada@example.org", "name": "Ada Foo", "goals": "World peace"},
         {"email": "ada@new.org", "name": "Ada King", "goals": "x"})]),
    (("user", "activate", "dan", "ada"), [
        ("dan", "activated", {"is_active": False}, {"is_active": True, "enrolled": 0})]),
    (("user", "deactivate", "ada"), [("ada", "deactivated", {"is_active": True}, {"is_active": False})]),
    (("user", "grant", "ada", "bob", "--staff", "-y"), [("bob", "granted", {"is_staff": False}, {"is_staff": True})]),
    (("user", "revoke", "ada", "bob", "--staff", "-y"), [("ada", "revoked", {"is_staff": True}, {"is_staff": False})]),
    (("user", "password", "ada", "--unusable"), [
        ("ada", "changed", {"algorithm": "unusable", "iterations": None},
         {"algorithm": "unusable", "iterations": None})]),
    (("registration", "activate", "dan"), [
        ("dan", "activated", {"is_active": False}, {"is_active": True, "enrolled": 0})]),
]  # fmt: skip
NO_CHANGE = [
    ("enrollment", "add", KEEP, "ada"), ("enrollment", "remove", KEEP, "eve"), ("user", "activate", "ada"),
    ("user", "deactivate", "dan"), ("user", "grant", "ada", "--staff"), ("user", "revoke", "bob", "--staff"),
    ("user", "update", "ada", "--goals", "World peace"), ("course", "create", KEEP, "--if-not-exists"),
    ("user", "create", "ada", "--email", "x@example.org", "--if-not-exists"), ("registration", "activate", "bob"),
]  # fmt: skip


def named(value: Any) -> str:
    """The name of a command in the report."""
    return " ".join(value[:2]) if isinstance(value, tuple) else ""


def entries(db: Connection[Any]) -> list[tuple[Any, ...]]:
    """The whole history, in order."""
    return db.execute(
        "select actor, on_behalf_of, command, object, outcome, before, after, reason, user_id, course_id "
        "from rollbook.history order by id"
    ).fetchall()


@pytest.mark.parametrize(("command", "left"), WRITES, ids=named)
def test_a_write_leaves_who_what_before_after_and_why(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...],
    left: list[tuple[str, str, Any, Any]],
) -> None:  # fmt: skip
    monkeypatch.setenv("ROLLBOOK_ACTOR", "Grace")
    answer = rollbook(*command, "--reason", "Because, ünd")
    assert answer.code == 0, answer.err
    found = entries(school)
    assert [entry[3:7] for entry in found] == left
    me = f"postgres/{getpass.getuser()}"
    assert {entry[:3] for entry in found} == {(me, "Grace", " ".join(command[:2]))}
    assert {entry[7] for entry in found} == {"Because, ünd"}
    ids = dict(school.execute("select username, id from portal.auth_user").fetchall())
    assert [entry[8] for entry in found] == [ids.get(entry[3]) for entry in found]
    courses = {word for word in command if "/" in word}
    assert {entry[9] for entry in found} - {None} == courses


def test_deletion_of_a_user_leaves_what_went(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("user", "delete", "ada", "--confirm", "ada")
    ((*_, command, name, outcome, before, after, _, user_id, _),) = entries(school)
    assert (command, name, outcome, after, user_id) == ("user delete", "ada", "removed", None, 101)
    assert set(before) == {"is_active", "is_staff", "is_superuser", "date_joined", "rows"}
    assert f"{KEEP}: auth_user 1" in before["rows"]
    assert "example.org" not in str(before)
    # Who is gone is still found by the id that they had.
    for search in (("--match", "ada"), ("--user", "id:101")):
        assert rollbook("history", "list", *search, "--json").column("object") == ["ada"]
    assert rollbook("history", "list", "--user", "ada").code == 1


@pytest.mark.parametrize("command", NO_CHANGE, ids=" ".join)
def test_what_changes_nothing_leaves_nothing(
    rollbook: Rollbook, school: Connection[Any], command: tuple[str, ...]
) -> None:
    before = snapshot(school)
    assert rollbook(*command).code == 0
    assert snapshot(school) == before


def test_the_actor_is_the_role_and_the_systems_user_whatever_the_environment_says(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rollbook("user", "deactivate", "ada")
    monkeypatch.setenv("ROLLBOOK_ACTOR", "the\nboss\x1b]0;owned\x07\u202e " + "x" * 1000)
    rollbook("user", "activate", "ada")
    assert {entry[0] for entry in entries(school)} == {f"postgres/{getpass.getuser()}"}
    without, behalf = (entry[1] for entry in entries(school))
    assert (without, len(behalf)) == (None, 200)
    assert behalf.startswith("the boss\\x1b]0;owned\\x07\\u202e xxx")


def test_history_is_found_by_user_course_actor_command_and_time(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rollbook("user", "deactivate", "ada", "--reason", "asked for it")
    monkeypatch.setenv("ROLLBOOK_ACTOR", "Grace")
    rollbook("enrollment", "add", KEEP, "dan")
    rollbook("user", "update", "ada", "--goals", "x")

    def listed(*filters: str) -> list[str]:
        answer = rollbook("history", "list", *filters, "--json")
        assert answer.code == 0, answer.err
        return answer.column("command")

    assert listed() == ["user update", "enrollment add", "user deactivate"]
    assert listed("--user", "ada@example.org") == ["user update", "user deactivate"]
    assert listed("--course", KEEP) == ["enrollment add"]
    assert listed("--actor", "Grace") == ["user update", "enrollment add"]
    assert (listed("--command", "user"), listed("--command", "user up")) == (["user update", "user deactivate"], [])
    assert listed("--since", "2100-01-01") == []
    assert listed("--match", "ASKED") == ["user deactivate"]
    newest = rollbook("history", "list", "--limit", "1", "--json").row
    assert list(newest) == [*("id", "at", "actor", "role", "command", "object", "outcome", "reason"), "on_behalf_of"]
    shown = rollbook("history", "show", str(newest["id"]), "--json").data
    assert (shown["before"], shown["after"]) == ({"goals": "World peace"}, {"goals": "x"})
    assert rollbook("history", "show", "999999").code == 1
    assert rollbook("history", "list", "--user", "nobody").code == 1
    del school


# --- secrets ----------------------------------------------------------------------------------------------------------

PLANTED = "planted-Zauberwort"
KEY = "planted0key0planted0key0planted0"


def test_no_secret_is_in_an_answer_an_error_the_history_or_the_log(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    planted = f"pbkdf2_sha256$1$planted${'A' * 43}="
    (tmp_path / "hash").write_text(planted)
    (tmp_path / "password").write_text(PLANTED)
    monkeypatch.setenv("ROLLBOOK_SECRET_KEY", PLANTED)
    school.execute("update portal.auth_registration set activation_key = %s", [KEY])
    school.execute("update portal.auth_user set password = %s where id in (101, 102)", [planted])
    stored = [PLANTED, KEY, "planted", "pbkdf2_sha256$1$"]
    secret, key = PLANTED.encode(), KEY.encode()
    runs: list[tuple[tuple[str, ...], bytes]] = [
        (("user", "create", "zoe", "--email", "zoe@example.org", "--password-stdin"), secret),
        (("user", "create", "zoe", "--email", "zoe@example.org", "--password-stdin"), secret),  # taken
        (("user", "create", "new", "--email", "new@example.org", "--year-of-birth", "1", "--password-stdin"), secret),
        (("user", "create", "hal", "--email", "hal@example.org", "--password-hash-file", str(tmp_path / "hash")), b""),
        (("user", "password", "ada", "--stdin"), secret),
        (("user", "password", "ada", "--check", "--stdin"), secret),
        (("user", "password", "ada", "--check", "--stdin"), secret + b"x"),
        (("user", "password", "ada", "--stdin"), secret + b"\n" + secret),
        (("user", "password", "ada", "--stdin"), secret + b"\xff"),
        (("user", "password", "nobody", "--stdin"), secret),
        (("user", "password", "ada", "--file", str(tmp_path / "password"), "-n"), b""),
        (("user", "update", "ada", "--goals", "y"), b""),
        (("user", "show", "ada", "bob", "dan", "zoe"), b""),
        (("user", "list"), b""), (("registration", "list"), b""), (("registration", "show", "dan"), b""),
        (("user", "pseudonym", "ada"), b""), (("user", "pseudonym", "ada", "--legacy"), b""),
        (("registration", "activate", "--key-stdin"), key + b"x"),
        (("registration", "activate", "--key-stdin", "-n"), key),
        (("registration", "activate", "--key-stdin"), key),
        (("registration", "activate", "--key-stdin"), key),  # spent
        (("registration", "renew", "dan"), b""),
        (("user", "delete", "bob"), b""), (("user", "delete", "bob", "--confirm", "bob"), b""),
    ]  # fmt: skip
    said = ""
    for number, (command, stdin) in enumerate(runs):
        for style in ((), ("--json",)) if number % 2 else (("--debug", "-v"),):
            answer = rollbook(*command, *style, stdin=stdin)
            assert answer.code != 70, answer.err
            said += answer.out + answer.err
    said += rollbook("history", "list", "--json").out
    for (number,) in school.execute("select id from rollbook.history").fetchall():
        said += rollbook("history", "show", str(number), "--json").out
    said += "\n".join(snapshot(school)["rollbook.history"]) + caplog.text
    new_keys = school.execute("select activation_key from portal.auth_registration").fetchall()
    hashes = school.execute("select password from portal.auth_user").fetchall()
    stored += [value for (value,) in [*new_keys, *hashes] if len(value) > 1]
    assert [word for word in stored if word in said] == []
    assert '"password": "(secret)"' in said
    assert '"activation_key": "(secret)"' in said


def test_a_bug_leaves_no_secret_in_the_log(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollbook.people.queries import registration, user

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mended soon")

    monkeypatch.setattr(user, "set_password", fail)
    monkeypatch.setattr(user, "create", fail)
    monkeypatch.setattr(registration, "activate", fail)
    said = ""
    for command in (
        ("user", "password", "ada", "--stdin"),
        ("user", "create", "zoe", "--email", "z@example.org", "--password-stdin"),
        ("registration", "activate", "--key-stdin"),
    ):  # fmt: skip
        answer = rollbook(*command, "--debug", stdin=PLANTED.encode())
        assert answer.code == 70, answer.err
        said += answer.out + answer.err
    log = (tmp_path / "rollbook.log").read_text()
    assert log.count("ZeroDivisionError: mended soon") == 3
    assert PLANTED not in said + log
    assert json.dumps(snapshot(school)["rollbook.history"]) == "[]"
