"""sql/triggers/route_enrollment_insert.sql: every new enrollment is copied, whichever statement inserts it.

Also tests join_courses.
"""

from __future__ import annotations

from typing import LiteralString

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
    held,
    leave,
    run,
    schema,
    select,
    value,
    versions,
)

# Each enrolls users 1, 2 and 3 in both courses.
STATEMENTS: dict[str, LiteralString] = {
    "one row each": """
        insert into portal.student_courseenrollment (user_id, course_id) values (1, 'edX/toy/2012_Fall');
        insert into portal.student_courseenrollment (user_id, course_id) values (2, 'edX/toy/2012_Fall');
        insert into portal.student_courseenrollment (user_id, course_id) values (3, 'edX/toy/2012_Fall');
        insert into portal.student_courseenrollment (user_id, course_id) values (3, 'edx/full/6.002_Spring_2012');
        insert into portal.student_courseenrollment (user_id, course_id) values (2, 'edx/full/6.002_Spring_2012');
        insert into portal.student_courseenrollment (user_id, course_id) values (1, 'edx/full/6.002_Spring_2012')""",
    "set": """insert into portal.student_courseenrollment (user_id, course_id)
        select u.id, c.course_id from portal.auth_user u cross join rollbook.course c order by u.id desc""",
    "upsert, nothing": """
        insert into portal.student_courseenrollment (user_id, course_id) values (2, 'edX/toy/2012_Fall');
        insert into portal.student_courseenrollment (user_id, course_id)
        select u.id, c.course_id from portal.auth_user u cross join rollbook.course c on conflict do nothing""",
    "upsert, update": """
        insert into portal.student_courseenrollment (user_id, course_id) values (2, 'edX/toy/2012_Fall');
        insert into portal.student_courseenrollment (user_id, course_id, created)
        select u.id, c.course_id, '2012-01-01' from portal.auth_user u cross join rollbook.course c
        on conflict (user_id, course_id) do update set created = excluded.created""",
    "upsert, move": """
        insert into portal.student_courseenrollment (user_id, course_id)
        select id, 'edX/toy/2012_Fall' from portal.auth_user;
        insert into portal.student_courseenrollment (user_id, course_id)
        select id, 'edX/toy/2012_Fall' from portal.auth_user
        on conflict (user_id, course_id) do update set course_id = 'edx/full/6.002_Spring_2012';
        insert into portal.student_courseenrollment (user_id, course_id)
        select id, 'edX/toy/2012_Fall' from portal.auth_user""",
    "merge": """
        insert into portal.student_courseenrollment (user_id, course_id)
        values (2, 'edX/toy/2012_Fall'), (3, 'edX/unknown');
        merge into portal.student_courseenrollment e
        using (select u.id, c.course_id from portal.auth_user u cross join rollbook.course c) s
        on e.user_id = s.id and (e.course_id = s.course_id or e.course_id = 'edX/unknown' and s.course_id like 'edX%')
        when matched and e.course_id = 'edX/unknown' then update set course_id = s.course_id
        when matched then update set created = '2012-01-01'
        when not matched then insert (user_id, course_id) values (s.id, s.course_id)""",
    "with": """
        with kept as (insert into portal.student_courseenrollment (user_id, course_id)
            select id, 'edX/toy/2012_Fall' from portal.auth_user returning user_id)
        insert into portal.student_courseenrollment (user_id, course_id)
        select user_id, 'edx/full/6.002_Spring_2012' from kept""",
    "delete and insert the same in one statement": """
        insert into portal.student_courseenrollment (user_id, course_id)
        select u.id, c.course_id from portal.auth_user u cross join rollbook.course c;
        with ended as (delete from portal.student_courseenrollment returning *)
        insert into portal.student_courseenrollment (id, user_id, course_id, created) select * from ended""",
    "delete and insert again in one statement": """
        insert into portal.student_courseenrollment (user_id, course_id)
        select u.id, c.course_id from portal.auth_user u cross join rollbook.course c;
        with ended as (delete from portal.student_courseenrollment returning *)
        insert into portal.student_courseenrollment (user_id, course_id) select user_id, course_id from ended""",
}


