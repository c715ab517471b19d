"""What a hostile DBA tried with the program: names that lie, a role without rights, a terminal to steer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.school import Rollbook, advance_sequences, write_old

Db = Connection[Any]


@pytest.fixture
def course(db: Db) -> Db:
    """A course with one user in it."""
    db.execute("insert into portal.auth_user (username, email) values ('ada', 'ada@example.org')")
    db.execute("select rollbook.create_course('K')")
    db.execute("insert into portal.student_courseenrollment (user_id, course_id) values (1, 'K')")
    return db


def damage(db: Db) -> None:
    db.execute("set session_replication_role = replica")
    db.execute("update course_k.auth_user set first_name = 'drift'")
    db.execute("reset session_replication_role")


def test_the_documented_site_has_the_rights_that_it_needs(school: Db, rollbook: Rollbook, dsn: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "dba.md").read_text()
    (example,) = re.findall(r"```sql\n(create role keeper.*?)```", text, re.DOTALL)
    advance_sequences(school)
    school.execute(example.replace("database portal", f"database {school.info.dbname}").encode())
    try:
        for role, command, code in (
            ("keeper", "course create x/y", 0), ("keeper", "course delete x/y --confirm x/y", 0),
            ("keeper", "replication repair --yes", 0), ("support", "enrollment add MITx/6.002x/2012_Fall dan", 0),
            ("support", "course create x/y", 3), ("nagios", "status", 0), ("nagios", "replication verify", 0),
            ("nagios", "schema check", 0), ("nagios", "user deactivate ada", 3), ("site", "status", 3),
            ("circuits_team", "user list", 3),
        ):  # fmt: skip
            answer = rollbook(*command.split(), dsn=dsn.replace("user=postgres", f"user={role}"))
            assert (role, command, answer.code) == (role, command, code), answer.out + answer.err
        for role, statement in (
            ("site", "update portal.auth_user set first_name = 'Ada' where id = 101"),
            ("circuits_team", "select * from course_mitx_6_002x_2012_fall.auth_user"),
        ):
            with psycopg.connect(dsn, user=role) as conn:
                assert conn.execute(statement.encode()).rowcount >= 1
    finally:
        for role in ("keeper", "site", "support", "nagios", "circuits_team"):
            school.execute(f"drop owned by {role}".encode())
            school.execute(f"drop role {role}".encode())


def test_what_somebody_names_steers_no_terminal(rollbook: Rollbook, course: Db) -> None:
    del course
    refused = rollbook("authorization", "cancel", "k\x1b[31mk\x07")
    assert (refused.code, refused.err.splitlines()[0]) == (1, "error: there is no authorization k\\x1b[31mk\\x07")


def test_a_repair_needs_a_member_of_rollbook_owner(course: Db, rollbook: Rollbook, dsn: str) -> None:
    damage(course)
    course.execute("do $$ begin create role rb_mender login; exception when duplicate_object then null; end $$")
    where = dsn.replace("user=postgres", "user=rb_mender")
    course.execute("grant rollbook_operator to rb_mender")
    try:
        refused = rollbook("replication", "repair", "K", "--yes", dsn=where)
        assert (refused.code, "membership in rollbook_owner" in refused.err) == (3, True)
        assert course.execute("select count(*) from rollbook.verify()").fetchall() == [(1,)]
        course.execute("grant rollbook_owner to rb_mender")
        answer = rollbook("replication", "repair", "K", "--yes", "--json", dsn=where)
        assert (answer.code, answer.row["updated"], answer.row["verdict_after"]) == (0, 1, "match"), answer.err
        assert course.execute("select * from rollbook.verify()").fetchall() == []
    finally:
        course.execute("revoke rollbook_operator from rb_mender")
        course.execute("revoke rollbook_owner from rb_mender")


@pytest.mark.parametrize("name", ["id:1", "username:ada", "email:ada@example.org"])
def test_a_username_cannot_pose_as_somebody_else(course: Db, rollbook: Rollbook, name: str) -> None:
    write_old(course, "insert into portal.auth_user (username) values (%s)", name)
    (shown,) = rollbook("user", "show", name, "--json").data
    assert shown["account"]["username"] == "ada"
    (shown,) = rollbook("user", "show", f"username:{name}", "--json").data
    assert shown["account"]["username"] == name


def test_a_downgrade_that_cannot_end_takes_nothing_away(course: Db, rollbook: Rollbook) -> None:
    course.execute("create table course_k.grades (user_id bigint)")
    course.execute("create view public.people as select username from portal.auth_user")
    answer = rollbook("schema", "downgrade", "--to", "base", "--yes")
    assert (answer.code, "people" in answer.err) == (1, True)
    assert course.execute("select count(*) from course_k.auth_user").fetchall() == [(1,)]
    course.execute("drop view public.people")
    answer = rollbook("schema", "downgrade", "--to", "base")
    assert (answer.code, "table grades" in answer.err) == (6, True)


def test_a_lost_course_schema_is_a_refusal_that_says_how_to_continue(course: Db, rollbook: Rollbook) -> None:
    course.execute("drop schema course_k cascade")
    answer = rollbook("user", "update", "ada", "--first-name", "Ada")
    assert (answer.code, "rollbook course pause 'K'" in answer.err) == (1, True), answer.err
    assert rollbook("schema", "check").code == 4


@pytest.mark.parametrize(
    ("setting", "text"), [("PGDATESTYLE", "German"), ("PGCLIENTENCODING", "LATIN1"), ("PGTZ", "Asia/Tokyo")]
)
def test_settings_of_the_environment_change_no_answer(
    course: Db, rollbook: Rollbook, monkeypatch: pytest.MonkeyPatch, setting: str, text: str
) -> None:
    course.execute("update portal.auth_user set first_name = '李', date_joined = '2012-03-04 05:06:07+00'")
    plain = rollbook("user", "list", "--json")
    monkeypatch.setenv(setting, text)
    assert rollbook("user", "list", "--json") == plain
    assert plain.row["date_joined"] == "2012-03-04T05:06:07Z"


def test_what_a_student_wrote_does_not_steer_the_terminal(course: Db, rollbook: Rollbook) -> None:
    write_old(course, "insert into portal.auth_userprofile (user_id, name) values (1, E'\\x1b]0;PWN\\x07')")
    for command in (("user", "list"), ("user", "show", "ada")):
        answer = rollbook(*command, "--format", "table")
        assert ("PWN" in answer.out, "\x1b" in answer.out, "\x07" in answer.out) == (True, False, False)


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("create rule r as on update to course_k.auth_user do instead nothing", "rule r"),
        ("grant trigger on course_k.auth_user to public", "PUBLIC"),
        ("alter table course_k.auth_user enable row level security, force row level security", "forced row security"),
        (
            "create or replace trigger rollbook_guard_copy before insert or delete or truncate "
            "on course_k.auth_user for each statement when (false) execute function rollbook.guard_copy()",
            "guard",
        ),
    ],
)
def test_the_check_finds_a_guard_that_is_undermined(course: Db, rollbook: Rollbook, statement: str, word: str) -> None:
    assert rollbook("schema", "check").code == 0
    course.execute(statement.encode())
    answer = rollbook("schema", "check", "--json")
    assert (answer.code, any(word in row["difference"] for row in answer.data)) == (4, True), answer.out
