"""sql/functions/accounts/auto_enroll_users.sql and auto_enroll.sql: enrollments that allowed addresses give."""

from __future__ import annotations

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, everybody, faults, held, run, value

ALLOW = "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values (%s, %s, %s)"


def test_each_user_is_enrolled_where_the_address_is_allowed(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    run(school, ALLOW, "ADA@edx.org", KEEP, True)
    run(school, ALLOW, "ada@edx.org", REMOVE, False)
    run(school, ALLOW, "bob@edx.org", KEEP, True)
    run(school, ALLOW, "bob@edx.org", REMOVE, True)
    run(school, ALLOW, "eve@edx.org", KEEP, True)
    enroll(school, bob, KEEP)
    call = "select user_id, course_id from rollbook.auto_enroll_users(%s::bigint[])"
    assert sorted(run(school, call, [bob, ada])) == [(ada, KEEP), (bob, REMOVE)]
    assert run(school, call, [bob, ada]) == []
    assert run(school, call, []) == []
    assert held(school, KEEP) == everybody(ada, bob)
    assert faults(school) == []
    assert value(school, "select rollbook.auto_enroll(%s)", eve) == 1
    assert value(school, "select rollbook.auto_enroll(%s)", eve) == 0