def add_three(db: Db) -> Db:
    """Add users 1, 2 and 3, not enrolled; user 3 has no profile."""
    assert [add_user(db, name, profile=name != "cy") for name in ("ada", "bob", "cy")] == [1, 2, 3]
    return db


@pytest.fixture
def pupils(school: Db) -> Db:
    """As `add_three` says."""
    return add_three(school)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_whoever_enrolls_is_copied_by_any_statement(pupils: Db, statement: str) -> None:
    run(pupils, STATEMENTS[statement])
    assert faults(pupils) == []
    assert held(pupils, KEEP) == held(pupils, REMOVE) == ([1, 2, 3], [1, 2], [1, 2, 3])


@pytest.mark.parametrize("binary", ["text", "binary"])
def test_copy_enrolls(pupils: Db, binary: str) -> None:
    with (
        pupils.cursor() as cursor,
        cursor.copy(
            "copy portal.student_courseenrollment (user_id, course_id) from stdin (format binary)"
            if binary == "binary"
            else "copy portal.student_courseenrollment (user_id, course_id) from stdin"
        ) as copy,
    ):
        if binary == "binary":
            copy.set_types(["int8", "varchar"])
        for user_id in (3, 1, 2):
            for course in (KEEP, "edX/unknown", REMOVE, "default"):
                copy.write_row((user_id, course))
    assert faults(pupils) == []
    assert held(pupils, KEEP) == held(pupils, REMOVE) == ([1, 2, 3], [1, 2], [1, 2, 3])


def test_one_copy_enrolls_many_users_in_many_courses(portal: Db) -> None:
    courses = [f"edX/bulk/{number}" for number in range(20)]
    for number, course in enumerate(courses):
        create(portal, course, "keep" if number % 2 else "remove")
    run(portal, "insert into portal.auth_user (username) select 'u' || i from generate_series(1, 500) i")
    run(portal, "insert into portal.auth_userprofile (user_id) select id from portal.auth_user where id % 5 > 0")
    with (
        portal.cursor() as cursor,
        cursor.copy("copy portal.student_courseenrollment (user_id, course_id) from stdin") as copy,
    ):
        for user_id in range(500, 0, -1):
            for step in range(6):
                copy.write_row((user_id, courses[(user_id * 7 + step * 3) % 20]))
    assert faults(portal) == []
    assert sum(len(held(portal, course)[2]) for course in courses) == 3000


def test_one_statement_may_make_users_profiles_and_enrollments(school: Db) -> None:
    run(
        school,
        """with people as (insert into portal.auth_user (username) select 'u' || i from generate_series(1, 50) i
            returning id, username),
        told as (insert into portal.auth_userprofile (user_id, name) select id, username || ' Foo' from people)
        insert into portal.student_courseenrollment (user_id, course_id)
        select people.id, c.course_id from people cross join rollbook.course c""",
    )
    assert faults(school) == []
    assert held(school, KEEP) == held(school, REMOVE) == everybody(*range(1, 51))


def test_user_profile_and_enrollment_arrive_in_this_order_in_the_same_commit(live: Db, dsn: str) -> None:
    pupils = add_three(live)
    name = schema(pupils, KEEP)
    for table in (PROFILE, ENROLLMENT):
        run(pupils, "alter table {c}.{t} add foreign key (user_id) references {c}.auth_user", c=name, t=table)
    with psycopg.connect(dsn, autocommit=True) as reader:
        with pupils.transaction():
            enroll(pupils, 1, KEEP)
            assert (held(reader, KEEP), held(pupils, KEEP)) == (everybody(), everybody(1))
        assert held(reader, KEEP) == everybody(1)
        assert len({value(reader, "select xmin::text from {c}.{t}", c=name, t=table) for table in TABLES}) == 1


def test_enrolling_in_one_course_writes_no_other(pupils: Db) -> None:
    enroll(pupils, 1, KEEP)
    before = versions(pupils)
    enroll(pupils, 1, REMOVE)
    assert before.items() <= versions(pupils).items()
    assert faults(pupils) == []


