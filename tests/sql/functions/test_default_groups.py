"""sql/functions/accounts/default_groups.sql and default_group.sql: the groups that are created on first use."""

from __future__ import annotations

import pytest

from tests.sql.helpers import Db, run, value


def test_there_are_four_and_each_has_a_description(portal: Db) -> None:
    found = run(portal, "select name, rollbook.default_group(name) = description from rollbook.default_groups()")
    assert found == [
        ("email_future_courses", True), ("email_helpers", True), ("mitx_unenroll", True), ("6002x_unenroll", True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "testers", "Email_helpers", None])
def test_any_other_name_has_none(portal: Db, name: str | None) -> None:
    assert value(portal, "select rollbook.default_group(%s)", name) is None
