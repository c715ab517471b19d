"""sql/triggers/note_for_discussion.sql: what the discussion service must be told, in the order of the commits."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from tests.sql.helpers import USER, Db, add_user, insert, refused, run, value
from tests.sql.stepping import LEVELS

Noted = list[tuple[int, str, str | None, str | None]]
POOL = ThreadPoolExecutor(2)


def activate(db: Db) -> Db:
    run(db, "update rollbook.discussion set active = true")
    return db


@pytest.fixture
def noting(school: Db) -> Db:
    """Users 1 to 3, who were there before notes are taken."""
    for name in ("ada", "bob", "cy"):
        add_user(school, name)
    return activate(school)


def notes(db: Db) -> Noted:
    """The outbox, oldest first: user, operation, username, e-mail."""
    return run(db, "select user_id, operation, username, email from rollbook.discussion_outbox order by id")


def put(user_id: int, username: str, email: str | None = None) -> tuple[int, str, str | None, str | None]:
    return user_id, "put", username, f"{username}@edx.org" if email is None else email


def gone(user_id: int, username: str) -> tuple[int, str, str | None, str | None]:
    return user_id, "delete", username, None


# --- what is noted ----------------------------------------------------------------------------------------------------


def test_it_is_off_by_default_and_then_notes_nothing(school: Db) -> None:
    add_user(school, "ada")
    run(school, "update portal.auth_user set email = 'new@edx.org'")
    run(school, "delete from portal.auth_user")
    run(school, "truncate portal.auth_user cascade")
    assert notes(school) == []


def test_a_new_user_is_noted(noting: Db) -> None:
    assert add_user(noting, "dan") == 4
    assert notes(noting) == [put(4, "dan")]


CHANGES: dict[LiteralString, Noted] = {
    "email = 'new@edx.org'": [put(1, "ada", "new@edx.org")],
    "email = 'ADA@edx.org'": [put(1, "ada", "ADA@edx.org")],
    "email = ''": [put(1, "ada", "")],
    "username = 'Ada'": [put(1, "Ada", "ada@edx.org")],
    "username = 'eve', email = 'eve@edx.org', is_active = false": [put(1, "eve")],
    "id = id, username = username, email = email": [],
    "first_name = 'A', last_name = 'B', password = 'x', is_staff = true, is_active = false, is_superuser = true": [],
    "last_login = now(), date_joined = now()": [],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_name_or_address_is_noted_and_no_other(noting: Db, change: LiteralString) -> None:
    run(noting, "update portal.auth_user set " + change + " where id = 1")
    assert notes(noting) == CHANGES[change]


def test_a_deletion_is_noted_with_the_last_name(noting: Db) -> None:
    run(noting, "delete from portal.auth_user where id = 2")
    assert notes(noting) == [gone(2, "bob")]


def test_a_truncate_notes_each_user_who_was_there(noting: Db) -> None:
    run(noting, "truncate portal.auth_user cascade")
    assert notes(noting) == [gone(1, "ada"), gone(2, "bob"), gone(3, "cy")]


def test_one_statement_notes_every_user_it_changed(noting: Db) -> None:
    run(noting, "update portal.auth_user set email = 'x' || email where id > 1")
    run(noting, "insert into portal.auth_user (id, username) values (11, 'k'), (10, 'j')")
    run(noting, "delete from portal.auth_user where id < 3")
    assert notes(noting) == [
        put(2, "bob", "xbob@edx.org"), put(3, "cy", "xcy@edx.org"), put(10, "j", ""), put(11, "k", ""),
        gone(1, "ada"), gone(2, "bob"),
    ]  # fmt: skip


def test_a_copy_is_noted(noting: Db) -> None:
    with noting.cursor().copy("copy portal.auth_user (id, username, email) from stdin") as rows:
        for number in (20, 21):
            rows.write_row([number, f"n{number}", f"n{number}@edx.org"])
    assert notes(noting) == [put(20, "n20"), put(21, "n21")]


def test_an_upsert_notes_what_it_became(noting: Db) -> None:
    run(
        noting,
        """insert into portal.auth_user (username, email) values ('ada', 'new@edx.org'), ('dan', 'dan@edx.org')
        on conflict (username) do update set email = excluded.email""",
    )
    assert sorted(notes(noting)) == [put(1, "ada", "new@edx.org"), put(5, "dan")]


def test_a_merge_notes_each_of_its_actions(noting: Db) -> None:
    run(
        noting,
        """merge into portal.auth_user as u using (values (1, 'a1'), (2, null), (3, 'cy'), (9, 'nine')) as s (id, name)
        on s.id = u.id
        when matched and s.name is null then delete
        when matched then update set username = s.name
        when not matched then insert (id, username) values (s.id, s.name)""",
    )
    assert sorted(notes(noting)) == [put(1, "a1", "ada@edx.org"), gone(2, "bob"), put(9, "nine", "")]


def test_an_empty_statement_notes_nothing(noting: Db) -> None:
    run(noting, "update portal.auth_user set email = 'x' where false")
    run(noting, "delete from portal.auth_user where false")
    run(noting, "insert into portal.auth_user (username) select 'x' where false")
    assert notes(noting) == []


def test_what_is_rolled_back_is_not_noted(noting: Db) -> None:
    with suppress(ZeroDivisionError), noting.transaction():
        run(noting, "update portal.auth_user set email = 'x' || email")
        raise ZeroDivisionError
    assert notes(noting) == []


def test_where_the_service_is_switched_off_nothing_more_is_noted(noting: Db) -> None:
    run(noting, "update portal.auth_user set email = 'a@edx.org' where id = 1")
    run(noting, "update rollbook.discussion set active = false")
    run(noting, "update portal.auth_user set email = 'b@edx.org' where id = 1")
    assert notes(noting) == [put(1, "ada", "a@edx.org")]


# --- triggers of the application --------------------------------------------------------------------------------------


def add_trigger(db: Db, when: LiteralString, body: LiteralString) -> None:
    run(db, "create function public.app() returns trigger language plpgsql as $$ begin " + body + " end $$")
    run(db, "create trigger app " + when + " on portal.auth_user for each row execute function public.app()")


def test_what_a_trigger_before_the_row_made_of_it_is_noted(noting: Db) -> None:
    add_trigger(noting, "before update", "new.email := lower(new.email); return new;")
    run(noting, "update portal.auth_user set email = 'NEW@EDX.ORG' where id = 1")
    assert notes(noting) == [put(1, "ada", "new@edx.org")]


@pytest.mark.parametrize("name", ["aa", "zz"])
def test_a_trigger_that_changes_the_user_once_more_leaves_the_last_note_right(noting: Db, name: LiteralString) -> None:
    add_trigger(
        noting,
        "after insert or update",
        "update portal.auth_user set email = 'final@edx.org' where id = new.id and email <> 'final@edx.org';"
        "return null;",
    )
    run(noting, "alter trigger app on portal.auth_user rename to " + name)
    run(noting, "update portal.auth_user set email = 'passing@edx.org' where id = 1")
    assert set(notes(noting)) == {put(1, "ada", "final@edx.org")}
    run(noting, "delete from portal.auth_user where id = 1")
    run(noting, "insert into portal.auth_user (id, username, email) values (30, 'thirty', 'passing@edx.org')")
    assert {note for note in notes(noting) if note[0] == 30} == {put(30, "thirty", "final@edx.org")}


def test_a_trigger_that_brings_a_deleted_user_back_leaves_no_deletion(noting: Db) -> None:
    add_trigger(
        noting,
        "after delete",
        "insert into portal.auth_user (id, username, email) values (old.id, old.username, 'back@edx.org');return null;",
    )
    run(noting, "delete from portal.auth_user where id = 1")
    assert notes(noting) == [put(1, "ada", "back@edx.org")]


# --- other sessions ---------------------------------------------------------------------------------------------------


def test_an_application_without_rights_in_rollbook_is_noted(live: Db, app: Db) -> None:
    activate(live)
    user_id = insert(app, USER, {"username": "ada"})
    run(app, "update portal.auth_user set email = 'a@edx.org'")
    run(app, "delete from portal.auth_user")
    assert notes(live) == [put(user_id, "ada", ""), put(user_id, "ada", "a@edx.org"), gone(user_id, "ada")]


def test_a_listener_hears_of_commits_that_noted_something(live: Db, session: Callable[[], Connection[Any]]) -> None:
    activate(live)
    user_id = insert(live, USER, {"username": "ada"})
    listener = session()
    run(listener, "listen rollbook_discussion")
    with live.transaction():
        run(live, "update portal.auth_user set email = 'a@edx.org'")
        run(live, "update portal.auth_user set email = 'b@edx.org'")
    run(live, "update portal.auth_user set first_name = 'A'")
    with suppress(ZeroDivisionError), live.transaction():
        run(live, "delete from portal.auth_user where id = %s", user_id)
        raise ZeroDivisionError
    assert [heard.channel for heard in listener.notifies(timeout=0.5)] == ["rollbook_discussion"]


@pytest.mark.parametrize("second", LEVELS)
@pytest.mark.parametrize("first", LEVELS)
@pytest.mark.parametrize(
    "write",
    ["update portal.auth_user set email = 'late@edx.org' where id = 1", "delete from portal.auth_user where id = 1"],
)
def test_of_one_user_the_notes_stand_in_the_order_of_the_commits(
    live: Db, session: Callable[[], Connection[Any]], first: str, second: str, write: LiteralString
) -> None:
    activate(live)
    insert(live, USER, {"username": "ada"})
    one, two = session(), session()
    for db, level in ((one, first), (two, second)):
        run(db, "begin isolation level " + LEVELS[level])
        run(db, "select count(*) from portal.auth_user")
    run(one, "update portal.auth_user set email = 'early@edx.org' where id = 1")
    waits = POOL.submit(run, two, write)
    end = time.monotonic() + 30
    while not value(live, "select count(*) from pg_locks where not granted") and time.monotonic() < end:
        time.sleep(0.01)
    run(one, "commit")
    late = [gone(1, "ada")] if write.startswith("delete") else [put(1, "ada", "late@edx.org")]
    if second == "RC":
        waits.result(30)
        run(two, "commit")
    else:
        with pytest.raises(psycopg.errors.SerializationFailure):
            waits.result(30)
        run(two, "rollback")
        late = []
    assert notes(live) == [put(1, "ada", ""), put(1, "ada", "early@edx.org"), *late]


@pytest.mark.parametrize("level", LEVELS)
def test_who_takes_the_id_of_a_deleted_user_is_noted_after_the_deletion(
    live: Db, session: Callable[[], Connection[Any]], level: str
) -> None:
    insert(live, USER, {"username": "ada"})
    activate(live)
    one, two = session(), session()
    run(one, "begin")
    run(one, "delete from portal.auth_user where id = 1")
    run(two, "begin isolation level " + LEVELS[level])
    run(two, "select 1")
    waits = POOL.submit(run, two, "insert into portal.auth_user (id, username) values (1, 'new')")
    end = time.monotonic() + 30
    while not value(live, "select count(*) from pg_locks where not granted") and time.monotonic() < end:
        time.sleep(0.01)
    run(one, "commit")
    waits.result(30)
    run(two, "update portal.auth_user set email = 'new@edx.org' where username = 'new'")
    run(two, "commit")
    assert notes(live) == [gone(1, "ada"), put(1, "new", ""), put(1, "new")]


def test_a_truncate_that_waited_notes_who_came_meanwhile(live: Db, session: Callable[[], Connection[Any]]) -> None:
    activate(live)
    one, two = session(), session()
    run(one, "begin")
    insert(one, USER, {"username": "ada"})
    waits = POOL.submit(run, two, "truncate portal.auth_user cascade")
    end = time.monotonic() + 30
    while not value(live, "select count(*) from pg_locks where not granted") and time.monotonic() < end:
        time.sleep(0.01)
    run(one, "commit")
    waits.result(30)
    assert notes(live) == [put(1, "ada", ""), gone(1, "ada")]


def test_a_truncate_that_cannot_see_all_is_refused_and_notes_nothing(live: Db) -> None:
    activate(live)
    run(live, "begin isolation level repeatable read")
    refused(live, "RB009", "truncate portal.auth_user cascade")
    run(live, "rollback")
    assert notes(live) == []


def test_no_write_waits_for_whoever_holds_the_outbox(live: Db, session: Callable[[], Connection[Any]]) -> None:
    activate(live)
    insert(live, USER, {"username": "ada"})
    sync = session()
    run(sync, "begin")
    run(sync, "select * from rollbook.discussion_outbox for update")
    run(sync, "update rollbook.discussion_outbox set attempts = 1")
    run(live, "set lock_timeout = '100ms'")
    run(live, "update portal.auth_user set email = 'a@edx.org'")
    run(live, "delete from portal.auth_user")
    run(sync, "rollback")
    assert [note[1] for note in notes(live)] == ["put", "put", "delete"]


def test_a_session_that_began_with_one_row_notes_very_many_in_time(live: Db) -> None:
    activate(live)
    insert(live, USER, {"username": "ada"})
    run(live, "update portal.auth_user set email = 'a@edx.org'")
    run(live, "set statement_timeout = '60s'")  # nested loops would take minutes
    run(live, "insert into portal.auth_user (username) select 'user' || n from generate_series(1, 20000) as n")
    run(live, "update portal.auth_user set email = username || '@edx.org'")
    run(live, "delete from portal.auth_user")
    assert len(notes(live)) == 2 + 3 * 20_000 + 2
