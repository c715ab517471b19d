"""sql/functions/accounts/activate_registration.sql: a key is good once, for a while, and for its owner."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import pytest

from tests.sql.helpers import COURSES, KEEP, USER, Db, add_user, faults, held, refused, run, schema, value
from tests.sql.stepping import Stepper

ACTIVATE = "select rollbook.activate_registration(%s)"
STEP: LiteralString = "select rollbook.activate_registration(%(key)s)"


def register(db: Db, username: str, key: str = "", good_for: str = "1 day") -> int:
    """Add an inactive user with a key; return the id."""
    user_id = add_user(db, username, is_active=False)
    statement = (
        "insert into portal.auth_registration (user_id, activation_key, expires_at) "
        "values (%s, %s, now() + %s::interval)"
    )
    run(db, statement, user_id, key or f"key-of-{username}", good_for)
    return user_id


def state(db: Db, user_id: int) -> tuple[bool, bool]:
    """Whether the user is active, and the key spent."""
    ((active, spent),) = run(
        db,
        "select u.is_active, r.activated_at is not null from portal.auth_user as u "
        "inner join portal.auth_registration as r on r.user_id = u.id where u.id = %s",
        user_id,
    )
    return active, spent


def test_the_owner_becomes_active_the_key_is_spent_and_the_copies_know(school: Db) -> None:
    ada, bob = register(school, "ada"), register(school, "bob")
    for course in COURSES:
        run(school, "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)", ada, course)
    assert value(school, ACTIVATE, "key-of-ada") == ada
    assert (state(school, ada), state(school, bob)) == ((True, True), (False, False))
    assert faults(school) == []
    assert value(school, "select is_active from {c}.{t}", c=schema(school, KEEP), t=USER) is True


@pytest.mark.parametrize(
    ("key", "word"), [("unknown", "no account has"), ("", "no account has"), ("spent", "was used"), ("late", "expired")]
)
def test_a_key_that_is_not_known_spent_or_expired_is_refused(school: Db, key: str, word: str) -> None:
    spent = register(school, "ada", "spent")
    late = register(school, "bob", "late", "-1 microsecond")
    run(school, "update portal.auth_registration set activated_at = now() where user_id = %s", spent)
    said = refused(school, "RB012", ACTIVATE, key)
    assert word in str(said.message_primary)
    assert (state(school, spent), state(school, late)) == ((False, True), (False, False))


def test_whoever_is_allowed_with_auto_enroll_is_enrolled_once_and_nobody_else(school: Db) -> None:
    ada, bob = register(school, "ada"), register(school, "bob")
    allowed = "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values (%s, %s, %s)"
    email = value(school, "select upper(email) from portal.auth_user where id = %s", ada)
    other = value(school, "select email from portal.auth_user where id = %s", bob)
    run(school, allowed, email, KEEP, True)
    run(school, allowed, email.lower(), KEEP, True)  # the same address twice, in other capitals
    run(school, allowed, email.lower(), "edX/not/auto", False)
    run(school, allowed, other, "edX/of/bob", True)
    assert held(school, KEEP) == ([], [], [])
    run(school, ACTIVATE, "key-of-ada")
    assert run(school, "select user_id, course_id from portal.student_courseenrollment") == [(ada, KEEP)]
    assert held(school, KEEP)[0] == [ada]
    assert value(school, "select rollbook.auto_enroll(%s)", ada) == 0
    assert value(school, "select count(*) from portal.student_courseenrollmentallowed") == 4


def test_who_has_no_address_is_not_enrolled_by_it(school: Db) -> None:
    eve = add_user(school, "eve", email="")
    assert value(school, "select rollbook.auto_enroll(%s)", eve) == 0


def test_a_renewed_key_works_and_the_old_one_does_not(school: Db) -> None:
    ada = register(school, "ada", "old", "-1 day")
    key = value(school, "select rollbook.renew_registration(%s, '2 days')", ada)
    assert (len(key), key != value(school, "select rollbook.renew_registration(%s)", ada)) == (32, True)
    refused(school, "RB012", ACTIVATE, "old")
    refused(school, "RB012", ACTIVATE, key)
    newest = value(school, "select activation_key from portal.auth_registration where user_id = %s", ada)
    assert value(school, ACTIVATE, newest) == ada
    assert value(school, "select expires_at - created_at = '14 days' from portal.auth_registration") is True


def test_a_deletion_under_way_and_an_activation_do_not_deadlock(live: Db, session: Callable[[], Db]) -> None:
    ada = register(live, "ada")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step("select from portal.auth_user where id = %(id)s for update", {"id": ada})
    assert two.step(STEP, {"key": "key-of-ada"}), "the activation waits for the deletion"
    assert not one.step("delete from portal.auth_user where id = %(id)s", {"id": ada})
    assert (one.end(), two.end()) == ("", "RB012")
    assert value(live, "select count(*) from portal.auth_registration") == 0


@pytest.mark.parametrize("level", ["RC", "RR"])
def test_of_two_that_present_one_key_the_second_is_refused(live: Db, session: Callable[[], Db], level: str) -> None:
    ada = register(live, "ada")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin(level)
    assert not one.step(STEP, {"key": "key-of-ada"})
    assert two.step(STEP, {"key": "key-of-ada"})
    assert (one.end(), two.end()) == ("", "RB012" if level == "RC" else "40001")
    assert state(live, ada) == (True, True)
