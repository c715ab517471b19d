"""`rollbook enrollment`: who is in which course, in the portal and in the copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, rows, snapshot
from tests.school import Rollbook, write_old


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
    by_day = rollbook("enrollment", "count", "--by", "day", "--csv", "--no-header").out.splitlines()
    assert [day for day in by_day if not day.endswith(",0")] == ["2012-09-02,2", "2012-09-03,1", "2012-10-03,1"]
    assert len(by_day) == 32


# --- files ------------------------------------------------------------------------------------------------------------

SEATS = "portal.student_courseenrollment"


def seats(db: Connection[Any], course: str) -> list[int]:
    """Who is in a course."""
    return sorted(user for user, where in rows(db, SEATS, "user_id", "course_id") if where == course)


def written(tmp_path: Path, content: str | bytes) -> str:
    """Write a file and return its name."""
    path = tmp_path / "seats.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_import_enrolls_and_leaves(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    file = written(
        tmp_path,
        f"\ufeffcourse_id,user,status\r\n{REMOVE},bob,\r\n{REMOVE},DAN@example.org,enrolled\r\n{REMOVE},id:101,deleted\r\n"
        f"{KEEP},username:ada,enrolled\r\nedX/later/2014,dan,deleted\r\n{REMOVE},bob@example.org,enrolled\r\n"
        f"{KEEP},eve,deleted\r\n",
    )
    answer = rollbook("enrollment", "import", file, "--json")
    assert (answer.code, answer.err) == (0, "2 created, 2 removed, 3 unchanged\n")
    assert list(answer.data[0]) == ["line", "course", "user", "outcome", "detail", "batch"]
    assert [(row["line"], row["user"], row["outcome"]) for row in answer.data] == [
        (2, "bob", "created"), (3, "DAN@example.org", "created"), (4, "id:101", "removed"),
        (5, "username:ada", "unchanged"), (6, "dan", "removed"), (7, "bob@example.org", "unchanged"),
        (8, "eve", "unchanged"),
    ]  # fmt: skip
    assert held(school, REMOVE_SCHEMA) == [[102, 103]] * 3
    noted = school.execute(
        "select command, object, outcome, user_id, course_id, before ->> 'id' from rollbook.history "
        "where batch is null or batch = %s order by batch nulls first, outcome, user_id", [answer.data[0]["batch"]]
    ).fetchall()  # fmt: skip
    assert noted == [
        ("enrollment import", "seats.csv", "imported", None, None, None),
        ("enrollment import", "bob", "created", 102, REMOVE, None),
        ("enrollment import", "dan", "created", 103, REMOVE, None),
        ("enrollment import", "ada", "removed", 101, REMOVE, "303"),
        ("enrollment import", "dan", "removed", 103, "edX/later/2014", "304"),
    ]


def test_import_tells_every_error_and_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    school.execute("insert into portal.auth_user (id, username) values (105, 'ada@example.org')")
    before = snapshot(school)
    file = written(
        tmp_path,
        f"course_id,user,status\nMITx/6.002x/2012_Fal,bob,\n{KEEP},nobody,\n{KEEP},ada@example.org,\n{KEEP},,\n"
        f",bob,\n{KEEP},bob,gone\n{REMOVE},bob,enrolled\n{REMOVE},id:102,deleted\n{KEEP},id:99999999999999999999,\n"
        f"edX/later/2014,eve,deleted\n{KEEP},bob\n",
    )
    answer = rollbook("enrollment", "import", file)
    assert (answer.code, answer.out) == (1, "")
    told = answer.err.splitlines()
    assert [line.partition(":")[0] for line in told[:10]] == [
        "line 2, course_id", "line 3, user", "line 4, user", "line 5, user", "line 6, course_id", "line 7, status",
        "line 9, status", "line 10, user", "line 11, course_id", "line 12",
    ]  # fmt: skip
    assert f"the nearest is {KEEP}" in told[0]
    assert "matches several users: id:101 (ada), id:105 (ada@example.org)" in told[2]
    assert snapshot(school) == before
    answer = rollbook("enrollment", "import", file, "--on-error", "skip", "--rejects", str(tmp_path / "wrong.csv"))
    assert answer.code == 5
    assert seats(school, REMOVE) == [101, 102]
    assert (tmp_path / "wrong.csv").read_text().count("\n") == 11


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        ("", 2, "seats.csv is empty"),
        ("course,user\n", 2, "the nearest is course_id"),
        ("course_id;user\n", 2, "--delimiter ';'"),
        ("user,status\n", 2, "the column course_id is missing"),
        (b"course_id,user\nx,caf\xe9\n", 1, "line 2"),
        ("course_id,user\n", 0, "no rows"),
    ],
)
def test_import_judges_the_file_first(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, content: str | bytes, code: int, word: str
) -> None:
    before = snapshot(school)
    answer = rollbook("enrollment", "import", written(tmp_path, content))
    assert (answer.code, word in answer.err) == (code, True), answer.err
    assert snapshot(school) == before


def test_what_is_exported_can_be_imported(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    school.execute("insert into portal.auth_user (id, username) values (106, 'bob@example.org')")
    write_old(school, "insert into portal.auth_user (id, username) values (105, 'id:101')")
    rollbook("enrollment", "add", REMOVE, "username:id:101", "username:bob@example.org")
    out = tmp_path / "out.csv"
    assert rollbook("enrollment", "export", "--course", REMOVE, "-o", str(out)).code == 0
    assert out.read_text() == (
        f"course_id,user,status\n{REMOVE},ada,enrolled\n{REMOVE},username:bob@example.org,enrolled\n"
        f"{REMOVE},username:id:101,enrolled\n"
    )
    school.execute("delete from portal.student_courseenrollment where course_id = %s", [REMOVE])
    assert rollbook("enrollment", "import", str(out)).code == 0
    assert seats(school, REMOVE) == [101, 105, 106]
    assert len(rollbook("enrollment", "export", "--json").data) == 6
    assert rollbook("enrollment", "import", "--template", dsn=None).out == "course_id,user,status\n"


@pytest.mark.slow
def test_a_hundred_thousand_enrollments(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    school.execute(f"select setval(pg_get_serial_sequence('{SEATS}', 'id'), 1000)")
    school.execute(
        "insert into portal.auth_user (id, username) select n + 1000, 'user' || n from generate_series(1, 50000) as n"
    )
    lines = [f"{course},user{n}" for course in (KEEP, REMOVE) for n in range(1, 50001)]
    file = written(tmp_path, "\n".join(["course_id,user", *lines, f"{KEEP},nobody"]) + "\n")
    answer = rollbook("enrollment", "import", file)
    assert (answer.code, answer.err.splitlines()[0]) == (1, "line 100002, user: 'nobody': there is no such user")
    assert len(rows(school, SEATS, "id")) == 4
    answer = rollbook("enrollment", "import", file, "--on-error", "skip")
    assert (answer.code, "100000 created, 1 rejected" in answer.err) == (5, True)
    for schema in (KEEP_SCHEMA, REMOVE_SCHEMA):
        assert [len(ids) >= 50000 for ids in held(school, schema)] == [True, False, True]


# --- roster and move --------------------------------------------------------------------------------------------------


def test_a_roster_is_the_desired_state(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    file = written(tmp_path, "user\nada\nDAN@example.org\nid:103\n")
    answer = rollbook("enrollment", "roster", KEEP, file, "--max-removals", "1", "--yes", "--json")
    assert answer.code == 0
    assert answer.err == f"plan for {KEEP}: add 1, remove 1, keep 1; not in the file: bob\n"
    assert [(row["course"], row["username"], row["outcome"]) for row in answer.data] == [
        (KEEP, "ada", "unchanged"), (KEEP, "bob", "removed"), (KEEP, "dan", "created"),
    ]  # fmt: skip
    assert list(answer.data[0]) == ["course", "username", "email", "outcome", "batch", "remains"]
    assert (seats(school, KEEP), held(school, KEEP_SCHEMA)[2]) == ([101, 103], [101, 103])
    before = snapshot(school)
    answer = rollbook("enrollment", "roster", KEEP, file, "--json")  # nothing to do: nothing to confirm
    assert (answer.code, answer.column("outcome")) == (0, ["unchanged"] * 2)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 6, "not confirmed"),
        (("--max-removals", "0", "--yes"), 1, "would remove 1 of 2 users"),
        (("--max-removals", "49%", "--yes"), 1, "would remove 1 of 2 users"),
        (("--max-removals", "50%", "-n"), 0, "plan for"),
        (("--max-removals", "many"), 2, "--max-removals many is not a number"),
        (("--max-removals", "-1"), 2, "not a number"),
        (("--max-removals", "1.5"), 2, "not a number"),
    ],
)
def test_a_roster_asks_and_is_capped(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    before = snapshot(school)
    options = options or ("--max-removals", "1")
    answer = rollbook("enrollment", "roster", KEEP, written(tmp_path, "user\nada\ndan\n"), *options)
    assert (answer.code, words in answer.err) == (code, True), answer.err
    assert code != 6 or "add 1, remove 1, keep 1; not in the file: bob" in answer.err
    assert ("would remove" in answer.out) == (code == 0)
    assert snapshot(school) == before


def test_by_default_a_tenth_may_leave(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    school.execute("insert into portal.auth_user (id, username) select n, 'u' || n from generate_series(201, 220) as n")
    school.execute(f"insert into {SEATS} (user_id, course_id) select n, %s from generate_series(201, 218) as n", [KEEP])
    stay = "\n".join(["user", *(f"u{n}" for n in range(201, 219))])
    assert rollbook("enrollment", "roster", KEEP, written(tmp_path, stay), "-y").code == 0
    assert seats(school, KEEP) == list(range(201, 219))
    assert rollbook("enrollment", "roster", KEEP, written(tmp_path, stay[:-10]), "-y").code == 1


def test_an_empty_or_wrong_roster_empties_no_course(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    before = snapshot(school)
    for content, course, code, word in (
        ("user\n", KEEP, 1, "would remove 2 of 2 users"),
        ("user\nada\nnobody\n", KEEP, 1, "line 3, user: 'nobody': there is no such user"),
        ("users\n", KEEP, 2, "the nearest is user"),
        ("user\nada\n", "nowhere", 1, "there is no course nowhere"),
    ):
        answer = rollbook("enrollment", "roster", course, written(tmp_path, content), "--yes")
        assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_whom_a_wrong_row_may_mean_is_not_removed(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    school.execute("insert into portal.auth_user (id, username) values (105, 'bob@example.org')")
    file = written(tmp_path, "user\nada\nbob@example.org\nnobody\n")
    answer = rollbook("enrollment", "roster", KEEP, file, "--on-error", "skip", "--max-removals", "100%", "-y")
    assert (answer.code, seats(school, KEEP)) == (5, [101, 102])


def test_a_roster_can_be_confirmed_and_sees_who_came_meanwhile(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the plan and the answer somebody else enrolls: that stays."""
    from rollbook.core import render

    def answered(*_: Any) -> None:
        school.execute(f"insert into {SEATS} (user_id, course_id) values (104, %s)", [KEEP])

    monkeypatch.setattr(render, "confirm", answered)
    file = written(tmp_path, "user\nada\ndan\n")
    assert rollbook("enrollment", "roster", KEEP, file, "--max-removals", "1").code == 0
    assert seats(school, KEEP) == [101, 103, 104]


