"""sql/functions/accounts/require_pairs.sql: users and values that are not pairs are refused."""

from __future__ import annotations

import pytest

from tests.sql.helpers import Db, refused, run

REQUIRE = "select rollbook.require_pairs(%s::bigint[], %s::text[])"


@pytest.mark.parametrize(("ids", "values"), [([], []), ([1], ["a"]), ([2, 1], ["a", "a"])])
def test_pairs_pass(portal: Db, ids: list[int], values: list[str]) -> None:
    assert len(run(portal, REQUIRE, ids, values)) == 1


@pytest.mark.parametrize(("ids", "values"), [([1], []), ([1, 2], ["a"]), ([1, 1], ["a", "b"]), (None, ["a"])])
def test_anything_else_is_refused(portal: Db, ids: list[int] | None, values: list[str]) -> None:
    refused(portal, "RB013", REQUIRE, ids, values)
