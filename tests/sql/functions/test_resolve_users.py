"""sql/functions/api/resolve_users.sql: whom a name refers to."""

from __future__ import annotations

import pytest

from tests.sql.helpers import Db, add_user, run

RESOLVE = "select place, user_id from rollbook.resolve_users(%s::text[]) order by place, user_id"


@pytest.mark.parametrize(
    "name",
    ["ada", "ada@edx.org", "ADA@edx.ORG", "id:1", "id:0001", "username:ada", "email:Ada@edx.org"],
)
def test_a_user_is_named_by_username_address_or_id(portal: Db, name: str) -> None:
    assert add_user(portal, "ada") == 1
    add_user(portal, "bob")
    assert run(portal, RESOLVE, [name]) == [(1, 1)]


@pytest.mark.parametrize(
    "name",
    ["", "Ada", "1", "id:", "id:x", "id:1.0", "id:-1", "id:2", "id:" + "9" * 30, "username:ADA", "username:", "email:",
     "email:ada", "name:ada", None],
)  # fmt: skip
def test_an_unknown_name_has_no_row(portal: Db, name: str | None) -> None:
    add_user(portal, "ada")
    assert run(portal, RESOLVE, [name]) == []


def test_users_without_an_address_are_not_named_by_an_empty_one(portal: Db) -> None:
    run(portal, "insert into portal.auth_user (username, email) values ('eve', '')")
    assert run(portal, RESOLVE, ["", "email:"]) == []


def test_an_ambiguous_name_has_a_row_for_each_user_and_a_prefix_decides(portal: Db) -> None:
    ada, eve = add_user(portal, "ada"), add_user(portal, "ada@edx.org", email="eve@edx.org")
    names = ["ada@edx.org", "username:ada@edx.org", "email:ada@edx.org"]
    assert run(portal, RESOLVE, names) == [(1, ada), (1, eve), (2, eve), (3, ada)]


def test_a_username_with_a_colon_is_named_with_its_kind(portal: Db) -> None:
    run(portal, "set local session_replication_role = replica")  # as a site may have one from before
    odd = add_user(portal, "id:7", email="odd@edx.org")
    assert run(portal, RESOLVE, ["id:7", "username:id:7"]) == [(2, odd)]


def test_names_keep_their_place_and_may_repeat(portal: Db) -> None:
    ada, bob = add_user(portal, "ada"), add_user(portal, "bob")
    assert run(portal, RESOLVE, ["bob", "nobody", "ada", "bob"]) == [(1, bob), (3, ada), (4, bob)]
