"""A course that cannot be written: the portal's statement is refused, or the course is paused and the portal goes on.

Also tests what does it: write_copies, write_copy, courses_apart, is_fault, meet_fault, obstacle_fix; pause_course,
resume_course with reopen_course, release_course, require_running; copy_fault, restore_copies, rebuild_copies,
finish_copies, create_schema, column_definitions, repair_copies.
"""

from __future__ import annotations

import re
from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    REMOVE,
    TABLES,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    fails,
    faults,
    findings,
    held,
    leave,
    plant,
    refused,
    run,
    schema,
    select,
    value,
)

SECRET = "pbkdf2_sha256$1$secret"
UPDATE: LiteralString = f"update portal.auth_user set first_name = 'New', password = '{SECRET}' where id = 1"
# Fault -> how it comes into course {c}, and how it goes again; empty: repair and resume do that.
FAULTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "schema gone": ("drop schema {c} cascade", ""),
    "table gone": ("drop table {c}.auth_user cascade", ""),
    "column gone": ("alter table {c}.auth_user drop column first_name cascade", ""),
    "table of somebody else": ("alter table {c}.auth_user owner to pg_monitor", ""),
    "schema of somebody else": ("alter schema {c} owner to pg_monitor", ""),
    "check": (
        "alter table {c}.auth_user add constraint own check (first_name <> 'New') not valid",
        "alter table {c}.auth_user drop constraint own",
    ),
    "not null": (
        "alter table {c}.auth_user add own text not null default 'x', add constraint own check (own <> 'x') not valid",
        "alter table {c}.auth_user drop constraint own",
    ),
    "unique": (
        # 'Later' is what both rows are to have at the end: no order of writing them avoids it.
        "create unique index own on {c}.auth_user ((1)) where first_name = 'New' or last_name = 'Later'; "
        "set session_replication_role = replica; update {c}.auth_user set first_name = 'New' where id = 2; "
        "reset session_replication_role",
        "drop index {c}.own",
    ),
    "type": (
        "alter table {c}.auth_user add own integer generated always as (length(password) / (length(password) - 22)) "
        "stored",
        "alter table {c}.auth_user drop column own",
    ),
    "trigger": (
        "create function {c}.own() returns trigger language plpgsql as $$ begin "
        "raise exception 'forbidden: %', new.password using errcode = 'XY123'; end $$; "
        "create trigger own before update on {c}.auth_user for each row execute function {c}.own()",
        "drop function {c}.own() cascade",
    ),
    "foreign key": (
        "create table {c}.own (name text primary key); alter table {c}.auth_user add constraint own "
        "foreign key (first_name) references {c}.own not valid",
        "alter table {c}.auth_user drop constraint own",
    ),
}
# Every kind of statement that writes copies of user 1 or 2, or of 3, who is in no course yet.
WRITES: dict[str, LiteralString] = {
    "update": UPDATE,
    "update of all": "update portal.auth_user set last_name = 'Name'",
    "profile": "update portal.auth_userprofile set goals = 'Other' where user_id = 1",
    "profiles": "update portal.auth_userprofile set goals = 'Other'",
    "profile away": "delete from portal.auth_userprofile where user_id = 1",
    "profile back": "insert into portal.auth_userprofile (user_id, name) values (1, 'Ada')",
    "join": f"insert into portal.student_courseenrollment (user_id, course_id) values (3, '{KEEP}'), (3, '{REMOVE}')",
    "move": f"update portal.student_courseenrollment set course_id = 'x' where user_id = 2 and course_id = '{REMOVE}'",
    "leave": f"delete from portal.student_courseenrollment where user_id = 3 and course_id = '{REMOVE}'",
    "created": "update portal.student_courseenrollment set created = '2012-09-01'",
    "user away": "delete from portal.auth_user where id = 2",
    "no enrollments": "truncate portal.student_courseenrollment",
    "no profiles": "truncate portal.auth_userprofile",
    "no users": "truncate portal.auth_user cascade",
}


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses; user 3 in none."""
    for name in ("ada", "bob", "cy"):
        user_id = add_user(school, name)
        if name != "cy":
            enroll(school, user_id, KEEP, REMOVE)
    return school


def pause_on_fault(db: Db, course: str) -> None:
    """Let a fault pause the course."""
    run(db, "update rollbook.course set on_fault = 'pause' where course_id = %s", course)


def paused(db: Db) -> dict[str, str]:
    """Return the paused courses with their reasons."""
    return dict(run(db, "select course_id, pause_reason from rollbook.course_status where state = 'paused'"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_refuses_the_whole_statement_and_names_course_and_ways_out(pupils: Db, fault: str) -> None:
    run(pupils, FAULTS[fault][0], c=schema(pupils, KEEP))
    before = select(pupils, schema(pupils, REMOVE), "auth_user", ["first_name"])
    said = refused(pupils, "RB020", UPDATE)
    assert KEEP in str(said.message_primary)
    assert "auth_user" in str(said.message_primary)
    assert f"rollbook.pause_course('{KEEP}')" in str(said.message_hint)
    assert f"rollbook course pause '{KEEP}'" in str(said.message_hint)
    assert str(said.message_detail) not in ("None", "")
    told = f"{said.message_primary} {said.message_detail} {said.message_hint} {said.context}"
    assert SECRET not in told
    assert select(pupils, schema(pupils, REMOVE), "auth_user", ["first_name"]) == before
    assert value(pupils, "select first_name from portal.auth_user where id = 1") != "New"
    if fault == "type":  # PostgreSQL names nothing
        assert "such as column auth_user.own" in str(said.message_hint)
        return
    printed = re.match(r"Run: (.+); (?:or change it|it recreates)", str(said.message_hint))
    assert printed is not None
    run(pupils, printed[1])
    run(pupils, UPDATE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_pauses_a_course_that_says_so_and_resume_brings_it_back(pupils: Db, fault: str) -> None:
    come, go = FAULTS[fault]
    pause_on_fault(pupils, KEEP)
    run(pupils, come, c=schema(pupils, KEEP))
    run(pupils, UPDATE)
    assert ("New",) in select(pupils, schema(pupils, REMOVE), "auth_user", ["first_name"])
    assert list(paused(pupils)) == [KEEP]
    assert SECRET not in paused(pupils)[KEEP]
    assert "SQLSTATE" in paused(pupils)[KEEP]
    run(pupils, "update portal.auth_user set last_name = 'Later'")  # goes by
    if go:
        refused(pupils, "RB020", "select rollbook.resume_course(%s)", KEEP)
        assert list(paused(pupils)) == [KEEP]
        run(pupils, go, c=schema(pupils, KEEP))
    run(pupils, "select rollbook.resume_course(%s)", KEEP)
    assert (paused(pupils), faults(pupils), held(pupils, KEEP)) == ({}, [], everybody(1, 2))
    guards = value(pupils, "select count(*) from pg_trigger where starts_with(tgname, 'rollbook_guard_')")
    assert guards == 2 * 2 * len(TABLES)
    run(pupils, "update portal.auth_user set first_name = 'Again'")
    assert faults(pupils) == []


@pytest.mark.parametrize("fault", ["schema gone", "table gone", "schema of somebody else"])
def test_no_write_sees_a_paused_course_and_nothing_is_lost(pupils: Db, fault: str) -> None:
    pause_on_fault(pupils, REMOVE)  # makes no difference
    for course in (KEEP, REMOVE):
        run(pupils, "select rollbook.pause_course(%s, 'maintenance')", course)
        run(pupils, FAULTS[fault][0], c=schema(pupils, course))
    for write in WRITES.values():
        with pupils.transaction(force_rollback=write.startswith("truncate")):
            run(pupils, write)
    assert paused(pupils) == {KEEP: "maintenance", REMOVE: "maintenance"}
    for course in (KEEP, REMOVE):
        run(pupils, "select rollbook.resume_course(%s)", course)
    assert (faults(pupils), held(pupils, KEEP), held(pupils, REMOVE)) == ([], everybody(1, 3), everybody(1))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("on_fault", ["refuse", "pause"])
def test_every_kind_of_write_meets_a_broken_course(pupils: Db, write: str, on_fault: str) -> None:
    if write == "profile back":
        run(pupils, WRITES["profile away"])
    if write == "leave":
        run(pupils, WRITES["join"])
    for course in (KEEP, REMOVE):
        run(pupils, "drop schema {c} cascade", c=schema(pupils, course))
        run(pupils, "update rollbook.course set on_fault = %s where course_id = %s", on_fault, course)
    if on_fault == "refuse":
        refused(pupils, "RB020", WRITES[write])
    else:
        run(pupils, WRITES[write])
        assert REMOVE in paused(pupils)
        for course in paused(pupils):
            run(pupils, "select rollbook.resume_course(%s)", course)
    run(pupils, "select rollbook.repair()")
    assert faults(pupils) == []


def test_a_user_deleted_while_the_course_is_paused_is_gone_after_it_resumes(pupils: Db) -> None:
    run(pupils, "select rollbook.pause_course(%s)", KEEP)
    run(pupils, "delete from portal.auth_user where id = 1")
    assert held(pupils, KEEP) == everybody(1, 2)
    assert len(findings(pupils, KEEP)) == len(TABLES)  # verify says what is behind
    assert run(pupils, "select * from rollbook.resume_course(%s)", KEEP) == [(KEEP, t, 0, 0, 1) for t in TABLES]
    assert held(pupils, KEEP) == everybody(2)


def test_repair_leaves_a_paused_course_to_resume(pupils: Db) -> None:
    run(pupils, "select rollbook.pause_course(%s, 'moving house')", KEEP)
    run(pupils, UPDATE)
    said = refused(pupils, "RB021", "select rollbook.repair(%s)", KEEP)
    assert "moving house" in str(said.message_detail)
    assert "rollbook.resume_course(" in str(said.message_hint)
    assert run(pupils, "select * from rollbook.repair()") == []
    assert findings(pupils, KEEP) == [("auth_user", "changed", 1, ["first_name", "password"])]
    run(pupils, "select rollbook.pause_course(%s, 'still moving')", KEEP)
    assert paused(pupils) == {KEEP: "still moving"}
    refused(pupils, "RB006", "select rollbook.pause_course('x')")
    refused(pupils, "RB006", "select rollbook.resume_course('x')")


def test_repair_recreates_what_is_gone_leavers_too(pupils: Db) -> None:
    leave(pupils, 2, KEEP)
    plant(pupils, "drop schema {c} cascade", c=schema(pupils, KEEP))
    run(pupils, "alter table {c}.auth_user add mentor text default 'm'", c=schema(pupils, REMOVE))
    run(pupils, "alter table {c}.auth_user drop column email cascade", c=schema(pupils, REMOVE))
    run(pupils, "drop table {c}.student_courseenrollment", c=schema(pupils, REMOVE))
    refused(pupils, "RB008", "select * from rollbook.verify(%s)", KEEP)
    assert [state for (state,) in run(pupils, "select state from rollbook.course_status")] == ["broken", "broken"]
    run(pupils, "select rollbook.repair()")
    assert (faults(pupils), held(pupils, KEEP)) == ([], ([1, 2], [1, 2], [1]))
    assert select(pupils, schema(pupils, REMOVE), "auth_user", ["mentor"]) == [("m",), ("m",)]
    assert run(pupils, "select rollbook.repair()") == []
    # The same table as one that create_course makes.
    create(pupils, "new")
    same = """select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull
        from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid
        where c.relnamespace = %s::regnamespace and a.attnum > 0 and not a.attisdropped and a.attname <> 'mentor'
            and c.relkind = 'r' order by 1, 2"""
    assert run(pupils, same, schema(pupils, REMOVE)) == run(pupils, same, schema(pupils, "new"))
    fails(pupils, psycopg.Error, "insert into {c}.auth_user (id) values (9)", c=schema(pupils, KEEP))


def test_a_copy_that_lost_its_id_is_not_guessed_at(pupils: Db) -> None:
    run(pupils, "alter table {c}.auth_user drop column id cascade", c=schema(pupils, KEEP))
    said = refused(pupils, "RB008", "select rollbook.repair(%s)", KEEP)
    assert "drop table" in str(said.message_hint)


def test_who_may_not_create_schemas_cannot_recreate_one(pupils: Db) -> None:
    run(pupils, "create role tiny; grant rollbook_owner to tiny; grant usage on schema rollbook, portal to tiny")
    run(pupils, "drop schema {c} cascade", c=schema(pupils, KEEP))
    run(pupils, "set local role tiny")
    said = refused(pupils, "RB019", "select rollbook.repair(%s)", KEEP)
    run(pupils, "reset role")
    assert "grant create on database" in str(said.message_hint)


@pytest.mark.parametrize("fault", ["schema gone", "table gone", "table of somebody else", "schema of somebody else"])
def test_a_paused_course_can_be_dropped(pupils: Db, fault: str) -> None:
    run(pupils, FAULTS[fault][0], c=schema(pupils, KEEP))
    run(pupils, "select rollbook.pause_course(%s)", KEEP)
    run(pupils, "select rollbook.drop_course(%s)", KEEP)
    run(pupils, "update portal.auth_user set first_name = 'New'")
    create(pupils, KEEP)
    assert (faults(pupils), held(pupils, KEEP)) == ([], everybody(1, 2))


def test_errors_that_are_not_the_courses_pass_as_they_are(pupils: Db) -> None:
    pause_on_fault(pupils, KEEP)
    run(
        pupils,
        "create function {c}.own() returns trigger language plpgsql as $$ begin "
        "raise exception 'again' using errcode = '40001'; end $$; "
        "create trigger own before update on {c}.auth_user for each row execute function {c}.own()",
        c=schema(pupils, KEEP),
    )
    fails(pupils, psycopg.Error, UPDATE)
    assert paused(pupils) == {}


def test_a_paused_course_is_recreated_no_more_than_any_other(pupils: Db) -> None:
    run(pupils, "select rollbook.pause_course(%s)", KEEP)
    refused(pupils, "RB005", "select rollbook.create_course(%s)", KEEP)


def test_an_enrollment_in_a_paused_course_is_copied_when_it_resumes(pupils: Db) -> None:
    run(pupils, "select rollbook.pause_course(%s)", KEEP)
    enroll(pupils, 3, KEEP)
    assert select(pupils, schema(pupils, KEEP), ENROLLMENT, ["user_id"]) == [(1,), (2,)]
    run(pupils, "select rollbook.resume_course(%s)", KEEP)
    assert (held(pupils, KEEP), faults(pupils)) == (everybody(1, 2, 3), [])
