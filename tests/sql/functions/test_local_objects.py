"""sql/functions/checks/local_objects.sql: what a course added to its schema, and nothing else."""

from __future__ import annotations

from tests.sql.helpers import KEEP, Db, run, schema

LOCAL = "select * from rollbook.local_objects(%s)"


def test_a_new_course_has_none(school: Db) -> None:
    assert run(school, LOCAL, schema(school, KEEP)) == []
    assert run(school, LOCAL, "nowhere") == []


def test_what_is_attached_to_a_copy_is_named_and_left_out_where_only_data_counts(school: Db) -> None:
    keep = schema(school, KEEP)
    run(
        school,
        """create index on {c}.auth_user (email);
        create unique index own on {c}.auth_userprofile (name);
        alter table {c}.auth_user add constraint short check (length(email) < 99), add unique (email);
        alter table {c}.student_courseenrollment add foreign key (user_id) references {c}.auth_user;
        create trigger own after update on {c}.auth_user execute function suppress_redundant_updates_trigger();
        create policy own on {c}.auth_user""",
        c=keep,
    )
    assert [words for (words,) in run(school, LOCAL, keep)] == [
        "constraint auth_user_email_key on auth_user",
        "constraint short on auth_user",
        "constraint student_courseenrollment_user_id_fkey on student_courseenrollment",
        "index auth_user_email_idx on auth_user",
        "index own on auth_userprofile",
        "policy own on auth_user",
        "trigger own on auth_user",
    ]
    assert run(school, "select * from rollbook.local_objects(%s, on_copies => false)", keep) == []


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
