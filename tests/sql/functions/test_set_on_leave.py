"""sql/functions/api/set_on_leave.sql: what happens to copies when an enrollment ends, changed while the course lives.

Also tests change_on_leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    USER,
    Db,
    add_user,
    enroll,
    everybody,
    faults,
    findings,
    held,
    leave,
    refused,
    run,
    schema,
)
from tests.sql.stepping import Stepper


def test_leavers_go_with_remove_and_stay_from_keep_on(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob, eve):
        enroll(school, user, KEEP, REMOVE)
    leave(school, ada, KEEP)
    leave(school, ada, REMOVE)
    assert run(school, "select table_name, inserted, updated, deleted from rollbook.set_on_leave(%s, 'remove')",
               KEEP) == [(USER, 0, 0, 1), (PROFILE, 0, 0, 1)]  # fmt: skip
    assert run(school, "select * from rollbook.set_on_leave(%s, 'remove')", KEEP) == []
    assert run(school, "select * from rollbook.set_on_leave(%s, 'keep')", REMOVE) == []
    assert held(school, KEEP) == held(school, REMOVE) == everybody(bob, eve)
    leave(school, bob, KEEP)
    leave(school, bob, REMOVE)
    assert (held(school, KEEP), held(school, REMOVE)) == (
        everybody(eve), ([bob, eve], [bob, eve], [eve]),
    )  # fmt: skip
    run(school, "update portal.auth_user set first_name = 'New'")
    assert faults(school) == []
    # what a paused course holds goes when it is resumed
    run(school, "select rollbook.pause_course(%s)", REMOVE)
    assert run(school, "select * from rollbook.set_on_leave(%s, 'remove')", REMOVE) == []
    run(school, "select rollbook.resume_course(%s)", REMOVE)
    assert held(school, REMOVE) == everybody(eve)
    refused(school, "RB003", "select rollbook.set_on_leave(%s, 'forget')", KEEP)
    refused(school, "RB006", "select rollbook.set_on_leave('none', 'keep')")


def test_rows_that_the_course_still_needs_refuse_the_change(school: Db) -> None:
    ada = add_user(school, "ada")
    enroll(school, ada, KEEP)
    leave(school, ada, KEEP)
    name = schema(school, KEEP)
    run(school, "create table {c}.grade (user_id integer references {c}.auth_user)", c=name)
    run(school, "insert into {c}.grade values (%s)", ada, c=name)
    refused(school, "23R04", "select rollbook.set_on_leave(%s, 'remove')", KEEP)
    assert run(school, "select on_leave from rollbook.course where course_id = %s", KEEP) == [("keep",)]
    assert held(school, KEEP) == ([ada], [ada], [])
    assert findings(school) == []


@pytest.mark.parametrize("on_leave", ["keep", "remove"])
def test_a_leave_comes_before_the_change_or_obeys_it(live: Db, session: Callable[[], Db], on_leave: str) -> None:
    course = REMOVE if on_leave == "keep" else KEEP
    users = [add_user(live, name) for name in ("a", "b", "c", "d")]
    for user in users:
        enroll(live, user, course)
    one, two = Stepper(session(), live), Stepper(session(), live)
    change: LiteralString = "select count(*) from rollbook.set_on_leave(%(c)s, %(o)s)"
    end: LiteralString = "delete from portal.student_courseenrollment where user_id = %(u)s"
    given = {"c": course, "o": on_leave}
    one.begin()
    two.begin()
    assert not one.step(end, {"u": users[0]})
    assert two.step(change, given)
    assert (one.end(), two.end()) == ("", "")
    run(live, "select rollbook.set_on_leave(%s, %s)", course, "keep" if on_leave == "remove" else "remove")
    for user, level, code in zip(users[1:], ("RC", "RR", "SER"), ("", "40001", "40001"), strict=True):
        one.begin()
        two.begin(level)
        assert not one.step(change, given)
        assert two.step(end, {"u": user})
        assert (one.end(), two.end()) == ("", code)
        run(live, "select rollbook.set_on_leave(%s, %s)", course, "keep" if on_leave == "remove" else "remove")
    assert findings(live) == []
    assert len(run(live, "select id from {c}.{t}", c=schema(live, course), t=ENROLLMENT)) == 2
