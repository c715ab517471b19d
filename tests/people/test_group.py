"""`rollbook group`: named sets of users, and what is refused."""

from __future__ import annotations

import json
import os
import pty
import threading
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, rows, snapshot
from tests.school import Rollbook

GROUPS = "portal.student_usertestgroup"
DEFAULTS = ["email_future_courses", "email_helpers", "mitx_unenroll", "6002x_unenroll"]


def members(db: Connection[Any]) -> list[tuple[str, str]]:
    """Who is in which group."""
    return db.execute(
        """select g.name, u.username from portal.student_usertestgroup_users m
        join portal.student_usertestgroup g on g.id = m.usertestgroup_id join portal.auth_user u on u.id = m.user_id
        order by g.id, u.id"""
    ).fetchall()


def history(db: Connection[Any]) -> list[tuple[Any, ...]]:
    """What was noted: command object outcome user_id reason."""
    return rows(db, "rollbook.history", "id", "command", "object", "outcome", "user_id", "reason")


@pytest.fixture
def grouped(school: Connection[Any]) -> Connection[Any]:
    """The platform with two groups: testers (ada, bob), and helpers without members."""
    school.execute("insert into portal.student_usertestgroup (id, name, description) overriding system value values "
                   "(1, 'testers', 'See pages first'), (2, 'helpers', '')")  # fmt: skip
    school.execute(
        "select setval(pg_get_serial_sequence(rollbook.portal_table('student_usertestgroup')::text, 'id'), 2)"
    )
    school.execute(
        "insert into portal.student_usertestgroup_users (usertestgroup_id, user_id) values (1, 101), (1, 102)"
    )
    return school


# --- create, list, show, delete ---------------------------------------------------------------------------------------


def test_create_makes_a_group_and_notes_it(rollbook: Rollbook, db: Connection[Any]) -> None:
    answer = rollbook("group", "create", "testers", "--description", "See pages first", "--reason", "asked", "--json")
    row = answer.row
    assert (answer.code, list(row)) == (0, ["id", "name", "members", "description", "outcome"])
    assert (row["name"], row["members"], row["description"], row["outcome"]) == (
        "testers", 0, "See pages first", "created",
    )  # fmt: skip
    assert rows(db, GROUPS, "id", "name", "description") == [(row["id"], "testers", "See pages first")]
    assert [entry[1:] for entry in history(db)] == [("group create", "testers", "created", None, "asked")]


def test_a_name_is_unique(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    before = snapshot(grouped)
    answer = rollbook("group", "create", "testers", "--description", "other")
    assert (answer.code, answer.out, "error: testers already exists!\n" in answer.err) == (1, "", True)
    content = rollbook("group", "create", "testers", "--if-not-exists", "--json")
    assert (content.code, content.row["outcome"], content.row["description"]) == (0, "unchanged", "See pages first")
    assert snapshot(grouped) == before


@pytest.mark.parametrize(
    ("name", "word"),
    [("x" * 33, "33 characters, at most 32"), ("", "needs a name"), ("  ", "needs a name"), ("a\nb", "control"),
     ("a\x00b", "control")],
)  # fmt: skip
def test_a_name_that_cannot_be_is_refused(rollbook: Rollbook, grouped: Connection[Any], name: str, word: str) -> None:
    before = snapshot(grouped)
    answer = rollbook("group", "create", name)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True)
    answer = rollbook("group", "split", f"{name}:1")
    assert (answer.code, answer.out) == (1 if name else 2, "")
    assert snapshot(grouped) == before
    assert rollbook("group", "create", "x" * 32).code == 0


def test_a_default_group_that_is_created_has_its_description(rollbook: Rollbook, db: Connection[Any]) -> None:
    assert rollbook("group", "create", "email_helpers", "--json").row["description"] != ""
    assert rollbook("group", "create", "mitx_unenroll", "--description", "", "--json").row["description"] == ""
    assert len(rows(db, GROUPS, "id")) == 2


