"""sql/functions/accounts/change_emails.sql: addresses of several users at once."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.functions.test_change_email import old_emails
from tests.sql.helpers import COURSES, KEEP, USER, Db, add_user, enroll, fails, faults, refused, run, schema

CHANGE = "select rollbook.change_emails(%s::bigint[], %s::text[])"


def test_only_what_differs_is_changed_in_the_portal_and_in_the_courses(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob, eve):
        enroll(school, user, *COURSES)
    changed = run(school, CHANGE, [eve, bob, ada], ["eve@new.org", "bob@edx.org", "ADA@edx.org"])
    assert changed == [(ada,), (eve,)]
    assert run(school, "select email from {c}.{t} order by id", c=schema(school, KEEP), t=USER) == [
        ("ADA@edx.org",), ("bob@edx.org",), ("eve@new.org",),
    ]  # fmt: skip
    assert [[entry[0] for entry in old_emails(school, user)] for user in (ada, bob, eve)] == [
        ["ada@edx.org"], [], ["eve@edx.org"],
    ]  # fmt: skip
    assert faults(school) == []


def test_requests_for_the_new_addresses_are_removed_and_others_stay(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    run(school, "select rollbook.request_email_change(%s, 'Ada@new.org')", ada)
    run(school, "select rollbook.request_email_change(%s, 'other@new.org')", bob)
    run(school, CHANGE, [ada, bob], ["ada@new.org", "bob@new.org"])
    assert run(school, "select user_id from portal.student_pendingemailchange") == [(bob,)]


def test_one_address_that_is_taken_changes_nobody(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    add_user(school, "eve")
    fails(school, psycopg.errors.UniqueViolation, CHANGE, [ada, bob], ["ada@new.org", "EVE@edx.org"])
    assert old_emails(school, ada) == []


@pytest.mark.made
def test_nothing_to_change_writes_nothing(school: Db) -> None:
    ada = add_user(school, "ada")
    before = run(school, "select xmin, ctid from portal.auth_user")
    assert run(school, CHANGE, [ada, 999], ["ada@edx.org", "nobody@edx.org"]) == []
    assert run(school, CHANGE, [], []) == []
    assert run(school, "select xmin, ctid from portal.auth_user") == before


def test_what_is_not_pairs_is_refused(school: Db) -> None:
    ada = add_user(school, "ada")
    refused(school, "RB013", CHANGE, [ada], [])
    refused(school, "RB013", CHANGE, [ada, ada], ["a@new.org", "b@new.org"])
