"""sql/functions/copies/delete_copies.sql: a foreign key of the course stops a removal; the error names it."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    TABLES,
    USER,
    Db,
    Rows,
    add_user,
    enroll,
    everybody,
    faults,
    held,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

# What removes copies of user 1, and in which course a reference to which table forbids it.
REMOVALS: dict[LiteralString, list[tuple[str, str]]] = {
    "delete from portal.student_courseenrollment where user_id = 1": [
        (REMOVE, USER),
        (REMOVE, PROFILE),
        (REMOVE, ENROLLMENT),
        (KEEP, ENROLLMENT),
    ],
    "delete from portal.auth_user where id = 1": [
        (course, table) for course in (REMOVE, KEEP) for table in (USER, PROFILE, ENROLLMENT)
    ],
    "update portal.student_courseenrollment set course_id = course_id || '/2' where user_id = 1": [
        (REMOVE, USER),
        (KEEP, ENROLLMENT),
    ],
    "delete from portal.auth_userprofile where user_id = 1": [(REMOVE, PROFILE), (KEEP, PROFILE)],
    "truncate portal.student_courseenrollment": [(REMOVE, USER), (KEEP, ENROLLMENT)],
    "truncate portal.auth_user cascade": [(REMOVE, PROFILE), (KEEP, USER)],
}
# What the foreign key says -> what the removal leaves of the course's row; None: it is refused.
ACTIONS: dict[LiteralString, Rows | None] = {
    "": None,
    "on delete restrict": None,
    "on delete cascade": [],
    "on delete set null": [(None,)],
}


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses."""
    for name in ("ada", "bob"):
        enroll(school, add_user(school, name), KEEP, REMOVE)
    return school


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_removal_that_the_course_forbids_fails_whole_and_names_the_course(pupils: Db, removal: LiteralString) -> None:
    before, portal = versions(pupils), [select(pupils, "portal", table, ["id"]) for table in TABLES]
    for course, table in REMOVALS[removal]:
        name = schema(pupils, course)
        for action, left in ACTIONS.items():
            with pupils.transaction(force_rollback=True):
                run(pupils, "create table {c}.grade (ref bigint references {c}.{t} " + action + ")", c=name, t=table)
                run(pupils, "insert into {c}.grade select min(id) from {c}.{t}", c=name, t=table)
                if left is None:
                    said = refused(pupils, "23R04", removal)
                    assert course in str(said.message_primary)
                    assert name in str(said.message_hint)
                    assert "grade" in str(said.message_detail)
                    assert versions(pupils) == before
                    assert [select(pupils, "portal", each, ["id"]) for each in TABLES] == portal
                else:
                    run(pupils, removal)
                    assert run(pupils, "select ref from {c}.grade", c=name) == left
                    assert faults(pupils) == []


def test_a_refused_removal_succeeds_once_the_rows_are_gone(pupils: Db) -> None:
    name = schema(pupils, REMOVE)
    run(pupils, "create table {c}.grade (user_id bigint references {c}.auth_user)", c=name)
    run(pupils, "insert into {c}.grade values (1)", c=name)
    refused(pupils, "23R04", "delete from portal.auth_user where id = 1")
    assert value(pupils, "select count(*) from portal.auth_user") == 2
    run(pupils, "update portal.auth_user set first_name = 'New'")
    assert faults(pupils) == []
    run(pupils, "delete from {c}.grade", c=name)
    run(pupils, "delete from portal.auth_user where id = 1")
    assert (faults(pupils), held(pupils, REMOVE)) == ([], everybody(2))
