"""The original's ReplicationTest (S1 to S3) and its known faults (R1 to R23), under the numbers of domain.md section 2.

Courses are its COURSE_1 and COURSE_2; where a policy matters both are there: COURSE_1 keeps, COURSE_2 removes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    COLUMNS,
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    TABLES,
    USER,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    fails,
    faults,
    findings,
    held,
    insert,
    leave,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

COURSE_1, COURSE_2 = KEEP, REMOVE
THIRD = "MITx/6.002x/2012_Fall"


@pytest.fixture
def original(live: Db) -> Db:
    """The portal has an application's column, and each course one of the same name, that must never meet."""
    run(live, "alter table portal.auth_user add seen_response_count integer not null default 0")
    for course in (COURSE_1, COURSE_2):
        run(
            live,
            "alter table {c}.auth_user add seen_response_count integer default 0, add reputation integer default 1",
            c=schema(live, course),
        )
    return live


def row(db: Db, course: str, table: str) -> dict[str, Any]:
    """Return the only row of a copy, by column."""
    (only,) = select(db, schema(db, course), table, COLUMNS[table])
    return dict(zip(COLUMNS[table], only, strict=True))


def seen(db: Db, course: str) -> Any:
    """Return what the course has counted for its only student."""
    return value(db, "select seen_response_count from {c}.auth_user", c=schema(db, course))


def test_s1_basic_user_replication(original: Db) -> None:
    rusty = {
        "username": "rusty",
        "email": "rusty@edx.org",
        "password": "fakepass",
        "first_name": "Rusty",
        "last_name": "Skids",
        "is_staff": True,
        "is_active": True,
        "is_superuser": True,
        "last_login": datetime(2012, 1, 1, tzinfo=UTC),
        "date_joined": datetime(2011, 1, 1, tzinfo=UTC),
    }
    user_id = insert(original, USER, rusty | {"seen_response_count": 10})
    assert held(original, COURSE_1) == everybody()
    enroll(original, user_id, COURSE_1)
    assert row(original, COURSE_1, USER) == {"id": user_id} | rusty
    run(original, "update portal.auth_user set seen_response_count = 20")
    run(original, "update portal.student_courseenrollment set created = now()")
    assert (value(original, "select seen_response_count from portal.auth_user"), seen(original, COURSE_1)) == (20, 0)
    run(original, "update portal.auth_user set email = 'clyde@edx.org'")
    assert row(original, COURSE_1, USER) == {"id": user_id} | rusty | {"email": "clyde@edx.org"}
    assert (seen(original, COURSE_1), held(original, COURSE_2)) == (0, everybody())


def test_s2_enroll_when_user_data_already_exists(original: Db) -> None:
    user_id = insert(original, USER, {"username": "jack", "email": "jack@edx.org", "first_name": "Jack"})
    jack = {
        "user_id": user_id,
        "name": "Jack Foo",
        "level_of_education": None,
        "gender": "m",
        "mailing_address": None,
        "goals": "World domination",
    }
    profile_id = insert(original, PROFILE, jack)
    (enrollment_id,) = enroll(original, user_id, COURSE_1)
    run(original, "update portal.student_courseenrollment set created = created")  # saved once more
    user, profile, enrollment = (row(original, COURSE_1, table) for table in TABLES)
    assert (user["id"], user["email"], user["first_name"]) == (user_id, "jack@edx.org", "Jack")
    assert profile == profile | {"id": profile_id} | jack
    assert enrollment == enrollment | {"id": enrollment_id, "user_id": user_id, "course_id": COURSE_1}
    run(original, "update portal.auth_user set seen_response_count = 200")
    assert seen(original, COURSE_1) == 0
    run(original, "update portal.auth_user set email = 'jim@edx.org'")
    assert row(original, COURSE_1, USER) == user | {"email": "jim@edx.org"}
    assert held(original, COURSE_2) == everybody()


