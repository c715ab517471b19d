"""sql/triggers/refuse_year_of_birth.sql: 120 years, this one included; what stood before stays."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.sql.helpers import Db, add_user, refused, run, value

THIS_YEAR = datetime.now(UTC).year
SET = "update portal.auth_userprofile set year_of_birth = %s where user_id = %s"


@pytest.mark.parametrize("years", [0, 119, None])
def test_a_year_within_or_none_is_taken(portal: Db, years: int | None) -> None:
    ada = add_user(portal, "ada")
    year = None if years is None else THIS_YEAR - years
    run(portal, SET, year, ada)
    assert value(portal, "select year_of_birth from portal.auth_userprofile") == year


@pytest.mark.parametrize("years", [-1, 120, THIS_YEAR, THIS_YEAR + 1, THIS_YEAR - 10_000])
def test_a_year_outside_is_refused_also_in_a_new_profile(portal: Db, years: int) -> None:
    ada, bob = add_user(portal, "ada"), add_user(portal, "bob", profile=False)
    said = refused(portal, "23R15", SET, THIS_YEAR - years, ada)
    assert f"year_of_birth {THIS_YEAR - years} is not within the last 120 years" == said.message_primary
    insert = "insert into portal.auth_userprofile (user_id, year_of_birth) values (%s, %s)"
    refused(portal, "23R15", insert, bob, THIS_YEAR - years)
    assert run(portal, "select user_id, year_of_birth from portal.auth_userprofile") == [(ada, None)]


def test_an_old_value_that_was_right_once_does_not_stop_other_changes(portal: Db) -> None:
    ada = add_user(portal, "ada")
    run(portal, "alter table portal.auth_userprofile disable trigger rollbook_refuse_year_of_birth")
    run(portal, SET, THIS_YEAR - 130, ada)
    run(portal, "alter table portal.auth_userprofile enable trigger rollbook_refuse_year_of_birth")
    run(portal, "update portal.auth_userprofile set goals = 'x' where user_id = %s", ada)
    run(portal, "update portal.auth_userprofile set goals = 'y', year_of_birth = year_of_birth where user_id = %s", ada)
    assert value(portal, "select goals from portal.auth_userprofile") == "y"
    refused(portal, "23R15", SET, THIS_YEAR - 131, ada)
