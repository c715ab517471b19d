"""`rollbook user import` and `export`: accounts in bulk, and what is wrong with files of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import stat
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import xlsxwriter
from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, environment, rows, snapshot
from tests.school import Rollbook
from tests.sql.functions.test_names import EMAILS, NAMES, USERNAMES

pytestmark = pytest.mark.slow  # `make check` runs it

HEADER = "username,email,name,gender,level_of_education,year_of_birth,mailing_address,goals,language,location"
HASH = "pbkdf2_sha256$1000000$abcdefghijklmnopqrstuv$" + "A" * 43 + "="
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its name."""

    def call(content: str | bytes, name: str = "people.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return call


def account(db: Connection[Any], username: str) -> dict[str, Any]:
    """Everything of a user that a file can say, and what comes with it."""
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(
            """select u.*, p.*, u.id as user_id, r.activation_key, r.activated_at
            from portal.auth_user u left join portal.auth_userprofile p on p.user_id = u.id
            left join portal.auth_registration r on r.user_id = u.id where u.username = %s""",
            [username],
        ).fetchone()
    assert row is not None
    return row


def faults(answer: Any) -> list[tuple[int, str | None, str | None]]:
    """Line, column and value of each fault that an answer in JSON tells; each has a reason."""
    found = json.loads(answer.err.splitlines()[-1] if answer.code == 1 else answer.err.splitlines()[0])["error"]
    assert all(each["reason"] for each in found["details"]["problems"])
    return [(each["line"], each["column"], each["value"]) for each in found["details"]["problems"]]


# --- what is made -----------------------------------------------------------------------------------------------------


def test_an_account_is_user_profile_and_key(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    file = write(
        f"{HEADER},first_name,last_name,is_active,password_hash\r\n"
        'zoe,Zoe@Example.ORG,"Zoe ""Z"" Foo",f,hs,1990,"1 Main Street\r\nBoston, MA",To learn,en,Boston,Zoe,Foo,'
        f"true,{HASH}\r\n"
        "yan,yan@example.org,,,,,,,,,,,,\r\n"
    )
    answer = rollbook("user", "import", file, "--json")
    assert (answer.code, answer.err) == (0, "2 created\n")
    assert [list(row.values()) for row in answer.data] == [
        [2, "zoe", "created", None, 1], [4, "yan", "created", None, 1],
    ]  # fmt: skip
    assert list(answer.data[0]) == ["line", "username", "outcome", "detail", "batch"]
    zoe = account(school, "zoe")
    assert {name: zoe[name] for name in (*HEADER.split(","), "first_name", "last_name", "is_active", "password")} == {
        "username": "zoe", "email": "Zoe@example.org", "name": 'Zoe "Z" Foo', "gender": "f",
        "level_of_education": "hs", "year_of_birth": 1990, "mailing_address": "1 Main Street\r\nBoston, MA",
        "goals": "To learn", "language": "en", "location": "Boston", "first_name": "Zoe", "last_name": "Foo",
        "is_active": True, "password": HASH,
    }  # fmt: skip
    yan = account(school, "yan")
    assert (yan["name"], yan["gender"], yan["goals"], yan["is_active"], yan["password"]) == ("", None, None, False, "!")
    assert {len(zoe["activation_key"]), len(yan["activation_key"])} == {32}
    assert (zoe["activated_at"] is not None, yan["activated_at"]) == (True, None)


def test_an_active_one_is_enrolled_where_the_address_is_allowed(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    school.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values "
        "('ZOE@example.org', %s, true), ('zoe@example.org', %s, false), ('yan@example.org', %s, true)",
        [KEEP, REMOVE, KEEP],
    )
    file = write(
        "username,email,is_active\nzoe,zoe@example.org,true\nyan,yan@example.org,false\ndan,dan@example.org,1\n"
    )
    answer = rollbook("user", "import", file, "--mode", "upsert", "--json")
    assert answer.column("detail") == ["enrolled in 1 allowed", None, "is_active"]
    seats = school.execute(
        "select username, course_id from portal.student_courseenrollment join portal.auth_user u on u.id = user_id "
        "where username in ('zoe', 'yan')"
    ).fetchall()
    assert seats == [("zoe", KEEP)]
    assert ("zoe",) in rows(school, f"{KEEP_SCHEMA}.auth_user", "username")


def test_update_changes_what_is_said_and_keeps_the_history(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    file = write(
        "username,email,name,goals,gender,first_name\n"
        "ada,Ada@example.com,Ada Bar,\\N,f,\nbob,,Bob Foo,,,\\N\neve,eve@example.org,,,,\n"
    )
    school.execute("update portal.auth_user set first_name = 'Robert' where username = 'bob'")
    answer = rollbook("user", "import", file, "--mode", "update", "--reason", "married", "--json")
    assert (answer.code, answer.err) == (0, "3 changed\n")
    assert answer.column("detail") == ["email, name, gender, goals", "first_name", "email"]
    ada, bob = account(school, "ada"), account(school, "bob")
    assert (ada["email"], ada["name"], ada["goals"], ada["gender"]) == ("Ada@example.com", "Ada Bar", None, "f")
    assert (bob["email"], bob["first_name"], bob["goals"]) == ("Bob@Example.org", "", "World peace")
    meta = json.loads(ada["meta"])
    assert [entry[0] for entry in meta["old_emails"]] == ["ada@example.org"]
    assert [entry[:2] for entry in meta["old_names"]] == [["Ada Foo", "married"]]
    assert meta["old_names"][0][2].endswith("+00:00")
    assert bob["meta"] == ""
    copy = school.execute(f"select email from {KEEP_SCHEMA}.auth_user where username = 'ada'").fetchone()
    assert copy == ("Ada@example.com",)
    before = snapshot(school)
    again = rollbook("user", "import", file, "--mode", "update", "--json")
    assert (again.code, again.column("outcome"), again.err) == (0, ["unchanged"] * 3, "3 unchanged\n")
    assert snapshot(school) == before


def test_upsert_makes_and_changes(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    del school
    file = write("username,email,name\nada,,Ada Bar\nzoe,zoe@example.org,Zoe\nbob,,Bob Foo\n")
    answer = rollbook("user", "import", file, "--mode", "upsert", "--json")
    assert answer.column("outcome") == ["changed", "created", "unchanged"]


def test_whoever_has_no_profile_gets_one(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    school.execute("delete from portal.auth_userprofile where user_id = 101")
    rollbook("user", "import", write("username,name\nada,Ada Foo\n"), "--mode", "update")
    assert account(school, "ada")["name"] == "Ada Foo"


def test_keys_follow_the_state(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    rollbook("user", "import", write("username,email\nzoe,z@example.org\nyan,y@example.org\n"))
    rollbook("user", "import", write("username,is_active\nzoe,yes\n"), "--mode", "update")
    assert account(school, "zoe")["activated_at"] is not None
    rollbook("user", "import", write("username,is_active\nzoe,no\n"), "--mode", "update")
    assert (account(school, "zoe")["is_active"], account(school, "yan")["activated_at"]) == (False, None)


def test_a_dry_run_shows_it_and_leaves_nothing(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    before = snapshot(school)
    file = write("username,email,name\nada,,Ada Bar\nzoe,zoe@example.org,Zoe\n")
    answer = rollbook("user", "import", file, "--mode", "upsert", "-n", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["would change", "would create"])
    assert snapshot(school) == before


def test_the_history_has_the_counts_each_account_and_no_secret(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    file = write(f"username,email,password_hash\nzoe,zoe@example.org,{HASH}\nyan,yan@example.org,\n")
    rollbook("user", "import", file, "--reason", "new year")
    found = school.execute(
        "select command, object, outcome, after, reason from rollbook.history order by id"
    ).fetchall()
    assert found[0] == ("user import", "people.csv", "imported", {"created": 2}, "new year")
    assert [(entry[1], entry[2], entry[3].get("password")) for entry in found[1:]] == [
        ("zoe", "created", "(secret)"), ("yan", "created", None),
    ]  # fmt: skip
    assert HASH not in str(found)


# --- what is refused --------------------------------------------------------------------------------------------------

OVER = "x" * 300
WRONG = [
    ("username", "", "needed"),
    ("username", "a b", "U+0020 (space)"),
    ("username", "x" * 151, "a username has at most 150 characters (it has 151)"),
    ("username", "ada", "taken"),
    ("email", "", "needed"),
    ("email", "nowhere", "not an e-mail address"),
    ("email", "bad@", "not an e-mail address"),
    ("email", "@bad.org", "not an e-mail address"),
    ("email", "a@localhost", "not an e-mail address"),
    ("email", "a..b@example.org", "not an e-mail address"),
    ("email", "a b@example.org", "not an e-mail address"),
    ("email", "ADA@EXAMPLE.ORG", "belongs to ada"),
    ("email", f"{OVER}@example.org", ""),
    ("name", OVER, "300 characters, at most 255 fit"),
    ("language", OVER, "at most 255"),
    ("location", OVER, "at most 255"),
    ("first_name", OVER, "at most 150"),
    ("last_name", OVER, "at most 150"),
    ("gender", "x", "m, f or o"),
    ("level_of_education", "phd", "p_se"),
    ("year_of_birth", "1890", "last 120 years"),
    ("year_of_birth", "2999", "last 120 years"),
    ("year_of_birth", "MCMXC", "four digits"),
    ("year_of_birth", "-5", "four digits"),
    ("year_of_birth", "99999999999", "four digits"),
    ("is_active", "perhaps", "true or false"),
    ("password_hash", "secret-in-clear-text", "not a password hash"),
    ("password_hash", "pbkdf2_sha256$x$y", "not a password hash"),
]


@pytest.mark.parametrize(("column", "value", "reason"), WRONG)
def test_each_rule_is_found_before_it_is_hit(
    rollbook: Rollbook, school: Connection[Any], write: Write, column: str, value: str, reason: str
) -> None:
    before = snapshot(school)
    good = {"username": "zoe", "email": "zoe@example.org"}
    columns = list({**good, column: ""})
    lines = [
        columns,
        [{**good, column: value}[name] for name in columns],
        ["yan", "yan@example.org", ""][: len(columns)],
    ]
    content = io.StringIO()
    csv.writer(content).writerows(lines)
    answer = rollbook("user", "import", write(content.getvalue()), "--json")
    assert (answer.code, answer.out) == (1, ""), answer.err
    fault = json.loads(answer.err)["error"]["details"]["problems"][0]
    shown = "(secret)" if column == "password_hash" else value[:200] or None
    assert (fault["line"], fault["column"], fault["value"]) == (2, column, shown)
    assert reason in fault["reason"]
    assert "secret-in-clear-text" not in answer.err
    assert snapshot(school) == before


def test_every_error_is_told_at_once(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    before = snapshot(school)
    file = write(
        "username,email,gender,year_of_birth\nzoe,nowhere,x,1\nyan,yan@example.org,,\n"
        "zoe,YAN@example.org,,\nshort,s@example.org\nlong,l@example.org,f,1990,more\nada,bob@example.org,,\n"
    )
    answer = rollbook("user", "import", file)
    assert (answer.code, answer.out) == (1, "")
    lines = answer.err.splitlines()
    assert [line.partition(":")[0] for line in lines[:10]] == [
        "line 2, email", "line 2, gender", "line 2, year_of_birth", "line 4, email", "line 4, username", "line 5",
        "line 6", "line 7, email", "line 7, username", "error",
    ]  # fmt: skip
    assert "5 rows of 6 are wrong; nothing was changed" in answer.err
    assert "line 4, username: 'zoe': the same as on line 2" in lines
    assert "line 5: 2 fields, the header has 4" in lines
    assert snapshot(school) == before


def test_an_update_of_nobody_is_refused(rollbook: Rollbook, school: Connection[Any], write: Write) -> None:
    before = snapshot(school)
    answer = rollbook("user", "import", write("username,name\nnobody,X\n"), "--mode", "update", "--json")
    assert (answer.code, faults(answer)) == (1, [(2, "username", "nobody")])
    assert snapshot(school) == before


def test_what_another_gives_up_in_the_same_file_is_free(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    """Usernames by id and addresses: a swap, a chain, and a new account that takes what is left."""
    ids = dict(rows(school, "portal.auth_user", "username", "id"))
    ada, bob, eve = ids["ada"], ids["bob"], ids["eve"]
    file = write(
        f"id,username,email\n{ada},bob,bob@example.org\n{bob},eve,ada@example.org\n{eve},eva,\n\\N,ada,new@example.org\n"
    )
    answer = rollbook("user", "import", file, "--mode", "upsert", "--json")
    assert (answer.code, answer.column("detail")) == (0, ["username, email"] * 2 + ["username", None]), answer.err
    now = dict(rows(school, "portal.auth_user", "username", "id"))
    assert {name: number for name, number in now.items() if number in ids.values()} == {
        "bob": ada, "eve": bob, "eva": eve,
    } | {name: number for name, number in ids.items() if number not in (ada, bob, eve)}  # fmt: skip
    assert [account(school, name)["email"] for name in ("bob", "eve", "ada")] == [
        "bob@example.org", "ada@example.org", "new@example.org",
    ]  # fmt: skip
    assert json.loads(account(school, "bob")["meta"])["old_emails"][0][0] == "ada@example.org"
    held = {name for (name,) in rows(school, f"{KEEP_SCHEMA}.auth_user", "username")}
    assert held <= {name for (name,) in rows(school, "portal.auth_user", "username")}


def test_a_user_named_by_id_keeps_what_the_file_does_not_say(
    rollbook: Rollbook, school: Connection[Any], write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert rollbook("user", "export", "--with-id", "-o", str(out)).code == 0
    before = snapshot(school)
    assert out.read_text().startswith("id,username,email,")
    for mode in ("update", "upsert"):
        answer = rollbook("user", "import", str(out), "--mode", mode, "--json")
        assert (answer.code, set(answer.column("outcome"))) == (0, {"unchanged"}), answer.err
    answer = rollbook("user", "import", write("id,goals\n101,\n"), "--mode", "update", "--json")
    assert [(row["username"], row["outcome"]) for row in answer.data] == [("ada", "unchanged")]
    assert snapshot(school) == before
    assert rollbook("user", "import", write("goals\nNone\n"), "--mode", "update").code == 2


def test_an_id_that_names_nobody_or_gives_a_taken_name_is_wrong(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    before = snapshot(school)
    file = write(
        "id,username\n999999,zoe\nx1,yan\n101,bob\n102,wrong name\n103,dan\n103,\n99999999999999999999,\n\\N,eve\n"
    )
    answer = rollbook("user", "import", file, "--mode", "update", "--json")
    found = json.loads(answer.err)["error"]["details"]["problems"]
    assert [(row["line"], row["column"], row["reason"]) for row in found] == [
        (2, "id", "there is no user with this id"), (3, "id", "an id is a whole number"),
        (4, "username", "this username belongs to id:102"),
        (5, "username", "U+0020 (space) has no place in a username: it has letters and digits, and @ . + - _"),
        (7, "id", "the same user as on line 6"),
        (7, "username", "the same as on line 6"), (8, "id", "an id is a whole number"),
        (9, "username", "there is no such user"),
    ]  # fmt: skip
    answer = rollbook("user", "import", write("id,username,email\n101,zoe,zoe@example.org\n"), "--json")
    assert (answer.code, faults(answer)) == (1, [(2, "id", "101")])
    assert "the database gives ids" in answer.err
    assert snapshot(school) == before


def test_an_old_address_that_would_not_do_today_may_stay(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    school.execute("update portal.auth_user set email = 'ada@localhost' where id = 101")
    file = write("username,email,goals\nada,ada@localhost,None\n")
    assert rollbook("user", "import", file, "--mode", "update", "--json").column("detail") == ["goals"]


def test_skip_applies_the_good_rows_and_rejects_can_be_fed_back(
    rollbook: Rollbook, school: Connection[Any], write: Write, tmp_path: Path
) -> None:
    file = write(
        'username,email,name,goals\nzoe,nowhere,"Zoe, Z","two\nlines"\nyan,yan@example.org,Yan,\nshort,s@example.org\n'
        "ada,new@example.org,,\n"
    )
    wrong = tmp_path / "wrong.csv"
    answer = rollbook("user", "import", file, "--on-error", "skip", "--rejects", str(wrong), "--json")
    assert answer.code == 5
    assert [(row["line"], row["username"], row["outcome"]) for row in answer.data] == [
        (2, "zoe", "rejected"), (4, "yan", "created"), (5, "short", "rejected"), (6, "ada", "rejected"),
    ]  # fmt: skip
    assert json.loads(answer.err.splitlines()[0])["error"]["code"] == "partial"
    assert stat.S_IMODE(wrong.stat().st_mode) == 0o600
    found = list(csv.reader(io.StringIO(wrong.read_bytes().decode())))
    assert found[0] == ["username", "email", "name", "goals", "line", "error"]
    assert found[1][:5] == ["zoe", "nowhere", "Zoe, Z", "two\nlines", "2"]
    assert found[1][5].startswith("email: this is not an e-mail address")
    assert found[2] == ["short", "s@example.org", "", "", "5", "2 fields, the header has 4"]
    found[1][1], found[3][0] = "zoe@example.org", "ada2"
    with wrong.open("w", newline="") as out:
        csv.writer(out).writerows(found)
    answer = rollbook("user", "import", str(wrong), "--rejects", str(tmp_path / "still.csv"))
    assert (answer.code, answer.err.splitlines()[0]) == (0, "3 created")
    assert account(school, "zoe")["goals"] == "two\nlines"
    assert (tmp_path / "still.csv").read_bytes() == b"username,email,name,goals,line,error\r\n"


def test_rejects_are_written_when_nothing_is_applied_too(
    rollbook: Rollbook, school: Connection[Any], write: Write, tmp_path: Path
) -> None:
    del school
    wrong = tmp_path / "wrong.csv"
    file = write("username;email\nzoë;nowhere\n".encode("latin-1"))
    options = ("--delimiter", ";", "--encoding", "latin-1", "--rejects", str(wrong))
    assert rollbook("user", "import", file, *options).code == 1
    assert wrong.read_bytes().splitlines()[1].startswith(b"zo\xeb;nowhere;2;")
    assert rollbook("user", "import", str(wrong), *options).code == 2  # the rejects would overwrite what is read


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options", "users"),
    [
        ("\ufeffusername,email\nzoe,z@example.org\n", (), ["zoe"]),
        ("username,email\r\nzoe,z@example.org\r\n", (), ["zoe"]),
        ('"username","email"\r\n"zoe","z@example.org"\r\n', (), ["zoe"]),
        ("username,email\nzoe,z@example.org", (), ["zoe"]),
        ("username,email\rzoe,z@example.org\r", (), ["zoe"]),
        ("\ufeffusername;email\r\nzoe;z@example.org\r\n;\r\n\r\n", ("--delimiter", ";"), ["zoe"]),
        ("username\temail\nzoe\tz@example.org\n", ("--delimiter", "\t"), ["zoe"]),
        ("username,email\nzo\xeb,z@example.org\n".encode("latin-1"), ("--encoding", "latin-1"), ["zo\xeb"]),
        ("username,email\nzo\xeb,z@example.org\n".encode("utf-16"), ("--encoding", "utf-16"), ["zo\xeb"]),
        ("email , username\nz@example.org,zoe\n", (), ["zoe"]),
        ("username,email\n", (), []),
        ("username,email,line,error\nzoe,z@example.org,7,it was wrong\n", (), ["zoe"]),
    ],
)  # fmt: skip
def test_files_as_programs_write_them_are_read(
    rollbook: Rollbook, db: Connection[Any], write: Write, content: str | bytes, options: tuple[str, ...],
    users: list[str],
) -> None:  # fmt: skip
    answer = rollbook("user", "import", write(content), *options, "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["created"] * len(users)), answer.err
    assert [name for (name,) in rows(db, "portal.auth_user", "username")] == users


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["people.csv is empty"]),
        ("\n\n", ["the file has no header"]),
        ("username;email\nzoe;z@example.org\n", ["the header has no ',', but ';'", "--delimiter ';'"]),
        ("username,emial\n", ["unknown column 'emial'", "the nearest is email"]),
        ("Username,email\n", ["unknown column 'Username'", "the nearest is username"]),
        ("username,email,email\n", ["column email appears twice"]),
        ("email,name\n", ["the column username is missing"]),
        ("username,email,\n", ["column 3 has no name"]),
        ("zoe,z@example.org\n", ["unknown column 'zoe'"]),
        (b"\xff\xfeu\x00s\x00", ["unknown column 'us'"]),
    ],
)
def test_a_bad_header_is_refused_before_any_row(
    rollbook: Rollbook, school: Connection[Any], write: Write, content: str | bytes, words: list[str]
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "import", write(content))
    assert (answer.code, answer.out) == (2, "")
    assert all(word in answer.err for word in words), answer.err
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"username,email\nzoe,z@example.org\nzo\xeb,y@example.org\n",
            ["is not utf-8, at line 3", "--encoding cp1252"],
        ),
        (b'username,email\nzoe,z@example.org\n"yan,y@example.org\n', ["line 3 of people.csv is not valid CSV"]),
        (b'username,email\n"zoe"x,z@example.org\n', ["line 2 of people.csv is not valid CSV"]),
        (b"username,email,goals\nzoe,z@example.org," + b"x" * 10_000_001 + b"\n", ["line 2", "field limit"]),
        (b"username,email\nzo\x00e,z@example.org\n", ["line 2", "NUL"]),
    ],
)
def test_what_is_no_csv_is_refused_with_its_line(
    rollbook: Rollbook, school: Connection[Any], write: Write, content: bytes, words: list[str]
) -> None:
    before = snapshot(school)
    for mode in ("abort", "skip") if b"\x00" not in content else ("abort",):
        answer = rollbook("user", "import", write(content), "--on-error", mode)
        assert (answer.code, answer.out) == (1, "")
        assert all(word in answer.err for word in words), answer.err
    assert snapshot(school) == before


def test_a_large_field_is_kept_and_shown_short_if_wrong(
    rollbook: Rollbook, school: Connection[Any], write: Write
) -> None:
    large = "x" * 1_000_000
    answer = rollbook("user", "import", write(f"username,email,goals\nzoe,z@example.org,{large}\n"))
    assert (answer.code, len(account(school, "zoe")["goals"])) == (0, 1_000_000)
    answer = rollbook("user", "import", write(f"username,email,name\nyan,y@example.org,{large}\n"))
    assert answer.code == 1
    assert "1000000 characters, at most 255 fit" in answer.err
    assert len(answer.err) < 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no file named"),
        (("/nonexistent",), "cannot read /nonexistent"),
        (("/tmp",), "/tmp is a directory"),
        (("-", "--encoding", "klingon"), "unknown encoding klingon"),
        (("-", "--delimiter", ";;"), "--delimiter must be one character"),
        (("-", "--delimiter", '"'), "--delimiter must be one character"),
        (("-", "--rejects", "/nonexistent/wrong.csv"), "cannot write /nonexistent/wrong.csv"),
        (("-", "--mode", "replace"), "--mode"),
        (("-", "--oneroster", "/tmp"), "exclude each other"),
    ],
)
def test_bad_options_are_usage(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], words: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "import", *arguments, stdin=b"username,email\nzoe,z@example.org\n")
    assert (answer.code, answer.out, words in answer.err) == (2, "", True), answer.err
    assert snapshot(school) == before


@pytest.mark.parametrize("kind", ["xlsx", "gz"])
def test_workbooks_and_gzip_are_imported_and_what_is_wrong_comes_back_as_csv(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, kind: str
) -> None:
    """As a secretary keeps them; the rejects are importable with the same options."""
    wanted: list[list[Any]] = [
        ["username", "email", "year_of_birth"],
        ["zoë", "z@example.org", 1990.0],
        ["yan", "#N/A", 1991],
    ]
    file, wrong = tmp_path / "people.csv", tmp_path / "wrong.csv"
    if kind == "xlsx":
        with xlsxwriter.Workbook(file) as book:
            sheet = book.add_worksheet()
            for line, row in enumerate(wanted, start=1):
                sheet.write_row(line, 0, row)
            sheet.write_formula(3, 1, "=NA()", None, "#N/A")
    else:
        with gzip.open(file, "wt", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows([[], *([str(cell).removesuffix(".0") for cell in row] for row in wanted)])
    options = ("--on-error", "skip", "--rejects", str(wrong))
    for stdin in (None, file.read_bytes()):
        answer = rollbook("user", "import", "-" if stdin else str(file), *options, "-n", stdin=stdin)
        assert answer.code == 5, answer.err
    answer = rollbook("user", "import", str(file), *options, "--json")
    assert (answer.code, account(school, "zoë")["year_of_birth"]) == (5, 1990)
    line, column, value = faults(answer)[0]
    assert (line, column, value) == (4, "email", "#N/A")
    assert [row["line"] for row in answer.data] == [3, 4]
    again = wrong.read_text().replace("#N/A", "y@example.org")
    wrong.write_text(again)
    answer = rollbook("user", "import", str(wrong), "--rejects", str(tmp_path / "still.csv"))
    assert (answer.code, answer.err.splitlines()[0]) == (0, "1 created")
    assert account(school, "yan")["email"] == "y@example.org"


def test_stdin_is_read(rollbook: Rollbook, db: Connection[Any]) -> None:
    answer = rollbook("user", "import", "-", stdin=b"username,email\nzoe,z@example.org\n")
    assert (answer.code, rows(db, "portal.auth_user", "username")) == (0, [("zoe",)])
    assert db.execute("select object from rollbook.history").fetchone() == ("stdin",)


def test_the_template_is_a_header_that_is_read(rollbook: Rollbook, write: Write) -> None:
    answer = rollbook("user", "import", "--template", dsn=None)
    assert (answer.code, set(HEADER.split(",")) <= set(answer.out.strip().split(","))) == (0, True)
    assert rollbook("user", "import", "--template", "--delimiter", ";", dsn=None).out.count(";") == 14
    del write


# --- out and in -------------------------------------------------------------------------------------------------------


def test_what_is_exported_can_be_imported(
    rollbook: Rollbook, school: Connection[Any], write: Write, tmp_path: Path
) -> None:
    rollbook("user", "import", write(
        f'{HEADER},password_hash,is_active\nzoe,z@example.org,"A, B",o,none,1990,"1\n2",x,en,here,{HASH},true\n'
    ))  # fmt: skip
    out = tmp_path / "out.csv"
    assert rollbook("user", "export", "--with-password-hash", "-o", str(out)).code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = rollbook("user", "import", str(out), "--mode", "update", "--json")
    assert set(again.column("outcome")) == {"unchanged"}
    kept = (
        "username, lower(email), first_name, password, is_active, name, gender, year_of_birth, mailing_address, goals"
    )
    query = (
        f"select {kept} from portal.auth_user u join portal.auth_userprofile p on p.user_id = u.id order by username"
    )
    before = school.execute(query).fetchall()
    school.execute("delete from portal.auth_user")
    assert rollbook("user", "import", str(out)).code == 0
    assert school.execute(query).fetchall() == before
    entry = school.execute(
        "select object, outcome, after from rollbook.history where command = 'user export'"
    ).fetchone()
    assert entry == ("users", "exported", {"rows": 5})


def test_an_export_has_no_hash_unless_asked_and_can_be_of_a_course(rollbook: Rollbook, school: Connection[Any]) -> None:
    del school
    answer = rollbook("user", "export", "--course", REMOVE)
    found = list(csv.reader(io.StringIO(answer.out)))
    assert "password_hash" not in found[0]
    assert [row[:2] for row in found[1:]] == [["ada", "ada@example.org"]]
    assert [row["username"] for row in rollbook("user", "export", "--inactive", "--json").data] == ["dan", "eve"]
    assert rollbook("user", "export", "--match", "BOB", "--fields", "username").out == "username\nbob\n"
    assert rollbook("user", "export", "--course", "nowhere").code == 1


# --- size, time, interruption -----------------------------------------------------------------------------------------


def program(*arguments: str) -> list[str]:
    """The program as a process."""
    return [sys.executable, "-c", "from rollbook.cli import main; main()", *arguments]


def people(count: int) -> str:
    """Many users."""
    lines = [HEADER]
    lines += [
        f"user{n},user{n}@example.com,Name {n},f,hs,1990,{n} Main Street,To learn,en,Boston" for n in range(count)
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_a_hundred_thousand_users(rollbook: Rollbook, db: Connection[Any], write: Write) -> None:
    file = write(people(100_000) + "user7,again@example.com,,,,,,,,\n")
    before = snapshot(db)
    answer = rollbook("user", "import", file)
    assert (answer.code, "line 100002, username: 'user7': the same as on line 9" in answer.err) == (1, True)
    assert snapshot(db) == before
    answer = rollbook("user", "import", file, "--on-error", "skip")
    assert (answer.code, answer.out.count("\n")) == (5, 100_002)
    counts = db.execute(
        "select (select count(*) from portal.auth_user), (select count(*) from portal.auth_userprofile), "
        "(select count(distinct activation_key) from portal.auth_registration)"
    ).fetchone()
    assert counts == (100_000, 100_000, 100_000)


def test_a_closed_pipe_ends_it_silently(db: Connection[Any], dsn: str, write: Write) -> None:
    command = program("user", "import", write(people(5000)), "-q", "-d", dsn)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.readline()
        running.stdout.close()
        assert (running.wait(60), running.stderr.read()) == (141, b"")
    assert db.execute("select count(*) from portal.auth_user").fetchone() == (5000,)


@pytest.mark.parametrize("moment", ["reading", "writing"])
def test_kill_9_in_the_middle_leaves_nothing(
    db: Connection[Any], dsn: str, write: Write, session: Callable[[], Connection[Any]], moment: str
) -> None:
    before = snapshot(db)
    command = program("user", "import", "-", "-d", dsn)
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment()) as running:
        assert running.stdin
        blocker = session()
        if moment == "reading":
            running.stdin.write(people(20_000).encode())
            running.stdin.flush()
        else:
            blocker.autocommit = False
            blocker.execute("lock table portal.auth_userprofile in share mode")
            running.stdin.write(people(200).encode())
            running.stdin.close()
        state = "copy %" if moment == "reading" else "%insert into portal.auth_user%"
        await_query(db, state)
        running.send_signal(signal.SIGKILL)
        running.wait()
        if moment == "writing":
            blocker.rollback()
    end = time.monotonic() + 20
    while db.execute("select 1 from pg_stat_activity where application_name like 'rollbook user%'").fetchone():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert snapshot(db) == before
    del write


def await_query(db: Connection[Any], like: str) -> None:
    """Return when the program is at a statement."""
    end = time.monotonic() + 30
    query = (
        "select 1 from pg_stat_activity where application_name like 'rollbook user%%' and query ilike %s "
        "and (state = 'active')"
    )
    while not db.execute(query, [like]).fetchone():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_second_of_two_imports_finds_what_the_first_made(
    db: Connection[Any], dsn: str, write: Write, session: Callable[[], Connection[Any]]
) -> None:
    file = write("username,email\nzoe,z@example.org\nyan,y@example.org\n")
    blocker = session()
    blocker.autocommit = False
    blocker.execute("lock table portal.auth_registration in share mode")
    results: list[subprocess.CompletedProcess[bytes]] = []

    def run() -> None:
        results.append(
            subprocess.run(
                program("user", "import", file, "-d", dsn), capture_output=True, env=environment(), check=False
            )
        )

    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    await_query(db, "%insert into portal.auth_user%")
    second.start()
    await_query(db, "%pg_advisory_xact_lock%")
    blocker.rollback()
    first.join()
    second.join()
    assert sorted(result.returncode for result in results) == [0, 1]
    loser = next(result for result in results if result.returncode == 1)
    assert b"line 2, username: 'zoe': this username is taken" in loser.stderr
    assert b"another import is running" in loser.stderr
    assert len(rows(db, "portal.auth_user", "id")) == 2


def test_a_user_made_meanwhile_by_others_undoes_it(
    db: Connection[Any], dsn: str, write: Write, session: Callable[[], Connection[Any]]
) -> None:
    other = session()
    other.autocommit = False
    other.execute("insert into portal.auth_user (username, email) values ('yan', 'other@example.org')")
    command = program("user", "import", write("username,email\nzoe,z@example.org\nyan,y@example.org\n"), "-d", dsn)
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as running:
        await_query(db, "%insert into portal.auth_user%")
        other.commit()
        assert running.stderr
        said = running.stderr.read()
        assert (running.wait(60), b"Key (username)=(yan) already exists" in said) == (1, True), said
    assert rows(db, "portal.auth_user", "username") == [("yan",)]


@pytest.mark.parametrize(("column", "texts"), [("username", USERNAMES), ("name", NAMES), ("email", EMAILS)])
@pytest.mark.usefixtures("school")
def test_a_file_is_judged_as_psql_judges(
    rollbook: Rollbook, write: Write, column: str, texts: dict[str, str | None]
) -> None:
    """The same texts as in tests/sql/functions/test_names.py; an address is judged by more rules here."""
    known = {text: fault for text, fault in texts.items() if text not in ("", "ada")}  # no value, and one that is there
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow(["username", "email", "name"])
    for number, text in enumerate(known):
        row = {"username": f"reader{number}", "email": f"reader{number}@example.org", "name": "Reader"}
        table.writerow((row | {column: text}).values())
    answer = rollbook("user", "import", str(write(lines.getvalue())), "--dry-run", "--json")
    found = json.loads(answer.err)["error"]["details"]["problems"]
    reasons = {row["value"]: row["reason"] for row in found}
    assert {row["column"] for row in found} == {column}
    expected = {text[:200]: fault for text, fault in known.items() if fault}
    if column == "username":  # staged as it is stored
        expected = {unicodedata.normalize("NFKC", text): fault for text, fault in expected.items()}
        reasons["a b"] = expected["a b"]  # twice then
    if column == "email":
        taken = {text for text in known if "ada@example" in text.lower()}
        assert set(reasons) - taken == set(expected)
    else:
        assert reasons == expected


@pytest.mark.usefixtures("school")
def test_a_file_may_not_name_new_users_alike(rollbook: Rollbook, write: Write) -> None:
    file = write("username,email\nADA,x@example.org\nZoe,z@example.org\nzoe,y@example.org\n")
    problems = json.loads(rollbook("user", "import", str(file), "--json").err)["error"]["details"]["problems"]
    assert [(row["line"], row["reason"]) for row in problems] == [
        (2, "this username belongs to id:101, ada (capitals do not matter)"),
        (4, "the same as on line 3 (capitals do not matter)"),
    ]
