"""What a hostile DBA tried with the program: names that lie, a role without rights, a terminal to steer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.school import Rollbook

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


def documented_grants(role: str) -> bytes:
    """Return the GRANT lines of docs/dba.md for a role."""
    text = (Path(__file__).parents[2] / "docs" / "dba.md").read_text()
    return text.split("```sql\n", 1)[1].split("```", 1)[0].replace("monitor", role).encode()


READS = [
    "status", "replication status", "replication verify", "course list", "course show K", "user list", "user show ada",
    "candidate list", "candidate check", "authorization list", "exam list", "pearson list", "pearson report waiting",
    "user count", "enrollment list", "enrollment count", "schema current", "schema check", "version",
]  # fmt: skip


def test_a_role_with_the_documented_grants_can_look_at_everything(course: Db, rollbook: Rollbook, dsn: str) -> None:
    course.execute("drop role if exists looker")
    course.execute("create role looker login")
    course.execute(documented_grants("looker"))
    try:
        seen = {read: rollbook(*read.split(), dsn=dsn.replace("user=postgres", "user=looker")) for read in READS}
        assert {read: answer.err for read, answer in seen.items() if answer.code} == {}
        refused = rollbook("user", "update", "ada", "--name", "x", dsn=dsn.replace("user=postgres", "user=looker"))
        assert refused.code == 3
    finally:
        course.execute("drop owned by looker")
        course.execute("drop role looker")


def test_what_somebody_names_steers_no_terminal(rollbook: Rollbook, course: Db) -> None:
    del course
    refused = rollbook("authorization", "cancel", "k\x1b[31mk\x07")
    assert (refused.code, refused.err.splitlines()[0]) == (1, "error: there is no authorization k\\x1b[31mk\\x07")


def test_a_repair_stays_where_the_role_may_not_note_it(course: Db, rollbook: Rollbook, dsn: str) -> None:
    damage(course)
    course.execute("drop role if exists mender")
    course.execute("create role mender login")
    course.execute(documented_grants("mender"))
    try:
        answer = rollbook(
            "replication", "repair", "K", "--yes", "--json", dsn=dsn.replace("user=postgres", "user=mender")
        )
        assert (answer.code, answer.row["updated"], answer.row["verdict_after"]) == (0, 1, "match"), answer.err
        assert course.execute("select * from rollbook.verify()").fetchall() == []
        assert course.execute("select count(*) from rollbook.verification").fetchall() == [(0,)]
    finally:
        course.execute("drop owned by mender")
        course.execute("drop role mender")


@pytest.mark.parametrize("name", ["id:1", "username:ada", "email:ada@example.org"])
def test_a_username_cannot_pose_as_somebody_else(course: Db, rollbook: Rollbook, name: str) -> None:
    course.execute("insert into portal.auth_user (username) values (%s)", [name])
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
    course.execute("insert into portal.auth_userprofile (user_id, name) values (1, E'\\x1b]0;PWN\\x07')")
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
            "drop trigger rollbook_guard_copy on course_k.auth_user; "
            "create trigger rollbook_guard_copy before insert or delete or truncate or update of id, username, "
            "first_name, last_name, email, password, is_staff, is_active, is_superuser, last_login, date_joined "
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
