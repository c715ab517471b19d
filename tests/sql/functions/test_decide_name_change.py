"""sql/functions/accounts/decide_name_change.sql: approved or rejected once, and a trace stays."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.sql.helpers import Db, add_user, refused, run, value
from tests.sql.stepping import Stepper

DECIDE = "select rollbook.decide_name_change(%s, %s, %s)"
DECISIONS = "select id, user_id, old_name, new_name, rationale, state, reason from rollbook.name_decision order by id"


def ask(db: Db, username: str = "ada", *, profile: bool = True) -> tuple[int, int]:
    """A user who asks for a name; return user and request."""
    user = add_user(db, username, profile=profile)
    return user, value(db, "select rollbook.request_name_change(%s, 'Ada Lovelace', 'Marriage')", user)


def names(db: Db) -> list[tuple[str, str]]:
    """Name and meta of all profiles."""
    return run(db, "select name, meta from portal.auth_userprofile order by id")


def test_approval_gives_the_name_and_keeps_the_old_one(school: Db) -> None:
    ada, number = ask(school)
    assert value(school, DECIDE, number, True, None) == ada
    ((name, meta),) = names(school)
    assert (name, [entry[:2] for entry in json.loads(meta)["old_names"]]) == ("Ada Lovelace", [["ada Foo", "Marriage"]])
    assert run(school, DECISIONS) == [(number, ada, "ada Foo", "Ada Lovelace", "Marriage", "approved", None)]
    assert run(school, "select id from portal.student_pendingnamechange") == []


def test_rejection_leaves_the_profile_and_a_trace(school: Db) -> None:
    ada, number = ask(school)
    before = names(school)
    assert value(school, DECIDE, number, False, "no proof") == ada
    assert names(school) == before
    assert run(school, DECISIONS) == [(number, ada, "ada Foo", "Ada Lovelace", "Marriage", "rejected", "no proof")]
    assert run(school, "select id, state from rollbook.name_change_status") == [(number, "rejected")]


def test_a_request_is_decided_once_and_the_user_can_ask_again(school: Db) -> None:
    ada, number = ask(school)
    run(school, DECIDE, number, False, None)
    for approved in (True, False):
        said = refused(school, "RB012", DECIDE, number, approved, None)
        assert (said.message_primary, str(number) in str(said.message_detail)) == ("Invalid ID", True)
    again = value(school, "select rollbook.request_name_change(%s, 'Ada Lovelace')", ada)
    run(school, DECIDE, again, True, None)
    assert [row[5] for row in run(school, DECISIONS)] == ["rejected", "approved"]


def test_without_a_profile_nothing_is_approved_and_the_request_stays(school: Db) -> None:
    ada, number = ask(school, profile=False)
    refused(school, "23R13", DECIDE, number, True, None)
    assert run(school, DECISIONS) == []
    assert run(school, "select user_id from portal.student_pendingnamechange") == [(ada,)]
    assert value(school, DECIDE, number, False, None) == ada


def test_of_two_sessions_that_decide_one_request_the_second_is_refused(
    live: Db, session: Callable[[], Db]
) -> None:  # fmt: skip
    _, number = ask(live)
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    call = "select rollbook.decide_name_change(%(id)s, %(yes)s)"
    assert not one.step(call, {"id": number, "yes": False})
    assert two.step(call, {"id": number, "yes": True}), "the second waits for the first"
    assert (one.end(), two.end()) == ("", "RB012")
    assert [row[5] for row in run(live, DECISIONS)] == ["rejected"]
    assert names(live) == [("ada Foo", "")]


def test_a_decision_and_a_deletion_of_the_user_do_not_deadlock(live: Db, session: Callable[[], Db]) -> None:
    ada, number = ask(live)
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step("select id from portal.auth_user where id = %(id)s for update", {"id": ada})
    assert two.step("select rollbook.decide_name_change(%(id)s, true)", {"id": number})
    assert not one.step("delete from portal.auth_user where id = %(id)s", {"id": ada})
    assert (one.end(), two.end()) == ("", "RB012")
    assert run(live, DECISIONS) == []
