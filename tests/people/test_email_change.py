"""`rollbook email-change`: asked for, confirmed with a key, cancelled; and what is refused.

The original's own tests of it, one for one: E3 to E6, E9 and E10 are here. Its E1 and E2 are about a visitor who signs
in, and E7 and E8 about mails: a command line has no visitor, and the mails are sent by whoever asked for the key.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP_SCHEMA, REMOVE_SCHEMA, process, rows, snapshot
from tests.school import Rollbook

PENDING = "portal.student_pendingemailchange"
TAKEN = "An account with this e-mail already exists"


def ask(rollbook: Rollbook, user: str = "ada", email: str = "ada@new.org") -> str:
    """Ask for an address; return the key."""
    answer = rollbook("email-change", "create", user, email, "--show-key", "--json")
    assert answer.code == 0, answer.err
    return str(answer.row["activation_key"])


def confirm(rollbook: Rollbook, key: str, *more: str) -> Any:
    """Confirm with a key."""
    return rollbook("email-change", "confirm", "--key-stdin", *more, stdin=f"{key}\n".encode())


def history(db: Connection[Any]) -> list[tuple[Any, ...]]:
    """What was noted, the last first."""
    names = ("id", "command", "object", "outcome", "before", "after", "user_id", "reason")
    return rows(db, "rollbook.history", *names)[::-1]


# --- create -----------------------------------------------------------------------------------------------------------


def test_create_asks_and_changes_no_address(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("email-change", "create", "ada", "Ada@NEW.org", "--json")
    row = answer.row
    columns = ["id", "username", "old_email", "new_email", "requested_at", "expires_at", "outcome"]
    assert (answer.code, list(row)) == (0, columns)
    assert (row["old_email"], row["new_email"], row["outcome"]) == ("ada@example.org", "Ada@new.org", "created")
    week = datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["requested_at"])
    assert week.days == 7
    assert rows(school, PENDING, "user_id", "new_email") == [(101, "Ada@new.org")]
    assert (101, "ada@example.org") in rows(school, "portal.auth_user", "id", "email")
    after = {"new_email": "Ada@new.org"}
    assert history(school)[0][1:] == ("email-change create", "ada", "created", None, after, 101, None)


def test_the_key_is_shown_when_asked_for_and_nowhere_else(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = ask(rollbook)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert rows(school, PENDING, "activation_key") == [(key,)]
    alone = ("--show-key", "--csv", "--no-header", "--fields", "activation_key")
    second = rollbook("email-change", "create", "ada", "ada@new.org", *alone).out.strip()
    assert (len(second), second != key) == (32, True)
    for words in (
        ("email-change", "list", "--json"), ("email-change", "create", "ada", "ada@new.org", "--json"),
        ("history", "list", "--json"), ("user", "show", "ada", "--json"), ("email-change", "confirm", "ada", "-v"),
    ):  # fmt: skip
        answer = rollbook(*words)
        ((current,),) = rows(school, PENDING, "activation_key") or [(second,)]
        assert answer.code == 0, answer.err
        assert not {key, second, current} & set(re.findall("[0-9a-f]{32}", answer.out + answer.err)), words
    said = school.execute("select string_agg(h::text, ' ') from rollbook.history as h").fetchone()
    assert not re.search("[0-9a-f]{32}", str(said))
    before = snapshot(school)
    answer = rollbook("email-change", "create", "bob", "bob@new.org", "--fields", "activation_key")
    assert (answer.code, answer.out) == (2, "")
    assert snapshot(school) == before


def test_asking_again_replaces_address_and_key(rollbook: Rollbook, school: Connection[Any]) -> None:
    first = ask(rollbook)
    answer = rollbook("email-change", "create", "ada", "other@new.org", "--json")
    assert answer.row["outcome"] == "changed"
    assert rows(school, PENDING, "user_id", "new_email") == [(101, "other@new.org")]
    before = snapshot(school)
    dead = confirm(rollbook, first)
    assert (dead.code, dead.out, "error: Invalid key\n" in dead.err) == (1, "", True)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ada", "bad_email"), "error: Valid e-mail address required.\n"),  # E3
        (("ada", "bad_email@"), "error: Valid e-mail address required.\n"),  # E3
        (("ada", "@bad_email"), "error: Valid e-mail address required.\n"),  # E3
        (("ada", ""), "error: Valid e-mail address required.\n"),
        (("ada", "a@b@c.org"), "error: Valid e-mail address required.\n"),
        (("ada", "a\x00b@c.org"), "error: Valid e-mail address required.\n"),
        (("ada", "x" * 250 + "@new.org"), "error: Valid e-mail address required.\n"),
        (("ada", "bob@example.org"), f"error: {TAKEN}.\n"),  # E4
        (("ada", "BOB@EXAMPLE.ORG"), f"error: {TAKEN}.\n"),  # E4, other capitals
        (("ada", "ada@example.org"), "error: Old email is the same as the new email.\n"),
        (("ada", "ada@EXAMPLE.org"), "error: Old email is the same as the new email.\n"),
        (("nobody", "ada@new.org"), "error: there is no user nobody\n"),
    ],
)
def test_create_refuses_and_writes_nothing(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], word: str
) -> None:
    ask(rollbook, "dan", "dan@new.org")
    before = snapshot(school)
    answer = rollbook("email-change", "create", *arguments)
    assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
    assert snapshot(school) == before


# --- confirm ----------------------------------------------------------------------------------------------------------


def test_confirm_gives_the_address_everywhere_and_keeps_the_old_one(
    rollbook: Rollbook, school: Connection[Any]
) -> None:  # E9
    key = ask(rollbook)
    answer = confirm(rollbook, key, "--reason", "clicked", "--json")
    assert (answer.code, answer.row) == (0, {
        "username": "ada", "old_email": "ada@example.org", "new_email": "ada@new.org", "outcome": "changed",
    })  # fmt: skip
    for schema in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA):
        assert (101, "ada@new.org") in rows(school, f"{schema}.auth_user", "id", "email")
        meta = dict(rows(school, f"{schema}.auth_userprofile", "user_id", "meta"))[101]
        ((old, at),) = json.loads(meta)["old_emails"]
        assert (old, at[-6:]) == ("ada@example.org", "+00:00")
        assert datetime.fromisoformat(at).utcoffset() is not None
    assert rows(school, PENDING, "id") == []
    assert history(school)[0][1:] == (
        "email-change confirm", "ada", "changed", {"email": "ada@example.org"}, {"email": "ada@new.org"}, 101,
        "clicked",
    )  # fmt: skip
    before = snapshot(school)
    assert confirm(rollbook, key).code == 1
    assert snapshot(school) == before


def test_an_operator_confirms_by_user(rollbook: Rollbook, school: Connection[Any]) -> None:
    ask(rollbook)
    assert rollbook("email-change", "confirm", "ada").code == 0
    assert (101, "ada@new.org") in rows(school, "portal.auth_user", "id", "email")
    before = snapshot(school)
    again = rollbook("email-change", "confirm", "ada")
    assert (again.code, "ada has no pending change of e-mail address" in again.err) == (1, True)
    assert snapshot(school) == before


def test_entries_of_old_emails_are_in_the_order_of_time(rollbook: Rollbook, school: Connection[Any]) -> None:
    for number in (1, 2, 3):
        confirm(rollbook, ask(rollbook, "ada", f"ada{number}@new.org"))
    meta = json.loads(dict(rows(school, "portal.auth_userprofile", "user_id", "meta"))[101])
    assert [entry[0] for entry in meta["old_emails"]] == ["ada@example.org", "ada1@new.org", "ada2@new.org"]


@pytest.mark.parametrize("key", ["0" * 32, "short", "x" * 5000, "' or true --", "a\x00b"])
def test_an_unknown_key_changes_nothing(rollbook: Rollbook, school: Connection[Any], key: str) -> None:  # E5
    ask(rollbook)
    before = snapshot(school)
    answer = confirm(rollbook, key)
    if "\x00" in key:
        assert (answer.code in (1, 2), answer.out) == (True, "")
    else:
        assert (answer.code, answer.out, "error: Invalid key\n" in answer.err) == (1, "", True), answer.err
        assert key not in answer.err
    assert snapshot(school) == before


@pytest.mark.parametrize("by_user", [True, False])
def test_an_expired_key_changes_nothing(rollbook: Rollbook, school: Connection[Any], *, by_user: bool) -> None:
    key = ask(rollbook)
    school.execute("update portal.student_pendingemailchange set expires_at = now() - interval '1 s'")
    before = snapshot(school)
    answer = rollbook("email-change", "confirm", "ada") if by_user else confirm(rollbook, key)
    assert (answer.code, answer.out, "error: Invalid key\n" in answer.err) == (1, "", True)
    assert ("expired" in answer.err, key in answer.err) == (True, False)
    assert snapshot(school) == before


@pytest.mark.parametrize("taken", ["ada@new.org", "ADA@NEW.ORG"])
def test_an_address_taken_meanwhile_changes_nothing(rollbook: Rollbook, school: Connection[Any], taken: str) -> None:
    key = ask(rollbook)  # E6
    school.execute("update portal.auth_user set email = %s where username = 'dan'", [taken])
    before = snapshot(school)
    for answer in (confirm(rollbook, key), rollbook("email-change", "confirm", "ada")):
        assert (answer.code, answer.out) == (1, "")
        assert "error: Could not change e-mail\n" in answer.err
        assert TAKEN in answer.err
    assert rollbook("email-change", "list", "--json").row["conflict"] is True
    assert snapshot(school) == before
    school.execute("update portal.auth_user set email = 'dan@example.org' where username = 'dan'")
    assert confirm(rollbook, key).code == 0


def test_an_unexpected_error_rolls_all_back(rollbook: Rollbook, school: Connection[Any]) -> None:  # E10
    key = ask(rollbook)
    school.execute(
        """create function public.fail() returns trigger language plpgsql as $$ begin
            raise exception 'the disk is on fire' using errcode = '55000';
        end $$;
        create trigger fail before delete on portal.student_pendingemailchange
            for each row execute function public.fail()"""
    )
    before = snapshot(school)
    answer = confirm(rollbook, key)
    assert (answer.code, answer.out, "the disk is on fire" in answer.err) == (1, "", True)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [((), b""), (("ada", "--key-stdin"), b"x\n"), (("--key-stdin",), b""), (("--key-stdin",), b"\n"),
     (("--key-stdin",), b"caf\xe9\n"), (("--key-stdin",), b"a\nb\n"), (("--key", "x"), b"")],
)  # fmt: skip
def test_one_way_to_confirm_must_be_named(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], stdin: bytes
) -> None:
    ask(rollbook)
    before = snapshot(school)
    answer = rollbook("email-change", "confirm", *arguments, stdin=stdin)
    assert (answer.code, answer.out) == (2, "")
    assert snapshot(school) == before


# --- list, cancel -----------------------------------------------------------------------------------------------------


def test_list_has_the_keys_of_the_contract_and_its_filters(rollbook: Rollbook, school: Connection[Any]) -> None:
    for user in ("ada", "bob", "dan"):
        ask(rollbook, user, f"{user}@new.org")
    school.execute("update portal.auth_user set email = 'BOB@new.org' where username = 'eve'")
    answer = rollbook("email-change", "list", "--json")
    assert list(answer.data[0]) == [
        "id", "username", "old_email", "new_email", "requested_at", "expires_at", "conflict",
    ]  # fmt: skip
    assert [(row["username"], row["conflict"]) for row in answer.data] == [
        ("ada", False),
        ("bob", True),
        ("dan", False),
    ]
    assert rollbook("email-change", "list", "--match", "DAN@new", "--json").column("username") == ["dan"]
    assert rollbook("email-change", "list", "--sort", "-username", "--limit", "1", "--json").column("username") == [
        "dan"
    ]
    assert "1 of 3 rows" in rollbook("email-change", "list", "--limit", "1").err


def test_cancel_forgets_the_request_and_its_key(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = ask(rollbook)
    emails = rows(school, "portal.auth_user", "id", "email")
    answer = rollbook("email-change", "cancel", "ada", "bob", "--reason", "typo", "--json")
    assert (answer.code, [list(row.values()) for row in answer.data]) == (
        0, [["ada", "ada@new.org", "cancelled"], ["bob", None, "unchanged"]],
    )  # fmt: skip
    assert (rows(school, PENDING, "id"), rows(school, "portal.auth_user", "id", "email")) == ([], emails)
    assert history(school)[0][1:] == (
        "email-change cancel", "ada", "cancelled", {"new_email": "ada@new.org"}, None, 101, "typo",
    )  # fmt: skip
    before = snapshot(school)
    assert confirm(rollbook, key).code == 1
    assert rollbook("email-change", "cancel", "ada", "--json").row["outcome"] == "unchanged"
    assert snapshot(school) == before


def test_cancel_with_an_unknown_user_does_nothing_or_skips(rollbook: Rollbook, school: Connection[Any]) -> None:
    ask(rollbook)
    before = snapshot(school)
    answer = rollbook("email-change", "cancel", "ada", "nobody")
    assert (answer.code, answer.out, "there is no user nobody" in answer.err) == (1, "", True)
    assert snapshot(school) == before
    answer = rollbook("email-change", "cancel", "-", "--on-error", "skip", "--json", stdin=b"ada\nnobody\n")
    assert (answer.code, answer.column("outcome"), rows(school, PENDING, "id")) == (5, ["cancelled"], [])


# --- import -----------------------------------------------------------------------------------------------------------


def imported(rollbook: Rollbook, content: str, *more: str) -> Any:
    """Import a file."""
    return rollbook("email-change", "import", "-", "--json", *more, stdin=content.encode())


def test_a_file_asks_for_many_and_leaves_what_is_asked_already(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = ask(rollbook, "ada", "ada@new.org")
    ask(rollbook, "bob", "bob@old.org")
    file = "user,email\nada,ada@new.org\nBob@Example.org,bob@NEW.org\nid:103,dan@new.org\n"
    before = snapshot(school)
    assert imported(rollbook, file, "-n").column("outcome") == ["unchanged", "would change", "would create"]
    assert snapshot(school) == before
    answer = imported(rollbook, file, "--reason", "a new host")
    assert (answer.code, answer.column("outcome")) == (0, ["unchanged", "changed", "created"])
    assert sorted(rows(school, PENDING, "user_id", "new_email")) == [
        (101, "ada@new.org"), (102, "bob@new.org"), (103, "dan@new.org"),
    ]  # fmt: skip
    counts = {"unchanged": 1, "changed": 1, "created": 1}
    assert history(school)[2][1:] == ("email-change import", "stdin", "imported", None, counts, None, "a new host")
    assert imported(rollbook, file).column("outcome") == ["unchanged"] * 3
    assert confirm(rollbook, key).code == 0  # it is alive


def test_wrong_rows_of_a_file_are_told_and_nothing_is_asked(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    file = (
        "user,email\nada,ada@example.org\nada,BOB@example.org\nnobody,x@new.org\nbob,nowhere\ndan,\n"
        "eve,eve@new.org\nid:104,eve@other.org\n"
    )
    answer = imported(rollbook, file)
    assert (answer.code, snapshot(school) == before) == (1, True)
    told = [
        (row["line"], row["column"], row["reason"].partition(":")[0])
        for row in json.loads(answer.err)["error"]["details"]["problems"]
    ]
    assert told == [
        (2, "email", "the user already has this address"), (3, "email", "another account has this address"),
        (4, "user", "there is no such user"), (5, "email", "this is not an e-mail address"),
        (6, "email", "an e-mail address is needed"), (8, "user", "the same user as on line 7"),
    ]  # fmt: skip
    answer = imported(rollbook, file, "--on-error", "skip")
    assert answer.code == 5
    assert rows(school, PENDING, "user_id", "new_email") == [(104, "eve@new.org")]


# --- both -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing_and_shows_no_key(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = ask(rollbook)
    before = snapshot(school)
    row = rollbook("email-change", "create", "ada", "x@new.org", "--show-key", "-n", "--json").row
    assert (row["outcome"], row["activation_key"]) == ("would change", None)
    assert confirm(rollbook, key, "-n", "--json").row["outcome"] == "would change"
    assert rollbook("email-change", "cancel", "ada", "-n", "--json").row["outcome"] == "would cancel"
    assert rollbook("email-change", "create", "ada", "bob@example.org", "-n").code == 1
    assert snapshot(school) == before


def test_of_two_programs_that_confirm_one_key_one_does_it(
    rollbook: Rollbook, school: Connection[Any], dsn: str
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    key = ask(rollbook)
    words = ("email-change", "confirm", "--key-stdin", "-d", dsn)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: process(*words, stdin=key.encode()), range(2)))
    assert sorted(answer.code for answer in answers) == [0, 1]
    assert "Invalid key" in "".join(answer.err for answer in answers)
    meta = json.loads(dict(rows(school, "portal.auth_userprofile", "user_id", "meta"))[101])
    assert len(meta["old_emails"]) == 1
