"""sql/functions/api/register_for_exam.sql: who may register, for which exam, when; and what students may not do.

Which exams are open is what rollbook.exam_status shows.
"""

from __future__ import annotations

import threading

import pytest

from tests.sql.helpers import KEEP, Db, add_user, refused, run, value
from tests.sql.test_test_centre import candidate

REGISTER = "select rollbook.register_for_exam(%s, %s)"
NAMED = "select rollbook.register_for_exam(%s, %s, %s, %s)"
ENROLL = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"
STORED = (
    "select exam_series_code, eligibility_appointment_date_first::text, eligibility_appointment_date_last::text, "
    "accommodation_request, accommodation_code from portal.student_testcenterregistration order by id"
)


def define(db: Db, exam: str, start: str, end: str) -> None:
    """Define an exam in 2033 with a window of registration, relative to now."""
    run(
        db, "insert into rollbook.exam values (%s, %s, %s, %s, '2033-01-25 00:00+00', '2033-01-26 23:59+00', "
        "now() + %s::interval, now() + %s::interval)", KEEP, exam, exam, exam, start, end,
    )  # fmt: skip


def student(db: Db) -> int:
    """Somebody who is enrolled, and a candidate."""
    ada = add_user(db, "ada")
    run(db, ENROLL, ada, KEEP)
    candidate(db, ada)
    return ada


def test_an_enrolled_candidate_registers_for_the_only_open_exam_and_asks(school: Db) -> None:
    ada = student(school)
    define(school, "Final", "-1 day", "1 day")
    define(school, "Old", "-2 days", "-1 day")
    key = value(school, NAMED, ada, KEEP, None, "More time")
    assert run(school, STORED) == [("Final", "2033-01-25", "2033-01-26", "More time", "")]
    # Asked again, nothing is changed: a request is made once.
    assert value(school, NAMED, ada, KEEP, "Final", "A quiet room") == key
    assert run(school, STORED) == [("Final", "2033-01-25", "2033-01-26", "More time", "")]


def test_no_request_at_all_is_none(school: Db) -> None:
    ada = student(school)
    define(school, "Final", "-1 day", "1 day")
    value(school, NAMED, ada, KEEP, "Final", None)
    assert run(school, STORED) == [("Final", "2033-01-25", "2033-01-26", "", "")]


def test_who_may_not_is_refused(school: Db) -> None:
    ada = add_user(school, "ada")
    define(school, "Final", "-1 day", "1 day")
    assert refused(school, "RB017", REGISTER, ada, KEEP).message_primary == "the user is not a candidate yet"
    candidate(school, ada)
    assert refused(school, "RB017", REGISTER, ada, KEEP).message_primary == f"the user is not enrolled in {KEEP}"
    run(school, ENROLL, ada, KEEP)
    refused(school, "23R17", NAMED, ada, KEEP, "Final", "x" * 1025)
    assert run(school, STORED) == []


@pytest.mark.parametrize(("start", "end"), [("1 day", "2 days"), ("-2 days", "-1 day")])
def test_outside_the_window_nobody_registers(school: Db, start: str, end: str) -> None:
    ada = student(school)
    define(school, "Final", start, end)
    said = refused(school, "RB017", NAMED, ada, KEEP, "Final", "")
    assert said.message_primary == "no registration is open for exam Final"
    assert (said.message_detail or "").startswith("Registration is open from 20")
    assert refused(school, "RB017", REGISTER, ada, KEEP).message_primary == "no registration is open for an exam"


def test_of_several_open_exams_none_is_guessed(school: Db) -> None:
    ada = student(school)
    define(school, "Final", "-1 day", "1 day")
    define(school, "Midterm", "-1 day", "1 day")
    assert refused(school, "RB017", REGISTER, ada, KEEP).message_detail == "Final, Midterm"
    value(school, NAMED, ada, KEEP, "Midterm", "")
    assert [row[0] for row in run(school, STORED)] == ["Midterm"]


def test_after_a_cancellation_a_student_registers_anew(school: Db) -> None:
    ada = student(school)
    define(school, "Final", "-1 day", "1 day")
    first = value(school, REGISTER, ada, KEEP)
    run(school, "update portal.student_testcenterregistration set cancelled_at = now()")
    assert value(school, REGISTER, ada, KEEP) != first
    assert len(run(school, STORED)) == 2


def test_an_application_registers_students_and_can_grant_nothing(live: Db, app: Db) -> None:
    ada = student(live)
    define(live, "Final", "-1 day", "1 day")
    run(live, "revoke all on portal.student_testcenterregistration from portal_app")
    run(live, "grant usage on schema rollbook to portal_app")
    run(live, "grant execute on function rollbook.register_for_exam to portal_app")
    value(app, NAMED, ada, KEEP, "Final", "More time")
    assert run(live, STORED) == [("Final", "2033-01-25", "2033-01-26", "More time", "")]
    with pytest.raises(Exception, match="permission denied"):
        run(app, "update portal.student_testcenterregistration set accommodation_code = 'ET30MN'")


def test_two_sessions_register_once(live: Db, app: Db) -> None:
    ada = student(live)
    define(live, "Final", "-1 day", "1 day")
    run(live, "grant usage on schema rollbook to portal_app")
    run(live, "grant execute on function rollbook.register_for_exam to portal_app")
    keys: list[str] = []
    with live.transaction():
        keys.append(value(live, REGISTER, ada, KEEP))
        other = threading.Thread(target=lambda: keys.append(value(app, REGISTER, ada, KEEP)))
        other.start()
        other.join(0.3)
        assert other.is_alive()  # waits for the first to commit
    other.join(10)
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(run(live, STORED)) == 1
