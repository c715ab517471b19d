"""sql/functions/accounts/default_group.sql: the four groups that are made on first use, and no other."""

from __future__ import annotations

import pytest

from tests.sql.helpers import Db, value


@pytest.mark.parametrize("name", ["email_future_courses", "email_helpers", "mitx_unenroll", "6002x_unenroll"])
def test_a_default_group_has_a_description(portal: Db, name: str) -> None:
    assert value(portal, "select rollbook.default_group(%s)", name)


@pytest.mark.parametrize("name", ["", "testers", "Email_helpers", None])
def test_any_other_has_none(portal: Db, name: str | None) -> None:
    assert value(portal, "select rollbook.default_group(%s)", name) is None
