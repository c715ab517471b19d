"""sql/functions/testcentre/candidate_draft.sql: what the account knows, except what the test centre would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql.helpers import Db, add_user, run, value

DRAFT = "select rollbook.candidate_draft(%s)"


@pytest.mark.parametrize(
    ("first", "last", "name", "address", "expected"),
    [
        ("", "", "", None, {}),
        ("Ada", "Lovelace", "Countess", None, {"first_name": "Ada", "last_name": "Lovelace"}),
        ("", "Lovelace", "Ada Foo", None, {"last_name": "Lovelace"}),
        ("", "", " Ada  King Lovelace ", None, {"first_name": "Ada King", "last_name": "Lovelace"}),
        ("", "", "Ada", None, {"last_name": "Ada"}),
        ("", "", "Łucja Nowak", None, {"last_name": "Nowak"}),
        ("", "", "x" * 31 + " Foo", None, {"last_name": "Foo"}),
        ("", "", "", "1 Main St", {"address_1": "1 Main St"}),
        ("", "", "", " 1 Main St \r\n\n Apt 2\n", {"address_1": "1 Main St", "address_2": "Apt 2"}),
        ("", "", "", "a\nb\nc\nd", {}),
    ],
)
def test_what_fits_is_taken(
    school: Db, first: str, last: str, name: str, address: str | None, expected: dict[str, Any]
) -> None:
    ada = add_user(school, "ada")
    run(school, "update portal.auth_user set first_name = %s, last_name = %s", first, last)
    run(school, "delete from portal.auth_userprofile")
    run(school, "insert into portal.auth_userprofile (user_id, name, mailing_address) values (%s, %s, %s)", ada, name,
        address)  # fmt: skip
    assert value(school, DRAFT, ada) == expected


def test_no_profile_and_no_user_have_nothing(school: Db) -> None:
    ada = add_user(school, "ada")
    run(school, "delete from portal.auth_userprofile")
    assert value(school, DRAFT, ada) == {}
    assert value(school, DRAFT, -1) == {}
