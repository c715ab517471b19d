"""sql/functions/shape/: what is generated from the declaration of the shape."""

from __future__ import annotations

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, run


def test_members_are_the_rows_of_the_membership_table_that_count(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, KEEP)
    enroll(school, bob, REMOVE)
    assert run(school, "select user_id from rollbook.memberships_of(%s)", KEEP) == [(ada,)]
    assert set(run(school, "select user_id, course_id from rollbook.memberships()")) == {(ada, KEEP), (bob, REMOVE)}
    assert {(ada,), (bob,)} <= set(run(school, "select id from rollbook.persons()"))
