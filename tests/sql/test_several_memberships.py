"""A membership table that allows several rows of one person in one course: what becomes of the copies."""

from __future__ import annotations

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    REMOVE,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    findings,
    held,
    plant,
    run,
    schema,
    value,
)


def test_a_person_stays_until_the_last_of_several_memberships_ends(school: Db) -> None:
    run(
        school,
        "alter table portal.student_courseenrollment drop constraint student_courseenrollment_user_id_course_id_key",
    )
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    for course in (KEEP, REMOVE):
        ids = [enroll(school, user, course)[0] for user in (ada, bob, ada)]
        assert held(school, course) == ([ada, bob], [ada, bob], [ada, ada, bob])
        assert findings(school, course) == []
        plant(school, "delete from {c}.student_courseenrollment where id = %s", ids[2], c=schema(school, course))
        assert findings(school, course) == [(ENROLLMENT, "missing", ids[2], None)]
        run(school, "select * from rollbook.repair(%s)", course)
        run(school, "delete from portal.student_courseenrollment where id = %s", ids[0])
        assert held(school, course) == everybody(ada, bob)
        run(school, "select * from rollbook.repair_users(%s, %s)", [ada], [course])
        assert findings(school, course) == []
        run(school, "delete from portal.student_courseenrollment where id = %s", ids[2])
    assert held(school, KEEP) == ([ada, bob], [ada, bob], [bob])
    assert held(school, REMOVE) == everybody(bob)
    # All at once: by one statement, and by the creation of a course.
    run(
        school,
        "insert into portal.student_courseenrollment (user_id, course_id) "
        "select u, c from unnest(%s::int[]) as u, unnest(%s::text[]) as c, generate_series(1, 2)",
        [ada, bob], [KEEP, REMOVE, "new"],
    )  # fmt: skip
    create(school, "new")
    assert held(school, "new") == ([ada, bob], [ada, bob], [ada, ada, bob, bob])
    routed = value(school, "select schemas from rollbook.route where user_id = %s", ada)
    assert sorted(routed) == sorted(schema(school, course) for course in (KEEP, REMOVE, "new"))
    assert findings(school) == []
    run(school, "delete from portal.student_courseenrollment where user_id = %s", ada)
    assert held(school, REMOVE) == ([bob], [bob], [bob, bob, bob])
    assert findings(school) == []