@pytest.mark.parametrize("profile_first", [True, False])
def test_s3_edit_after_enrollment(original: Db, profile_first: bool) -> None:
    user_id = add_user(original, "patty", first_name="Patty", profile=False)
    patty = {"user_id": user_id, "name": "Patty Foo", "gender": "f", "goals": "World peace"}
    if profile_first:
        insert(original, PROFILE, patty)
    enroll(original, user_id, COURSE_1)
    if not profile_first:
        insert(original, PROFILE, patty)
    run(original, "update portal.auth_user set last_name = 'Bar'")
    run(original, "update portal.auth_userprofile set gender = 'm'")
    user, profile = row(original, COURSE_1, USER), row(original, COURSE_1, PROFILE)
    assert (user["last_name"], user["first_name"], user["email"]) == ("Bar", "Patty", "patty@edx.org")
    assert (profile["gender"], profile["name"], profile["goals"]) == ("m", "Patty Foo", "World peace")
    assert (profile["level_of_education"], profile["mailing_address"]) == (None, None)
    assert (row(original, COURSE_1, ENROLLMENT)["course_id"], held(original, COURSE_2)) == (COURSE_1, everybody())
    assert faults(original) == []


def test_r1_a_course_learns_of_its_own_enrollments_alone(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1)
    before = versions(live, COURSE_1)
    enroll(live, 1, COURSE_2)
    assert versions(live, COURSE_1) == before
    for course in (COURSE_1, COURSE_2):
        assert select(live, schema(live, course), ENROLLMENT, ["course_id"]) == [(course,)]


def test_r2_who_leaves_one_of_two_courses_leaves_that_one(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    before = versions(live, COURSE_1)
    leave(live, 1, COURSE_2)
    assert (versions(live, COURSE_1), held(live, COURSE_2)) == (before, everybody())


def test_r3_who_leaves_the_last_course_leaves_it(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1)
    enroll(live, add_user(live, "bob"), COURSE_2)
    leave(live, 1, COURSE_1)
    leave(live, 2, COURSE_2)
    assert (held(live, COURSE_1), held(live, COURSE_2)) == (([1], [1], []), everybody())


def test_r4_a_student_of_three_courses_can_leave_one(live: Db) -> None:
    create(live, THIRD, "remove")
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2, THIRD)
    before = versions(live, COURSE_1, COURSE_2)
    leave(live, 1, THIRD)
    assert (versions(live, COURSE_1, COURSE_2), held(live, THIRD)) == (before, everybody())
    assert faults(live) == []


