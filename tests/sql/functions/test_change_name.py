"""sql/functions/accounts/change_name.sql: another full name, and the old one in the profile's meta."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.sql.helpers import COURSES, KEEP, PROFILE, Db, add_user, enroll, faults, refused, run, schema, value

CHANGE = "select rollbook.change_name(%s, %s, %s)"


def meta(db: Db, user_id: int) -> Any:
    """The profile's meta."""
    return json.loads(value(db, "select meta from portal.auth_userprofile where user_id = %s", user_id) or "{}")


def test_the_name_changes_and_the_old_one_is_kept_with_reason_and_time(school: Db) -> None:
    ada = add_user(school, "ada")
    assert value(school, CHANGE, ada, "Ada Lovelace", "Marriage") is True
    ((old, rationale, at),) = meta(school, ada)["old_names"]
    assert (old, rationale) == ("ada Foo", "Marriage")
    when = datetime.fromisoformat(at)
    assert (at.endswith("+00:00"), when.tzinfo) == (True, UTC)
    assert when == value(school, "select now()")


def test_every_change_adds_an_entry_at_the_end_and_other_meta_stays(school: Db) -> None:
    ada = add_user(school, "ada")
    run(school, """update portal.auth_userprofile set meta = '{"note": 1, "old_names": [["A", "", "t"]]}'""")
    for name in ("Ada B", "Ada C"):
        run(school, CHANGE, ada, name, "")
    found = meta(school, ada)
    assert found["note"] == 1
    assert [entry[0] for entry in found["old_names"]] == ["A", "ada Foo", "Ada B"]


@pytest.mark.made
def test_the_name_that_is_there_writes_nothing(school: Db) -> None:
    ada = add_user(school, "ada")
    before = run(school, "select xmin, ctid from portal.auth_userprofile")
    assert value(school, CHANGE, ada, "ada Foo", "") is False
    assert run(school, "select xmin, ctid from portal.auth_userprofile") == before


def test_the_change_stands_in_every_course_of_the_user(school: Db) -> None:
    ada = add_user(school, "ada")
    enroll(school, ada, *COURSES)
    run(school, CHANGE, ada, "Ada Lovelace", "")
    assert faults(school) == []
    assert value(school, "select name from {c}.{t}", c=schema(school, KEEP), t=PROFILE) == "Ada Lovelace"


def test_a_user_without_profile_or_with_a_foreign_meta_is_refused(school: Db) -> None:
    bob = add_user(school, "bob", profile=False)
    assert "profile" in str(refused(school, "23R13", CHANGE, bob, "Bob B", "").message_primary)
    ada = add_user(school, "ada")
    run(school, """update portal.auth_userprofile set meta = '{"old_names": "mine"}'""")
    refused(school, "23R13", CHANGE, ada, "Ada B", "")
    assert value(school, "select name from portal.auth_userprofile where user_id = %s", ada) == "ada Foo"
