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


WIDTHS = """
select attname::text, atttypmod - 4 from pg_attribute
where attrelid = 'portal.student_testcenteruser'::regclass
    and (attname in ('first_name', 'last_name') or attname ~ '^address_')
"""


def test_the_widths_are_those_of_the_columns(school: Db) -> None:
    ada = add_user(school, "ada")
    widths = dict(school.execute(WIDTHS).fetchall())
    for extra in (0, 1):  # as long as the column, and one character longer
        texts = {name: "x" * (width + extra) for name, width in widths.items()}
        address = "\n".join(texts[f"address_{line}"] for line in (1, 2, 3))
        run(school, "update portal.auth_user set first_name = %s, last_name = %s", texts["first_name"],
            texts["last_name"])  # fmt: skip
        run(school, "update portal.auth_userprofile set mailing_address = %s", address)
        assert value(school, DRAFT, ada) == ({} if extra else texts)
