"""sql/triggers/route_truncate.sql: TRUNCATE acts like DELETE of all rows."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    fails,
    faults,
    held,
    leave,
    run,
    schema,
    value,
)

Held = tuple[list[int], list[int], list[int]]


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses, user 3 who has left both; in each course a table and a column of its own."""
    for name in ("ada", "bob", "cy"):
        enroll(school, add_user(school, name), KEEP, REMOVE, "edX/none/yet")
    for course in (KEEP, REMOVE):
        leave(school, 3, course)
        run(
            school,
            """create table {c}.note (body text); insert into {c}.note values ('stays');
            alter table {c}.auth_user add mentor text default 'nobody'; update {c}.auth_user set mentor = 'm' || id;
            alter table {c}.auth_userprofile add foreign key (user_id) references {c}.auth_user;
            alter table {c}.student_courseenrollment add foreign key (user_id) references {c}.auth_user""",
            c=schema(school, course),
        )
    return school


STATEMENTS: dict[LiteralString, tuple[Held, Held]] = {
    "truncate portal.student_courseenrollment": (([1, 2, 3], [1, 2, 3], []), everybody()),
    "truncate portal.student_courseenrollment restart identity": (([1, 2, 3], [1, 2, 3], []), everybody()),
    "truncate portal.student_courseenrollment cascade": (([1, 2, 3], [1, 2, 3], []), everybody()),
    "truncate portal.auth_userprofile": (([1, 2, 3], [], [1, 2]), ([1, 2], [], [1, 2])),
    "truncate portal.auth_userprofile restart identity cascade": (([1, 2, 3], [], [1, 2]), ([1, 2], [], [1, 2])),
    "truncate portal.auth_userprofile, portal.student_courseenrollment": (([1, 2, 3], [], []), everybody()),
    "truncate portal.auth_user cascade": (everybody(), everybody()),
    "truncate portal.auth_user restart identity cascade": (everybody(), everybody()),
    "truncate portal.student_courseenrollment, portal.auth_user, portal.auth_userprofile cascade": (
        everybody(),
        everybody(),
    ),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_truncate_acts_like_delete_of_all_rows(pupils: Db, statement: LiteralString) -> None:
    run(pupils, statement)
    assert faults(pupils) == []
    assert (held(pupils, KEEP), held(pupils, REMOVE)) == STATEMENTS[statement]
    for course in (KEEP, REMOVE):
        name = schema(pupils, course)
        assert value(pupils, "select count(*) from {c}.note", c=name) == 1
        assert value(pupils, "select count(*) from {c}.auth_user where mentor <> 'm' || id", c=name) == 0
    # ids begin again: nothing of before may come back
    people = [add_user(pupils, name, profile=False) for name in ("di", "eve")]
    for user_id in people:
        enroll(pupils, user_id, KEEP, REMOVE)
    run(pupils, "insert into portal.auth_userprofile (user_id) select id from portal.auth_user on conflict do nothing")
    run(pupils, "update portal.auth_user set first_name = 'New'")
    assert faults(pupils) == []
    assert set(people) <= set(held(pupils, REMOVE)[2])


def test_truncate_within_a_transaction_that_goes_on(pupils: Db) -> None:
    with pupils.transaction():
        run(pupils, "truncate portal.student_courseenrollment")
        enroll(pupils, 1, REMOVE)
        with pupils.transaction(force_rollback=True):
            run(pupils, "truncate portal.auth_user cascade")
        run(pupils, "truncate portal.auth_userprofile")
    assert faults(pupils) == []
    assert (held(pupils, KEEP), held(pupils, REMOVE)) == (([1, 2, 3], [], []), ([1], [], [1]))


def test_truncate_of_users_alone_is_refused_by_their_foreign_keys(pupils: Db) -> None:
    fails(pupils, psycopg.errors.FeatureNotSupported, "truncate portal.auth_user")
    assert faults(pupils) == []


@pytest.mark.parametrize("table", [PROFILE, ENROLLMENT])
def test_truncate_of_an_empty_table_and_without_courses_is_nothing(portal: Db, table: str) -> None:
    run(portal, "truncate portal.{t}", t=table)
    create(portal, KEEP)
    run(portal, "truncate portal.{t}", t=table)
    run(portal, "truncate portal.auth_user cascade")
    assert faults(portal) == []
