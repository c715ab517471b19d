"""`rollbook registration`: keys that expire and are spent, and are never shown unasked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, process, rows, snapshot
from tests.school import Rollbook

COLUMNS = "username email created expires state"


@pytest.fixture
def keys(school: Connection[Any]) -> Connection[Any]:
    """dan waits with a good key, eve with an expired one, ada's is used; bob, who is active, has none."""
    school.execute(
        """insert into portal.auth_registration (user_id, activation_key, created_at, expires_at, activated_at) values
            (101, 'key-of-ada', '2012-09-01 00:00+00', '2012-09-15 00:00+00', '2012-09-02 00:00+00'),
            (104, 'key-of-eve', '2012-10-02 00:00+00', now() - interval '1 second', null)"""
    )
    return school


def test_keys_are_listed_by_state_and_never_shown(rollbook: Rollbook, keys: Connection[Any]) -> None:
    answer = rollbook("registration", "list", "--json")
    assert [(row["username"], row["state"]) for row in answer.data] == [
        ("dan", "pending"), ("ada", "activated"), ("eve", "expired"),
    ]  # fmt: skip
    assert list(answer.data[0]) == COLUMNS.split()
    for state in ("pending", "activated", "expired"):
        assert set(rollbook("registration", "list", "--state", state, "--json").column("state")) == {state}
    assert rollbook("registration", "list", "--match", "dan@", "--json").column("username") == ["dan"]
    shown = rollbook("registration", "show", "dan", "--json")
    assert (shown.data["state"], shown.data["activated"]) == ("pending", None)
    for command in (("list",), ("show", "dan"), ("list", "--csv")):
        assert "key-of" not in rollbook("registration", *command).out
    assert "key-of" not in rollbook("user", "show", "dan", "--json").out
    del keys


def test_show_of_a_user_without_one_is_refused(rollbook: Rollbook, keys: Connection[Any]) -> None:
    del keys
    answer = rollbook("registration", "show", "bob")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: bob has no registration\nfix:   rollbook registration renew bob\n"


def test_a_key_makes_active_is_spent_and_enrolls_its_owner(rollbook: Rollbook, keys: Connection[Any]) -> None:
    keys.execute(
        """insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values
            ('DAN@example.org', %(keep)s, true), ('dan@example.org', 'edX/no/auto', false),
            ('ada@example.org', 'edX/not/his', true)""",
        {"keep": KEEP},
    )
    answer = rollbook("registration", "activate", "--key-stdin", "--json", stdin=b"key-of-dan\n")
    assert answer.row == {"username": "dan", "email": "dan@example.org", "outcome": "activated"}
    assert "1 enrollment added" in answer.err
    assert (103, True) in rows(keys, "portal.auth_user", "id", "is_active")
    assert (103, True) in rows(keys, f"{KEEP_SCHEMA}.auth_user", "id", "is_active")
    enrolled = keys.execute("select course_id from portal.student_courseenrollment where user_id = 103 order by 1")
    assert [row[0] for row in enrolled] == [KEEP, "edX/later/2014"]
    before = snapshot(keys)
    again = rollbook("registration", "activate", "--key-stdin", stdin=b"key-of-dan\n")
    assert (again.code, again.out, "this activation key was used" in again.err) == (1, "", True)
    assert snapshot(keys) == before


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (b"key-of-eve", "this activation key has expired"),
        (b"key-of-ada", "this activation key was used"),
        (b"planted-key", "no account has this activation key"),
        (b"", "no account has this activation key"),
        (b"KEY-OF-DAN", "no account has this activation key"),
    ],
)
def test_a_wrong_spent_or_expired_key_changes_nothing(
    rollbook: Rollbook, keys: Connection[Any], key: bytes, word: str
) -> None:
    before = snapshot(keys)
    answer = rollbook("registration", "activate", "--key-stdin", stdin=key)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
    assert not key or key.decode() not in answer.err
    assert snapshot(keys) == before


def test_an_operator_activates_by_name_whatever_the_key(rollbook: Rollbook, keys: Connection[Any]) -> None:
    answer = rollbook("registration", "activate", "eve", "--json")
    assert answer.row == {"username": "eve", "email": "", "outcome": "activated"}
    assert keys.execute(
        "select u.is_active, r.activated_at is not null from portal.auth_user as u "
        "inner join portal.auth_registration as r on r.user_id = u.id where u.id = 104"
    ).fetchall() == [(True, True)]
    before = snapshot(keys)
    assert rollbook("registration", "activate", "eve", "--json").row["outcome"] == "unchanged"
    assert snapshot(keys) == before


def test_activate_wants_a_user_or_a_key(rollbook: Rollbook, keys: Connection[Any]) -> None:
    before = snapshot(keys)
    for arguments in ((), ("dan", "--key-stdin")):
        assert rollbook("registration", "activate", *arguments, stdin=b"key-of-dan").code == 2
    assert rollbook("registration", "activate", "nobody").code == 1
    assert snapshot(keys) == before


def test_renew_replaces_the_key_and_shows_it_only_when_asked(rollbook: Rollbook, keys: Connection[Any]) -> None:
    silent = rollbook("registration", "renew", "eve", "--json").row
    assert (list(silent), silent["state"], silent["outcome"]) == ([*COLUMNS.split(), "outcome"], "pending", "changed")
    told = rollbook("registration", "renew", "eve", "--show-key", "--days", "30", "--json").row
    key = told["activation_key"]
    assert (len(key), set(key) <= set("0123456789abcdef")) == (32, True)
    assert keys.execute(
        "select activation_key, expires_at - created_at = interval '30 days' from portal.auth_registration "
        "where user_id = 104"
    ).fetchall() == [(key, True)]
    assert rollbook("registration", "activate", "--key-stdin", stdin=b"key-of-eve").code == 1
    assert rollbook("registration", "activate", "--key-stdin", stdin=key.encode()).code == 0


def test_renew_makes_a_registration_where_there_is_none(rollbook: Rollbook, keys: Connection[Any]) -> None:
    assert rollbook("registration", "renew", "bob", "--json").row["outcome"] == "created"
    assert len(rows(keys, "portal.auth_registration", "user_id")) == 4
    before = snapshot(keys)
    dry = rollbook("registration", "renew", "dan", "--show-key", "-n", "--json").row
    assert (dry["outcome"], dry["activation_key"]) == ("would change", None)
    assert rollbook("registration", "renew", "nobody").code == 1
    assert rollbook("registration", "renew", "dan", "--days", "0").code == 2
    assert snapshot(keys) == before


def test_of_two_who_present_one_key_one_is_refused(keys: Connection[Any], dsn: str) -> None:
    command = ("registration", "activate", "--key-stdin", "-d", dsn)
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: process(*command, stdin=b"key-of-dan"), range(2)))
    assert sorted(answer.code for answer in answers) == [0, 1]
    assert "was used" in "".join(answer.err for answer in answers)
    assert [row[0] for row in keys.execute("select command from rollbook.history")] == ["registration activate"]
