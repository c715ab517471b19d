"""sql/functions/checks/local_objects.sql: what a course added to its schema, and nothing else."""

from __future__ import annotations

from tests.sql.helpers import KEEP, Db, run, schema

LOCAL = "select * from rollbook.local_objects(%s)"


def test_a_new_course_has_none_nor_has_an_index_or_a_trigger(school: Db) -> None:
    keep = schema(school, KEEP)
    run(school, "create index on {c}.auth_user (email)", c=keep)
    assert run(school, LOCAL, keep) == []
    assert run(school, LOCAL, "nowhere") == []


def test_every_kind_of_object_is_named(school: Db) -> None:
    keep = schema(school, KEEP)
    run(
        school,
        """alter table {c}.auth_user add column grade integer;
        create table {c}.forum (id bigint);
        create view {c}.pupils as select id from {c}.auth_user;
        create materialized view {c}.totals as select 1 as one;
        create sequence {c}.numbers;
        create type {c}.mark as (points integer);
        create domain {c}.share as numeric;
        create function {c}.one() returns integer language sql as 'select 1'""",
        c=keep,
    )
    assert [words for (words,) in run(school, LOCAL, keep)] == [
        "column auth_user.grade",
        f"function {keep}.one()",
        "materialized view totals",
        "sequence numbers",
        "table forum",
        "type mark",
        "type share",
        "view pupils",
    ]
