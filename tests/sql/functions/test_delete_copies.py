"""A foreign key of the course stops a removal; the error names course and table.

Also tests check_deferred_keys, refuse_removal.
"""

from __future__ import annotations

from typing import LiteralString

import psycopg
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
    "deferrable initially deferred": None,  # as Django makes all of them
    "on delete restrict deferrable initially deferred": None,
    "on delete cascade deferrable initially deferred": [],
    "on delete set null deferrable initially deferred": [(None,)],
}


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses."""
    for name in ("ada", "bob"):
        enroll(school, add_user(school, name), KEEP, REMOVE)
    return school


@pytest.mark.parametrize(
    "removal", [pytest.param(each, marks=pytest.mark.made if each.startswith("truncate") else ()) for each in REMOVALS]
)
def test_a_removal_that_the_course_forbids_fails_whole_and_names_the_course(pupils: Db, removal: LiteralString) -> None:
    before, portal = versions(pupils), [select(pupils, "portal", table, ["id"]) for table in TABLES]
    for course, table in REMOVALS[removal]:
        name = schema(pupils, course)
        for action, left in ACTIONS.items():
            with pupils.transaction(force_rollback=True):
                run(pupils, "create table {c}.grade (ref bigint references {c}.{t} " + action + ")", c=name, t=table)
                run(pupils, "insert into {c}.grade select min(id) from {c}.{t}", c=name, t=table)
                run(pupils, "set constraints all immediate; set constraints all deferred")
                if left is None:
                    said = refused(pupils, "23R04", removal)
                    assert f"course {course} has rows" in str(said.message_primary)
                    assert f"to {table}, in {name}.grade" in str(said.message_primary)
                    assert f"{name}.grade" in str(said.message_hint)
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


DEFERRED: LiteralString = "deferrable initially deferred"
# Deferred keys that forbid to delete user 1, and in which table the error says they are.
KEYS: dict[str, tuple[LiteralString, str]] = {
    "elsewhere": (
        "create schema forum; create table forum.post (author bigint references {c}.auth_user DEFERRED); "
        "insert into forum.post values (1)",
        "forum.post",
    ),
    "second level": (
        "create table {c}.grade (id bigint primary key references {c}.auth_user on delete cascade); "
        "create table {c}.remark (grade bigint references {c}.grade DEFERRED); "
        "insert into {c}.grade values (1); insert into {c}.remark values (1)",
        "remark",
    ),
    "composite": (
        "alter table {c}.student_courseenrollment add unique (user_id, course_id); "
        "create table {c}.grade (u bigint, c text, foreign key (u, c) "
        "references {c}.student_courseenrollment (user_id, course_id) DEFERRED); "
        "insert into {c}.grade select user_id, course_id from {c}.student_courseenrollment where user_id = 1",
        "grade",
    ),
    "partitions": (
        "create table {c}.grade (u bigint references {c}.auth_user DEFERRED) partition by list (u); "
        "create table {c}.grade_1 partition of {c}.grade for values in (1); insert into {c}.grade values (1)",
        "grade",
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_deferred_key_anywhere_is_checked_at_the_statement(pupils: Db, case: str) -> None:
    name = schema(pupils, KEEP)
    statements, table = KEYS[case]
    run(pupils, statements.replace("DEFERRED", DEFERRED), c=name)
    run(pupils, "set constraints all immediate; set constraints all deferred")
    said = refused(pupils, "23R04", "delete from portal.auth_user where id = 1")
    assert (KEEP in str(said.message_primary), table in str(said.message_primary)) == (True, True)
    run(pupils, "delete from portal.auth_user where id = 2")
    assert faults(pupils) == []


def test_the_check_leaves_the_sessions_other_keys_deferred(pupils: Db) -> None:
    """Nobody else's key is checked before the commit, not even one of the same name, nor without a right to look."""
    name = schema(pupils, KEEP)
    run(pupils, "create table {c}.grade (u bigint constraint k references {c}.auth_user " + DEFERRED + ")", c=name)
    run(pupils, "create table {c}.a (id bigint primary key)", c=name)
    run(pupils, "create table {c}.b (a bigint constraint k references {c}.a " + DEFERRED + ")", c=name)
    run(pupils, "insert into {c}.b values (5)", c=name)
    run(pupils, "delete from portal.auth_user where id = 2")
    run(pupils, "insert into {c}.b values (6)", c=name)
    run(pupils, "delete from {c}.b", c=name)
    run(pupils, "set constraints all immediate")
    run(pupils, "delete from portal.auth_user where id = 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run(pupils, "insert into {c}.b values (7)", c=name)


def test_on_fault_pause_pauses_the_course_for_a_deferred_key_too(pupils: Db) -> None:
    name = schema(pupils, KEEP)
    run(pupils, "create table {c}.grade (u bigint references {c}.auth_user " + DEFERRED + ")", c=name)
    run(pupils, "insert into {c}.grade values (1)", c=name)
    run(pupils, "update rollbook.course set on_fault = 'pause' where course_id = %s", KEEP)
    run(pupils, "delete from portal.auth_user where id = 1")
    run(pupils, "set constraints all immediate")
    assert run(pupils, "select course_id from rollbook.course where paused_at is not null") == [(KEEP,)]