def test_move_keeps_the_enrollment(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("enrollment", "move", "--from", KEEP, "--to", REMOVE, "bob", "ada", "--json")
    assert [(row["course"], row["username"], row["outcome"]) for row in answer.data] == [
        (REMOVE, "bob", "changed"), (KEEP, "ada", "removed"),
    ]  # fmt: skip
    assert (seats(school, KEEP), seats(school, REMOVE)) == ([], [101, 102])
    kept = school.execute(f"select id, created::text from {SEATS} where user_id = 102").fetchone()
    assert kept == (302, "2012-09-02 23:59:00+00")
    assert (held(school, KEEP_SCHEMA)[2], held(school, REMOVE_SCHEMA)[2]) == ([], [101, 102])
    before = snapshot(school)
    again = rollbook("enrollment", "move", "--from", KEEP, "--to", REMOVE, "bob", "ada", "--json")
    assert (again.code, again.column("outcome")) == (0, ["unchanged"] * 2)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--from", KEEP, "--to", KEEP, "bob"), 2, "the same course"),
        (("--from", KEEP, "--to", "nowhere", "bob"), 1, "there is no course nowhere"),
        (("--from", "nowhere", "--to", KEEP, "bob"), 1, "there is no course nowhere"),
        (("--from", KEEP, "--to", REMOVE, "bob", "dan"), 1, f"dan is not enrolled in {KEEP}"),
        (("--from", KEEP, "--to", REMOVE, "bob", "nobody"), 1, "there is no user nobody"),
        (("--from", KEEP, "--to", REMOVE, "bob", "-n"), 0, ""),
    ],
)
def test_a_move_is_whole_or_not_at_all(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = snapshot(school)
    answer = rollbook("enrollment", "move", *arguments)
    assert (answer.code, word in answer.err) == (code, True), answer.err
    assert snapshot(school) == before


def test_a_move_from_where_one_waits_and_past_strangers(rollbook: Rollbook, school: Connection[Any]) -> None:
    move = ("enrollment", "move", "--from", "edX/later/2014", "--to", KEEP, "dan", "eve", "--on-error", "skip")
    assert rollbook(*move).code == 5
    assert seats(school, KEEP) == [101, 102, 103]


def test_a_course_in_the_portal_has_it_at_once(rollbook: Rollbook, school: Connection[Any]) -> None:
    assert rollbook("enrollment", "add", REMOVE, "bob", "--wait", "0.001").code == 0
    assert held(school, REMOVE_SCHEMA)[2] == [101, 102]
    assert rollbook("enrollment", "remove", REMOVE, "bob", "--wait", "0").code == 2
