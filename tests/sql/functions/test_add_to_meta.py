"""sql/functions/accounts/add_to_meta.sql: one more entry in a list of a profile's meta, and nothing else touched."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.sql.helpers import Db, fails, refused, value

ADD = "select rollbook.add_to_meta(%s, %s, %s)"


@pytest.mark.parametrize(
    ("meta", "after"),
    [
        ("", {"old_names": [["Ada"]]}),
        (None, {"old_names": [["Ada"]]}),
        ("{}", {"old_names": [["Ada"]]}),
        ('{"old_names": []}', {"old_names": [["Ada"]]}),
        ('{"old_names": [["A", "", "t"]]}', {"old_names": [["A", "", "t"], ["Ada"]]}),
        ('{"note": {"deep": [1, 1.50, "ünï"]}, "old_emails": [1]}',
         {"note": {"deep": [1, 1.5, "ünï"]}, "old_emails": [1], "old_names": [["Ada"]]}),
    ],
)  # fmt: skip
def test_an_entry_goes_to_the_end_and_the_rest_stays(portal: Db, meta: str | None, after: object) -> None:
    assert json.loads(value(portal, ADD, meta, "old_names", '["Ada"]')) == after


@pytest.mark.parametrize("other", ['"text"', "{}", "null", "5"])
def test_what_is_no_list_is_kept_and_refused(portal: Db, other: str) -> None:
    said = refused(portal, "23R13", ADD, f'{{"old_names": {other}}}', "old_names", '["Ada"]')
    assert "old_names" in str(said.message_primary)
    assert value(portal, ADD, f'{{"old_names": {other}}}', "old_emails", '["Ada"]')


def test_what_is_no_json_is_refused(portal: Db) -> None:
    fails(portal, psycopg.errors.InvalidTextRepresentation, ADD, "not json", "old_names", "[]")
