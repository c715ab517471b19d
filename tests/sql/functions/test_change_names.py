"""sql/functions/accounts/change_names.sql: full names of several users at once."""

from __future__ import annotations

import json

import pytest

from tests.sql.helpers import COURSES, KEEP, PROFILE, Db, add_user, enroll, faults, refused, run, schema, value

CHANGE = "select rollbook.change_names(%s::bigint[], %s::text[], %s)"


def old_names(db: Db, user_id: int) -> list[list[str]]:
    """Return name and rationale of the entries in the profile's meta."""
    found = value(db, "select meta from portal.auth_userprofile where user_id = %s", user_id)
    return [entry[:2] for entry in json.loads(found or "{}").get("old_names", [])]


def test_only_what_differs_is_changed_in_the_portal_and_in_the_courses(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob, eve):
        enroll(school, user, *COURSES)
    assert run(school, CHANGE, [eve, bob, ada], ["", "bob Foo", "Ada Bar"], "Marriage") == [(ada,), (eve,)]
    assert run(school, "select name from {c}.{t} order by user_id", c=schema(school, KEEP), t=PROFILE) == [
        ("Ada Bar",), ("bob Foo",), ("",),
    ]  # fmt: skip
    assert [old_names(school, user) for user in (ada, bob, eve)] == [
        [["ada Foo", "Marriage"]], [], [["eve Foo", "Marriage"]],
    ]  # fmt: skip
    assert faults(school) == []


def test_one_name_that_cannot_be_changes_nobody(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    refused(school, "23R13", CHANGE, [ada, bob], ["Ada Bar", "B"], "")
    refused(school, "23R13", CHANGE, [ada, bob], ["Ada Bar", " B "], "")
    eve = add_user(school, "eve", profile=False)
    refused(school, "23R13", CHANGE, [ada, eve], ["Ada Bar", "Eve Bar"], "")
    assert old_names(school, ada) == []


@pytest.mark.made
def test_nothing_to_change_writes_nothing(school: Db) -> None:
    ada = add_user(school, "ada")
    before = run(school, "select xmin, ctid from portal.auth_userprofile")
    assert run(school, CHANGE, [ada], ["ada Foo"], "") == []
    assert run(school, CHANGE, [], [], "") == []
    assert run(school, "select xmin, ctid from portal.auth_userprofile") == before


def test_what_is_not_pairs_is_refused(school: Db) -> None:
    ada = add_user(school, "ada")
    refused(school, "RB013", CHANGE, [ada], [], "")
    refused(school, "RB013", CHANGE, [ada, ada], ["Ada Bar", "Ada Baz"], "")
