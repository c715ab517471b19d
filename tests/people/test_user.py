"""`rollbook user`: accounts, and what is refused. Also tests rollbook.password_kind."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pexpect
import pytest
from psycopg import Connection

from tests.program import (
    COPIED,
    KEEP,
    KEEP_SCHEMA,
    PROGRAM,
    REMOVE,
    REMOVE_SCHEMA,
    environment,
    process,
    rows,
    snapshot,
)
from tests.school import Rollbook

CREATED = "id username email is_active outcome"


def test_create_makes_user_profile_and_key_and_enrolls(rollbook: Rollbook, school: Connection[Any]) -> None:
    options = "--first-name Zoë --language de --year-of-birth 1990 --gender f --level-of-education hs --active"
    courses = ("--course", KEEP, "--course", REMOVE)
    answer = rollbook(
        "user", "create", "zoe", "--email", "Zoe@EXAMPLE.org", "--name", "Zoë Foo", *options.split(), *courses, "--json"
    )
    made = answer.row
    assert (answer.code, list(made), made["outcome"], made["is_active"]) == (0, CREATED.split(), "created", True)
    who = (made["id"], "zoe", "Zoe@example.org", "Zoë", True)
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        assert who in rows(school, f"{schema}.auth_user", "id", "username", "email", "first_name", "is_active")
        profile = (made["id"], "Zoë Foo", "de", 1990, "f", "hs", None)
        names = ("user_id", "name", "language", "year_of_birth", "gender", "level_of_education", "goals")
        assert profile in rows(school, f"{schema}.auth_userprofile", *names)
    assert rows(school, "portal.auth_user", "id", "password")[-1][1].startswith("!") or made["id"] < 101
    key = school.execute("select length(activation_key) from portal.auth_registration where user_id = %s", [made["id"]])
    assert key.fetchall() == [(32,)]


def test_a_new_user_is_inactive_unless_told_otherwise(rollbook: Rollbook, db: Connection[Any]) -> None:
    assert rollbook("user", "create", "zoe", "--email", "zoe@example.org", "--json").row["is_active"] is False
    assert rows(db, "portal.auth_user", "username", "is_active") == [("zoe", False)]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ada", "--email", "new@example.org"), "username is taken"),
        (("new", "--email", "ADA@example.ORG"), "belongs to another user"),
        (("new", "--email", "bob@example.org"), "belongs to another user"),
        (("new", "--email", "no-at-sign"), "not an e-mail address"),
        (("new", "--email", "a@b@c.org"), "not an e-mail address"),
        (("new", "--email", ""), "not an e-mail address"),
        (("new", "--email", "x" * 260 + "@example.org"), "e-mail"),
        (("a b", "--email", "new@example.org"), "U+0020 (space) has no place in a username"),
        (("", "--email", "new@example.org"), "username"),
        (("x" * 151, "--email", "new@example.org"), "151 characters, at most 150"),
        (("new", "--email", "new@example.org", "--name", "x" * 256), "at most 255"),
        (("new", "--email", "new@example.org", "--goals", "a\x00b"), "NUL"),
        (("ne\x00w", "--email", "new@example.org"), "NUL"),
        (("new", "--email", "new@example.org", "--course", KEEP, "--course", "MITx"), "no course MITx"),
    ],
)  # fmt: skip
def test_create_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], word: str
) -> None:  # fmt: skip
    before = snapshot(school)
    answer = rollbook("user", "create", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
    assert answer.err.startswith("error: ")
    assert snapshot(school) == before


@pytest.mark.parametrize(
    "option", ["--gender x", "--level-of-education phd", "--year-of-birth 0", "--year-of-birth xx"]
)
def test_create_with_a_value_off_the_list_is_usage(rollbook: Rollbook, empty: str, option: str) -> None:
    del empty
    answer = rollbook("user", "create", "zoe", "--email", "zoe@example.org", *option.split())
    assert (answer.code, answer.out) == (2, "")


def test_create_twice_is_refused_unless_content_with_the_one_there(rollbook: Rollbook, school: Connection[Any]) -> None:
    create = ("user", "create", "zoe", "--email", "zoe@example.org")
    assert [rollbook(*create).code, rollbook(*create).code] == [0, 1]
    before = snapshot(school)
    again = rollbook(*create, "--if-not-exists", "--json")
    assert (again.code, again.row["outcome"], list(again.row)) == (0, "unchanged", CREATED.split())
    assert snapshot(school) == before


def test_update_changes_user_and_profile_everywhere(rollbook: Rollbook, school: Connection[Any]) -> None:
    change = ("--email", "ada@new.org", "--name", "Ada Lovelace", "--year-of-birth", "1985", "--clear", "goals")
    answer = rollbook("user", "update", "ada", *change, "--json")
    assert [tuple(row.values()) for row in answer.data] == [
        ("email", "ada@example.org", "ada@new.org"),
        ("name", "Ada Foo", "Ada Lovelace"),
        ("year_of_birth", None, 1985),
        ("goals", "World peace", None),
    ]
    assert list(answer.data[0]) == ["field", "before", "after"]
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        assert (101, "ada@new.org") in rows(school, f"{schema}.auth_user", "id", "email")
        profile = (101, "Ada Lovelace", 1985, None)
        assert profile in rows(school, f"{schema}.auth_userprofile", "user_id", "name", "year_of_birth", "goals")
    before = snapshot(school)
    again = rollbook("user", "update", "ada", *change, "--json")
    assert (again.code, again.data, snapshot(school)) == (0, [], before)


@pytest.mark.parametrize("field", ["first_name", "last_name", "name", "language", "location", "year_of_birth", "gender",
                                   "level_of_education", "mailing_address", "goals"])  # fmt: skip
def test_a_field_is_set_by_its_option_and_cleared(rollbook: Rollbook, school: Connection[Any], field: str) -> None:
    value = {"year_of_birth": "1985", "gender": "f", "level_of_education": "hs"}.get(field, "Text, ünd")
    option = field.replace("_", "-")
    table = "portal.auth_user" if field in ("first_name", "last_name") else "portal.auth_userprofile"
    key = "id" if table == "portal.auth_user" else "user_id"
    assert rollbook("user", "update", "ada", f"--{option}", value).code == 0
    assert str(dict(rows(school, table, key, field))[101]) == value
    assert rollbook("user", "update", "ada", "--clear", option).code == 0
    nullable = field in ("year_of_birth", "gender", "level_of_education", "mailing_address", "goals")
    assert dict(rows(school, table, key, field))[101] == (None if nullable else "")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("nobody", "--name", "x"), 1, "there is no user nobody"),
        (("bob", "--username", "ada"), 1, "taken"),
        (("bob", "--email", "ADA@example.org"), 1, "belongs to another"),
        (("bob", "--email", "nonsense"), 1, "not an e-mail address"),
        (("bob", "--username", "a b", "--name", "x"), 1, "U+0020 (space) has no place in a username"),
        (("bob", "--location", "x" * 256), 1, "at most 255"),
        (("bob", "--goals", "a\x00b"), 1, "NUL"),
        (("bob",), 2, "nothing to change"),
        (("bob", "--clear", "username"), 2, "no such field"),
        (("bob", "--clear", "goals", "--goals", "x"), 2, "exclude each other"),
    ],
)
def test_update_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "update", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_a_refusal_shows_no_password_hash(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("update portal.auth_user set password = 'pbkdf2_sha256$260000$salt$planted' where id = 101")
    school.execute("alter table portal.auth_user add constraint no_x check (first_name <> 'x')")
    answer = rollbook("user", "update", "ada", "--first-name", "x")
    assert (answer.code, "planted" in answer.err) == (1, False), answer.err


@pytest.mark.parametrize(
    ("token", "username"),
    [("ada", "ada"), ("ADA@Example.ORG", "ada"), ("id:102", "bob"), ("username:eve", "eve"),
     ("email:bob@example.org", "bob")],
)  # fmt: skip
def test_a_user_is_named_in_five_ways(rollbook: Rollbook, seen: str, token: str, username: str) -> None:
    del seen
    assert rollbook("user", "show", token, "--json").data[0]["account"]["username"] == username


@pytest.mark.parametrize(
    "token", ["nobody", "Ada", "id:1", "id:x", "id:", "username:", "email:x@y.org", "", "id:" + "9" * 30]
)
def test_an_unknown_user_is_refused(rollbook: Rollbook, seen: str, token: str) -> None:
    del seen
    answer = rollbook("user", "show", "ada", token)
    assert (answer.code, answer.out, f"error: there is no user {token}\n" in answer.err) == (1, "", True)


def test_the_nearest_user_is_named(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert "the nearest is ada" in rollbook("user", "show", "adaa").err


@pytest.mark.parametrize(
    "command",
    [
        ("user", "show"),
        ("enrollment", "add", KEEP),
        ("course", "show"),
        ("course", "create"),
        ("user", "list", "--match"),
    ],
    ids=" ".join,
)
def test_text_that_the_server_cannot_hold_is_refused(rollbook: Rollbook, seen: str, command: tuple[str, ...]) -> None:
    del seen
    answer = rollbook(*command, "a\x00b")
    assert (answer.code in (1, 2), answer.out) == (True, ""), answer.err


def test_an_argument_that_is_not_utf_8_is_refused(seen: str) -> None:
    answer = process("user", "show", os.fsdecode(b"\xff"), "-d", seen)
    assert (answer.code in (1, 2), answer.out) == (True, ""), answer.err


def test_an_ambiguous_user_is_refused_with_both(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("insert into portal.auth_user (id, username) values (105, 'ada@example.org')")
    before = snapshot(school)
    for command in (("user", "show"), ("user", "update", "--name", "x"), ("enrollment", "add", KEEP)):
        answer = rollbook(*command, "ada@example.org")
        assert (answer.code, answer.out) == (1, "")
        assert all(word in answer.err for word in ("matches several", "id:101", "id:105", "username:X"))
    assert snapshot(school) == before
    assert rollbook("user", "show", "username:ada@example.org", "--json").data[0]["account"]["id"] == 105
    assert rollbook("user", "show", "email:ada@example.org", "--json").data[0]["account"]["id"] == 101


def test_show_has_account_profile_enrollments_and_copies(rollbook: Rollbook, broken: str) -> None:
    del broken
    (ada, bob) = rollbook("user", "show", "ada", "id:102", "ada", "--json").data
    assert (ada["account"]["email"], ada["profile"]["name"]) == ("ada@example.org", "Ada Foo")
    assert [(e["course"], e["created"], e["replicated"]) for e in ada["enrollments"]] == [
        (KEEP, "2012-09-02T00:00:00Z", True), (REMOVE, "2012-09-03T00:00:00Z", True),
    ]  # fmt: skip
    assert [list(copy.values()) for copy in ada["copies"]] == [
        [KEEP, True, "changed", "ok", "extra", None, None], [REMOVE, True, "ok", "ok", "ok", None, None],
    ]  # fmt: skip
    assert [list(copy.values()) for copy in bob["copies"]] == [[KEEP, True, "ok", "missing", "ok", None, None]]


def test_show_of_a_user_who_waits_for_a_course(rollbook: Rollbook, seen: str) -> None:
    del seen
    answer = rollbook("user", "show", "dan", "--json")
    assert answer.code == 0
    assert [(e["course"], e["replicated"]) for e in answer.data[0]["enrollments"]] == [("edX/later/2014", None)]


def test_users_are_counted(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert rollbook("user", "count", "--json").row == {"users": 4, "active": 2}
    assert rollbook("user", "count", "--by", "month", "--json").data == [
        {"key": "2012-09", "users": 2, "active": 2}, {"key": "2012-10", "users": 2, "active": 0},
    ]  # fmt: skip
    assert rollbook("user", "count", "--by", "course", "--csv", "--no-header").out == (
        f"{KEEP},2,2\nedX/later/2014,1,0\n{REMOVE},1,1\n"
    )
    assert rollbook("user", "count", "--by", "planet").code == 2


def test_users_are_counted_by_the_country_of_their_candidate_record(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert rollbook("user", "count", "--by", "country", "--json").data == [{"key": "GBR", "users": 1, "active": 1}]


def test_a_terminal_shows_bars_and_a_pipe_does_not(school: Connection[Any], dsn: str) -> None:
    child = pexpect.spawn(PROGRAM, ["user", "count", "--by", "course", "-d", dsn], encoding="utf-8",
                          env=environment(TERM="xterm", NO_COLOR="1"), dimensions=(40, 80), timeout=20)  # fmt: skip
    child.expect(pexpect.EOF)
    lines = [line.rstrip() for line in child.before.splitlines()]
    bars = [line.count("█") for line in lines[1:]]
    assert (bars[0] > 0, bars[0] == 2 * bars[1] == 2 * bars[2]) == (True, True), lines
    assert max(map(len, lines)) <= 80
    assert "█" not in process("user", "count", "--by", "course", "--format", "table", "-d", dsn).out
    assert "█" not in process("user", "count", "--by", "course", "-d", dsn).out
    del school


# --- what domain.md 5 refuses, in the words that people know ----------------------------------------------------------

NEXT_YEAR = date.today().year + 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("ada", "--email", "new@example.org"), 1, "An account with this username already exists"),
        (("new", "--email", "ADA@example.ORG"), 1, "An account with this e-mail already exists"),
        (("@n", "--email", "new@example.org"), 1, "a username does not begin with @"),
        (("id:7", "--email", "new@example.org"), 1, "a username does not begin with id:"),
        (("n\u0435w", "--email", "new@example.org"), 1, "a username has letters of one script"),
        (("new", "--email", "n"), 1, "Valid e-mail is required"),
        (("new", "--email", "bad_email@"), 1, "Valid e-mail is required"),
        (("new", "--email", "@bad_email"), 1, "Valid e-mail is required"),
        (("new", "--email", "new@example.org", "--name", "N"), 1, "a name has at least two characters"),
        (("new", "--email", "new@example.org", "--name", " N "), 1, "a name has at least two characters"),
        (("new", "--email", "new@example.org", "--year-of-birth", "1815"), 1, "1815 is not within the last 120 years"),
        (("new", "--email", "new@example.org", "--year-of-birth", str(NEXT_YEAR)), 1, "within the last 120 years"),
        (("new", "--email", "new@example.org", "--meta", "[1]"), 1, "meta is not a JSON object"),
        (("new", "--email", "new@example.org", "--meta", "{"), 1, "meta is not JSON"),
        (("new", "--email", "new@example.org", "--gender", "x"), 2, "gender"),
        (("new", "--email", "new@example.org", "--level-of-education", "phd"), 2, "level-of-education"),
    ],
)  # fmt: skip
def test_an_account_that_cannot_be_is_refused_in_words(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "create", *arguments)
    assert (answer.code, answer.out, text in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_meta_may_hold_any_text(rollbook: Rollbook, school: Connection[Any]) -> None:
    meta = {"a": "\\u0000 as text", "b": "😀 é", "c": 1e300}
    assert rollbook("user", "update", "ada", "--meta", json.dumps(meta)).code == 0
    assert json.loads(dict(rows(school, "portal.auth_userprofile", "user_id", "meta"))[101]) == meta


@pytest.mark.parametrize("years", [0, 119])
def test_the_years_within_120_are_taken(rollbook: Rollbook, school: Connection[Any], years: int) -> None:
    year = date.today().year - years
    assert rollbook("user", "update", "ada", "--year-of-birth", str(year)).code == 0
    assert (101, year) in rows(school, "portal.auth_userprofile", "user_id", "year_of_birth")


@pytest.mark.parametrize("table", ["auth_userprofile", "auth_registration"])
def test_where_a_part_fails_there_is_no_account(rollbook: Rollbook, school: Connection[Any], table: str) -> None:
    school.execute(f"alter table portal.{table} add constraint no_more check (user_id < 105) not valid".encode())
    school.execute("select setval(pg_get_serial_sequence(rollbook.portal_table('auth_user')::text, 'id'), 105)")
    before = snapshot(school)
    assert rollbook("user", "create", "zoe", "--email", "zoe@example.org", "--course", KEEP).code == 1
    assert snapshot(school) == before


def test_an_active_account_is_enrolled_where_its_address_is_allowed_and_its_key_is_spent(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    school.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) "
        "values ('Zoe@example.org', %s, true), ('zoe@example.org', %s, false)", [KEEP, REMOVE],
    )  # fmt: skip
    create = ("user", "create", "zoe", "--email", "zoe@example.org")
    assert "1 enrollment added" in rollbook(*create, "--active").err
    found = school.execute(
        "select e.course_id, r.activated_at is not null from portal.auth_user as u "
        "inner join portal.auth_registration as r on r.user_id = u.id "
        "inner join portal.student_courseenrollment as e on e.user_id = u.id where u.username = 'zoe'"
    ).fetchall()
    assert found == [(KEEP, True)]


# --- update -----------------------------------------------------------------------------------------------------------


def meta(db: Connection[Any], user_id: int = 101) -> Any:
    """The meta of a user."""
    return json.loads(dict(rows(db, "portal.auth_userprofile", "user_id", "meta"))[user_id] or "{}")


def test_old_names_and_addresses_stay_in_the_meta(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("user", "update", "ada", "--meta", '{"likes": ["maths"]}')
    rollbook("user", "update", "ada", "--name", "Ada King", "--email", "king@example.org", "--reason", "married")
    rollbook("user", "update", "ada", "--name", "Ada Lovelace")
    found = meta(school)
    assert found["likes"] == ["maths"]
    assert [entry[:2] for entry in found["old_names"]] == [["Ada Foo", "married"], ["Ada King", ""]]
    assert [entry[0] for entry in found["old_emails"]] == ["ada@example.org"]
    for at in (found["old_names"][0][2], found["old_emails"][0][1]):
        moment = datetime.fromisoformat(at)
        assert (moment.utcoffset(), abs((datetime.now(UTC) - moment).total_seconds()) < 60) == (timedelta(0), True)
    rollbook("user", "update", "ada", "--meta", '{"new": 1}')
    assert set(meta(school)) == {"new", "old_names", "old_emails"}
    rollbook("user", "update", "ada", "--clear", "meta")
    assert set(meta(school)) == {"old_names", "old_emails"}
    (copy,) = rows(school, f"{KEEP_SCHEMA}.auth_userprofile", "user_id", "meta")[:1]
    assert json.loads(copy[1]) == meta(school)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--name", "x"), "a name has at least two characters"),
        (("--meta", "3"), "meta is not a JSON object"),
        (("--meta", "not json"), "meta is not JSON"),
        (("--meta", '{"a": NaN}'), "meta is not JSON"),
        (("--meta", '{"a": 1e999}'), "1e999 is not JSON"),
        (("--meta", '{"a": ["\\u0000"]}'), "a NUL is not JSON"),
        (("--meta", '{"a": "\\ud800"}'), "meta is not JSON"),
        (("--year-of-birth", "1815"), "not within the last 120 years"),
        (("--username", "a\u200b"), "U+200B (zero width space) has no place in a username"),
        (("--username", "BOB"), "the username is taken (capitals do not matter)"),
        (("--goals", "new", "--email", "BOB@example.org"), "An account with this e-mail already exists"),
    ],
)
def test_a_change_that_cannot_be_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], text: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "update", "ada", *arguments)
    assert (answer.code, answer.out, text in answer.err) == (1, "", True), answer.err
    assert snapshot(school) == before


def test_a_meta_that_is_somebody_elses_is_not_overwritten(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("user", "update", "ada", "--meta", '{"old_names": "none"}')
    before = snapshot(school)
    answer = rollbook("user", "update", "ada", "--name", "Ada King")
    assert (answer.code, "a value other than a list" in answer.err) == (1, True)
    assert snapshot(school) == before


def test_true_is_not_one(rollbook: Rollbook, school: Connection[Any]) -> None:
    rollbook("user", "update", "ada", "--meta", '{"a": 1}')
    rollbook("user", "update", "ada", "--meta", '{"a": true}')
    assert meta(school)["a"] is True


# --- activate, deactivate, grant, revoke ------------------------------------------------------------------------------


def flags(db: Connection[Any]) -> dict[str, tuple[bool, bool, bool]]:
    """is_active, is_staff and is_superuser of everybody."""
    found = rows(db, "portal.auth_user", "username", "is_active", "is_staff", "is_superuser")
    return {name: (active, staff, superuser) for name, active, staff, superuser in found}


def test_activate_and_deactivate_say_what_they_did_and_reach_the_copies(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    answer = rollbook("user", "activate", "-", "--json", stdin="\ufeffdan\n\nada@example.org\n".encode())
    assert answer.data == [{"username": "dan", "outcome": "activated"}, {"username": "ada", "outcome": "unchanged"}]
    assert rows(school, "portal.auth_registration", "user_id", "activation_key")[0][0] == 103
    assert school.execute("select activated_at is not null from portal.auth_registration").fetchall() == [(True,)]
    before = snapshot(school)
    assert set(rollbook("user", "activate", "dan", "ada", "--json").column("outcome")) == {"unchanged"}
    assert snapshot(school) == before
    assert rollbook("user", "deactivate", "ada", "--json").row == {"username": "ada", "outcome": "deactivated"}
    assert rows(school, f"{KEEP_SCHEMA}.auth_user", "id", "is_active") == [(101, False), (102, True)]


def test_a_blocked_account_is_not_opened_with_its_old_key(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("update portal.auth_user set is_active = true where id = 103")  # as a password reset does
    assert rollbook("user", "deactivate", "dan").code == 0
    before = snapshot(school)
    answer = rollbook("registration", "activate", "--key-stdin", stdin=b"key-of-dan")
    assert (answer.code, "expired" in answer.err) == (1, True)
    assert snapshot(school) == before


def test_activation_enrolls_where_the_address_is_allowed(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) "
        "values ('DAN@example.org', %s, true), ('dan@example.org', %s, false)", [KEEP, REMOVE],
    )  # fmt: skip
    assert (103,) not in rows(school, f"{KEEP_SCHEMA}.auth_user", "id")
    answer = rollbook("user", "activate", "dan")
    assert "dan: 1 enrollment added" in answer.err
    assert (103,) in rows(school, f"{KEEP_SCHEMA}.auth_user", "id")
    assert (103,) not in rows(school, f"{REMOVE_SCHEMA}.auth_user", "id")


@pytest.mark.parametrize("verb", ["activate", "deactivate", "grant", "revoke"])
def test_one_unknown_among_several_and_nothing_is_done_unless_skipped(
    rollbook: Rollbook, school: Connection[Any], verb: str
) -> None:
    if verb in ("deactivate", "revoke"):
        school.execute("update portal.auth_user set is_active = true, is_staff = true")
    else:
        school.execute("update portal.auth_user set is_active = false, is_staff = false")
    options = ("--staff", "--yes") if verb in ("grant", "revoke") else ()
    before = snapshot(school)
    answer = rollbook("user", verb, "dan", "nobody", "eve", *options)
    assert (answer.code, answer.out, "error: there is no user nobody" in answer.err) == (1, "", True)
    assert rollbook("user", verb, "nobody", *options, "--on-error", "skip").code == 1
    assert snapshot(school) == before
    answer = rollbook("user", verb, "dan", "nobody", "eve", *options, "--on-error", "skip", "--json")
    assert (answer.code, answer.column("username")) == (5, ["dan", "eve"])
    assert "unchanged" not in answer.column("outcome")
    assert json.loads(answer.err.splitlines()[0])["error"]["message"] == "there is no user nobody"
    assert snapshot(school) != before


def test_rights_are_granted_and_revoked(rollbook: Rollbook, school: Connection[Any]) -> None:
    assert rollbook("user", "grant", "bob", "--staff", "--superuser", "--json").row["outcome"] == "granted"
    assert flags(school)["bob"] == (True, True, True)
    assert (102, True) in rows(school, f"{KEEP_SCHEMA}.auth_user", "id", "is_superuser")
    assert rollbook("user", "grant", "bob", "--staff", "--json").row["outcome"] == "unchanged"
    answer = rollbook("user", "revoke", "ada", "bob", "eve", "--staff", "--yes", "--json")
    assert answer.column("outcome") == ["revoked", "revoked", "unchanged"]
    assert flags(school)["bob"] == (True, False, True)


def test_rights_of_several_are_asked_about(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    answer = rollbook("user", "grant", "bob", "dan", "--superuser")
    assert (answer.code, answer.out) == (6, "")
    assert "grant superuser: 2 users, bob, dan" in answer.err
    assert rollbook("user", "grant", "bob").code == 2
    assert snapshot(school) == before


# --- delete -----------------------------------------------------------------------------------------------------------


def test_delete_says_what_goes_where_and_then_it_is_gone(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("insert into portal.student_usertestgroup (id, name) values (1, 'g')")
    school.execute("insert into portal.student_usertestgroup_users (usertestgroup_id, user_id) values (1, 101)")
    planned = rollbook("user", "delete", "ada", "-n", "--json").data
    before = snapshot(school)
    answer = rollbook("user", "delete", "ADA@example.org", "--confirm", "ada", "--json")
    assert [list(row.values())[:4] for row in answer.data] == [
        [None, "auth_user", 1, "removed"],
        [None, "auth_userprofile", 1, "removed"],
        [None, "student_courseenrollment", 2, "removed"],
        [None, "student_usertestgroup_users", 1, "removed"],
        [None, "student_testcenteruser", 1, "removed"],
        *([course, table, 1, "removed"] for course in (KEEP, REMOVE) for table in COPIED),
    ]
    assert planned == [row | {"outcome": "would remove"} for row in answer.data]
    after = snapshot(school)
    lost = {table: len(before[table]) - len(after[table]) for table in before if len(before[table]) > len(after[table])}
    schemas = {None: "portal", KEEP: KEEP_SCHEMA, REMOVE: REMOVE_SCHEMA}
    said = {f"{schemas[row['course']]}.{row['table']}": row["rows"] for row in answer.data}
    assert lost == said | {"rollbook.route": 1}
    assert rollbook("user", "delete", "ada", "--confirm", "ada").code == 1


@pytest.mark.parametrize("options", [(), ("--confirm", "bob"), ("--confirm", "ADA"), ("--no-input",)])
def test_delete_without_the_right_name_tells_and_keeps_all(
    rollbook: Rollbook, school: Connection[Any], options: tuple[str, ...]
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "delete", "ada", *options)
    assert (answer.code, answer.out, "fix:   add --confirm ada" in answer.err) == (6, "", True)
    if "--confirm" not in options:
        assert f"{KEEP}: auth_user 1, auth_userprofile 1, student_courseenrollment 1" in answer.err
        details = json.loads(rollbook("user", "delete", "ada", "--json").err)["error"]["details"]
        assert len(details["rows"]) == 10
    assert snapshot(school) == before


def test_a_course_that_holds_on_to_a_copy_is_named_and_nobody_is_deleted(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    school.execute(f"create table {KEEP_SCHEMA}.note (user_id bigint references {KEEP_SCHEMA}.auth_user)".encode())
    school.execute(f"insert into {KEEP_SCHEMA}.note values (101)".encode())
    before = snapshot(school)
    answer = rollbook("user", "delete", "ada", "--confirm", "ada")
    assert (answer.code, answer.out, KEEP in answer.err) == (1, "", True)
    assert snapshot(school) == before


# --- pseudonym --------------------------------------------------------------------------------------------------------


def test_a_pseudonym_is_the_old_one_or_a_keyed_one(
    rollbook: Rollbook, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seen
    (tmp_path / "key").write_text("planted-secret\n")
    file = ("--secret-file", str(tmp_path / "key"))

    def said(*options: str) -> dict[str, str]:
        answer = rollbook("user", "pseudonym", "ada", "bob", *options, "--json")
        assert (answer.code, "planted" in answer.out + answer.err) == (0, False)
        return {row["username"]: row["pseudonym"] for row in answer.data}

    old = said("--legacy", *file)
    assert old == {
        name: hashlib.md5(f"planted-secret{number}".encode()).hexdigest()
        for name, number in (("ada", 101), ("bob", 102))
    }
    new, there, elsewhere = said(*file), said("--course", KEEP, *file), said("--course", REMOVE, *file)
    assert new["ada"] == hmac.new(b"planted-secret", b"101", hashlib.sha256).hexdigest()[:32]
    every = [name for names in (old, new, there, elsewhere) for name in names.values()]
    assert (len(set(every)), {len(name) for name in every}) == (8, {32})
    monkeypatch.setenv("ROLLBOOK_SECRET_KEY", "planted-secret")
    assert (said(), said("--legacy")) == (new, old)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("ada",), 2, "there is no secret"),
        (("ada", "--secret-file", "/no/such"), 2, "cannot read"),
        (("ada", "--secret-file", "/dev/null"), 2, "there is no secret"),
        (("ada", "--secret-file", "KEY", "--legacy", "--course", KEEP), 2, "exclude each other"),
        (("ada", "--secret-file", "KEY", "--course", "nowhere"), 1, "there is no course"),
        (("ada", "nobody", "--secret-file", "KEY"), 1, "there is no user nobody"),
    ],
)
def test_a_pseudonym_that_cannot_be_said(
    rollbook: Rollbook, seen: str, tmp_path: Path, arguments: tuple[str, ...], code: int, word: str
) -> None:
    del seen
    (tmp_path / "key").write_text("planted-secret")
    answer = rollbook("user", "pseudonym", *(a.replace("KEY", str(tmp_path / "key")) for a in arguments))
    assert (answer.code, answer.out, word in answer.err, "planted" in answer.err) == (code, "", True, False), answer.err


# --- show and list ----------------------------------------------------------------------------------------------------


def test_show_has_key_state_changes_that_wait_and_groups_but_no_secret(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    school.execute("insert into portal.student_usertestgroup (id, name, description) values (1, 'trial', 'A or B')")
    school.execute("insert into portal.student_usertestgroup_users (usertestgroup_id, user_id) values (1, 103)")
    school.execute("select rollbook.request_name_change(103, 'Dan Bar', 'wed')")
    school.execute(
        "insert into portal.student_pendingemailchange (user_id, new_email, activation_key) "
        "values (103, 'ADA@example.org', 'planted-key')"
    )
    school.execute("update portal.auth_user set password = 'pbkdf2_sha256$1$planted$planted' where id = 103")
    answer = rollbook("user", "show", "dan", "--json")
    (dan,) = answer.data
    assert dan["registration"]["state"] == "pending"
    assert [(c["field"], c["old"], c["new"], c["conflict"]) for c in dan["pending_changes"]] == [
        ("email", "dan@example.org", "ADA@example.org", True), ("name", "Dan Foo", "Dan Bar", None),
    ]  # fmt: skip
    assert dan["groups"] == [{"name": "trial", "description": "A or B"}]
    assert dan["account"]["password"] == "pbkdf2_sha256"
    table = rollbook("user", "show", "dan", "--format", "table").out
    assert [word for word in ("planted", "key-of") if word in answer.out + table] == []
    assert rollbook("user", "list", "--pending", "--json").column("username") == ["dan"]
    assert rollbook("user", "list", "--group", "trial", "--inactive", "--json").column("username") == ["dan"]
    assert rollbook("user", "list", "--no-pending", "--json").column("username") == ["ada", "bob", "eve"]
    assert rollbook("user", "list", "--group", "nonsense").code == 1
