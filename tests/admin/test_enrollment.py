"""`rollbook enrollment`: who is in which course, in the portal and in the copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.admin.conftest import Rollbook
from tests.admin.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, rows, snapshot


def held(db: Connection[Any], schema: str) -> list[list[int]]:
    """Whose users, profiles and enrollments a course holds."""
    return [
        sorted(row[0] for row in rows(db, f"{schema}.{table}", "id" if table == "auth_user" else "user_id"))
        for table in COPIED
    ]


def test_add_copies_users_at_once_and_a_second_time_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("enrollment", "add", REMOVE, "bob", "id:103", "ada", "bob", "--json")
    assert [list(row.values()) for row in answer.data] == [
        [REMOVE, "bob", "Bob@Example.org", "created"],
        [REMOVE, "dan", "dan@example.org", "created"],
        [REMOVE, "ada", "ada@example.org", "unchanged"],
    ]
    assert list(answer.data[0]) == ["course", "username", "email", "outcome"]
    assert held(school, REMOVE_SCHEMA) == [[101, 102, 103]] * 3
    before = snapshot(school)
    assert rollbook("enrollment", "add", REMOVE, "bob", "dan", "--json").column("outcome") == ["unchanged"] * 2
    assert snapshot(school) == before


@pytest.mark.parametrize(("course", "schema", "left"), [(KEEP, KEEP_SCHEMA, [101, 102]), (REMOVE, REMOVE_SCHEMA, [])])
def test_remove_does_as_the_course_has_it(
    rollbook: Rollbook, school: Connection[Any], course: str, schema: str, left: list[int]
) -> None:
    answer = rollbook("enrollment", "remove", course, "ada", "eve", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["removed", "unchanged"])
    assert (101, course) not in rows(school, "portal.student_courseenrollment", "user_id", "course_id")
    assert held(school, schema) == [left, left, [user for user in left if user != 101]]
    before = snapshot(school)
    assert rollbook("enrollment", "remove", course, "ada", "--json").column("outcome") == ["unchanged"]
    assert snapshot(school) == before


def test_users_come_from_stdin_and_from_a_file(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes("\ufeffbob\r\n\r\n  eve \r\n".encode())
    assert rollbook("enrollment", "add", REMOVE, f"@{tmp_path}/users.txt").code == 0
    assert rollbook("enrollment", "add", REMOVE, "-", stdin=b"dan\n\n").code == 0
    assert held(school, REMOVE_SCHEMA)[2] == [101, 102, 103, 104]
    assert rollbook("enrollment", "remove", REMOVE, "-", stdin="\ufeffdan\n".encode()).code == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "word"),
    [
        ((KEEP, "dan", "nobody"), b"", 1, "there is no user nobody"),
        (("MITx/6.002x/2012_Fal", "dan"), b"", 1, f"the nearest is {KEEP}"),
        (("edX/later/2014", "dan"), b"", 1, "there is no course edX/later/2014"),
        ((KEEP, "-"), b"", 2, "no users named"),
        ((KEEP, "-"), b"caf\xe9\n", 2, "cannot read -"),
        ((KEEP, "-"), b"dan\na\x00b\n", 1, ""),
        ((KEEP, "@/nonexistent"), b"", 2, "cannot read @/nonexistent"),
        ((KEEP,), b"", 2, "USER"),
    ],
)
@pytest.mark.parametrize("verb", ["add", "remove"])
def test_what_cannot_be_done_whole_is_not_done(
    rollbook: Rollbook, school: Connection[Any], verb: str, arguments: tuple[str, ...],
    stdin: bytes, code: int, word: str,
) -> None:  # fmt: skip
    before = snapshot(school)
    answer = rollbook("enrollment", verb, *arguments, stdin=stdin)
    assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_list_tells_what_is_replicated(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert [list(row.values()) for row in rollbook("enrollment", "list", "--course", KEEP, "--json").data] == [
        [KEEP, "ada", "ada@example.org", "2012-09-02T00:00:00Z", True],
        [KEEP, "bob", "Bob@Example.org", "2012-09-02T23:59:00Z", True],
    ]
    assert rollbook("enrollment", "list", "--user", "nobody").code == 1


def test_an_enrollment_that_waits_for_its_course_is_listed_as_not_replicated(rollbook: Rollbook, seen: str) -> None:
    del seen
    answer = rollbook("enrollment", "list", "--course", "edX/later/2014", "--json")
    assert (answer.code, answer.row["replicated"]) == (0, None)


def test_enrollments_are_counted(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert rollbook("enrollment", "count", "--json").row == {"enrollments": 4}
    assert rollbook("enrollment", "count", "--course", KEEP, "--json").row == {"enrollments": 2}
    by_course = rollbook("enrollment", "count", "--by", "course", "--json").data
    assert [tuple(row.values()) for row in by_course] == [(KEEP, 2), ("edX/later/2014", 1), (REMOVE, 1)]
    by_day = rollbook("enrollment", "count", "--by", "day", "--csv", "--no-header").out
    assert by_day == "2012-09-02,2\n2012-09-03,1\n2012-10-03,1\n"
