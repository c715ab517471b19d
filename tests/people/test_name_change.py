"""`rollbook name-change`: asked for, approved or rejected, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP_SCHEMA, REMOVE_SCHEMA, rows, snapshot
from tests.school import Rollbook

PENDING = "portal.student_pendingnamechange"
BIG = "9" * 19


def ask(rollbook: Rollbook, user: str = "ada", name: str = "Ada Lovelace", rationale: str = "Marriage") -> str:
    """Ask for a name; return the request's id."""
    return str(rollbook("name-change", "create", user, name, "--rationale", rationale, "--json").row["id"])


def history(db: Connection[Any]) -> list[tuple[Any, ...]]:
    """What was noted, the last first."""
    return rows(db, "rollbook.history", "id", "command", "object", "outcome", "before", "after", "user_id", "reason")[
        ::-1
    ]


def test_create_asks_and_changes_no_name(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("name-change", "create", "ADA@example.org", "Ada Lovelace", "--rationale", "Marriage", "--json")
    row = answer.row
    assert list(row) == ["id", "username", "old_name", "new_name", "rationale", "requested_at", "outcome"]
    assert answer.code == 0
    assert (row["username"], row["old_name"], row["new_name"], row["rationale"], row["outcome"]) == (
        "ada", "Ada Foo", "Ada Lovelace", "Marriage", "created",
    )  # fmt: skip
    assert rows(school, PENDING, "id", "user_id", "new_name", "rationale") == [
        (row["id"], 101, "Ada Lovelace", "Marriage")
    ]
    assert (101, "Ada Foo") in rows(school, "portal.auth_userprofile", "user_id", "name")
    after = {"new_name": "Ada Lovelace", "rationale": "Marriage"}
    assert history(school)[0][1:] == ("name-change create", "ada", "created", None, after, 101, None)


def test_asking_again_replaces_the_request(rollbook: Rollbook, school: Connection[Any]) -> None:
    number = ask(rollbook)
    answer = rollbook("name-change", "create", "ada", "Ada B", "--json")
    assert (str(answer.row["id"]), answer.row["outcome"]) == (number, "changed")
    assert rows(school, PENDING, "user_id", "new_name", "rationale") == [(101, "Ada B", "")]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ada", ""), "error: Name required\n"),
        (("ada", "A"), "error: Name required\n"),
        (("ada", "  A "), "error: Name required\n"),
        (("ada", "Ada Foo"), "the user already has this name"),
        (("nobody", "No Body"), "there is no user nobody"),
        (("adaa", "No Body"), "the nearest is ada"),
        (("ada", "x" * 256), "name has 256 characters, at most 255 fit"),
        (("ada", "Ada B", "--rationale", "x" * 1025), "rationale has 1025 characters, at most 1024 fit"),
        (("ada", "A\x00B"), ""),
    ],
)
def test_create_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], word: str
) -> None:
    ask(rollbook, "bob", "Bob B")
    before = snapshot(school)
    answer = rollbook("name-change", "create", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
    assert snapshot(school) == before


def test_approve_gives_the_name_everywhere_and_keeps_the_old_one(rollbook: Rollbook, school: Connection[Any]) -> None:
    number = ask(rollbook)
    answer = rollbook("name-change", "approve", number, "--reason", "seen the paper", "--json")
    assert (answer.code, list(answer.row.values())) == (
        0, [int(number), "ada", "Ada Foo", "Ada Lovelace", "approved"],
    )  # fmt: skip
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        (name, meta), *_ = rows(school, f"{schema}.auth_userprofile", "name", "meta")
        assert name == "Ada Lovelace"
        ((old, rationale, at),) = json.loads(meta)["old_names"]
        assert (old, rationale, at[-6:]) == ("Ada Foo", "Marriage", "+00:00")
        assert datetime.fromisoformat(at).utcoffset() is not None
    assert rows(school, PENDING, "id") == []
    assert history(school)[0][1:] == (
        "name-change approve", "ada", "approved", {"name": "Ada Foo"}, {"name": "Ada Lovelace"}, 101, "seen the paper",
    )  # fmt: skip


def test_reject_changes_no_name_and_stays_visible(rollbook: Rollbook, school: Connection[Any]) -> None:
    number = ask(rollbook)
    answer = rollbook("name-change", "reject", number, "--reason", "no proof", "--json")
    assert (answer.code, answer.row["outcome"]) == (0, "rejected")
    assert (101, "Ada Foo", "") in rows(school, "portal.auth_userprofile", "user_id", "name", "meta")
    assert rollbook("name-change", "list", "--json").data == []
    row = rollbook("name-change", "list", "--state", "rejected", "--json").row
    assert (row["id"], row["new_name"], row["state"], row["reason"]) == (
        int(number), "Ada Lovelace", "rejected", "no proof",
    )  # fmt: skip
    assert rollbook("name-change", "list", "--state", "approved", "--json").data == []
    assert history(school)[0][1:4] == ("name-change reject", "ada", "rejected")


def test_list_has_the_keys_of_the_contract_and_its_filters(rollbook: Rollbook, school: Connection[Any]) -> None:
    del school
    for user, name in (("ada", "Ada B"), ("bob", "Bob B"), ("dan", "Dan B")):
        ask(rollbook, user, name)
    answer = rollbook("name-change", "list", "--json")
    assert list(answer.data[0])[:6] == ["id", "username", "old_name", "new_name", "rationale", "requested_at"]
    assert answer.column("username") == ["ada", "bob", "dan"]
    assert rollbook("name-change", "list", "--match", "BOB b", "--json").column("username") == ["bob"]
    assert rollbook("name-change", "list", "--sort", "-new_name", "--limit", "2", "--json").column("username") == [
        "dan", "bob",
    ]  # fmt: skip
    assert "2 of 3 rows" in rollbook("name-change", "list", "--limit", "2").err
    assert rollbook("name-change", "list", "--state", "open").code == 2


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_what_does_not_wait_is_refused_and_nothing_is_decided(
    rollbook: Rollbook, school: Connection[Any], verb: str
) -> None:
    number, done = ask(rollbook), ask(rollbook, "bob", "Bob B")
    rollbook("name-change", "reject", done)
    before = snapshot(school)
    for wrong in ("4711", done, BIG[:-1]):
        answer = rollbook("name-change", verb, number, wrong)
        assert (answer.code, answer.out, "error: Invalid ID\n" in answer.err) == (1, "", True), answer.err
        assert f"There is no pending name change {wrong}" in answer.err
    for wrong in ("x", "0", BIG, ""):
        assert rollbook("name-change", verb, number, wrong).code == 2
    assert rollbook("name-change", verb).code == 2
    assert snapshot(school) == before


def test_with_skip_the_others_are_decided(rollbook: Rollbook, school: Connection[Any]) -> None:
    first, second = ask(rollbook), ask(rollbook, "bob", "Bob B")
    answer = rollbook("name-change", "approve", first, "4711", second, first, "--on-error", "skip", "--json")
    assert (answer.code, answer.column("username"), "Invalid ID" in answer.err) == (5, ["ada", "bob"], True)
    assert [name for _, name in rows(school, "portal.auth_userprofile", "user_id", "name")][:2] == [
        "Ada Lovelace", "Bob B",
    ]  # fmt: skip
    before = snapshot(school)
    assert rollbook("name-change", "approve", first, "--on-error", "skip").code == 1
    assert snapshot(school) == before


def test_a_dry_run_decides_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    number = ask(rollbook)
    before = snapshot(school)
    for verb, word in (("approve", "would approve"), ("reject", "would reject")):
        assert rollbook("name-change", verb, number, "-n", "--json").row["outcome"] == word
    assert rollbook("name-change", "create", "ada", "Ada C", "-n", "--json").row["outcome"] == "would change"
    assert rollbook("name-change", "create", "bob", "Bob C", "-n", "--json").row["outcome"] == "would create"
    assert rollbook("name-change", "approve", "4711", "-n").code == 1
    assert snapshot(school) == before


def test_an_unexpected_error_rolls_all_back(rollbook: Rollbook, school: Connection[Any]) -> None:
    number = ask(rollbook)
    school.execute(
        """create function public.fail() returns trigger language plpgsql as $$ begin
            raise exception 'the disk is on fire' using errcode = '55000';
        end $$;
        create trigger fail before update on portal.auth_userprofile for each row execute function public.fail()"""
    )
    before = snapshot(school)
    answer = rollbook("name-change", "approve", number)
    assert (answer.code, answer.out, "the disk is on fire" in answer.err) == (1, "", True)
    assert snapshot(school) == before


def test_a_user_without_profile_is_not_approved(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("delete from portal.auth_userprofile where user_id = 103")
    number = ask(rollbook, "dan", "Dan B")
    before = snapshot(school)
    answer = rollbook("name-change", "approve", number)
    assert (answer.code, "profile" in answer.err) == (1, True)
    assert snapshot(school) == before
