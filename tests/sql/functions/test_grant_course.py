"""sql/functions/api/grant_course.sql, revoke_course.sql and course_rights.sql: a team reads its own course."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, fails, faults, refused, run, value

TEAM = "course_team"
Team = Callable[[], Connection[Any]]


@pytest.fixture
def course(live: Db) -> Db:
    """A course with ada in it and a column of its own, beside another course; a role for the course's team."""
    enroll(live, add_user(live, "ada"), KEEP, REMOVE)
    run(live, "alter table course_edx_toy_2012_fall.auth_user add column seat text, add column note text")
    run(live, "do $$ begin create role course_team login; exception when duplicate_object then null; end $$")
    return live


@pytest.fixture
def team(course: Db, dsn: str) -> Iterator[Connection[Any]]:
    """A session of the course's team."""
    del course
    with psycopg.connect(dsn, user=TEAM, autocommit=True) as conn:
        yield conn


READ: LiteralString = "select username, password from course_edx_toy_2012_fall.auth_user"
SEAT: LiteralString = "update course_edx_toy_2012_fall.auth_user set seat = '4A'"
NEVER: list[LiteralString] = [
    "update course_edx_toy_2012_fall.auth_user set username = 'x'",
    "delete from course_edx_toy_2012_fall.auth_user",
    "truncate course_edx_toy_2012_fall.auth_user cascade",
    "create table course_edx_toy_2012_fall.mine (id bigint)",
    "create table pg_temp.mine (id bigint references course_edx_toy_2012_fall.auth_user (id))",
    "create trigger t before update on course_edx_toy_2012_fall.auth_user for each row "
    "execute function suppress_redundant_updates_trigger()",
    "select * from course_edx_full_6_002_spring_2012.auth_user", "select * from portal.auth_user",
    "select rollbook.grant_course('edx/full/6.002_Spring_2012', 'course_team')",
]  # fmt: skip


def test_a_team_reads_its_course_and_nothing_else(course: Db, team: Db) -> None:
    fails(team, psycopg.errors.InsufficientPrivilege, READ)
    assert value(course, "select rollbook.grant_course(%s, %s)", KEEP, TEAM) is True
    assert value(course, "select rollbook.grant_course(%s, %s)", KEEP, TEAM) is False
    assert run(team, READ) == [("ada", "!")]
    for statement in [*NEVER, SEAT]:
        fails(team, psycopg.Error, statement)
    assert faults(course) == []


def test_a_team_updates_the_courses_own_columns_if_told_so(course: Db, team: Db) -> None:
    assert value(course, "select rollbook.grant_course(%s, %s, true)", KEEP, TEAM) is True
    run(team, SEAT)
    for statement in NEVER:
        fails(team, psycopg.Error, statement)
    assert faults(course) == []


def test_what_was_granted_is_revoked(course: Db, team: Db) -> None:
    run(course, "select rollbook.grant_course(%s, %s, true)", KEEP, TEAM)
    run(course, "grant create on schema course_edx_toy_2012_fall to course_team")
    run(course, "grant references (id) on course_edx_toy_2012_fall.auth_user to course_team")
    assert value(course, "select rollbook.revoke_course(%s, %s)", KEEP, TEAM) is True
    assert value(course, "select rollbook.revoke_course(%s, %s)", KEEP, TEAM) is False
    assert value(course, "select rollbook.course_rights('course_edx_toy_2012_fall', %s)", TEAM) == []
    fails(team, psycopg.errors.InsufficientPrivilege, READ)


@pytest.mark.parametrize("call", ["grant_course", "revoke_course"])
def test_an_unknown_course_or_role_is_refused(course: Db, call: str) -> None:
    refused(course, "RB006", "select rollbook.{f}('no/such', 'course_team')", f=call)
    refused(course, "RB023", "select rollbook.{f}(%s, 'nobody_of_that_name')", KEEP, f=call)
    refused(course, "RB023", "select rollbook.{f}(%s, 'public')", KEEP, f=call)
    refused(course, "RB023", "select rollbook.{f}(%s, 'rollbook_writer')", KEEP, f=call)


def test_only_members_of_rollbook_owner_may_grant(course: Db, team: Db) -> None:
    run(course, "grant rollbook_operator to course_team")
    try:
        refused(team, "RB019", "select rollbook.grant_course(%s, %s)", KEEP, TEAM)
        refused(team, "RB019", "select rollbook.revoke_course(%s, %s)", KEEP, TEAM)
    finally:
        run(course, "revoke rollbook_operator from course_team")
