"""sql/functions/api/update_course.sql: columns that do not travel to a course are the course's own.

Also tests what does it: reshape_course, change_shape, shape_statements, copy_shape, course_columns, course_without,
left_out, left_out_columns; and the paths that leave columns out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from rollbook.core.declaring import check, declare
from rollbook.core.shape import default
from tests.sql.helpers import (
    COLUMNS,
    KEEP,
    PROFILE,
    REMOVE,
    USER,
    Db,
    add_user,
    create,
    enroll,
    faults,
    findings,
    leave,
    plant,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

OWN = ["last_login", "password"]


def update(db: Db, course: str, without: list[str]) -> dict[str, tuple[int, ...]]:
    """Change what a course leaves out; return the rows written by table."""
    rows = run(db, "select table_name, inserted, updated, deleted from rollbook.update_course(%s, %s)", course, without)
    return {table: tuple(counts) for table, *counts in rows}


def shape(db: Db, course: str, table: str = USER) -> dict[str, tuple[bool, str | None]]:
    """Return of the columns of a copy whether they are NOT NULL, and the default."""
    return {
        name: (is_not_null, default)
        for name, is_not_null, default in run(
            db,
            "select a.attname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid) from pg_attribute a "
            "left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum "
            "where a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and a.attnum > 0 "
            "and not a.attisdropped",
            schema(db, course), table,
        )
    }  # fmt: skip


@pytest.fixture
def site(school: Db) -> Db:
    """Two users in the two courses and in one that leaves out log-in, password, meta and first name."""
    for name in ("ada", "bob"):
        enroll(school, add_user(school, name, password="portal"), KEEP, REMOVE)
    run(school, "select rollbook.create_course('own', 'keep', %s)", [*OWN, "auth_userprofile.meta", "first_name"])
    for user in (1, 2):
        enroll(school, user, "own")
    return school


def test_a_course_leaves_columns_out_from_its_creation_on(site: Db) -> None:
    assert value(site, "select without from rollbook.course_status where course_id = 'own'") == [
        "first_name", "last_login", "meta", "password",
    ]  # fmt: skip
    portal: dict[str, bool] = dict(
        run(
            site,
            "select attname::text, attnotnull from pg_attribute where attrelid = rollbook.portal_table('auth_user')",
        )
    )
    found = shape(site, "own")
    assert found["first_name"] == (portal["first_name"], "''::character varying")
    assert found["last_login"] == (False, None)
    assert found["email"] == (portal["email"], None)
    assert select(site, "course_own", USER, ["first_name", "username"]) == [("", "ada"), ("", "bob")]
    run(site, "update course_own.auth_user set first_name = 'mine', last_login = '2001-01-01', password = 'course'")
    run(site, "update course_own.auth_userprofile set meta = '{}'")
    refused(site, "23R01", "update course_own.auth_user set email = 'x@example.org'")
    # whatever the portal writes, and a repair, touch them no more
    before, others = versions(site, "own"), versions(site, KEEP)
    run(site, "update portal.auth_user set last_login = now() where id = 1")
    run(site, "update portal.auth_user set first_name = 'New', password = 'new'")
    run(site, "update portal.auth_userprofile set meta = '{\"a\": 1}' where user_id = 1")
    assert versions(site, "own") == before
    assert versions(site, KEEP) != others
    run(site, "update portal.auth_user set last_login = now(), email = 'ada2@edx.org' where id = 1")
    run(site, "update portal.auth_user set last_login = now(), last_name = 'L'")
    plant(site, "update course_own.auth_user set email = 'wrong' where id = 2; delete from course_own.auth_userprofile "
          "where user_id = 2")  # fmt: skip
    assert [row[:3] for row in findings(site, "own")] == [
        (USER, "changed", 2), (PROFILE, "missing", 5002),
    ]  # fmt: skip
    run(site, "select rollbook.repair('own')")
    assert select(site, "course_own", USER, ["email", "last_name", "first_name", "password"]) == [
        ("ada2@edx.org", "L", "mine", "course"), ("bob@edx.org", "L", "mine", "course"),
    ]  # fmt: skip
    assert run(site, "select distinct finding from rollbook.compare_users('{1,2}')") == [("ok",)]
    assert run(site, "select * from rollbook.foreign_objects()") == []
    assert faults_but_own(site) == []
    leave(site, 1, "own")
    enroll(site, 1, "own")
    assert select(site, "course_own", USER, ["first_name"]) == [("mine",), ("mine",)]


def faults_but_own(db: Db) -> list[str]:
    """Return what differs in courses that leave nothing out, and what verify finds anywhere."""
    return [fault for fault in faults(db) if not fault.startswith("own: ")] + [str(row) for row in findings(db)]


def test_an_update_leaves_columns_out_and_lets_them_travel_again(site: Db) -> None:
    assert update(site, KEEP, OWN) == {}
    assert value(site, "select without from rollbook.course where course_id = %s", KEEP) == OWN
    name = schema(site, KEEP)
    run(site, "update {c}.auth_user set password = 'course', last_login = '2001-01-01', email = email", c=name)
    run(site, "update portal.auth_user set password = 'new' where id = 1")
    user = add_user(site, "eve", password="hers")
    enroll(site, user, KEEP)
    assert select(site, name, USER, ["password"]) == [("course",), ("course",), ("!",)]
    assert findings(site, KEEP) == []
    assert update(site, KEEP, ["last_login"]) == {USER: (0, 3, 0)}
    assert select(site, name, USER, ["password"]) == [("new",), ("portal",), ("hers",)]
    assert shape(site, KEEP)["password"] == (True, None)
    refused(site, "23R01", "update {c}.auth_user set password = 'course'", c=name)
    run(site, "update {c}.auth_user set last_login = null", c=name)
    assert update(site, KEEP, []) == {}
    assert update(site, "own", []) != {}
    assert (faults(site), run(site, "select * from rollbook.foreign_objects()")) == ([], [])
    assert shape(site, "own") == shape(site, REMOVE)
    assert update(site, "own", []) == {}


def test_a_column_that_the_course_dropped_comes_back_and_a_paused_course_is_filled_when_it_resumes(site: Db) -> None:
    run(site, "alter table course_own.auth_user drop password, drop first_name")
    run(site, "update portal.auth_user set email = upper(email)")
    assert (findings(site, "own"), run(site, "select * from rollbook.foreign_objects()")) == ([], [])
    run(site, "select rollbook.repair()")  # brings nothing back: it was the course's
    assert "password" not in shape(site, "own")
    run(site, "select rollbook.pause_course('own')")
    assert update(site, "own", ["last_name"]) == {}
    run(site, "update portal.auth_user set first_name = 'Later', last_name = 'Never'")
    run(site, "select rollbook.resume_course('own')")
    assert select(site, "course_own", USER, ["first_name", "last_name", "password"]) == [("Later", "", "portal")] * 2
    assert (shape(site, "own")["first_name"], findings(site)) == ((True, None), [])
    assert run(site, "select * from rollbook.foreign_objects()") == []
    run(site, "select rollbook.pause_course('own')")
    run(site, "drop table course_own.auth_userprofile")
    run(site, "select rollbook.resume_course('own')")
    assert (findings(site), run(site, "select * from rollbook.foreign_objects()")) == ([], [])
    run(site, "select rollbook.drop_course('own')")  # a column that was left out is no obstacle


@pytest.mark.parametrize(("without", "word"), [
    (["id"], "key"), (["auth_userprofile.user_id"], "key"), (["course_id"], "key"), (["lastlogin"], "lastlogin"),
    (["auth_user.meta"], "auth_user.meta"), ([None], "null"), ([""], "no copied column"),
])  # fmt: skip
def test_unknown_columns_and_keys_are_refused(site: Db, without: Any, word: str) -> None:
    for query in ("select rollbook.create_course('new', 'keep', %s)", "select rollbook.update_course('own', %s)"):
        said = refused(site, "RB028", query, without)
        assert word in str(said.message_primary)


def test_new_courses_get_the_default_of_the_installation(site: Db) -> None:
    run(site, "update rollbook.shape set without = rollbook.left_out('{password,last_login,password}')")
    create(site, "new")
    run(site, "select rollbook.create_course('all', 'keep', '{}')")
    assert run(site, "select course_id, without from rollbook.course where course_id in ('new', 'all') order by 1") == [
        ("all", []), ("new", OWN),
    ]  # fmt: skip


def test_update_course_is_for_read_committed_and_for_those_who_make_courses(live: Db, app: Db) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(app, "select rollbook.update_course(%s, '{}')", KEEP)
    refused(live, "RB006", "select rollbook.update_course('nowhere', '{}')")
    live.execute("begin isolation level repeatable read")
    refused(live, "RB009", "select rollbook.update_course(%s, '{}')", KEEP)
    live.execute("rollback")


def test_publishing_one_course_looks_at_its_copies_alone(site: Db) -> None:
    def published() -> dict[str, list[str]]:
        rows = run(site, "select schemaname, attnames::text[] from pg_publication_tables "
                         "where pubname = 'rollbook_east' and tablename = %s order by 1", USER)  # fmt: skip
        return {name: sorted(set(COLUMNS[USER]) - set(columns)) for name, columns in rows}

    run(site, "insert into rollbook.server values ('east', 'host=h dbname=d', 'host=h dbname=d', 'x')")
    run(site, "update rollbook.course set server = 'east' where course_id <> %s", REMOVE)
    keep = schema(site, KEEP)
    assert value(site, "select rollbook.publish_courses('east')") == 6
    assert published() == {keep: [], "course_own": ["first_name", *OWN]}
    run(site, "update rollbook.course set without = array_append(without, 'email')")
    assert value(site, "select rollbook.publish_courses('east', 'own')") == 2  # out and in again
    assert published() == {keep: [], "course_own": ["email", "first_name", *OWN]}
    assert value(site, "select rollbook.publish_courses('east', %s)", REMOVE) == 0
    run(site, "update rollbook.course set state = 'detached' where course_id = 'own'")
    assert value(site, "select rollbook.publish_courses('east', 'own')") == 3
    assert published() == {keep: []}
    assert value(site, "select rollbook.publish_courses('east')") == 2
    assert published() == {keep: ["email"]}


@pytest.mark.made
def test_a_name_that_two_tables_have_is_left_out_of_one(site: Db) -> None:
    run(site, 'alter table portal.auth_userprofile add "Mail.to" text, add email text')
    usual = default()
    wanted = usual.changed(replace(usual.tables[1], columns=(*usual.tables[1].columns, "Mail.to", "email")))
    run(site, "update rollbook.course set without = without || '{Mail.to,auth_userprofile.email}'")
    site.row_factory, rows = dict_row, site.row_factory
    declare(site, check(site, wanted))
    site.row_factory = rows
    error = refused(site, "RB028", "select rollbook.left_out('{email}')")
    assert error.message_hint == "Name the table: auth_user.email or auth_userprofile.email."
    assert run(site, "select rollbook.left_out('{meta,auth_user.email,auth_user.username,Mail.to}')") == [
        (["Mail.to", "auth_user.email", "meta", "username"],)
    ]  # fmt: skip
    run(site, "update portal.auth_userprofile set email = 'p1', \"Mail.to\" = 'x', name = 'New' where user_id = 1")
    assert update(site, KEEP, []) == {PROFILE: (0, 1, 0)}
    update(site, REMOVE, ["auth_user.email"])
    run(site, "select rollbook.create_course('new', 'keep', '{auth_userprofile.email}')")
    enroll(site, 1, "new")
    run(site, "update portal.auth_user set email = 'u2@edx.org' where id = 1")
    run(site, "update portal.auth_userprofile set email = 'p2', \"Mail.to\" = 'y' where user_id = 1")
    run(site, "update portal.auth_user set email = id || '@edx.org', last_name = 'L'")  # several rows
    run(site, "update portal.auth_userprofile set email = 'p' || user_id, name = 'Nn'")
    for course, user, profile in ((KEEP, "1@edx.org", "p1"), (REMOVE, "ada@edx.org", "p1"), ("new", "1@edx.org", None)):
        assert select(site, schema(site, course), USER, ["email"])[0] == (user,)
        assert select(site, schema(site, course), PROFILE, ["email", "name"])[0] == (profile, "Nn")
        copy = f"{schema(site, course)}.auth_user"
        if course == REMOVE:
            run(site, f"update {copy} set email = email")
        else:
            refused(site, "23R01", f"update {copy} set email = 'x'")
    assert run(site, "select * from rollbook.foreign_objects()") == []
    assert findings(site) == []
