"""sql/functions/shape/: what is generated from the declaration of the shape."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, LiteralString

import pytest
from psycopg.rows import dict_row

from rollbook.core.declaring import check, check_first
from rollbook.core.errors import RefusedError
from rollbook.core.shape import Shape, default
from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, run


def test_members_are_the_rows_of_the_membership_table_that_count(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, KEEP)
    enroll(school, bob, REMOVE)
    assert run(school, "select user_id from rollbook.memberships_of(%s)", KEEP) == [(ada,)]
    assert set(run(school, "select user_id, course_id from rollbook.memberships()")) == {(ada, KEEP), (bob, REMOVE)}
    assert {(ada,), (bob,)} <= set(run(school, "select id from rollbook.persons()"))


def declared(db: Db, **changes: Any) -> Shape:
    """The shape that a check makes of the default with another membership."""
    row_factory, db.row_factory = db.row_factory, dict_row
    try:
        return check(db, default().changed(replace(default().tables[-1], **changes)))
    finally:
        db.row_factory = row_factory


def test_a_condition_is_declared_as_postgresql_understands_it(portal: Db) -> None:
    run(portal, "alter table portal.student_courseenrollment add is_active boolean not null default true")
    assert declared(portal, condition=" is_active ").tables[-1].condition == "is_active"
    assert declared(portal, condition="course_id like 'MIT%' and not is_active").tables[-1].condition == (
        "(((course_id)::text ~~ 'MIT%'::text) AND (NOT is_active))"
    )


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("active", "column .active. does not exist"),
        ("id", "must be type boolean"),
        ("created > now()", "must be marked IMMUTABLE"),
        ("exists (select from portal.auth_user)", "cannot use subquery"),
        ("count(*) > 1", "aggregate functions are not allowed"),
        ("true; drop table portal.auth_user", "multiple commands"),
        ("(select", "syntax error"),
        ("course_id <> '$$'", "ends the text of a function"),
        ("course_id <> '$query$'", "ends the text of a function"),
    ],
)
def test_what_is_no_condition_is_refused(portal: Db, condition: str, why: str) -> None:
    with pytest.raises(RefusedError) as caught:
        declared(portal, condition=condition)
    assert re.search(why, str(caught.value.why))


def test_keys_that_can_be_null_are_refused_with_the_line_that_mends_it(portal: Db) -> None:
    run(portal, "alter table portal.student_courseenrollment alter user_id drop not null")
    with pytest.raises(RefusedError, match="can be null") as caught:
        declared(portal)
    run(portal, str(caught.value.fix).removeprefix("in psql: "))
    assert declared(portal) == default()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relation": "portal.student_enrolment"}, "there is no table"),
        ({"columns": ("id", "user_id", "course_id", "creatd")}, "no column creatd"),
        ({"key": "user_id"}, "user_id cannot be the key"),
        ({"person": "course_id"}, "course_id cannot hold a person's key"),
        ({"course": "created"}, "created cannot hold a course's ID"),
    ],
)
def test_tables_and_columns_that_cannot_be_declared_are_refused(
    portal: Db, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        declared(portal, **changes)


@pytest.mark.parametrize("kind", ["json", "json[]", "xml", "point"])
def test_a_column_whose_values_cannot_be_compared_does_not_travel(portal: Db, kind: LiteralString) -> None:
    run(portal, "alter table portal.student_courseenrollment add more " + kind)
    with pytest.raises(RefusedError, match=r"student_courseenrollment\.more cannot travel") as caught:
        declared(portal, columns=("id", "user_id", "course_id", "more"))
    if kind == "json":
        run(portal, str(caught.value.fix).removeprefix("make it jsonb: ").split(";")[0])
        declared(portal, columns=("id", "user_id", "course_id", "more"))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("create view public.other as select * from portal.student_courseenrollment", "it is a view"),
        ("create table public.other (like portal.student_courseenrollment) partition by list (id)", "partitioned"),
        ("create table public.other () inherits (portal.student_courseenrollment)", "whose rows no trigger sees"),
    ],
)
def test_a_relation_whose_rows_change_without_its_triggers_is_refused(
    portal: Db, statement: LiteralString, why: str
) -> None:
    run(portal, statement)
    with pytest.raises(RefusedError, match="cannot be copied") as caught:
        declared(portal, relation="public.other")
    assert why in str(caught.value.why)


@pytest.mark.parametrize(
    ("without", "words"),
    [({"default": ("user_id",)}, "user_id"), ({"default": ("nick",)}, "nick"), ({KEEP: ("email",)}, f"course {KEEP}")],
)
def test_what_a_first_shape_leaves_out_is_checked(portal: Db, without: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        check_first(portal, replace(default(), without=without))


def test_the_names_in_a_condition_are_no_texts_types_or_parts_of_names(portal: Db) -> None:
    found = run(portal, "select rollbook.condition_names(%s)", """((status)::text <> 'a secret''s'::text AND "On" )""")
    assert {"status", '"On"'} <= set(found[0][0])
    assert not {"a", "secret", "text", "On", "stat"} & set(found[0][0])
