"""psql's door to names and addresses: check_account, check_name and check_email, on each table that has one; usernames
without regard to case, and refuse_taken_username, guard_usernames and colliding_usernames where a site came with some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest

from tests.sql.functions.test_names import EMAILS, NAMES, USERNAMES
from tests.sql.helpers import Db, add_user, fails, refused, run, value
from tests.sql.stepping import Stepper

# Table, column, and how a row gets there.
DOORS: dict[str, tuple[LiteralString, LiteralString, dict[str, str | None]]] = {
    "username": ("insert into portal.auth_user (username) values (%s)", "auth_user", USERNAMES),
    "email": ("insert into portal.auth_user (username, email) values ('new', %s)", "auth_user", EMAILS),
    "name": ("insert into portal.auth_userprofile (user_id, name) values (1, %s)", "auth_userprofile", NAMES),
    "new_name": (
        "insert into portal.student_pendingnamechange (user_id, new_name) values (1, %s)", "student_pendingnamechange",
        NAMES,
    ),
    "new_email": (
        "insert into portal.student_pendingemailchange (user_id, new_email) values (1, %s)",
        "student_pendingemailchange", EMAILS,
    ),
    "allowed": (
        "insert into portal.student_courseenrollmentallowed (course_id, email) values ('c', %s)",
        "student_courseenrollmentallowed", EMAILS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", list(DOORS))
def test_psql_has_the_same_answer_for_the_same_text(portal: Db, door: str) -> None:
    insert, table, texts = DOORS[door]
    column = {"allowed": "email"}.get(door, door)
    kind = column.removeprefix("new_")
    add_user(portal, "someone")
    run(portal, "delete from portal.auth_userprofile")
    for text, fault in texts.items():
        try:
            with portal.transaction(force_rollback=True):
                run(portal, insert, text)
                stored = value(portal, "select {c} from portal.{t} order by id desc limit 1", c=column, t=table)
        except psycopg.IntegrityError as exc:
            said = exc.diag
            assert fault is not None or (door, text) == ("allowed", ""), text  # it needs one
            # The table's own CHECKs come first for plain ASCII, and for what is empty or too wide.
            assert said.sqlstate == "23514" or (said.message_primary, said.sqlstate) == (fault, "23R13")
        except psycopg.DataError as exc:
            assert exc.sqlstate == "22001", text  # noqa: PT017
        else:
            assert (stored, fault) == (value(portal, "select rollbook.{f}(%s)", text, f=f"normal_{kind}"), None)


def test_only_what_is_new_is_judged(portal: Db) -> None:
    run(portal, "set local session_replication_role = replica")
    run(
        portal,
        "insert into portal.auth_user (id, username, email, first_name) values (7, 'o''neil', %s, %s)",
        "jose\u0301@x.org",
        "a\u200bb",
    )
    run(portal, "insert into portal.auth_userprofile (user_id, name) values (7, 'a\u200bb')")
    run(portal, "set local session_replication_role = origin")
    run(
        portal,
        "update portal.auth_user set username = 'o''neil', first_name = 'a\u200bb', is_staff = true where id = 7",
    )
    run(portal, "update portal.auth_userprofile set name = 'a\u200bb', goals = 'x' where user_id = 7")
    assert run(portal, "select username, email from portal.auth_user") == [("o'neil", "jose\u0301@x.org")]
    run(portal, "insert into portal.auth_user (username) values ('o''neil') on conflict (username) do nothing")
    run(
        portal,
        "insert into portal.auth_user (username) values ('o''neil') on conflict (username) "
        "do update set email = 'a@b.c'",
    )
    refused(portal, "23R13", "update portal.auth_user set username = 'o''brien' where id = 7")
    refused(portal, "23R13", "update portal.auth_user set last_name = 'x\u202e' where id = 7")
    refused(portal, "23R13", "update portal.auth_userprofile set name = 'c\u200bd' where user_id = 7")


def test_a_username_is_taken_in_any_capitals(portal: Db) -> None:
    run(portal, "insert into portal.auth_user (username) values ('Émile'), ('anna')")
    for name in ("ANNA", "Anna", "e\u0301mile"):
        fails(portal, psycopg.errors.UniqueViolation, "insert into portal.auth_user (username) values (%s)", name)
    fails(
        portal, psycopg.errors.UniqueViolation, "update portal.auth_user set username = 'ANNA' where username = 'Émile'"
    )
    run(portal, "insert into portal.auth_user (username) values ('anna') on conflict (username) do nothing")
    run(portal, "update portal.auth_user set username = 'Anna' where username = 'anna'")
    assert run(portal, "select username from portal.auth_user order by id") == [("Émile",), ("Anna",)]


def test_of_two_sessions_that_make_it_at_once_one_wins(live: Db, session: Callable[[], Db]) -> None:
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin("RC")
    two.begin("RR")
    assert not one.step("insert into portal.auth_user (username) values ('Anna')")
    assert two.step("insert into portal.auth_user (username) values ('anna')")  # it waits
    assert (one.end(), two.end()) == ("", "23505")
    assert run(live, "select username from portal.auth_user") == [("Anna",)]


@pytest.fixture
def colliding(live: Db) -> Db:
    """A site that came with two spellings of one name: the index is partial, and the trigger is there."""
    place = value(live, "select rollbook.portal_table('auth_user')::text")
    index = "auth_user_username_lower_key"
    live.execute(f"drop index {place.replace('auth_user', '')}{index}".encode())
    run(live, "insert into portal.auth_user (username) values ('anna'), ('Anna'), ('bob')")
    live.execute(
        f"create unique index {index} on {place} (lower(username)) where lower(username) <> all ('{{anna}}')".encode()
    )
    run(live, "select rollbook.guard_usernames()")
    return live


def test_where_some_collide_no_further_one_is_made(colliding: Db, session: Callable[[], Db]) -> None:
    assert run(colliding, "select * from rollbook.colliding_usernames()") == [("anna", [1, 2], ["anna", "Anna"])]
    said = refused(colliding, "23R14", "insert into portal.auth_user (username) values ('ANNA')")
    assert said.message_primary == "the username ANNA is taken (capitals do not matter)"
    refused(colliding, "23R14", "update portal.auth_user set username = 'aNNa' where username = 'bob'")
    run(colliding, "update portal.auth_user set first_name = 'Anna' where lower(username) = 'anna'")  # they live on
    fails(colliding, psycopg.errors.UniqueViolation, "insert into portal.auth_user (username) values ('BOB')")
    run(colliding, "insert into portal.auth_user (username) values ('Anna') on conflict (username) do nothing")
    one, two = Stepper(session(), colliding), Stepper(session(), colliding)
    one.begin("RC")
    two.begin("RC")
    assert not one.step("insert into portal.auth_user (username) values ('Cleo')")
    assert two.step("insert into portal.auth_user (username) values ('CLEO')")
    assert (one.end(), two.end()) == ("", "23505")


def test_the_guard_stays_until_the_index_has_all_names(colliding: Db) -> None:
    run(colliding, "update portal.auth_user set username = 'anna2' where username = 'Anna'")
    run(colliding, "select rollbook.guard_usernames()")
    refused(colliding, "23R14", "insert into portal.auth_user (username) values ('ANNA')")
    place = value(colliding, "select rollbook.portal_table('auth_user')::text")
    index = "auth_user_username_lower_key"
    colliding.execute(f"drop index {place.replace('auth_user', '')}{index}".encode())
    colliding.execute(f"create unique index {index} on {place} (lower(username))".encode())
    run(colliding, "select rollbook.guard_usernames()")
    assert value(colliding, "select count(*) from pg_trigger where tgname = 'rollbook_refuse_taken_username'") == 0
    fails(colliding, psycopg.errors.UniqueViolation, "insert into portal.auth_user (username) values ('ANNA')")
