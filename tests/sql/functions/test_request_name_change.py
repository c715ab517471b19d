"""sql/functions/accounts/request_name_change.sql: one request a user, with a name that can be one."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.helpers import Db, add_user, fails, refused, run, value

REQUEST = "select rollbook.request_name_change(%s, %s, %s)"
PENDING = "select user_id, new_name, rationale from portal.student_pendingnamechange"


def test_a_request_is_kept_and_the_name_stays(school: Db) -> None:
    ada = add_user(school, "ada")
    number = value(school, REQUEST, ada, "Ada Lovelace", "Marriage")
    assert run(school, PENDING) == [(ada, "Ada Lovelace", "Marriage")]
    assert run(school, "select id, state, old_name from rollbook.name_change_status") == [
        (number, "pending", "ada Foo")
    ]
    assert value(school, "select name from portal.auth_userprofile") == "ada Foo"


def test_asking_again_replaces_the_request_and_keeps_its_id(school: Db) -> None:
    ada = add_user(school, "ada")
    first = value(school, REQUEST, ada, "Ada B", "one")
    assert value(school, REQUEST, ada, "Ada C", None) == first
    assert run(school, PENDING) == [(ada, "Ada C", "")]


@pytest.mark.parametrize("name", ["", "A", "  ", " A ", None])
def test_fewer_than_two_characters_are_no_name(school: Db, name: str | None) -> None:
    ada = add_user(school, "ada")
    assert refused(school, "23R13", REQUEST, ada, name, "").message_primary == "Name required"
    assert run(school, PENDING) == []


@pytest.mark.made
def test_the_name_that_is_there_and_one_that_does_not_fit_are_refused(school: Db) -> None:
    ada = add_user(school, "ada")
    refused(school, "23R13", REQUEST, ada, "ada Foo", "")
    fails(school, psycopg.errors.StringDataRightTruncation, REQUEST, ada, "x" * 256, "")
    fails(school, psycopg.errors.StringDataRightTruncation, REQUEST, ada, "xx", "y" * 1025)
    fails(school, psycopg.errors.ForeignKeyViolation, REQUEST, 4711, "Nobody Foo", "")
    assert run(school, PENDING) == []


def test_an_insert_past_the_function_is_held_to_the_length(school: Db) -> None:
    ada = add_user(school, "ada")
    insert = "insert into portal.student_pendingnamechange (user_id, new_name) values (%s, %s)"
    refused(school, "23R13", insert, ada, " A ")
