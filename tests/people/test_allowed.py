"""`rollbook allowed`: addresses that may enroll in a course.

The rows are those of rollbook.allowed_status.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, rows, snapshot
from tests.school import Rollbook

TABLE = "portal.student_courseenrollmentallowed"


def seats(db: Connection[Any]) -> list[tuple[Any, ...]]:
    return rows(db, "portal.student_courseenrollment", "user_id", "course_id")


def test_add_says_what_becomes_of_each_address(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("allowed", "add", REMOVE, "new@Example.ORG", "ADA@example.org", "bob@example.org", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["created"] * 3)
    assert list(answer.data[0]) == ["course", "email", "outcome", "detail"]
    assert answer.column("detail") == [
        "user does not exist, enrollment allowed, pending with auto enrollment off", "already enrolled",
        "user exists, enrollment allowed",
    ]  # fmt: skip
    assert rows(school, TABLE, "email", "course_id", "auto_enroll") == [
        ("ADA@example.org", REMOVE, False), ("bob@example.org", REMOVE, False), ("new@example.org", REMOVE, False),
    ]  # fmt: skip
    before = snapshot(school)
    answer = rollbook("allowed", "add", REMOVE, "NEW@example.org", "BOB@example.org", "bob@example.org", "--json")
    assert answer.column("outcome") == ["unchanged"] * 2
    assert answer.column("detail") == [
        "user does not exist, enrollment already allowed, pending with auto enrollment off",
        "user exists, enrollment already allowed",
    ]
    assert snapshot(school) == before


def test_a_repeat_turns_auto_enroll_and_enrolls_who_is_active(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("allowed", "add", KEEP, "new@example.org", "dan@example.org")
    rollbook("allowed", "add", REMOVE, "bob@example.org")
    on = rollbook("allowed", "add", KEEP, "New@example.org", "dan@example.org", "--auto-enroll", "--json")
    assert (on.column("outcome"), on.column("detail")) == (["changed"] * 2, [
        "user does not exist, enrollment already allowed, pending with auto enrollment on",
        "user exists, enrollment already allowed, pending with auto enrollment on",
    ])  # fmt: skip
    bob = rollbook("allowed", "add", REMOVE, "bob@example.org", "--auto-enroll", "--json").row
    assert (bob["outcome"], bob["detail"]) == ("changed", "added")
    assert (102, REMOVE) in seats(school)
    assert (103, KEEP) not in seats(school)  # not before the account is active
    off = rollbook("allowed", "add", KEEP, "new@example.org", "--no-auto-enroll", "--json").row
    assert off["detail"].endswith("with auto enrollment off")
    assert rollbook("allowed", "add", KEEP, "new@example.org", "--json").row["outcome"] == "unchanged"


def test_activation_enrolls_whoever_was_allowed_with_auto_enroll(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("allowed", "add", KEEP, "DAN@example.org", "--auto-enroll")
    key = "k" * 32
    school.execute(
        "insert into portal.auth_registration (user_id, activation_key) values (103, %s) "
        "on conflict (user_id) do update set activation_key = excluded.activation_key",
        [key],
    )
    school.execute("select rollbook.activate_registration(%s)", [key])
    assert (103, KEEP) in seats(school)
    assert ("dan",) in rows(school, f"{KEEP_SCHEMA}.auth_user", "username")
    found = rollbook("allowed", "list", "--json").row
    assert (found["user_exists"], found["enrolled"], found["auto_enroll"]) == (True, True, True)


def test_remove_lets_the_enrollment_stay(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("allowed", "add", KEEP, "ada@example.org", "new@example.org")
    answer = rollbook("allowed", "remove", KEEP, "ADA@example.org", "eve@example.org", "--json")
    assert [(row["outcome"], row["detail"]) for row in answer.data] == [
        ("removed", "removed from pending enrollment list"), ("unchanged", "was not allowed"),
    ]  # fmt: skip
    assert (rows(school, TABLE, "email"), (101, KEEP) in seats(school)) == ([("new@example.org",)], True)


def test_list_and_its_filters(rollbook: Rollbook, school: Connection[Any]) -> None:
    del school
    rollbook("allowed", "add", KEEP, "ada@example.org", "new@example.org")
    rollbook("allowed", "add", REMOVE, "bob@example.org")
    found = rollbook("allowed", "list", "--json").data
    assert [(row["course"], row["email"], row["user_exists"], row["enrolled"]) for row in found] == [
        (KEEP, "ada@example.org", True, True), (KEEP, "new@example.org", False, False),
        (REMOVE, "bob@example.org", True, False),
    ]  # fmt: skip
    assert list(found[0]) == ["course", "email", "auto_enroll", "user_exists", "enrolled", "created"]
    assert rollbook("allowed", "list", "--course", REMOVE, "--json").column("email") == ["bob@example.org"]
    assert rollbook("allowed", "list", "--without-account", "--json").column("email") == ["new@example.org"]
    assert rollbook("allowed", "list", "--match", "ADA", "--limit", "1", "--json").column("email") == [
        "ada@example.org"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", KEEP, "new@example.org", "nowhere"), 1, "'nowhere' is not an e-mail address"),
        (("add", "MITx/6.002x/2012_Fal", "new@example.org"), 1, f"the nearest is {KEEP}"),
        (("add", KEEP), 2, "EMAIL"),
        (("add", KEEP, "@/nonexistent"), 2, "cannot read"),
        (("remove", "nowhere", "new@example.org"), 1, "there is no course nowhere"),
    ],
)
def test_what_is_refused_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = snapshot(school)
    answer = rollbook("allowed", *arguments)
    assert (answer.code, answer.out, words in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_skip_leaves_out_what_is_no_address(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook(
        "allowed", "add", KEEP, "nowhere", "new@example.org", "--on-error", "skip", "--csv", "--no-header"
    )
    assert (answer.code, [row[1:3] for row in answer.cells()]) == (
        5, [["new@example.org", "created"], ["nowhere", "rejected"]],
    )  # fmt: skip
    assert rows(school, TABLE, "email") == [("new@example.org",)]


def test_a_dry_run_leaves_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("allowed", "add", KEEP, "old@example.org")
    before = snapshot(school)
    assert rollbook("allowed", "add", KEEP, "new@example.org", "-n", "--json").row["outcome"] == "would create"
    assert rollbook("allowed", "remove", KEEP, "old@example.org", "-n", "--json").row["outcome"] == "would remove"
    assert snapshot(school) == before


def test_files_go_in_and_out(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text(
        f"course_id,email,auto_enroll\n{KEEP},New@example.org,true\n{REMOVE},bob@example.org,yes\n{KEEP},x@example.org,\n"
    )
    answer = rollbook("allowed", "import", str(file), "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["created"] * 3)
    assert answer.data[1]["detail"] == "added"
    out = tmp_path / "out.csv"
    assert rollbook("allowed", "export", "-o", str(out)).code == 0
    assert out.read_text() == (
        f"course_id,email,auto_enroll\n{KEEP},New@example.org,true\n{KEEP},x@example.org,false\n"
        f"{REMOVE},bob@example.org,true\n"
    )
    before = rows(school, TABLE, "email", "course_id", "auto_enroll")
    again = rollbook("allowed", "import", str(out), "--json")
    assert (again.code, set(again.column("outcome"))) == (0, {"unchanged"})
    school.execute(f"delete from {TABLE}")
    rollbook("allowed", "import", str(out))
    assert rows(school, TABLE, "email", "course_id", "auto_enroll") == before


def test_wrong_rows_are_told(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    before = snapshot(school)
    file = tmp_path / "in.csv"
    file.write_text(
        f"course_id,email,auto_enroll\nMITx/6.002x/2012_Fal,a@example.org,\n{KEEP},nowhere,\n{KEEP},,\n"
        f"{KEEP},b@example.org,perhaps\n{KEEP},c@example.org,\n{KEEP},C@EXAMPLE.org,\n,d@example.org,\n"
    )
    answer = rollbook("allowed", "import", str(file))
    assert (answer.code, answer.out) == (1, "")
    lines = answer.err.splitlines()
    assert [line.partition(":")[0] for line in lines[:6]] == [
        "line 2, course_id", "line 3, email", "line 4, email", "line 5, auto_enroll", "line 7, email",
        "line 8, course_id",
    ]  # fmt: skip
    assert f"the nearest is {KEEP}" in lines[0]
    assert snapshot(school) == before