def test_r5_whoever_left_every_course_has_no_stale_copy(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    leave(live, 1, COURSE_1)
    leave(live, 1, COURSE_2)
    run(live, "update portal.auth_user set email = 'new@edx.org', password = 'new'")
    assert held(live, COURSE_2) == everybody()
    assert select(live, schema(live, COURSE_1), USER, ["email", "password"]) == [("new@edx.org", "new")]


@pytest.mark.parametrize("course", [COURSE_1, COURSE_2])
def test_r6_a_student_may_come_back(live: Db, course: str) -> None:
    enroll(live, add_user(live, "ada"), course)
    leave(live, 1, course)
    enroll(live, add_user(live, "bob"), course)
    (again,) = enroll(live, 1, course)
    assert held(live, course) == everybody(1, 2)
    assert select(live, schema(live, course), ENROLLMENT, ["id", "user_id"])[1] == (again, 1)
    assert faults(live) == []


@pytest.mark.parametrize("course", [COURSE_1, COURSE_2])
def test_r7_an_address_that_somebody_gave_up_can_be_taken(live: Db, course: str) -> None:
    enroll(live, add_user(live, "ada"), course)
    leave(live, 1, course)
    run(live, "update portal.auth_user set email = 'elsewhere@edx.org', username = 'was_ada' where id = 1")
    enroll(live, add_user(live, "bob"), course)
    run(live, "update portal.auth_user set email = 'ada@edx.org', username = 'ada' where id = 2")
    assert select(live, schema(live, course), USER, ["id", "email"])[-1] == (2, "ada@edx.org")
    assert faults(live) == []


def test_r8_a_profile_may_come_after_the_enrollment(live: Db) -> None:
    enroll(live, add_user(live, "ada", profile=False), COURSE_1, COURSE_2)
    assert held(live, COURSE_1) == held(live, COURSE_2) == ([1], [], [1])
    insert(live, PROFILE, {"user_id": 1, "name": "Ada Foo"})
    assert held(live, COURSE_1) == held(live, COURSE_2) == everybody(1)
    assert faults(live) == []


def test_r9_an_enrollment_in_a_course_without_schema_poisons_nothing(live: Db) -> None:
    enroll(live, add_user(live, "ada"), "edX/none", COURSE_1)
    run(live, "update portal.auth_user set email = 'new@edx.org'")
    run(live, "update portal.auth_userprofile set goals = 'New'")
    enroll(live, 1, COURSE_2)
    assert (faults(live), held(live, COURSE_2)) == ([], everybody(1))
    create(live, "edX/none")
    assert (faults(live), held(live, "edX/none")) == ([], everybody(1))


def test_r10_an_enrollment_in_default_is_stored_and_copied_nowhere(live: Db) -> None:
    enroll(live, add_user(live, "ada"), "default")
    assert (held(live, COURSE_1), held(live, COURSE_2)) == (everybody(), everybody())
    assert value(live, "select count(*) from portal.student_courseenrollment") == 1
    refused(live, "RB003", "select rollbook.create_course('default')")


def test_r11_bulk_and_raw_writes_are_copied(live: Db) -> None:
    for name in ("ada", "bob", "cy"):
        enroll(live, add_user(live, name), COURSE_1, COURSE_2)
    statements: list[LiteralString] = [
        "update portal.auth_user set is_active = id <> 2, last_name = 'Bulk'",
        "update portal.auth_userprofile set language = 'mn'",
        "delete from portal.student_courseenrollment where user_id = 3",
    ]
    for statement in statements:
        run(live, statement)
    assert select(live, schema(live, COURSE_2), USER, ["last_name", "is_active"]) == [
        ("Bulk", True),
        ("Bulk", False),
    ]
    assert (faults(live), held(live, COURSE_2)) == ([], everybody(1, 2))


def test_r12_a_deleted_user_is_deleted_everywhere(live: Db) -> None:
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), COURSE_1, COURSE_2)
    leave(live, 1, COURSE_1)
    run(live, "delete from portal.auth_user where id = 1")
    assert (held(live, COURSE_1), held(live, COURSE_2)) == (everybody(2), everybody(2))


def test_r13_a_deleted_profile_is_deleted_everywhere(live: Db) -> None:
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), COURSE_1, COURSE_2)
    run(live, "delete from portal.auth_userprofile where user_id = 1")
    assert held(live, COURSE_1) == held(live, COURSE_2) == ([1, 2], [2], [1, 2])


def test_r14_an_enrollment_moves_from_course_to_course(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_2)
    run(live, "update portal.student_courseenrollment set course_id = %s", COURSE_1)
    assert (held(live, COURSE_1), held(live, COURSE_2)) == (everybody(1), everybody())
    run(live, "update portal.student_courseenrollment set course_id = %s", COURSE_2)
    assert (held(live, COURSE_1), held(live, COURSE_2)) == (([1], [1], []), everybody(1))


def test_r15_an_activation_after_the_enrollment_arrives(live: Db) -> None:
    enroll(live, add_user(live, "ada", is_active=False), COURSE_1, COURSE_2)
    run(live, "update portal.auth_user set is_active = true where id = 1")
    assert row(live, COURSE_1, USER)["is_active"] is row(live, COURSE_2, USER)["is_active"] is True


