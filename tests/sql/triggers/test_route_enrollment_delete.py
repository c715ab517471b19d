"""sql/triggers/route_enrollment_delete.sql: the enrollment copy is deleted; on_leave decides about the rest.

Also tests leave_courses.
"""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    COLUMNS,
    KEEP,
    PROFILE,
    REMOVE,
    USER,
    Db,
    add_user,
    enroll,
    everybody,
    faults,
    held,
    leave,
    run,
    schema,
    select,
    versions,
)

# Each takes users 1 and 2 out of both courses; user 3 stays.
STATEMENTS: dict[str, LiteralString] = {
    "one row each": """
        delete from portal.student_courseenrollment where user_id = 2 and course_id = 'edX/toy/2012_Fall';
        delete from portal.student_courseenrollment where user_id = 1 and course_id = 'edX/toy/2012_Fall';
        delete from portal.student_courseenrollment where user_id = 1 and course_id = 'edx/full/6.002_Spring_2012';
        delete from portal.student_courseenrollment where user_id = 2 and course_id = 'edx/full/6.002_Spring_2012'""",
    "set": "delete from portal.student_courseenrollment where user_id < 3",
    "using": """delete from portal.student_courseenrollment e using portal.auth_user u
        where u.id = e.user_id and u.id < 3""",
    "merge": """merge into portal.student_courseenrollment e using portal.auth_user u on u.id = e.user_id
        when matched and u.id < 3 then delete when matched then do nothing""",
    "with": """with one as (delete from portal.student_courseenrollment where user_id = 1)
        delete from portal.student_courseenrollment where user_id = 2""",
}


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1, 2 and 3, all in both courses."""
    for name in ("ada", "bob", "cy"):
        enroll(school, add_user(school, name), KEEP, REMOVE)
    return school


@pytest.mark.parametrize("statement", STATEMENTS)
def test_whoever_leaves_is_kept_or_removed_by_any_statement(pupils: Db, statement: str) -> None:
    before = versions(pupils)
    run(pupils, STATEMENTS[statement])
    assert faults(pupils) == []
    assert held(pupils, KEEP) == ([1, 2, 3], [1, 2, 3], [3])
    assert held(pupils, REMOVE) == everybody(3)
    assert versions(pupils).items() <= before.items()


def test_who_left_a_keep_course_stays_current_there(pupils: Db) -> None:
    leave(pupils, 1, KEEP)
    run(pupils, "update portal.auth_user set password = 'pbkdf2$new', is_active = false where id = 1")
    run(pupils, "update portal.auth_userprofile set location = 'Ulaanbaatar' where user_id = 1")
    name = schema(pupils, KEEP)
    assert select(pupils, name, USER, ["password", "is_active"])[0] == ("pbkdf2$new", False)
    assert select(pupils, name, PROFILE, ["location"])[0] == ("Ulaanbaatar",)
    assert faults(pupils) == []


def test_who_left_one_course_keeps_their_rows_in_another(pupils: Db) -> None:
    before = versions(pupils, KEEP)
    leave(pupils, 1, REMOVE)
    assert versions(pupils, KEEP) == before
    assert (held(pupils, KEEP), held(pupils, REMOVE)) == (everybody(1, 2, 3), everybody(2, 3))


def test_a_copy_that_was_removed_is_not_raised_by_a_later_change(pupils: Db) -> None:
    leave(pupils, 1, REMOVE)
    run(pupils, "update portal.auth_user set first_name = 'New'")
    run(pupils, "update portal.auth_userprofile set goals = 'New'")
    run(pupils, "delete from portal.auth_userprofile where user_id = 1")
    run(pupils, "insert into portal.auth_userprofile (user_id) values (1)")
    assert held(pupils, REMOVE) == everybody(2, 3)
    assert select(pupils, schema(pupils, REMOVE), USER, COLUMNS[USER]) == [
        row for row in select(pupils, "portal", USER, COLUMNS[USER]) if row[0] != 1
    ]


def test_a_user_who_left_and_had_no_profile_is_removed(pupils: Db) -> None:
    run(pupils, "delete from portal.auth_userprofile where user_id = 1")
    leave(pupils, 1, REMOVE)
    assert held(pupils, REMOVE) == everybody(2, 3)


def test_a_delete_of_no_row_is_nothing(pupils: Db) -> None:
    before = versions(pupils)
    run(pupils, "delete from portal.student_courseenrollment where false")
    assert versions(pupils) == before
