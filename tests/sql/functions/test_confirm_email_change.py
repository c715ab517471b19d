"""sql/functions/accounts/confirm_email_change.sql: the key confirms the e-mail address once, if it is still free."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.sql.helpers import COURSES, Db, add_user, enroll, faults, refused, run, value
from tests.sql.stepping import Stepper

CONFIRM = "select rollbook.confirm_email_change(%s)"
STEP = "select rollbook.confirm_email_change(%(key)s)"
EMAILS = "select username, email from portal.auth_user order by id"
PENDING = "select user_id, new_email from portal.student_pendingemailchange order by user_id"
METAS = "select meta from portal.auth_userprofile order by user_id"


def ask(db: Db, username: str, address: str) -> tuple[int, str]:
    """A user who asks for an address; return user and key."""
    user = add_user(db, username)
    return user, value(db, "select rollbook.request_email_change(%s, %s)", user, address)


def state(db: Db) -> list[list[tuple[object, ...]]]:
    """All that a change of address writes."""
    return [run(db, EMAILS), run(db, PENDING), run(db, METAS)]


def test_the_key_gives_the_address_keeps_the_old_one_and_is_spent(school: Db) -> None:
    ada, key = ask(school, "ada", "ada@new.org")
    enroll(school, ada, *COURSES)
    assert value(school, CONFIRM, key) == ada
    emails, pending, ((meta,),) = state(school)
    assert (emails, pending) == ([("ada", "ada@new.org")], [])
    assert [entry[0] for entry in json.loads(str(meta))["old_emails"]] == ["ada@edx.org"]
    assert faults(school) == []
    assert refused(school, "RB012", CONFIRM, key).message_primary == "Invalid key"


@pytest.mark.parametrize("key", ["", "0" * 32, "KEY", None])
def test_an_unknown_key_changes_nothing(school: Db, key: str | None) -> None:
    _, right = ask(school, "ada", "ada@new.org")
    before = state(school)
    for presented in (right.upper() if key == "KEY" else key, right[:-1], right + " "):
        if presented != right:
            assert refused(school, "RB012", CONFIRM, presented).message_primary == "Invalid key"
    assert state(school) == before


def test_an_expired_key_changes_nothing(school: Db) -> None:
    _, key = ask(school, "ada", "ada@new.org")
    run(school, "update portal.student_pendingemailchange set expires_at = now()")
    before = state(school)
    said = refused(school, "RB012", CONFIRM, key)
    assert (said.message_primary, "expired" in str(said.message_detail)) == ("Invalid key", True)
    assert state(school) == before


@pytest.mark.parametrize("taken", ["ada@new.org", "ADA@New.org"])
def test_an_address_taken_meanwhile_changes_nothing_and_the_request_stays(school: Db, taken: str) -> None:
    ada, key = ask(school, "ada", "ada@new.org")
    add_user(school, "bob", email=taken)
    before = state(school)
    said = refused(school, "23R14", CONFIRM, key)
    text = "An account with this e-mail already exists"
    assert (said.message_primary, text in str(said.message_detail)) == ("Could not change e-mail", True)
    assert state(school) == before
    assert before[1] == [(ada, "ada@new.org")]


def test_a_foreign_meta_or_any_other_error_rolls_all_back(school: Db) -> None:
    _, key = ask(school, "ada", "ada@new.org")
    run(school, """update portal.auth_userprofile set meta = '{"old_emails": "mine"}'""")
    before = state(school)
    refused(school, "23R13", CONFIRM, key)
    assert state(school) == before


@pytest.mark.made
def test_a_unique_rule_of_somebody_else_is_reported_as_what_it_is(school: Db) -> None:
    import psycopg

    _, key = ask(school, "ada", "ada@new.org")
    run(school, "create unique index only_one on portal.auth_userprofile ((meta <> '')) where meta <> ''")
    add_user(school, "bob")
    run(school, """update portal.auth_userprofile set meta = '{"a": 1}' where name = 'bob Foo'""")
    before = state(school)
    with pytest.raises(psycopg.errors.UniqueViolation, match="only_one"), school.transaction():
        run(school, CONFIRM, key)
    assert state(school) == before


def test_of_two_sessions_that_confirm_one_key_the_second_finds_it_spent(live: Db, session: Callable[[], Db]) -> None:
    _, key = ask(live, "ada", "ada@new.org")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step(STEP, {"key": key})
    assert two.step(STEP, {"key": key}), "the second waits for the first"
    assert (one.end(), two.end()) == ("", "RB012")
    emails, pending, ((meta,),) = state(live)
    assert (emails, pending, len(json.loads(str(meta))["old_emails"])) == ([("ada", "ada@new.org")], [], 1)


@pytest.mark.parametrize("level", ["RR", "SER"])
def test_above_read_committed_the_second_must_try_again(live: Db, session: Callable[[], Db], level: str) -> None:
    _, key = ask(live, "ada", "ada@new.org")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin(level)
    assert not one.step(STEP, {"key": key})
    assert two.step(STEP, {"key": key})
    assert (one.end(), two.end()) == ("", "40001")


@pytest.mark.parametrize("winner_commits", [True, False])
def test_of_two_users_who_race_for_one_address_one_gets_it(
    live: Db, session: Callable[[], Db], *, winner_commits: bool
) -> None:
    ada, first = ask(live, "ada", "x@new.org")
    bob, second = ask(live, "bob", "X@New.org")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step(STEP, {"key": first})
    assert two.step(STEP, {"key": second}), "the second waits to see whether the first commits"
    if winner_commits:
        assert (one.end(), two.end()) == ("", "23R14")
        assert run(live, EMAILS) == [("ada", "x@new.org"), ("bob", "bob@edx.org")]
        assert run(live, PENDING) == [(bob, "X@New.org")]
    else:
        one.connection.execute("rollback")
        assert two.end() == ""
        assert run(live, EMAILS) == [("ada", "ada@edx.org"), ("bob", "X@New.org")]
        assert run(live, PENDING) == [(ada, "x@new.org")]


def test_a_confirmation_and_a_change_by_hand_do_not_deadlock(live: Db, session: Callable[[], Db]) -> None:
    ada, key = ask(live, "ada", "ada@new.org")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step("select id from portal.auth_user where id = %(id)s for no key update", {"id": ada})
    assert two.step(STEP, {"key": key})
    assert not one.step("select rollbook.change_email(%(id)s, 'Ada@new.org')", {"id": ada})
    assert (one.end(), two.end()) == ("", "RB012"), "the change by hand was to the address asked for"
    assert run(live, EMAILS) == [("ada", "Ada@new.org")]


def test_a_deleted_user_takes_the_key_along(school: Db) -> None:
    ada, key = ask(school, "ada", "ada@new.org")
    run(school, "delete from portal.auth_user where id = %s", ada)
    refused(school, "RB012", CONFIRM, key)