def test_r16_a_write_that_one_course_cannot_take_fails_whole_and_succeeds_later(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    name = schema(live, COURSE_2)
    run(live, "alter table {c}.auth_userprofile add check (goals <> 'forbidden')", c=name)
    before = versions(live)
    for _ in range(2):
        refused(live, "RB020", "update portal.auth_userprofile set goals = 'forbidden'")
        assert (versions(live), faults(live)) == (before, [])
    run(live, "alter table {c}.auth_userprofile drop constraint auth_userprofile_goals_check", c=name)
    run(live, "update portal.auth_userprofile set goals = 'forbidden'")
    assert row(live, COURSE_1, PROFILE)["goals"] == row(live, COURSE_2, PROFILE)["goals"] == "forbidden"


def test_r17_the_same_row_saved_again_is_copied_again(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    with live.transaction():
        for goals in ("one", "two", "three"):
            run(live, "update portal.auth_userprofile set goals = %s where user_id = 1", goals)
            run(live, "update portal.student_courseenrollment set created = now() where user_id = 1")
    assert value(live, "select goals from portal.auth_userprofile") == "three"
    assert row(live, COURSE_1, PROFILE)["goals"] == row(live, COURSE_2, PROFILE)["goals"] == "three"
    assert faults(live) == []


def test_r18_a_third_enrollment_costs_as_much_as_the_first(live: Db) -> None:
    create(live, THIRD)
    add_user(live, "ada")
    before: dict[tuple[str, str, int], tuple[str, str]] = {}
    for course in (COURSE_1, COURSE_2, THIRD):
        enroll(live, 1, course)
        after = versions(live)
        assert [key[:2] for key in after if before.get(key) != after[key]] == [(course, table) for table in TABLES]
        before = after


def test_r19_a_sign_in_reaches_the_courses_of_the_user(live: Db) -> None:
    for name in ("ada", "bob"):
        enroll(live, add_user(live, name), COURSE_1, COURSE_2)
    before = versions(live)
    run(live, "update portal.auth_user set last_login = '2012-09-01 08:00+00' where id = 1")
    assert {key for key, version in versions(live).items() if before[key] != version} == {
        (COURSE_1, USER, 1),
        (COURSE_2, USER, 1),
    }
    assert value(live, "select last_login from {c}.auth_user where id = 1", c=schema(live, COURSE_1)) == datetime(
        2012, 9, 1, 8, tzinfo=UTC
    )


def test_r20_a_copy_cannot_be_written_and_a_difference_is_found_and_mended(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    name = schema(live, COURSE_1)
    refused(live, "23R01", "update {c}.auth_user set email = 'x@edx.org'", c=name)
    with live.transaction():
        run(live, "set local session_replication_role = replica")
        run(live, "update {c}.auth_user set email = 'x@edx.org'", c=name)
    assert row(live, COURSE_2, USER)["email"] == "ada@edx.org"
    assert findings(live) == [(COURSE_1, USER, "changed", 1, ["email"])]
    run(live, "select rollbook.repair()")
    assert (faults(live), row(live, COURSE_1, USER)["email"]) == ([], "ada@edx.org")


def test_r21_a_second_enrollment_in_the_same_course_is_refused(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1)
    before = versions(live)
    again: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) values (1, %s)"
    fails(live, psycopg.errors.UniqueViolation, again, COURSE_1)
    assert (versions(live), faults(live)) == (before, [])


def test_r22_a_change_of_address_and_of_name_reaches_the_courses(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    run(live, "update portal.auth_user set email = 'ada@byron.org' where username = 'ada'")
    run(
        live,
        """update portal.auth_userprofile p set name = 'Ada King', meta = '{"old_names": [["ada Foo", "wed", null]]}'
        from portal.auth_user u where u.id = p.user_id and u.username = 'ada'""",
    )
    for course in (COURSE_1, COURSE_2):
        assert row(live, course, USER)["email"] == "ada@byron.org"
        assert (row(live, course, PROFILE)["name"], row(live, course, PROFILE)["meta"][:13]) == (
            "Ada King",
            '{"old_names":',
        )


def test_r23_a_request_that_fails_later_changed_nothing_anywhere(live: Db) -> None:
    enroll(live, add_user(live, "ada"), COURSE_1, COURSE_2)
    before = versions(live)
    run(live, "begin; update portal.auth_user set email = 'new@edx.org'")
    assert row(live, COURSE_1, USER)["email"] == "new@edx.org"
    with pytest.raises(psycopg.errors.DivisionByZero):
        run(live, "select 1 / 0")
    run(live, "commit")  # that is, rollback
    assert (versions(live), faults(live)) == (before, [])
