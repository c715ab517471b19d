"""sql/triggers/route_user_delete.sql: a deleted user is deleted from every course, whatever on_leave says."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    KEEP,
    REMOVE,
    USER,
    Db,
    add_foreign_keys,
    add_user,
    enroll,
    everybody,
    faults,
    held,
    leave,
    run,
    schema,
    value,
    versions,
)


@pytest.fixture
def crowd(school: Db) -> Db:
    """Users 1 to 120, the odd ones without profile, all in both courses; every tenth has left both."""
    run(
        school,
        """insert into portal.auth_user (username) select 'u' || i from generate_series(1, 120) i;
        insert into portal.auth_userprofile (user_id, name)
        select id, username || ' Foo' from portal.auth_user where id % 2 = 0;
        insert into portal.student_courseenrollment (user_id, course_id)
        select u.id, c.course_id from portal.auth_user u cross join rollbook.course c;
        delete from portal.student_courseenrollment where user_id % 10 = 0""",
    )
    return school


# Each deletes users 1 to 100.
STATEMENTS: dict[str, LiteralString] = {
    "set": "delete from portal.auth_user where id <= 100",
    "using": "delete from portal.auth_user u using generate_series(1, 100) i where i = u.id",
    "merge": """merge into portal.auth_user u using generate_series(1, 100) i on u.id = i when matched then delete""",
    "with": """with odd as (delete from portal.auth_user where id <= 100 and id % 2 = 1)
        delete from portal.auth_user where id <= 100 and id % 2 = 0""",
    "with, enrollments at once": """with ended as (delete from portal.student_courseenrollment where user_id <= 50),
        untold as (delete from portal.auth_userprofile where user_id <= 60)
        delete from portal.auth_user where id <= 100""",
    "after their enrollments": """delete from portal.student_courseenrollment where user_id <= 100;
        delete from portal.auth_user where id <= 100""",
    "one by one": """do $$ begin
        for i in 1 .. 100 loop delete from portal.auth_user where id = i; end loop; end $$""",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_deleted_users_are_gone_everywhere(crowd: Db, statement: str) -> None:
    add_foreign_keys(crowd, KEEP, REMOVE)
    before = versions(crowd)
    run(crowd, STATEMENTS[statement])
    assert faults(crowd) == []
    stay = range(101, 121)
    told, enrolled = [i for i in stay if i % 2 == 0], [i for i in stay if i % 10]
    assert held(crowd, KEEP) == (list(stay), told, enrolled)
    assert held(crowd, REMOVE) == (enrolled, [i for i in told if i in enrolled], enrolled)
    assert versions(crowd).items() <= before.items()
    assert value(crowd, "select count(*) from rollbook.route where user_id <= 100") == 0


def test_a_user_in_no_course_and_one_who_left_can_be_deleted(school: Db) -> None:
    for name in ("ada", "bob", "cy"):
        add_user(school, name)
    enroll(school, 2, KEEP, REMOVE)
    leave(school, 2, KEEP)
    leave(school, 2, REMOVE)
    enroll(school, 3, KEEP, REMOVE)
    before = versions(school)
    run(school, "delete from portal.auth_user where id = 1")
    assert versions(school) == before
    run(school, "delete from portal.auth_user where id = 2")
    assert held(school, KEEP) == held(school, REMOVE) == everybody(3)


def test_a_user_deleted_and_inserted_in_one_statement_is_a_new_one(school: Db) -> None:
    enroll(school, add_user(school, "ada"), KEEP, REMOVE)
    run(
        school,
        """with gone as (delete from portal.auth_user returning *) insert into portal.auth_user select * from gone""",
    )
    assert value(school, "select count(*) from portal.student_courseenrollment") == 0
    assert held(school, KEEP) == held(school, REMOVE) == everybody()
    enroll(school, 1, KEEP)
    run(school, "update portal.auth_user set first_name = 'New'")
    assert faults(school) == []
    assert held(school, KEEP) == ([1], [], [1])


def test_a_self_reference_and_a_deferred_foreign_key_of_a_course_hold(live: Db) -> None:
    enroll(live, add_user(live, "ada"), REMOVE)
    enroll(live, add_user(live, "bob"), REMOVE)
    run(
        live,
        """alter table {c}.auth_user add buddy bigint references {c}.auth_user deferrable initially deferred;
        alter table {c}.student_courseenrollment add foreign key (user_id) references {c}.auth_user
            deferrable initially deferred;
        update {c}.auth_user set buddy = 3 - id""",
        c=schema(live, REMOVE),
    )
    with live.transaction():
        enroll(live, add_user(live, "cy"), REMOVE)
        run(live, "update {c}.auth_user set buddy = 3 where id = 3", c=schema(live, REMOVE))
    run(live, "delete from portal.auth_user where id in (1, 2)")
    assert held(live, REMOVE) == everybody(3)
    leave(live, 3, REMOVE)
    assert held(live, REMOVE) == everybody()
    assert value(live, "select count(*) from {c}.{t}", c=schema(live, REMOVE), t=USER) == 0
