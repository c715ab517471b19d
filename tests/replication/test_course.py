"""`rollbook course`: made, shown, dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, rows, snapshot
from tests.school import Rollbook

LATER, LATER_SCHEMA = "edX/later/2014", "course_edx_later_2014"


def schemas(db: Connection[Any]) -> set[str]:
    """The schemas of courses that stand."""
    return {row[0] for row in db.execute("select nspname from pg_namespace where nspname like 'course\\_%'")}


@pytest.mark.parametrize("on_leave", ["keep", "remove"])
def test_create_makes_a_schema_filled_with_those_who_wait(
    rollbook: Rollbook, school: Connection[Any], on_leave: str
) -> None:
    answer = rollbook("course", "create", LATER, "--on-leave", on_leave, "--json")
    assert answer.row == {
        "course": LATER, "schema_name": LATER_SCHEMA, "on_leave": on_leave, "enrolled": 1, "copied_users": 1,
        "without": [], "outcome": "created",
    }  # fmt: skip
    assert (LATER, on_leave) in rows(school, "rollbook.course", "course_id", "on_leave")
    assert [rows(school, f"{LATER_SCHEMA}.{table}", "id") for table in COPIED] == [[(103,)], [(203,)], [(304,)]]


def test_create_twice_is_refused_unless_content_with_the_one_there(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    refused = rollbook("course", "create", KEEP)
    assert (refused.code, refused.out, f"course {KEEP} already exists" in refused.err) == (1, "", True)
    content = rollbook("course", "create", KEEP, "--if-not-exists", "--json")
    assert (content.code, content.row["outcome"]) == (0, "unchanged")
    assert snapshot(school) == before


@pytest.mark.parametrize(("course", "code"), [("default", 1), ("", 1), ("  ", 1), ("x" * 256, 1)])
def test_a_bad_course_id_is_refused(rollbook: Rollbook, school: Connection[Any], course: str, code: int) -> None:
    before = snapshot(school)
    answer = rollbook("course", "create", course)
    assert (answer.code, answer.out) == (code, "")
    assert [line.split(":")[0] for line in answer.err.splitlines()] == ["error", "fix"]
    assert (snapshot(school), schemas(school)) == (before, {KEEP_SCHEMA, REMOVE_SCHEMA})


def test_create_with_a_policy_off_the_list_is_usage(rollbook: Rollbook, empty: str) -> None:
    del empty
    assert rollbook("course", "create", "x", "--on-leave", "forget").code == 2


def test_list_counts_enrolled_and_copied(rollbook: Rollbook, seen: str) -> None:
    del seen
    found = rollbook("course", "list", "--json").data
    assert [list(row.values())[:7] for row in found] == [
        [KEEP, KEEP_SCHEMA, "ok", "keep", 2, 2, None], [REMOVE, REMOVE_SCHEMA, "ok", "remove", 1, 1, None],
    ]  # fmt: skip


def test_show_counts_and_names_what_the_course_added(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f"alter table {KEEP_SCHEMA}.auth_user add column note text")
    school.execute(f"create table {KEEP_SCHEMA}.grade (id int)")
    school.execute(f"create index own on {KEEP_SCHEMA}.auth_user (note)")
    shown = rollbook("course", "show", KEEP, "--json").data
    assert shown["local_objects"] == ["column auth_user.note", "index own on auth_user", "table grade"]
    assert (shown["copied_users"], shown["copied_profiles"], shown["copied_enrollments"]) == (2, 2, 2)
    assert {table: len(columns) for table, columns in shown["replicated"].items()} == dict(
        zip(COPIED, (11, 12, 4), strict=True)
    )
    assert rollbook("course", "show", KEEP[:-1]).err.splitlines()[1] == f"why:   the nearest is {KEEP}"


def test_delete_drops_the_schema_and_keeps_the_enrollments(rollbook: Rollbook, school: Connection[Any]) -> None:
    enrollments = rows(school, "portal.student_courseenrollment", "id", "course_id")
    answer = rollbook("course", "delete", KEEP, "--confirm", KEEP, "--json")
    left = [each["place"] for each in answer.row["remains"]]
    assert (left, {name: value for name, value in answer.row.items() if name != "remains"}) == (["enrollments"], {
        "course": KEEP, "schema_name": KEEP_SCHEMA, "enrolled": 2, "copied_users": 2, "outcome": "removed",
    })  # fmt: skip
    assert schemas(school) == {REMOVE_SCHEMA}
    assert rows(school, "rollbook.course", "course_id") == [(REMOVE,)]
    assert rows(school, "portal.student_courseenrollment", "id", "course_id") == enrollments
    again = rollbook("course", "delete", KEEP, "--confirm", KEEP)
    assert (again.code, f"there is no course {KEEP}" in again.err) == (1, True)


def test_delete_lists_what_holds_no_data_and_goes_with_the_course(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f"create unique index own on {KEEP_SCHEMA}.auth_user (email)")
    school.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint short check (length(email) < 99)")
    own = "constraint short on auth_user, index own on auth_user"
    unconfirmed = rollbook("course", "delete", KEEP)
    assert (unconfirmed.code, own in unconfirmed.err) == (6, True)
    planned = rollbook("course", "delete", KEEP, "-n")
    assert (planned.code, f"what the course added goes with it: {own}" in planned.err) == (0, True)
    assert rollbook("course", "delete", KEEP, "--confirm", KEEP).code == 0


def test_delete_needs_the_courses_own_name(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    for confirm in ((), ("--confirm", REMOVE), ("--confirm", "")):
        answer = rollbook("course", "delete", KEEP, *confirm)
        assert (answer.code, answer.out, f"--confirm '{KEEP}'" in answer.err) == (6, "", True)
    assert snapshot(school) == before


def test_delete_refuses_while_the_course_has_data_of_its_own(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f"create table {KEEP_SCHEMA}.grade as select 1 as id")
    before = snapshot(school)
    for dry in ((), ("-n",)):
        answer = rollbook("course", "delete", KEEP, "--confirm", KEEP, *dry)
        assert (answer.code, answer.out) == (1, "")
        assert all(word in answer.err for word in ("table grade", "--drop-local"))
    assert snapshot(school) == before
    assert rollbook("course", "delete", KEEP, "--confirm", KEEP, "--drop-local").code == 0
    assert schemas(school) == {REMOVE_SCHEMA}


def test_a_team_is_granted_its_course_and_loses_it_again(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("do $$ begin create role circuits_team; exception when duplicate_object then null; end $$")

    def rights() -> list[tuple[str, ...]]:
        return school.execute(
            "select n.nspname || ' ' || a.privilege_type from pg_namespace as n, aclexplode(n.nspacl) as a "
            "where a.grantee = 'circuits_team'::regrole order by 1"
        ).fetchall()

    planned = rollbook("course", "grant", KEEP, "circuits_team", "-n", "--json").row
    assert (planned["outcome"], rights()) == ("would grant", [])
    granted = rollbook("course", "grant", KEEP, "circuits_team", "--local-columns", "--json")
    assert (granted.code, granted.row["outcome"], rights()) == (0, "granted", [(f"{KEEP_SCHEMA} USAGE",)])
    assert rollbook("course", "grant", KEEP, "circuits_team", "--local-columns", "--json").row["outcome"] == "unchanged"
    assert rollbook("course", "revoke", KEEP, "circuits_team", "--json").row["outcome"] == "revoked"
    assert rights() == []
    done = rollbook("history", "list", "--course", KEEP, "--json").column("outcome")
    assert done == ["revoked", "granted"]
    for arguments in (("no/such", "circuits_team"), (KEEP, "no_such_role"), (KEEP, "rollbook_owner")):
        assert rollbook("course", "grant", *arguments).code == 1


def test_update_on_leave_asks_before_copies_go(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("delete from portal.student_courseenrollment where user_id = 102")
    change = ("course", "update", KEEP, "--on-leave", "remove")
    before = snapshot(school)
    unconfirmed = rollbook(*change)
    assert (unconfirmed.code, "the copies of 1 user who left" in unconfirmed.err) == (6, True)
    planned = rollbook(*change, "-n", "--json")
    assert (planned.code, planned.row["rows"], planned.row["on_leave"], snapshot(school)) == (0, 2, "remove", before)
    assert rollbook(*change, "--yes", "--json").row == {
        "course": KEEP, "on_leave": "remove", "on_fault": "refuse", "without": [], "rows": 2, "outcome": "updated",
    }  # fmt: skip
    assert rows(school, f"{KEEP_SCHEMA}.auth_user", "id") == [(101,)]
    again = rollbook(*change, "--json")  # nobody left who could go: nothing to ask
    assert (again.code, again.row["outcome"]) == (0, "unchanged")
    back = rollbook("course", "update", "--all", "--on-leave", "keep", "--json")
    assert back.column("on_leave") == ["keep", "keep"]
    assert rollbook("replication", "verify").code == 0


BUNDLE = {
    "manifest.csv": "propertyName,value\noneroster.version,1.1\nfile.classes,absent\nfile.courses,absent\n"
    "file.orgs,absent\nfile.academicSessions,absent\nfile.enrollments,delta\nfile.users,delta\n"
    "source.systemName,SIS\n",
    "users.csv": "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,givenName,familyName,email"
    "\nu1,,,true,o1,student,zoe,Zoe,Z,zoe@example.org\n",
    "enrollments.csv": "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role\n"
    f"e1,,,{KEEP},o1,u1,student\ne2,,,{REMOVE},o1,u1,student\n",
}


def test_a_closed_course_refuses_every_command_that_enrolls(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    planned = rollbook("course", "close", KEEP, "-n", "--json").row
    assert (planned["outcome"], rows(school, "rollbook.course", "closed_at")) == ("would close", [(None,), (None,)])
    closed = rollbook("course", "close", KEEP, "--reason", "term is over", "--json").row
    assert (closed["state"], closed["closed_by"], closed["outcome"]) == ("ok", "postgres", "closed")
    assert rollbook("course", "close", KEEP, "--json").row["outcome"] == "unchanged"
    listed = {row["course"]: row for row in rollbook("course", "list", "--json").data}
    assert (listed[KEEP]["state"], bool(listed[KEEP]["closed_at"]), listed[REMOVE]["closed_at"]) == ("ok", True, None)
    status = rollbook("status", "--json")
    assert (status.code, status.data["portal"]["closed_courses"]) == (0, 1)
    assert "1 closed course" in rollbook("status", "--format", "table").out
    file = tmp_path / "enrollments.csv"
    file.write_text(f"course_id,user,status\n{KEEP},dan,\n{KEEP},ada,\n{KEEP},bob,deleted\n{REMOVE},dan,\n")
    before = snapshot(school)
    for arguments in (
        ("enrollment", "add", KEEP, "dan"),
        ("enrollment", "move", "dan", "--from", LATER, "--to", KEEP),
        ("enrollment", "import", str(file)),
        ("user", "create", "zoe", "--email", "zoe@example.org", "--course", KEEP),
        ("user", "merge", "bob", "eve", "--yes"),  # the enrollment would get another user
    ):
        refused = rollbook(*arguments)
        assert (refused.code, "is closed" in refused.err) == (1, True), (arguments, refused.err)
    assert snapshot(school) == before
    skipped = rollbook("enrollment", "import", str(file), "--on-error", "skip", "--json")
    assert (skipped.code, skipped.column("outcome")) == (
        5, ["rejected", "unchanged", "removed", "created"],
    )  # fmt: skip
    (tmp_path / "bundle").mkdir()
    for name, text in BUNDLE.items():
        (tmp_path / "bundle" / name).write_text(text)
    bundle = ("user", "import", "--oneroster", str(tmp_path / "bundle"))
    refused = rollbook(*bundle)
    assert (refused.code, "is closed: it takes no new enrollments" in refused.err) == (1, True)
    assert rollbook(*bundle, "--on-error", "skip").code == 5
    assert (KEEP,) not in school.execute(
        "select course_id from portal.student_courseenrollment as e inner join portal.auth_user as u "
        "on u.id = e.user_id where u.username = 'zoe'"
    ).fetchall()
    allowed = rollbook("allowed", "add", KEEP, "bob@example.org", "--auto-enroll", "--json").row
    assert allowed["detail"] == "user exists, enrollment allowed, the course is closed"
    opened = rollbook("course", "open", KEEP, "--json").row
    assert (opened["closed_at"], opened["outcome"]) == (None, "opened")
    assert rollbook("enrollment", "add", KEEP, "dan").code == 0
    assert rollbook("history", "list", "--course", KEEP, "--command", "course", "--json").column("outcome") == [
        "opened", "closed",
    ]  # fmt: skip
    assert rollbook("replication", "verify").code == 0


def test_rename_keeps_schema_and_history(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("course", "update", KEEP, "--on-fault", "pause")
    planned = rollbook("course", "rename", KEEP, "new/1", "-n", "--json").row
    assert (planned["outcome"], rows(school, "rollbook.course", "course_id")) == ("would rename", [(KEEP,), (REMOVE,)])
    assert rollbook("course", "rename", KEEP, "new/1", "--json").row == {
        "course": "new/1", "former_id": KEEP, "schema_name": KEEP_SCHEMA, "server": None, "enrolled": 2,
        "outcome": "renamed",
    }  # fmt: skip
    late = rollbook("enrollment", "add", "new/1", "dan")
    assert late.code == 0
    assert rollbook("course", "rename", "new/1", REMOVE).code == 1
    done = rollbook("history", "list", "--course", "new/1", "--command", "course", "--json").column("outcome")
    assert done == ["renamed", "renamed", "updated"]
    assert (rollbook("replication", "verify").code, rollbook("course", "show", KEEP).code) == (0, 1)
