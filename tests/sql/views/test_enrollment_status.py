"""sql/views/enrollment_status.sql, with is_copied: each enrollment, its user, and whether its copy is there."""

from __future__ import annotations

from tests.sql.helpers import KEEP, Db, add_user, enroll, plant, run, schema

STATUS = "select course_id, username, replicated from rollbook.enrollment_status order by id"


def test_replicated_is_true_false_or_null_as_the_copy_is_there_is_not_or_has_no_course(school: Db) -> None:
    enroll(school, add_user(school, "ada"), KEEP, "edX/later/2013")
    assert run(school, STATUS) == [(KEEP, "ada", True), ("edX/later/2013", "ada", None)]
    keep = schema(school, KEEP)
    plant(school, "delete from {c}.student_courseenrollment", c=keep)
    assert run(school, STATUS) == [(KEEP, "ada", False), ("edX/later/2013", "ada", None)]
    run(school, "drop table {c}.student_courseenrollment", c=keep)
    assert run(school, STATUS) == [(KEEP, "ada", None), ("edX/later/2013", "ada", None)]
