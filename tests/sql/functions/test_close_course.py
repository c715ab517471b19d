"""sql/functions/api/close_course.sql: a closed course takes no new enrollments, by whatever path; its copies live on.

Also tests open_course, change_closed and refuse_closed, and what the triggers give to join_courses.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    COURSES,
    KEEP,
    REMOVE,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    faults,
    findings,
    flip,
    held,
    leave,
    refused,
    run,
    schema,
    value,
)
from tests.sql.stepping import Stepper

INSERT: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"


@pytest.mark.made
def test_a_closed_course_refuses_new_enrollments_and_stays_current(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    enroll(school, ada, KEEP)
    enroll(school, bob, KEEP, REMOVE)
    assert value(school, "select rollbook.close_course(%s)", KEEP)
    assert not value(school, "select rollbook.close_course(%s)", KEEP)
    said = refused(school, "23R53", INSERT, eve, KEEP)
    assert said.message_primary == f"course {KEEP} is closed: it takes no new enrollments"
    assert (said.message_detail or "").startswith("Since 20")
    refused(school, "23R53", "insert into portal.student_courseenrollment (user_id, course_id) select id, c "
            "from portal.auth_user, unnest(%s::text[]) as c on conflict do nothing", [KEEP, REMOVE])  # fmt: skip
    refused(school, "23R53", "update portal.student_courseenrollment set course_id = %s where user_id = %s "
            "and course_id = %s", KEEP, eve, enroll(school, eve, REMOVE) and REMOVE)  # fmt: skip
    refused(school, "23R53", "update portal.student_courseenrollment set user_id = %s where user_id = %s "
            "and course_id = %s", eve, ada, KEEP)  # fmt: skip
    with (
        pytest.raises(psycopg.IntegrityError),
        school.transaction(),
        school.cursor().copy("copy portal.student_courseenrollment (user_id, course_id) from stdin") as copy,
    ):
        copy.write_row((eve, KEEP))
    # what is there is changed, upserted and left; names arrive
    run(school, "update portal.student_courseenrollment set created = now() where course_id = %s", KEEP)
    run(school, "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s) "
        "on conflict (user_id, course_id) do update set created = '2012-09-01'", ada, KEEP)  # fmt: skip
    run(school, "update portal.auth_user set first_name = 'Ada' where id = %s", ada)
    leave(school, bob, KEEP)
    refused(school, "23R53", INSERT, bob, KEEP)
    assert faults(school) == []
    assert value(school, "select first_name from {c}.auth_user where id = 1", c=schema(school, KEEP)) == "Ada"
    assert run(school, "select course_id, state, closed_by from rollbook.course_status order by closed_at") == [
        (KEEP, "ok", "postgres"), (REMOVE, "ok", None),
    ]  # fmt: skip
    # the allowed list: an account becomes active, and is enrolled in the courses that are open
    run(school, "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) "
        "select 'EVE@edx.org', c, true from unnest(%s::text[]) as c", [KEEP, REMOVE])  # fmt: skip
    leave(school, eve, REMOVE)
    assert run(school, "select course_id from rollbook.auto_enroll_users(%s)", [eve]) == [(REMOVE,)]
    # an undeclared course cannot be closed; open ends it
    refused(school, "RB006", "select rollbook.close_course('none')")
    assert value(school, "select rollbook.open_course(%s)", KEEP)
    assert not value(school, "select rollbook.open_course(%s)", KEEP)
    enroll(school, eve, KEEP)
    assert faults(school) == []


@pytest.mark.made
def test_an_inactive_enrollment_does_not_become_active_in_a_closed_course(flagged: Db) -> None:
    for course, on_leave in COURSES.items():
        create(flagged, course, on_leave)
    ada, bob = (add_user(flagged, name) for name in ("ada", "bob"))
    for user in (ada, bob):
        enroll(flagged, user, *COURSES)
    flip(flagged, ada, *COURSES, to=False)
    run(flagged, "select rollbook.close_course(%s)", REMOVE)
    on: LiteralString = "update portal.student_courseenrollment set is_active = true"
    refused(flagged, "23R53", on + " where user_id = %s and course_id = %s", ada, REMOVE)
    refused(flagged, "23R53", on)
    flip(flagged, ada, KEEP, to=True)
    flip(flagged, bob, *COURSES, to=True)  # it was
    run(flagged, "insert into portal.student_courseenrollment (user_id, course_id, is_active) values (%s, %s, false)",
        add_user(flagged, "eve"), REMOVE)  # fmt: skip
    assert held(flagged, REMOVE) == everybody(bob)
    assert findings(flagged) == []
    flip(flagged, bob, REMOVE, to=False)
    assert held(flagged, REMOVE) == everybody()


def test_no_enrollment_becomes_visible_after_the_close(live: Db, session: Callable[[], Db]) -> None:
    """An enrollment under way is waited for; one that meets the close waits, and is refused, at each level."""
    one, two = Stepper(session(), live), Stepper(session(), live)
    writes: list[LiteralString] = [
        "insert into portal.student_courseenrollment (user_id, course_id) values (%(u)s, %(c)s)",
        "update portal.student_courseenrollment set course_id = %(c)s where user_id = %(u)s",
    ]
    close: LiteralString = "select rollbook.close_course(%(c)s)"
    for number, (write, level) in enumerate(product(writes, ("RC", "RR", "SER"))):
        late = "23R53" if level == "RC" else "40001"
        course = {"c": f"closing {number}"}
        create(live, course["c"])
        users = [add_user(live, f"{name}{number}") for name in ("a", "b", "c")]
        for user in users:
            enroll(live, user, KEEP)
        early, later, last = ({"u": user, **course} for user in users)
        one.begin(level)
        two.begin()
        assert not one.step(write, early)
        assert two.step(close, course)  # waits for the enrollment
        assert (one.end(), two.end()) == ("", "")
        run(live, "select rollbook.open_course(%s)", course["c"])
        one.begin()
        two.begin(level)
        assert not one.step(close, course)
        assert two.step(write, later)  # waits for the close
        assert (one.end(), two.end()) == ("", late)
        run(live, "select rollbook.open_course(%s)", course["c"])
        two.begin(level)  # its snapshot is from before the close
        assert value(live, "select rollbook.close_course(%s)", course["c"])
        assert not two.step(write, last)
        assert two.end() == late
        assert held(live, course["c"]) == everybody(users[0])
    assert findings(live) == []