def test_who_enrolls_brings_the_rows_as_they_are_now(pupils: Db) -> None:
    run(pupils, "update portal.auth_user set email = 'new@edx.org', last_login = now() where id = 1")
    run(pupils, "update portal.auth_userprofile set goals = 'New' where user_id = 1")
    enroll(pupils, 1, KEEP)
    assert [row[4] for row in select(pupils, schema(pupils, KEEP), USER, COLUMNS[USER])] == ["new@edx.org"]
    assert [row[11] for row in select(pupils, schema(pupils, KEEP), PROFILE, COLUMNS[PROFILE])] == ["New"]


@pytest.mark.parametrize("course", [KEEP, REMOVE])
def test_whoever_left_may_come_back(pupils: Db, course: str) -> None:
    enroll(pupils, 1, course)
    leave(pupils, 1, course)
    run(pupils, "update portal.auth_user set email = 'new@edx.org' where id = 1")
    enroll(pupils, 2, course)
    enroll(pupils, 1, course)
    assert faults(pupils) == []
    assert held(pupils, course) == everybody(1, 2)


def test_enrolling_within_a_savepoint_that_is_rolled_back_copies_nothing(pupils: Db) -> None:
    with pupils.transaction():
        enroll(pupils, 1, KEEP)
        with pupils.transaction(force_rollback=True):
            enroll(pupils, 2, KEEP)
            run(pupils, "update portal.auth_user set first_name = 'New'")
            run(pupils, "delete from portal.auth_user where id = 1")
        enroll(pupils, 3, KEEP)
    assert faults(pupils) == []
    assert held(pupils, KEEP) == ([1, 3], [1], [1, 3])


def test_a_transaction_that_is_rolled_back_leaves_every_copy_as_it_was(live: Db) -> None:
    pupils = add_three(live)
    enroll(pupils, 1, KEEP, REMOVE)
    before = versions(pupils)
    with pupils.transaction(force_rollback=True):
        enroll(pupils, 2, KEEP, REMOVE)
        run(pupils, "update portal.auth_user set email = 'new@edx.org' where id = 1")
        run(pupils, "delete from portal.student_courseenrollment where user_id = 1")
        run(pupils, "truncate portal.auth_user cascade")
    assert versions(pupils) == before
    assert faults(pupils) == []


@pytest.mark.parametrize("course", ["default", "edX/none/yet", " "])
def test_an_enrollment_in_no_course_is_stored_and_disturbs_nobody(pupils: Db, course: str) -> None:
    enroll(pupils, 1, KEEP)
    before = versions(pupils)
    enroll(pupils, 1, course)
    assert versions(pupils) == before
    run(pupils, "update portal.auth_user set first_name = 'New'")
    run(pupils, "update portal.student_courseenrollment set created = null where course_id = %s", course)
    leave(pupils, 1, course)
    assert faults(pupils) == []
    assert held(pupils, KEEP) == everybody(1)


def test_enrollments_that_waited_for_their_course_are_copied_when_it_is_made(pupils: Db) -> None:
    run(pupils, STATEMENTS["set"])
    enroll(pupils, 2, "edX/late")
    enroll(pupils, 3, "edX/late")
    before = versions(pupils)
    create(pupils, "edX/late")
    assert before.items() <= versions(pupils).items()
    assert held(pupils, "edX/late") == ([2, 3], [2], [2, 3])
    run(pupils, "update portal.auth_user set first_name = 'New'")
    assert faults(pupils) == []


def test_a_refused_enrollment_copies_nothing(pupils: Db) -> None:
    enroll(pupils, 1, KEEP)
    before = versions(pupils)
    for user_id, error in ((1, psycopg.errors.UniqueViolation), (4, psycopg.errors.ForeignKeyViolation)):
        fails(
            pupils,
            error,
            "insert into portal.student_courseenrollment (user_id, course_id) values (2, %s), (%s, %s)",
            *(KEEP, user_id, KEEP),
        )
    assert versions(pupils) == before


def test_an_insert_of_no_row_is_nothing(school: Db) -> None:
    run(school, "insert into portal.student_courseenrollment (user_id, course_id) select 1, 'x' where false")
    assert value(school, "select count(*) from rollbook.course_latch where course_id = 'x'") == 0
