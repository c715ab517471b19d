"""sql/functions/accounts/request_email_change.sql: one request a user, with a key that nobody can guess."""

from __future__ import annotations

import re
from datetime import timedelta

import psycopg
import pytest

from tests.sql.helpers import Db, add_user, fails, refused, run, value

REQUEST = "select rollbook.request_email_change(%s, %s)"
PENDING = "select user_id, new_email from portal.student_pendingemailchange"


def test_a_request_has_a_key_and_an_end_and_the_address_stays(school: Db) -> None:
    ada = add_user(school, "ada")
    key = value(school, REQUEST, ada, "ada@new.org")
    assert re.fullmatch("[0-9a-f]{32}", key)
    stored = "select activation_key, expires_at - now() from portal.student_pendingemailchange"
    assert run(school, stored) == [(key, timedelta(days=7))]
    assert value(school, "select email from portal.auth_user") == "ada@edx.org"
    view = "select username, old_email, new_email, conflict from rollbook.email_change_status"
    assert run(school, view) == [("ada", "ada@edx.org", "ada@new.org", False)]


def test_keys_do_not_repeat(school: Db) -> None:
    ada = add_user(school, "ada")
    assert len({value(school, REQUEST, ada, f"ada{n}@new.org") for n in range(200)}) == 200


def test_asking_again_replaces_address_key_and_end(school: Db) -> None:
    ada = add_user(school, "ada")
    first = value(school, "select rollbook.request_email_change(%s, 'a@new.org', '1 hour')", ada)
    second = value(school, REQUEST, ada, "b@new.org")
    assert run(school, PENDING) == [(ada, "b@new.org")]
    assert value(school, "select expires_at - now() from portal.student_pendingemailchange") == timedelta(days=7)
    said = refused(school, "RB012", "select rollbook.confirm_email_change(%s)", first)
    assert said.message_primary == "Invalid key"
    assert value(school, "select rollbook.confirm_email_change(%s)", second) == ada


@pytest.mark.parametrize(
    ("address", "code", "text"),
    [
        ("bob@edx.org", "23R14", "An account with this e-mail already exists."),
        ("BOB@EDX.org", "23R14", "An account with this e-mail already exists."),
        ("ada@edx.org", "23R13", "Old email is the same as the new email."),
        ("", "23R13", "Valid e-mail address required."),
        (None, "23R13", "Valid e-mail address required."),
    ],
)
def test_what_cannot_be_asked_for_is_refused(school: Db, address: str | None, code: str, text: str) -> None:
    ada, _ = add_user(school, "ada"), add_user(school, "bob")
    assert refused(school, code, REQUEST, ada, address).message_primary == text
    assert run(school, PENDING) == []


@pytest.mark.parametrize("address", ["bad_email", "bad_email@", "@bad_email", "a b@c.org", f"{'x' * 249}@x.org"])
def test_what_is_no_address_or_does_not_fit_the_account_is_refused_by_the_table(school: Db, address: str) -> None:
    fails(school, psycopg.errors.CheckViolation, REQUEST, add_user(school, "ada"), address)
    assert run(school, PENDING) == []


def test_other_capitals_of_the_own_address_can_be_asked_for(school: Db) -> None:
    ada = add_user(school, "ada")
    assert value(school, "select rollbook.confirm_email_change(%s)", value(school, REQUEST, ada, "Ada@edx.org")) == ada
    assert value(school, "select email from portal.auth_user") == "Ada@edx.org"


def test_two_users_may_ask_for_one_address_and_see_the_conflict_when_one_has_it(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    run(school, REQUEST, ada, "x@new.org")
    run(school, "select rollbook.confirm_email_change(%s)", value(school, REQUEST, bob, "X@new.org"))
    assert run(school, "select user_id, conflict from rollbook.email_change_status") == [(ada, True)]
