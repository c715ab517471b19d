"""`rollbook user`: accounts, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
from psycopg import Connection

from tests.admin.conftest import Rollbook
from tests.admin.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, process, rows, snapshot

CREATED = "id username email is_active outcome"


def test_create_makes_user_profile_and_key_and_enrolls(rollbook: Rollbook, school: Connection[Any]) -> None:
    options = "--first-name Zoë --language de --year-of-birth 1990 --gender f --level-of-education hs --active"
    courses = ("--course", KEEP, "--course", REMOVE)
    answer = rollbook(
        "user", "create", "zoe", "--email", "Zoe@EXAMPLE.org", "--name", "Zoë Foo", *options.split(), *courses, "--json"
    )
    made = answer.row
    assert (answer.code, list(made), made["outcome"], made["is_active"]) == (0, CREATED.split(), "created", True)
    who = (made["id"], "zoe", "Zoe@example.org", "Zoë", True)
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        assert who in rows(school, f"{schema}.auth_user", "id", "username", "email", "first_name", "is_active")
        profile = (made["id"], "Zoë Foo", "de", 1990, "f", "hs", None)
        names = ("user_id", "name", "language", "year_of_birth", "gender", "level_of_education", "goals")
        assert profile in rows(school, f"{schema}.auth_userprofile", *names)
    assert rows(school, "portal.auth_user", "id", "password")[-1][1].startswith("!") or made["id"] < 101
    key = school.execute("select length(activation_key) from portal.auth_registration where user_id = %s", [made["id"]])
    assert key.fetchall() == [(32,)]


def test_a_new_user_is_inactive_unless_told_otherwise(rollbook: Rollbook, db: Connection[Any]) -> None:
    assert rollbook("user", "create", "zoe", "--email", "zoe@example.org", "--json").row["is_active"] is False
    assert rows(db, "portal.auth_user", "username", "is_active") == [("zoe", False)]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ada", "--email", "new@example.org"), "username is taken"),
        (("new", "--email", "ADA@example.ORG"), "belongs to another user"),
        (("new", "--email", "bob@example.org"), "belongs to another user"),
        (("new", "--email", "no-at-sign"), "not an e-mail address"),
        (("new", "--email", "a@b@c.org"), "not an e-mail address"),
        (("new", "--email", ""), "not an e-mail address"),
        (("new", "--email", "x" * 260 + "@example.org"), "e-mail"),
        (("a b", "--email", "new@example.org"), "no blanks"),
        (("", "--email", "new@example.org"), "username"),
        (("x" * 151, "--email", "new@example.org"), "151 characters, at most 150"),
        (("new", "--email", "new@example.org", "--name", "x" * 256), "at most 255"),
        (("new", "--email", "new@example.org", "--goals", "a\x00b"), "NUL"),
        (("ne\x00w", "--email", "new@example.org"), "NUL"),
        (("new", "--email", "new@example.org", "--course", KEEP, "--course", "MITx"), "no course MITx"),
    ],
)  # fmt: skip
def test_create_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], word: str
) -> None:  # fmt: skip
    before = snapshot(school)
    answer = rollbook("user", "create", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
    assert answer.err.startswith("error: ")
    assert snapshot(school) == before


@pytest.mark.parametrize(
    "option", ["--gender x", "--level-of-education phd", "--year-of-birth 0", "--year-of-birth xx"]
)
def test_create_with_a_value_off_the_list_is_usage(rollbook: Rollbook, empty: str, option: str) -> None:
    del empty
    answer = rollbook("user", "create", "zoe", "--email", "zoe@example.org", *option.split())
    assert (answer.code, answer.out) == (2, "")


def test_create_twice_is_refused_unless_content_with_the_one_there(rollbook: Rollbook, school: Connection[Any]) -> None:
    create = ("user", "create", "zoe", "--email", "zoe@example.org")
    assert [rollbook(*create).code, rollbook(*create).code] == [0, 1]
    before = snapshot(school)
    again = rollbook(*create, "--if-not-exists", "--json")
    assert (again.code, again.row["outcome"], list(again.row)) == (0, "unchanged", CREATED.split())
    assert snapshot(school) == before


def test_update_changes_user_and_profile_everywhere(rollbook: Rollbook, school: Connection[Any]) -> None:
    change = ("--email", "ada@new.org", "--name", "Ada Lovelace", "--year-of-birth", "1815", "--clear", "goals")
    answer = rollbook("user", "update", "ada", *change, "--json")
    assert [tuple(row.values()) for row in answer.data] == [
        ("email", "ada@example.org", "ada@new.org"),
        ("name", "Ada Foo", "Ada Lovelace"),
        ("year_of_birth", None, 1815),
        ("goals", "World peace", None),
    ]
    assert list(answer.data[0]) == ["field", "before", "after"]
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        assert (101, "ada@new.org") in rows(school, f"{schema}.auth_user", "id", "email")
        profile = (101, "Ada Lovelace", 1815, None)
        assert profile in rows(school, f"{schema}.auth_userprofile", "user_id", "name", "year_of_birth", "goals")
    before = snapshot(school)
    again = rollbook("user", "update", "ada", *change, "--json")
    assert (again.code, again.data, snapshot(school)) == (0, [], before)


@pytest.mark.parametrize("field", ["first_name", "last_name", "name", "language", "location", "year_of_birth", "gender",
                                   "level_of_education", "mailing_address", "goals"])  # fmt: skip
def test_a_field_is_set_by_its_option_and_cleared(rollbook: Rollbook, school: Connection[Any], field: str) -> None:
    value = {"year_of_birth": "1815", "gender": "f", "level_of_education": "hs"}.get(field, "Text, ünd")
    option = field.replace("_", "-")
    table = "portal.auth_user" if field in ("first_name", "last_name") else "portal.auth_userprofile"
    key = "id" if table == "portal.auth_user" else "user_id"
    assert rollbook("user", "update", "ada", f"--{option}", value).code == 0
    assert str(dict(rows(school, table, key, field))[101]) == value
    assert rollbook("user", "update", "ada", "--clear", option).code == 0
    nullable = field in ("year_of_birth", "gender", "level_of_education", "mailing_address", "goals")
    assert dict(rows(school, table, key, field))[101] == (None if nullable else "")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("nobody", "--name", "x"), 1, "there is no user nobody"),
        (("bob", "--username", "ada"), 1, "taken"),
        (("bob", "--email", "ADA@example.org"), 1, "belongs to another"),
        (("bob", "--email", "nonsense"), 1, "not an e-mail address"),
        (("bob", "--username", "a b", "--name", "x"), 1, "no blanks"),
        (("bob", "--location", "x" * 256), 1, "at most 255"),
        (("bob", "--goals", "a\x00b"), 1, "NUL"),
        (("bob",), 2, "nothing to change"),
        (("bob", "--clear", "username"), 2, "no such field"),
        (("bob", "--clear", "goals", "--goals", "x"), 2, "exclude each other"),
    ],
)
def test_update_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "update", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_a_refusal_shows_no_password_hash(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("update portal.auth_user set password = 'pbkdf2_sha256$260000$salt$planted' where id = 101")
    answer = rollbook("user", "update", "ada", "--username", "a b")
    assert (answer.code, "planted" in answer.err) == (1, False), answer.err


@pytest.mark.parametrize(
    ("token", "username"),
    [("ada", "ada"), ("ADA@Example.ORG", "ada"), ("id:102", "bob"), ("username:eve", "eve"),
     ("email:bob@example.org", "bob")],
)  # fmt: skip
def test_a_user_is_named_in_five_ways(rollbook: Rollbook, seen: str, token: str, username: str) -> None:
    del seen
    assert rollbook("user", "show", token, "--json").data[0]["account"]["username"] == username


@pytest.mark.parametrize(
    "token", ["nobody", "Ada", "id:1", "id:x", "id:", "username:", "email:x@y.org", "", "id:" + "9" * 30]
)
def test_an_unknown_user_is_refused(rollbook: Rollbook, seen: str, token: str) -> None:
    del seen
    answer = rollbook("user", "show", "ada", token)
    assert (answer.code, answer.out, f"error: there is no user {token}\n" in answer.err) == (1, "", True)


def test_the_nearest_user_is_named(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert "the nearest is ada" in rollbook("user", "show", "adaa").err


@pytest.mark.parametrize(
    "command",
    [
        ("user", "show"),
        ("enrollment", "add", KEEP),
        ("course", "show"),
        ("course", "create"),
        ("user", "list", "--match"),
    ],
    ids=" ".join,
)
def test_text_that_the_server_cannot_hold_is_refused(rollbook: Rollbook, seen: str, command: tuple[str, ...]) -> None:
    del seen
    answer = rollbook(*command, "a\x00b")
    assert (answer.code in (1, 2), answer.out) == (True, ""), answer.err


def test_an_argument_that_is_not_utf_8_is_refused(seen: str) -> None:
    answer = process("user", "show", os.fsdecode(b"\xff"), "-d", seen)
    assert (answer.code in (1, 2), answer.out) == (True, ""), answer.err


def test_an_ambiguous_user_is_refused_with_both(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("insert into portal.auth_user (id, username) values (105, 'ada@example.org')")
    before = snapshot(school)
    for command in (("user", "show"), ("user", "update", "--name", "x"), ("enrollment", "add", KEEP)):
        answer = rollbook(*command, "ada@example.org")
        assert (answer.code, answer.out) == (1, "")
        assert all(word in answer.err for word in ("fits several", "id:101", "id:105", "username:X"))
    assert snapshot(school) == before
    assert rollbook("user", "show", "username:ada@example.org", "--json").data[0]["account"]["id"] == 105
    assert rollbook("user", "show", "email:ada@example.org", "--json").data[0]["account"]["id"] == 101


def test_show_has_account_profile_enrollments_and_copies(rollbook: Rollbook, broken: str) -> None:
    del broken
    (ada, bob) = rollbook("user", "show", "ada", "id:102", "ada", "--json").data
    assert (ada["account"]["email"], ada["profile"]["name"]) == ("ada@example.org", "Ada Foo")
    assert [(e["course"], e["created"], e["replicated"]) for e in ada["enrollments"]] == [
        (KEEP, "2012-09-02T00:00:00Z", True), (REMOVE, "2012-09-03T00:00:00Z", True),
    ]  # fmt: skip
    assert [list(copy.values()) for copy in ada["copies"]] == [
        [KEEP, True, "changed", "ok", "ok"], [REMOVE, True, "ok", "ok", "ok"],
    ]  # fmt: skip
    assert [list(copy.values()) for copy in bob["copies"]] == [[KEEP, True, "ok", "missing", "ok"]]


def test_show_of_a_user_who_waits_for_a_course(rollbook: Rollbook, seen: str) -> None:
    del seen
    answer = rollbook("user", "show", "dan", "--json")
    assert answer.code == 0
    assert [(e["course"], e["replicated"]) for e in answer.data[0]["enrollments"]] == [("edX/later/2014", None)]


def test_users_are_counted(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert rollbook("user", "count", "--json").row == {"users": 4, "active": 2}
    assert rollbook("user", "count", "--by", "month", "--json").data == [
        {"key": "2012-09", "users": 2, "active": 2}, {"key": "2012-10", "users": 2, "active": 0},
    ]  # fmt: skip
    assert rollbook("user", "count", "--by", "course", "--csv", "--no-header").out == (
        f"{KEEP},2,2\nedX/later/2014,1,0\n{REMOVE},1,1\n"
    )
    assert rollbook("user", "count", "--by", "planet").code == 2
