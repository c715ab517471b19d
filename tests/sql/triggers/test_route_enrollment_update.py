"""sql/triggers/route_enrollment_update.sql: an enrollment that moves leaves one course and joins the other."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    REMOVE,
    Db,
    add_foreign_keys,
    add_user,
    enroll,
    everybody,
    faults,
    held,
    run,
    schema,
    select,
    versions,
)


@pytest.fixture
def pupils(school: Db) -> Db:
    """User 1 in the keep course, user 2 in the remove course, user 3 in neither."""
    for name, courses in (("ada", [KEEP]), ("bob", [REMOVE]), ("cy", [])):
        enroll(school, add_user(school, name), *courses)
    return school


Held = tuple[list[int], list[int], list[int]]
SET: LiteralString = "update portal.student_courseenrollment set "
# The portal's own key must allow a swap for the length of a statement.
SWAPPABLE: LiteralString = """
    alter table portal.student_courseenrollment drop constraint student_courseenrollment_pkey;
    alter table portal.student_courseenrollment add primary key (id) deferrable;"""
# Name -> statement, and whom the two courses hold afterwards: users, profiles, enrollments.
MOVES: dict[str, tuple[LiteralString, Held, Held]] = {
    # Who leaves stays in the keep course, and goes from the remove course.
    "to the remove course": (
        SET + "course_id = 'edx/full/6.002_Spring_2012' where user_id = 1",
        ([1], [1], []),
        everybody(1, 2),
    ),
    "to the keep course": (SET + "course_id = 'edX/toy/2012_Fall' where user_id = 2", everybody(1, 2), everybody()),
    "courses swapped": (
        SET
        + """course_id = case course_id
            when 'edX/toy/2012_Fall' then 'edx/full/6.002_Spring_2012' else 'edX/toy/2012_Fall' end""",
        ([1, 2], [1, 2], [2]),
        everybody(1),
    ),
    "to no course": (SET + "course_id = 'edX/none/yet'", ([1], [1], []), everybody()),
    "to another user, keep": (SET + "user_id = 3 where user_id = 1", ([1, 3], [1, 3], [3]), everybody(2)),
    "to another user, remove": (SET + "user_id = 3 where user_id = 2", everybody(1), everybody(3)),
    "users swapped": (SET + "user_id = 3 - user_id", ([1, 2], [1, 2], [2]), everybody(1)),
    "to another user and course": (
        SET + "user_id = 3, course_id = 'edX/toy/2012_Fall' where user_id = 2",
        everybody(1, 3),
        everybody(),
    ),
    "to another id": (SET + "id = id + 1000", everybody(1), everybody(2)),
    "ids swapped": (SWAPPABLE + SET + "id = 18003 - id", everybody(1), everybody(2)),
    "ids and users swapped": (
        SWAPPABLE + SET + "id = 18003 - id, user_id = 3 - user_id",
        ([1, 2], [1, 2], [2]),
        everybody(1),
    ),
    "of all in time": (SET + "created = '2012-01-01 12:00+00'", everybody(1), everybody(2)),
    "of one to no time": (SET + "created = null where user_id = 2", everybody(1), everybody(2)),
    "by merge": (
        """merge into portal.student_courseenrollment e using portal.auth_user u on u.id = e.user_id
        when matched and u.id = 2 then update set course_id = 'edX/toy/2012_Fall'
        when not matched then insert (user_id, course_id) values (u.id, 'edx/full/6.002_Spring_2012')""",
        everybody(1, 2),
        everybody(3),
    ),
    "by upsert": (
        """insert into portal.student_courseenrollment (user_id, course_id) values (2, 'edx/full/6.002_Spring_2012')
        on conflict (user_id, course_id) do update set user_id = 3""",
        everybody(1),
        everybody(3),
    ),
    "to another user by delete and insert at once": (
        """with ended as (delete from portal.student_courseenrollment where user_id = 2 returning *)
        insert into portal.student_courseenrollment (id, user_id, course_id) select id, 3, course_id from ended""",
        everybody(1),
        everybody(3),
    ),
    "to another course by delete and insert at once": (
        """with ended as (delete from portal.student_courseenrollment where user_id = 2 returning *)
        insert into portal.student_courseenrollment (id, user_id, course_id)
        select id, user_id, 'edX/toy/2012_Fall' from ended""",
        everybody(1, 2),
        everybody(),
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_enrollment_leaves_the_one_and_joins_the_other(pupils: Db, move: str) -> None:
    statement, kept, removed = MOVES[move]
    with pupils.transaction(force_rollback=True):
        run(pupils, statement)
        assert faults(pupils) == []
        assert (held(pupils, KEEP), held(pupils, REMOVE)) == (kept, removed)
    add_foreign_keys(pupils, KEEP, REMOVE)  # rows come and go in an order that does not break them
    run(pupils, statement)
    assert faults(pupils) == []
    assert (held(pupils, KEEP), held(pupils, REMOVE)) == (kept, removed)


@pytest.mark.parametrize(
    "change",
    [
        "set course_id = course_id, user_id = user_id, id = id, created = created",
        "set course_id = 'edX/toy/2012_Fall' where user_id = 1",
        "set created = null where false",
        "set note = 'not replicated'",
    ],
)
def test_an_update_of_no_replicated_value_writes_no_copy(pupils: Db, change: LiteralString) -> None:
    run(pupils, "alter table portal.student_courseenrollment add note text")
    before = versions(pupils)
    run(pupils, "update portal.student_courseenrollment " + change)
    assert versions(pupils) == before


def test_a_change_writes_the_enrollment_copy_alone(pupils: Db) -> None:
    before = versions(pupils)
    run(pupils, "update portal.student_courseenrollment set created = null where user_id = 1")
    assert {key for key, version in versions(pupils).items() if before[key] != version} == {(KEEP, ENROLLMENT, 9001)}


@pytest.mark.parametrize("change", ["user_id = 3", "created = null", "user_id = 3, created = null"])
def test_what_a_course_wrote_beside_an_enrollment_stays(pupils: Db, change: LiteralString) -> None:
    for course in (KEEP, REMOVE):
        run(pupils, "alter table {c}.student_courseenrollment add grade text", c=schema(pupils, course))
        run(pupils, "update {c}.student_courseenrollment set grade = 'A'", c=schema(pupils, course))
    run(pupils, "update portal.student_courseenrollment set " + change)
    for course, row_id in ((KEEP, 9001), (REMOVE, 9002)):
        assert select(pupils, schema(pupils, course), ENROLLMENT, ["id", "grade"]) == [(row_id, "A")]
    assert faults(pupils) == []
