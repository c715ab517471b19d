"""sql/functions/copies/put_copies.sql, update_copies.sql, write_copy.sql: what each writes and reports.

Also tests course_of.
"""

from __future__ import annotations

from typing import LiteralString

import pytest
from psycopg import IsolationLevel

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    REMOVE,
    USER,
    Db,
    add_user,
    enroll,
    faults,
    plant,
    run,
    schema,
    select,
    value,
    versions,
)


def drift(db: Db) -> None:
    """Add users 1 to 3 in a course: the copy of user 1 is right, that of 2 differs, that of 3 is missing."""
    for name in ("ada", "bob", "cy"):
        enroll(db, add_user(db, name), KEEP)
    plant(db, "update {c}.auth_user set email = 'old@edx.org' where id = 2", c=schema(db, KEEP))
    plant(db, "delete from {c}.auth_user where id = 3", c=schema(db, KEEP))


@pytest.fixture
def drifted(school: Db) -> Db:
    """As `drift` says, with the rights of the routing."""
    drift(school)
    run(school, "set local role rollbook_owner")
    return school


def test_put_copies_inserts_the_missing_and_updates_the_different(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    before = versions(drifted, KEEP)
    assert value(drifted, "select rollbook.put_copies(%s, 'auth_user', 'id', '{1,2,3,99}')", keep) == 2
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org"), (3, "cy@edx.org")]
    assert versions(drifted, KEEP)[KEEP, USER, 1] == before[KEEP, USER, 1]
    assert value(drifted, "select rollbook.put_copies(%s, 'auth_user', 'id', '{1,2,3}')", keep) == 0


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.SERIALIZABLE])
def test_put_copies_writes_the_same_at_every_level(live: Db, level: IsolationLevel) -> None:
    drift(live)
    keep = schema(live, KEEP)
    plant(live, "delete from {c}.student_courseenrollment where user_id = 2", c=keep)
    enroll(live, 2, REMOVE)  # an enrollment that is no concern of the course
    put: LiteralString = "select rollbook.put_copies(%s, %s, %s, '{1,2,3,99}')"
    live.isolation_level = level
    with live.transaction():
        run(live, "set local role rollbook_owner")
        assert (value(live, put, keep, USER, "id"), value(live, put, keep, ENROLLMENT, "user_id")) == (2, 1)
        written = versions(live, KEEP)
        assert (value(live, put, keep, USER, "id"), value(live, put, keep, ENROLLMENT, "user_id")) == (0, 0)
        assert versions(live, KEEP) == written
    assert faults(live) == []


def test_update_copies_creates_none(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    assert value(drifted, "select rollbook.update_copies(%s, 'auth_user', 'id', '{1,2,3}')", keep) == 1
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org")]


def test_update_copy_creates_none_and_a_row_of_nulls_updates_nothing(drifted: Db) -> None:
    keep = schema(drifted, KEEP)
    update: LiteralString = """
        select rollbook.write_copy(array[%s::text], 'auth_user', 'id', u.id, u, '{email}') from portal.auth_user as u"""
    run(drifted, update, keep)
    assert select(drifted, keep, USER, ["id", "email"]) == [(1, "ada@edx.org"), (2, "bob@edx.org")]
    before = versions(drifted, KEEP)
    empty = "select rollbook.write_copy(array[%s::text], 'auth_user', 'id', 0, null::portal.auth_user, '{email}')"
    run(drifted, empty, keep)
    assert versions(drifted, KEEP) == before
