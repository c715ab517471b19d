"""sql/functions/copies/put_copies.sql, update_copies.sql, write_copy.sql: what each writes and reports."""

from __future__ import annotations

import pytest

from tests.sql.helpers import KEEP, USER, Db, add_user, enroll, plant, run, schema, select, value, versions


@pytest.fixture
def drifted(school: Db) -> Db:
    """Users 1 to 3 in a course: the copy of user 1 is right, that of 2 differs, that of 3 is missing."""
    for name in ("ada", "bob", "cy"):
        enroll(school, add_user(school, name), KEEP)
    plant(school, "update {c}.auth_user set email = 'old@edx.org' where id = 2", c=schema(school, KEEP))
    plant(school, "delete from {c}.auth_user where id = 3", c=schema(school, KEEP))
    run(school, "set local role rollbook_owner")
    return school


def test_put_copies_inserts_the_missing_and_updates_the_different(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    before = versions(drifted, KEEP)
    assert value(drifted, "select rollbook.put_copies(%s, 'auth_user', 'id', '{1,2,3,99}')", keep) == 2
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org"), (3, "cy@edx.org")]
    assert versions(drifted, KEEP)[KEEP, USER, 1] == before[KEEP, USER, 1]
    assert value(drifted, "select rollbook.put_copies(%s, 'auth_user', 'id', '{1,2,3}')", keep) == 0


def test_update_copies_creates_none(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    assert value(drifted, "select rollbook.update_copies(%s, 'auth_user', 'id', '{1,2,3}')", keep) == 1
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org")]


def test_update_copy_creates_none_and_a_row_of_nulls_updates_nothing(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    update = "select rollbook.write_copy(array[%s::text], 'auth_user', u, false) from portal.auth_user as u"
    run(drifted, update, keep)
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org")]
    before = versions(drifted, KEEP)
    run(drifted, "select rollbook.write_copy(array[%s::text], 'auth_user', null::portal.auth_user, false)", keep)
    assert versions(drifted, KEEP) == before
