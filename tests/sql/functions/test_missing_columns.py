"""sql/functions/checks/missing_columns.sql: the replicated columns that a copy lacks, in the order of the whitelist."""

from __future__ import annotations

from tests.sql.helpers import COLUMNS, KEEP, PROFILE, USER, Db, run, schema, value

MISSING = "select rollbook.missing_columns(%s, %s)"


def test_a_whole_copy_lacks_none_and_a_table_that_is_gone_lacks_all(school: Db) -> None:
    keep = schema(school, KEEP)
    assert value(school, MISSING, keep, PROFILE) == []
    run(school, "alter table {c}.auth_userprofile drop column goals cascade, drop column meta cascade", c=keep)
    assert value(school, MISSING, keep, PROFILE) == ["meta", "goals"]
    run(school, "drop table {c}.auth_user", c=keep)
    assert value(school, MISSING, keep, USER) == COLUMNS[USER]


def test_a_table_that_is_not_replicated_lacks_none(school: Db) -> None:
    assert value(school, MISSING, schema(school, KEEP), "auth_registration") == []
