"""sql/functions/accounts/change_email.sql: another address, and the old one in the profile's meta."""

from __future__ import annotations

import json
from datetime import datetime

import psycopg
import pytest

from tests.sql.helpers import COURSES, KEEP, USER, Db, add_user, enroll, fails, faults, run, schema, value

CHANGE = "select rollbook.change_email(%s, %s)"


def old_emails(db: Db, user_id: int) -> list[list[str]]:
    """The entries in the profile's meta."""
    found = value(db, "select meta from portal.auth_userprofile where user_id = %s", user_id)
    return list(json.loads(found or "{}").get("old_emails", []))


def test_the_address_changes_everywhere_and_the_old_one_is_kept_with_the_time(school: Db) -> None:
    ada = add_user(school, "ada")
    enroll(school, ada, *COURSES)
    assert value(school, CHANGE, ada, "ada@new.org") is True
    ((old, at),) = old_emails(school, ada)
    assert (old, at[-6:], datetime.fromisoformat(at)) == ("ada@edx.org", "+00:00", value(school, "select now()"))
    assert faults(school) == []
    assert value(school, "select email from {c}.{t}", c=schema(school, KEEP), t=USER) == "ada@new.org"


@pytest.mark.made
def test_capitals_alone_are_a_change_and_the_same_address_is_none(school: Db) -> None:
    ada = add_user(school, "ada")
    assert value(school, CHANGE, ada, "Ada@edx.org") is True
    before = run(school, "select xmin, ctid, email from portal.auth_user")
    assert value(school, CHANGE, ada, "Ada@edx.org") is False
    assert run(school, "select xmin, ctid, email from portal.auth_user") == before
    assert [entry[0] for entry in old_emails(school, ada)] == ["ada@edx.org"]


def test_an_address_of_somebody_else_is_refused_whatever_the_capitals(school: Db) -> None:
    ada = add_user(school, "ada")
    add_user(school, "bob")
    fails(school, psycopg.errors.UniqueViolation, CHANGE, ada, "BOB@edx.ORG")
    fails(school, psycopg.errors.CheckViolation, CHANGE, ada, "not an email")
    assert old_emails(school, ada) == []


def test_a_request_for_that_address_is_done_with_and_another_stays(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    run(school, "select rollbook.request_email_change(%s, 'Ada@New.org')", ada)
    run(school, "select rollbook.request_email_change(%s, 'other@new.org')", bob)
    run(school, CHANGE, ada, "ada@new.org")
    run(school, CHANGE, bob, "bob@new.org")
    assert run(school, "select user_id from portal.student_pendingemailchange") == [(bob,)]


def test_a_user_without_profile_gets_the_address(school: Db) -> None:
    bob = add_user(school, "bob", profile=False)
    assert value(school, CHANGE, bob, "bob@new.org") is True
    assert value(school, "select email from portal.auth_user where id = %s", bob) == "bob@new.org"
