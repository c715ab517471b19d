"""sql/functions/checks/count_rows.sql: the rows of a copy, and nothing about any other table."""

from __future__ import annotations

import pytest

from tests.sql.helpers import KEEP, USER, Db, add_user, enroll, run, schema, value

COUNT = "select rollbook.count_rows(%s, %s)"


def test_the_rows_of_a_copy_are_counted_and_null_is_a_table_that_is_gone(school: Db) -> None:
    keep = schema(school, KEEP)
    assert value(school, COUNT, keep, USER) == 0
    enroll(school, add_user(school, "ada"), KEEP)
    assert value(school, COUNT, keep, USER) == 1
    run(school, "drop table {c}.auth_user", c=keep)
    assert value(school, COUNT, keep, USER) is None


@pytest.mark.parametrize("table", [("portal", USER), ("rollbook", "course"), ("pg_catalog", "pg_authid")])
def test_a_table_outside_the_courses_is_not_counted(school: Db, table: tuple[str, str]) -> None:
    assert value(school, COUNT, *table) is None


def test_a_table_that_the_course_added_is_not_counted(school: Db) -> None:
    keep = schema(school, KEEP)
    run(school, "create table {c}.forum (id bigint)", c=keep)
    assert value(school, COUNT, keep, "forum") is None