def test_list_counts_members(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    del grouped
    assert [list(row.values()) for row in rollbook("group", "list", "--json").data] == [
        [1, "testers", 2, "See pages first"],
        [2, "helpers", 0, ""],
    ]
    assert list(rollbook("group", "list", "--json").data[0]) == ["id", "name", "members", "description"]
    assert rollbook("group", "list", "--match", "FIRST", "--json").column("name") == ["testers"]
    assert rollbook("group", "list", "--sort", "members", "--json").column("name") == ["helpers", "testers"]
    limited = rollbook("group", "list", "--limit", "1", "--csv")
    assert (len(limited.cells()), "1 of 2 rows" in limited.err) == (2, True)


def test_show_has_the_members_and_compares_several(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    del grouped
    (testers,) = rollbook("group", "show", "testers", "--json").data
    assert list(testers) == ["id", "name", "description", "members"]
    assert testers["members"] == [
        {"id": 101, "username": "ada", "email": "ada@example.org", "name": "Ada Foo", "is_active": True},
        {"id": 102, "username": "bob", "email": "Bob@Example.org", "name": "Bob Foo", "is_active": True},
    ]
    one, two = rollbook("group", "show", "testers").out, rollbook("group", "show", "testers", "helpers", "testers").out
    assert ("ada@example.org" in one, "█" in one) == (True, False)
    assert ("Members (2)" in two, "Members (0)" in two, two.count("█")) == (True, True, 30)


def test_an_unknown_group_is_refused_with_the_nearest(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    before = snapshot(grouped)
    for arguments in (
        ("show", "testerz"), ("show", "testers", "testerz"), ("delete", "testerz", "--confirm", "testerz"),
        ("add", "testerz", "ada"), ("remove", "testerz", "ada"), ("export", "testerz"),
        ("split", "a:1", "--among", "group:testerz"),
    ):  # fmt: skip
        answer = rollbook("group", *arguments)
        assert (answer.code, answer.out) == (1, ""), arguments
        assert "error: Group testerz does not exist\n" in answer.err
        assert "the nearest is testers" in answer.err
    assert "the nearest is email_helpers" in rollbook("group", "add", "email_helper", "ada").err
    assert snapshot(grouped) == before


def test_delete_needs_the_name_again_and_leaves_the_users(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    before = snapshot(grouped)
    for wrong in ((), ("--confirm", "helpers")):
        answer = rollbook("group", "delete", "testers", *wrong)
        assert (answer.code, answer.out, "--confirm 'testers'" in answer.err) == (6, "", True)
    assert "2 memberships" in rollbook("group", "delete", "testers").err
    assert rollbook("group", "delete", "testers", "-n", "--json").row["outcome"] == "would remove"
    assert snapshot(grouped) == before
    answer = rollbook("group", "delete", "testers", "--confirm", "testers", "--json")
    assert (answer.code, answer.row["outcome"], answer.row["members"]) == (0, "removed", 2)
    assert (rows(grouped, GROUPS, "name"), members(grouped)) == ([("helpers",)], [])
    assert len(rows(grouped, "portal.auth_user", "id")) == 4
    assert [entry[1:4] for entry in history(grouped)] == [("group delete", "testers", "removed")]


# --- add, remove ------------------------------------------------------------------------------------------------------


def test_add_and_remove_change_what_is_to_change(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    answer = rollbook("group", "add", "testers", "ada", "dan@example.org", "id:104", "dan", "--json")
    assert [list(row.values()) for row in answer.data] == [
        ["testers", "ada", "ada@example.org", "unchanged"],
        ["testers", "dan", "dan@example.org", "created"],
        ["testers", "eve", "", "created"],
    ]
    assert list(answer.data[0]) == ["group", "username", "email", "outcome"]
    assert members(grouped) == [("testers", name) for name in ("ada", "bob", "dan", "eve")]
    assert [entry[1:5] for entry in history(grouped)] == [
        ("group add", "testers: dan", "created", 103), ("group add", "testers: eve", "created", 104),
    ]  # fmt: skip
    before = snapshot(grouped)
    assert rollbook("group", "add", "testers", "dan", "eve", "--json").column("outcome") == ["unchanged"] * 2
    assert snapshot(grouped) == before
    gone = rollbook("group", "remove", "testers", "eve", "ada", "--json")
    assert (gone.code, gone.column("outcome")) == (0, ["removed"] * 2)
    before = snapshot(grouped)
    gone = rollbook("group", "remove", "testers", "eve", "--json")
    assert (gone.code, gone.column("outcome")) == (0, ["unchanged"])
    assert snapshot(grouped) == before
    assert members(grouped) == [("testers", "bob"), ("testers", "dan")]


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_group_is_made_on_first_use(rollbook: Rollbook, school: Connection[Any], name: str) -> None:
    assert rollbook("group", "add", name, "ada").code == 0
    assert rollbook("group", "add", name, "bob").code == 0
    ((found, description),) = rows(school, GROUPS, "name", "description")
    assert (found, bool(description)) == (name, True)
    assert members(school) == [(name, "ada"), (name, "bob")]
    assert [entry[2:4] for entry in history(school)][:2] == [(name, "created"), (f"{name}: ada", "created")]


def test_a_default_group_is_not_made_by_remove_nor_for_an_unknown_user(
    rollbook: Rollbook, school: Connection[Any]
) -> None:  # fmt: skip
    before = snapshot(school)
    assert rollbook("group", "remove", "email_helpers", "ada").code == 1
    answer = rollbook("group", "add", "email_helpers", "ada", "nobody")
    assert (answer.code, "there is no user nobody" in answer.err) == (1, True)
    assert rollbook("group", "add", "email_helpers", "ada", "-n", "--json").row["outcome"] == "would create"
    assert snapshot(school) == before


def test_many_users_come_from_stdin_a_file_or_an_option(
    rollbook: Rollbook, grouped: Connection[Any], tmp_path: Path
) -> None:
    (tmp_path / "users.txt").write_bytes("\ufeffdan\r\n\r\n  eve \r\n".encode())
    assert rollbook("group", "add", "helpers", f"@{tmp_path}/users.txt").code == 0
    assert rollbook("group", "add", "helpers", "--user", "-", stdin=b"ada\n").code == 0
    assert rollbook("group", "add", "helpers", "-", stdin=b"bob\n").code == 0
    everybody = [("helpers", name) for name in ("ada", "bob", "dan", "eve")]
    assert members(grouped)[2:] == everybody
    assert rollbook("group", "remove", "helpers", "--user", "ada", "--user", "-", stdin=b"bob\n").code == 0
    assert members(grouped)[2:] == everybody[2:]
    for arguments in ((), ("-",), ("--user", "-")):
        answer = rollbook("group", "add", "helpers", *arguments)
        assert (answer.code, "no users named" in answer.err) == (2, True)


def test_an_unknown_user_stops_all_or_is_skipped(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    before = snapshot(grouped)
    for verb in ("add", "remove"):
        answer = rollbook("group", verb, "testers", "dan", "nobody", "ada")
        assert (answer.code, answer.out, "there is no user nobody" in answer.err) == (1, "", True)
    assert snapshot(grouped) == before
    answer = rollbook("group", "add", "testers", "dan", "nobody", "--on-error", "skip", "--json")
    assert (answer.code, answer.column("username"), "nobody" in answer.err) == (5, ["dan"], True)
    assert ("testers", "dan") in members(grouped)
    assert rollbook("group", "add", "testers", "nobody", "--on-error", "skip").code == 1


# --- split ------------------------------------------------------------------------------------------------------------


def placed(db: Connection[Any], *names: str) -> dict[str, list[str]]:
    """Who is in each of the groups."""
    return {name: [user for group, user in members(db) if group == name] for name in names}


def test_split_puts_everybody_into_exactly_one_group(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    answer = rollbook("group", "split", "a:0.5", "b:0.5", "--seed", "4", "--description", "Trial", "--json")
    assert list(answer.data[0]) == ["id", "name", "share", "members", "seed", "outcome"]
    assert [(row["name"], row["share"], row["members"], row["seed"], row["outcome"]) for row in answer.data] == [
        ("a", 0.5, 2, 4, "created"), ("b", 0.5, 2, 4, "created"),
    ]  # fmt: skip
    groups = placed(grouped, "a", "b")
    assert sorted(groups["a"] + groups["b"]) == ["ada", "bob", "dan", "eve"]
    for _, text in rows(grouped, GROUPS, "id", "description")[2:]:
        description = json.loads(text)
        assert (description["text"], description["time"][-6:]) == ("Trial", "+00:00")
    assert [entry[1:4] for entry in history(grouped)] == [
        ("group split", "a", "created"), ("group split", "b", "created"),
    ]  # fmt: skip


def test_split_is_repeatable_by_its_seed_and_says_the_one_it_took(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    grouped.execute(
        "insert into portal.auth_user (username, email) select 'u' || n, '' from generate_series(1, 60) as n"
    )
    first = rollbook("group", "split", "a:1/3", "b:2/3", "--json").data
    seed = str(first[0]["seed"])
    rollbook("group", "split", "c:1/3", "d:2/3", "--seed", seed)
    rollbook("group", "split", "e:1/3", "f:2/3", "--seed", str(int(seed) + 1))
    groups = placed(grouped, *"abcdef")
    assert (len(groups["a"]), len(groups["b"])) == (21, 43)
    assert (groups["c"], groups["d"]) == (groups["a"], groups["b"])
    assert groups["e"] != groups["a"]


@pytest.mark.parametrize(
    ("among", "who"),
    [
        (["active"], ["ada", "bob"]), (["inactive"], ["dan", "eve"]), (["staff"], ["ada"]),
        ([f"course:{KEEP}"], ["ada", "bob"]), (["group:testers"], ["ada", "bob"]),
        (["group:testers", "staff"], ["ada"]), ([f"course:{KEEP}", "active"], ["ada", "bob"]),
    ],
)  # fmt: skip
def test_split_among_some(rollbook: Rollbook, grouped: Connection[Any], among: list[str], who: list[str]) -> None:
    answer = rollbook("group", "split", "a:0.5", "b:0.5", *(word for text in among for word in ("--among", text)))
    groups = placed(grouped, "a", "b")
    assert (answer.code, sorted(groups["a"] + groups["b"])) == (0, who)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("a:0.5", "b:0.4"), 1, "Total not 1"),
        (("a:0.5", "b:0.52"), 1, "The shares add up to 1.02"),
        (("a:0.5", "testers:0.5"), 1, "testers already exists!"),
        (("a:1", "--among", "group:helpers"), 1, "no users to place"),
        (("a:1", "--among", "superuser"), 1, "no users to place"),
        (("a:1", "--among", "course:MITx"), 1, "there is no course MITx"),
        (("a:1", "--among", "everybody"), 2, "no such filter"),
        (("a:1", "--among", "course:"), 2, "no such filter"),
        (("a:1", "--among", "active:x"), 2, "no such filter"),
        (("a:0.5", "a:0.5"), 2, "named twice"),
        (("a",), 2, "a is not NAME:SHARE"),
        (("a:x",), 2, "a:x is not NAME:SHARE"),
        ((":1",), 2, ":1 is not NAME:SHARE"),
        (("a:0", "b:1"), 2, "a:0 is not NAME:SHARE"),
        (("a:-0.5", "b:1.5"), 2, "is not NAME:SHARE"),
        (("a:nan", "b:1"), 2, "is not NAME:SHARE"),
        (("a:1/0",), 2, "is not NAME:SHARE"),
        (("a:1", "--seed", "x"), 2, "--seed"),
        (("a:1", "--seed", str(2**63)), 2, "--seed"),
        ((), 2, "NAME:SHARE"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_and_nothing_is_written(
    rollbook: Rollbook, grouped: Connection[Any], arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = snapshot(grouped)
    answer = rollbook("group", "split", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(grouped) == before


def test_thirds_as_people_write_them_are_taken(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    assert rollbook("group", "split", "a:0.33", "b:0.33", "c:.33").code == 0
    assert sorted(user for users in placed(grouped, "a", "b", "c").values() for user in users) == [
        "ada",
        "bob",
        "dan",
        "eve",
    ]
    assert rollbook("group", "split", "odd:name:0.5", "x:0.5").code == 0
    assert ("odd:name",) in rows(grouped, GROUPS, "name")


def test_a_dry_run_of_split_shows_the_sizes(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    before = snapshot(grouped)
    answer = rollbook("group", "split", "a:0.75", "b:0.25", "-n", "--json")
    assert [(row["members"], row["outcome"]) for row in answer.data] == [(3, "would create"), (1, "would create")]
    assert snapshot(grouped) == before


# --- import, export ---------------------------------------------------------------------------------------------------


def test_what_was_exported_can_be_imported(rollbook: Rollbook, grouped: Connection[Any], tmp_path: Path) -> None:
    grouped.execute("insert into portal.auth_user (id, username) values (105, 'ada@example.org')")
    grouped.execute("insert into portal.student_usertestgroup_users (usertestgroup_id, user_id) values (2, 105)")
    before = members(grouped)
    answer = rollbook("group", "export")
    assert answer.cells() == [
        ["group", "user"], ["testers", "ada"], ["testers", "bob"], ["helpers", "username:ada@example.org"],
    ]  # fmt: skip
    file = tmp_path / "members.csv"
    assert rollbook("group", "export", "-o", str(file)).code == 0
    assert (file.read_text(), file.stat().st_mode & 0o777) == (answer.out, 0o600)
    assert rollbook("group", "export", "helpers", "--json").data == [
        {"group": "helpers", "user": "username:ada@example.org"}
    ]
    assert {entry[3] for entry in history(grouped)} == {"exported"}
    grouped.execute("delete from portal.student_usertestgroup")
    assert rollbook("group", "import", str(file)).code == 1
    assert rollbook("group", "import", str(file), "--create").code == 0
    assert members(grouped) == before


def test_import_adds_whom_it_finds_in_any_way_of_naming(rollbook: Rollbook, grouped: Connection[Any]) -> None:
    text = "group,user\ntesters,ADA@example.org\ntesters,id:103\nhelpers,username:eve\nemail_helpers,dan\ntesters,dan\n"
    answer = rollbook("group", "import", "-", "--json", stdin=("\ufeff" + text).encode())
    assert answer.code == 0, answer.err
    assert [(row["line"], row["group"], row["user"], row["outcome"]) for row in answer.data] == [
        (2, "testers", "ADA@example.org", "unchanged"), (3, "testers", "id:103", "created"),
        (4, "helpers", "username:eve", "created"), (5, "email_helpers", "dan", "created"),
        (6, "testers", "dan", "unchanged"),
    ]  # fmt: skip
    assert list(answer.data[0]) == ["line", "group", "user", "outcome", "detail", "batch"]
    assert members(grouped) == [
        ("testers", "ada"), ("testers", "bob"), ("testers", "dan"), ("helpers", "eve"), ("email_helpers", "dan"),
    ]  # fmt: skip
    before = snapshot(grouped)
    again = rollbook("group", "import", "-", "--json", stdin=text.encode())
    assert (again.code, set(again.column("outcome"))) == (0, {"unchanged"})
    assert snapshot(grouped) == before


WRONG = """group,user
testers,dan
testers,nobody
testerz,ada
,ada
testers,
testers,ada@example.org
testers,id:x
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,ada
helpers,eve
"""


def test_wrong_rows_are_all_told_and_nothing_is_done(
    rollbook: Rollbook, grouped: Connection[Any], tmp_path: Path
) -> None:
    grouped.execute("insert into portal.auth_user (id, username) values (105, 'ada@example.org')")
    before = snapshot(grouped)
    rejects = tmp_path / "rejects.csv"
    answer = rollbook("group", "import", "-", "--rejects", str(rejects), stdin=WRONG.encode())
    assert (answer.code, answer.out) == (1, "")
    for word in (
        "no such user", "no such group; the nearest is testers", "a group is needed", "a user is needed",
        "matches several", "at most 32",
    ):  # fmt: skip
        assert word in answer.err, word
    assert snapshot(grouped) == before
    lines = rejects.read_text().splitlines()
    assert (lines[0], len(lines)) == ("group,user,line,error", 8)
    skipped = rollbook("group", "import", "-", "--on-error", "skip", "--json", stdin=WRONG.encode())
    assert skipped.code == 5
    assert [row["line"] for row in skipped.data if row["outcome"] == "created"] == [2, 10]
    assert members(grouped)[2:] == [("testers", "dan"), ("helpers", "eve")]


@pytest.mark.parametrize(
    ("text", "word"),
    [("group\ntesters\n", "user"), ("group,usr\n", "usr"), ("", "header"), ("group,user,user\n", "twice")],
)
def test_a_bad_header_is_usage(rollbook: Rollbook, grouped: Connection[Any], text: str, word: str) -> None:
    before = snapshot(grouped)
    answer = rollbook("group", "import", "-", stdin=text.encode())
    assert (answer.code, answer.out, word in answer.err) == (2, "", True)
    assert snapshot(grouped) == before


def test_the_template_is_the_header(rollbook: Rollbook) -> None:
    assert rollbook("group", "import", "--template", dsn=None).out == "group,user\n"


def test_a_terminal_sees_bars(grouped: Connection[Any], dsn: str) -> None:
    import subprocess
    import sys

    del grouped
    leader, follower = pty.openpty()
    words = [sys.executable, "-c", "from rollbook.cli import main; main()", "group", "list", "-d", dsn]
    with subprocess.Popen(words, stdout=follower, stderr=follower, stdin=follower) as program:
        os.close(follower)
        heard: list[bytes] = []

        def listen() -> None:
            try:
                while part := os.read(leader, 4096):
                    heard.append(part)
            except OSError:  # the other end is closed
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        assert program.wait(30) == 0
        thread.join(10)
    os.close(leader)
    assert "█" in b"".join(heard).decode()
