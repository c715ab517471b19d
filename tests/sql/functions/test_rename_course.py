"""sql/functions/api/rename_course.sql: another ID; schema, copies and the course's own data stay.

Also tests change_course_id with begin_rename and end_rename, rename_memberships and refuse_former.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    REMOVE,
    USER,
    Db,
    add_user,
    create,
    enroll,
    faults,
    findings,
    held,
    leave,
    refused,
    run,
    schema,
    value,
)
from tests.sql.stepping import Stepper

NEW = "edX/toy/2013_Spring"
RENAME: LiteralString = "select rollbook.rename_course(%s, %s)"
INSERT: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"


def test_all_that_carries_the_id_follows(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob):
        enroll(school, user, KEEP, REMOVE)
    leave(school, bob, KEEP)
    school.execute(
        """insert into portal.student_courseenrollmentallowed (email, course_id) values ('x@edx.org', %(c)s);
        insert into rollbook.exam values (%(c)s, 'Final', 'Final', 'Final Exam', '2013-01-25', '2013-01-26',
            '2013-01-01', '2013-01-21');
        insert into portal.student_testcenteruser
            (user_id, client_candidate_id, first_name, last_name, address_1, city, country, phone, phone_country_code)
        values (1, 'edX000000000101', 'Ada', 'Foo', '1 Main St', 'London', 'GBR', '1', '44');
        insert into portal.student_testcenterregistration (testcenter_user_id, course_id, exam_series_code,
            eligibility_appointment_date_first, eligibility_appointment_date_last)
        select id, %(c)s, 'Final', '2013-01-25', '2013-01-26' from portal.student_testcenteruser;
        insert into rollbook.roster_enrollment (source, sourced_id, user_id, course_id, in_effect)
        values ('sis', 'e1', 1, %(c)s, true);
        insert into rollbook.verification (course_id, verdict) values (%(c)s, 'match');
        select rollbook.close_course(%(c)s)""".replace("%(c)s", f"'{KEEP}'").encode()
    )
    name = schema(school, KEEP)
    run(school, "alter table {c}.auth_user add column note text default 'own'", c=name)
    due = run(school, "select user_updated_at, upload_status from portal.student_testcenterregistration")
    refused(school, "RB005", RENAME, KEEP, REMOVE)
    refused(school, "RB003", RENAME, KEEP, "default")
    refused(school, "RB006", RENAME, "none", NEW)
    enroll(school, eve, NEW)
    refused(school, "23R55", RENAME, KEEP, NEW)
    leave(school, eve, NEW)
    run(school, RENAME, KEEP, NEW)
    assert schema(school, NEW) == name
    for table in ("portal.student_courseenrollment", "portal.student_courseenrollmentallowed", "rollbook.exam",
                  "portal.student_testcenterregistration", "rollbook.roster_enrollment", "rollbook.verification",
                  "rollbook.course", f"{name}.student_courseenrollment"):  # fmt: skip
        counted = f"select count(*) filter (where course_id = '{NEW}'), count(*) filter (where course_id = '{KEEP}') "
        assert school.execute(f"{counted} from {table}".encode()).fetchall() == [(1, 0)], table
    assert run(school, "select user_updated_at, upload_status from portal.student_testcenterregistration") == due
    assert (held(school, NEW), value(school, "select min(note) from {c}.auth_user", c=name)) == (
        ([ada, bob], [ada, bob], [ada]), "own",
    )  # fmt: skip
    assert faults(school) == []
    refused(school, "23R53", INSERT, eve, NEW)  # closed as before
    run(school, "select rollbook.open_course(%s)", NEW)
    said = refused(school, "23R55", INSERT, eve, KEEP)
    assert said.message_primary == f"course {KEEP} was renamed: it is course {NEW} now"
    run(school, RENAME, NEW, KEEP)  # and back
    enroll(school, eve, KEEP)
    refused(school, "23R55", INSERT, eve, NEW)
    create(school, NEW)  # the ID is free
    enroll(school, eve, NEW)
    assert faults(school) == []


def test_writers_come_before_the_new_id_or_meet_it(live: Db, session: Callable[[], Db]) -> None:
    one, two = Stepper(session(), live), Stepper(session(), live)
    users = [add_user(live, name) for name in ("a", "b", "c", "d", "e", "f")]
    for user in users[:4]:
        enroll(live, user, KEEP)
    rename: LiteralString = "select rollbook.rename_course(%(old)s, %(new)s)"
    insert: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) values (%(u)s, %(old)s)"
    end: LiteralString = "delete from portal.student_courseenrollment where user_id = %(u)s"
    given = {"old": KEEP, "new": NEW}
    # an enrollment, a leave and a change of a member that are under way are waited for
    update: LiteralString = "update portal.auth_user set first_name = 'New' where id = %(u)s"
    for write, user in ((insert, users[4]), (end, users[0]), (update, users[1])):
        one.begin()
        two.begin()
        assert not one.step(write, {"u": user, **given})
        assert two.step(rename, given), two.end()
        assert (one.end(), two.end()) == ("", "")
        given = {"old": given["new"], "new": given["old"]}
    # and those that come later wait for it
    for level, late in (("RC", "23R55"), ("RR", "40001"), ("SER", "40001")):
        one.begin()
        two.begin(level)
        assert not one.step(rename, given)
        assert two.step(insert, {"u": users[5], **given})
        assert (one.end(), two.end()) == ("", late)
        given = {"old": given["new"], "new": given["old"]}
    for user, level, late in ((users[1], "RC", ""), (users[2], "RR", "40001")):
        one.begin()
        two.begin(level)
        assert not one.step(rename, given)
        assert two.step(end, {"u": user})
        assert (one.end(), two.end()) == ("", late)
        given = {"old": given["new"], "new": given["old"]}
    assert findings(live) == []
    assert len(run(live, "select id from {c}.{t}", c=schema(live, given["old"]), t=ENROLLMENT)) == 3
    assert len(run(live, "select id from {c}.{t}", c=schema(live, given["old"]), t=USER)) == 5
