"""sql/functions/checks/stray_routes.sql, leaver_ids.sql, routed_courses.sql: routes that do not fit the copies."""

from __future__ import annotations

import pytest

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, leave, run, schema

STRAY = """select s.* from rollbook.routed_courses(array[%s]) as t
cross join rollbook.stray_routes(t.course, t.routed_ids) as s"""
LEAVERS = """select rollbook.leaver_ids(t.course, t.routed_ids), t.routed_ids
from rollbook.routed_courses(null) as t"""


def test_a_route_that_is_missing_or_extra_is_found(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, REMOVE)
    assert run(school, STRAY, REMOVE) == []
    run(school, "update rollbook.route set schemas = array[%s] where user_id = %s", schema(school, REMOVE), bob)
    run(school, "update rollbook.route set schemas = '{}' where user_id = %s", ada)
    assert sorted(run(school, STRAY, REMOVE)) == [("extra", bob), ("missing", ada)]


@pytest.mark.parametrize("course", [KEEP, REMOVE])
def test_leavers_are_due_only_where_the_course_keeps_them(school: Db, course: str) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, course)
    enroll(school, bob, course)
    leave(school, bob, course)
    kept = ([bob], [ada, bob])
    gone: tuple[list[int], list[int]] = ([], [ada])
    found = {tuple(tuple(sorted(ids)) for ids in row) for row in run(school, LEAVERS)}
    assert found == {tuple(map(tuple, kept if course == KEEP else gone)), ((), ())}
