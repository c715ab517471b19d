"""sql/functions/api/drop_course.sql: the copies are dropped, the enrollments stay, nothing local is lost by mistake."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    KEEP,
    REMOVE,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    faults,
    held,
    leave,
    refused,
    run,
    schema,
    value,
    versions,
)


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses; user 3 has left both."""
    for name in ("ada", "bob", "cy"):
        enroll(school, add_user(school, name), KEEP, REMOVE)
    leave(school, 3, KEEP)
    leave(school, 3, REMOVE)
    return school


def is_there(db: Db, name: str) -> bool:
    """Whether the schema exists."""
    return bool(value(db, "select exists (select from pg_namespace where nspname = %s)", name))


# What a course may have made, and what the refusal must name.
LOCAL: dict[LiteralString, list[str]] = {
    "alter table {c}.auth_user add mentor text": ["auth_user", "mentor"],
    "alter table {c}.auth_userprofile add a int, add b int": ["auth_userprofile", "a", "b"],
    "alter table {c}.student_courseenrollment add serial_no serial": ["student_courseenrollment", "serial_no"],
    "create table {c}.note (body text)": ["note"],
    'create table {c}."Odd ""Name" (id bigint references {c}.auth_user)': ['Odd "Name'],
    "create table {c}.part (id bigint) partition by range (id)": ["part"],
    "create view {c}.people as select username from {c}.auth_user": ["people"],
    "create view {c}.nothing as select 1 as one": ["nothing"],
    "create materialized view {c}.counted as select count(*) from {c}.auth_user": ["counted"],
    "create sequence {c}.numbers": ["numbers"],
    "create function {c}.one() returns int language sql as 'select 1'": ["one"],
    "create type {c}.colour as enum ('red')": ["colour"],
    "create type {c}.pair as (a int, b int)": ["pair"],
    "create domain {c}.word as text": ["word"],
    # outside of the schema, but on the copies
    "create view public.outside as select id from {c}.auth_user": ["outside"],
    "create table public.elsewhere (id bigint references {c}.auth_userprofile)": ["elsewhere"],
}


def test_what_a_course_made_stops_the_drop_and_is_named(pupils: Db) -> None:
    name, before = schema(pupils, KEEP), versions(pupils)
    for made, words in LOCAL.items():
        with pupils.transaction(force_rollback=True):
            run(pupils, made, c=name)
            said = refused(pupils, "RB007", "select rollbook.drop_course(%s)", KEEP)
            text = f"{said.message_primary} {said.message_detail}"
            assert [word for word in [KEEP, *words] if word not in text] == [], made
            refused(pupils, "RB007", "select rollbook.drop_course(%s, false)", KEEP)
            assert versions(pupils).keys() == before.keys(), made
            run(pupils, "update portal.auth_user set first_name = 'New'")  # nothing was done: routing goes on
            assert (faults(pupils), held(pupils, KEEP)) == ([], ([1, 2, 3], [1, 2, 3], [1, 2])), made

            run(pupils, "select rollbook.drop_course(%s, true)", KEEP)
            assert not is_there(pupils, name), made
            run(pupils, "update portal.auth_user set first_name = 'Newer'")
            assert (faults(pupils), held(pupils, REMOVE)) == ([], everybody(1, 2)), made


@pytest.mark.parametrize("drop_local", [False, True])
def test_a_dropped_course_is_gone_with_its_routes_and_its_neighbours_are_untouched(
    pupils: Db, drop_local: bool
) -> None:
    name, neighbour = schema(pupils, KEEP), versions(pupils, REMOVE)
    run(pupils, "create table public.mine (id bigint)")
    run(pupils, "create index on {c}.auth_user (username)", c=name)  # holds no data
    run(pupils, "select rollbook.drop_course(%s, %s)", KEEP, drop_local)
    assert not is_there(pupils, name)
    refused(pupils, "RB006", "select rollbook.course_schema(%s)", KEEP)
    assert value(pupils, "select count(*) from rollbook.route where %s = any (schemas)", name) == 0
    assert versions(pupils, REMOVE) == neighbour
    assert value(pupils, "select count(*) from portal.student_courseenrollment where course_id = %s", KEEP) == 2
    run(pupils, "update portal.auth_user set first_name = 'New'")
    run(pupils, "update portal.student_courseenrollment set created = null")
    leave(pupils, 2, KEEP)
    assert faults(pupils) == []

    assert create(pupils, KEEP, "remove") == name
    assert held(pupils, KEEP) == everybody(1)  # whoever left before the course exists is not due
    run(pupils, "delete from portal.auth_user where id = 1")
    assert held(pupils, KEEP) == everybody()
    assert faults(pupils) == []


def test_a_drop_that_is_rolled_back_has_not_been(pupils: Db) -> None:
    before = versions(pupils)
    with pupils.transaction(force_rollback=True):
        run(pupils, "select rollbook.drop_course(%s)", KEEP)
        run(pupils, "update portal.auth_user set first_name = 'New'")
    assert versions(pupils) == before
    run(pupils, "update portal.auth_user set first_name = 'New'")
    assert faults(pupils) == []


def test_an_unknown_course_is_refused(pupils: Db) -> None:
    for course in ("edX/none", None, "", "default", KEEP.lower()):
        for drop_local in (False, True):
            refused(pupils, "RB006", "select rollbook.drop_course(%s, %s)", course, drop_local)
        refused(pupils, "RB006", "select rollbook.course_schema(%s)", course)


@pytest.mark.parametrize(
    "broken",
    [
        "drop table {c}.auth_user",
        "drop schema {c} cascade",
        "alter table {c}.auth_user drop email cascade",
        "drop trigger rollbook_guard_copy on {c}.auth_user",
    ],
)
def test_a_broken_course_can_be_dropped_and_made_again(pupils: Db, broken: LiteralString) -> None:
    run(pupils, broken, c=schema(pupils, KEEP))
    run(pupils, "select rollbook.drop_course(%s)", KEEP)
    create(pupils, KEEP)
    run(pupils, "update portal.auth_user set first_name = 'New'")
    assert held(pupils, KEEP) == everybody(1, 2)
    assert faults(pupils) == []
