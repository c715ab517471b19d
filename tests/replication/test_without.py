"""`--without`: columns that do not travel to a course, in the portal's database and on its server; `rollbook shape`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.replication import shape
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.replication.conftest import Site, until
from tests.replication.test_move import Two, lost, shell, two
from tests.school import Rollbook

__all__ = ["two"]


def without(conn: Connection[Any], course: str) -> list[str]:
    """Return what a course leaves out."""
    row = conn.execute("select without from rollbook.course where course_id = %s", [course]).fetchone()
    assert row is not None
    return list(row[0])


def checked(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what `schema check` finds, the sequences apart: the rows of these tests came with their ids."""
    return [row for row in found if row["kind"] != "sequence"]


def test_create_update_and_shape_in_the_portals_database(rollbook: Rollbook, school: Connection[Any]) -> None:
    made = rollbook("course", "create", "own", "--without", "last_login, auth_userprofile.meta", "--json")
    assert (made.code, made.row["without"]) == (0, ["last_login", "meta"])
    assert rollbook("course", "show", "own", "--json").data["without"] == ["last_login", "meta"]
    replicated = rollbook("course", "show", "own", "--json").data["replicated"]
    assert "last_login" not in replicated["auth_user"]
    assert {row["course"]: row["without"] for row in rollbook("course", "list", "--json").data}[KEEP] == []
    for listed, word in (("id", "is a key"), ("user_id", "is a key"), ("lastlogin", "no copied column lastlogin")):
        refused = rollbook("course", "update", KEEP, "--without", listed)
        assert (refused.code, word in refused.err, "fix:" in refused.err) == (1, True, True)
    assert rollbook("course", "update", KEEP).code == 2
    assert rollbook("course", "update", "--without", "password").code == 2
    assert rollbook("course", "update", KEEP, "--all", "--without", "password").code == 2

    planned = rollbook("course", "update", KEEP, REMOVE, "--without", "password", "-n", "--json")
    assert (planned.code, [row["without"] for row in planned.data]) == (0, [["password"], ["password"]])
    assert without(school, KEEP) == []
    done = rollbook("course", "update", KEEP, "--without", "password", "--json")
    assert (done.row["outcome"], without(school, KEEP)) == ("updated", ["password"])
    assert rollbook("course", "update", KEEP, "--without", "password", "--json").row["outcome"] == "unchanged"
    school.execute(f"update {KEEP_SCHEMA}.auth_user set password = 'course'")
    school.execute("update portal.auth_user set password = 'portal'")
    assert (rollbook("replication", "verify").code, checked(rollbook("schema", "check", "--json").data)) == (0, [])
    assert rollbook("course", "update", KEEP, "--without", "", "--json").row["rows"] > 0
    assert school.execute(f"select distinct password from {KEEP_SCHEMA}.auth_user").fetchall() == [("portal",)]

    assert rollbook("shape", "without", "--json").row["without"] == []
    assert rollbook("shape", "without", "user_id").code == 1
    assert rollbook("shape", "without", "last_login", "-n").code == 0
    answer = rollbook("shape", "without", "last_login", "--json")
    assert (answer.row["outcome"], len(answer.row["differing"])) == ("updated", answer.row["courses"])
    assert "rollbook course update --all --without last_login" in answer.err
    rollbook("course", "create", "new")
    assert without(school, "new") == ["last_login"]
    everywhere = rollbook("course", "update", "--all", "--without", "last_login", "--json")
    assert (everywhere.code, {tuple(row["without"]) for row in everywhere.data}) == (0, {("last_login",)})
    assert rollbook("shape", "without", "--json").row["differing"] == []
    before = school.execute(f"select xmin::text from {KEEP_SCHEMA}.auth_user order by id").fetchall()
    school.execute("update portal.auth_user set last_login = now()")
    assert school.execute(f"select xmin::text from {KEEP_SCHEMA}.auth_user order by id").fetchall() == before
    assert (rollbook("replication", "verify").code, checked(rollbook("schema", "check", "--json").data)) == (0, [])
    history = rollbook("history", "list", "--course", KEEP, "--json").data
    assert history[0]["outcome"] == "updated"


@contextmanager
def writers(site: Site) -> Iterator[None]:
    """Change users, profiles and enrollments all the time."""
    stop, broken = threading.Event(), []

    def write(number: int) -> None:
        try:
            with psycopg.connect(site.portal_dsn, autocommit=True) as conn:
                turn = 0
                while not stop.is_set():
                    turn += 1
                    user = 101 + (turn + number) % 4
                    conn.execute("update portal.auth_user set last_login = now(), password = %s, first_name = %s "
                                 "where id = %s", [f"p{turn}", f"f{turn}", user])  # fmt: skip
                    conn.execute(
                        "update portal.auth_userprofile set meta = %s where user_id = %s", [f'{{"turn": {turn}}}', user]
                    )
                    if turn % 5 == 0:
                        conn.execute("delete from portal.student_courseenrollment where user_id = %s "
                                     "and course_id = %s", [user, KEEP])  # fmt: skip
                        conn.execute("insert into portal.student_courseenrollment (user_id, course_id) "
                                     "values (%s, %s) on conflict do nothing", [user, KEEP])  # fmt: skip
        except psycopg.Error as exc:
            broken.append(str(exc))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert broken == []


def clean(site: Site) -> None:
    """Assert that nothing is wrong on either side."""
    until(lambda: site.states() == {KEEP: "ok", REMOVE: "ok"})
    site.ok("replication", "verify")
    assert checked(site.run("schema", "check", "--json").data) == []


@pytest.mark.slow
def test_on_a_server_a_column_stays_at_home_and_travels_again_while_writers_write(streaming: Site) -> None:
    with writers(streaming):
        streaming.ok("course", "update", KEEP, "--without", "last_login,password,meta,first_name")
        streaming.server.execute(f"update {KEEP_SCHEMA}.auth_user set password = 'course', first_name = 'own'")
    clean(streaming)
    streaming.ok("replication", "verify", "--user", "id:101")
    own = streaming.server.execute(f"select distinct password, first_name from {KEEP_SCHEMA}.auth_user").fetchall()
    assert set(own) <= {("course", "own"), ("!", "")}  # the second: who came back
    with pytest.raises(psycopg.errors.IntegrityError):
        streaming.server.execute(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org'")
    streaming.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 101")
    streaming.as_worker(f"delete from {KEEP_SCHEMA}.auth_userprofile where user_id = 101")
    streaming.ok("replication", "repair", KEEP, "--yes")
    streaming.ok("replication", "resync", KEEP, "--yes")
    assert (
        streaming.server.execute(f"select distinct password, first_name from {KEEP_SCHEMA}.auth_user").fetchall() == own
    )
    with writers(streaming):
        streaming.ok("course", "update", KEEP, "--without", "meta")
    clean(streaming)
    streaming.ok("course", "update", KEEP, "--without", "")
    clean(streaming)
    assert streaming.is_equal(KEEP)
    same_form(streaming)


@pytest.mark.slow
def test_a_column_that_travels_again_while_the_course_is_paused_comes_when_it_is_resumed(streaming: Site) -> None:
    streaming.ok("course", "update", KEEP, "--without", "password,first_name")
    streaming.server.execute(f"update {KEEP_SCHEMA}.auth_user set password = 'course', first_name = 'own'")
    streaming.ok("course", "pause", KEEP)
    streaming.ok("course", "update", KEEP, "--without", "first_name")
    with lost(streaming, "east"):
        late = streaming.run("course", "resume", KEEP, "--timeout", "1")
    assert (late.code, f"course {KEEP} is resumed, but" in late.err) == (3, True), late.err
    resumed = streaming.ok("course", "resume", KEEP, "--json")  # what is said to be run again
    assert [(row["table"], row["updated"]) for row in resumed.data] == [("auth_user", len(streaming.copy(KEEP)))]
    clean(streaming)
    held = f"select distinct password, first_name from {KEEP_SCHEMA}.auth_user"
    assert streaming.server.execute(held.encode()).fetchall() == [("!", "own")]
    streaming.ok("course", "pause", KEEP)
    streaming.ok("course", "update", KEEP, "--without", "")
    streaming.ok("course", "resume", KEEP)
    assert streaming.is_equal(KEEP)
    same_form(streaming)


def same_form(site: Site) -> None:
    """Assert that the copies of a course that leaves nothing out are like those of the other one, on the server."""
    shapes = "select attname, attnotnull, atthasdef from pg_attribute where attrelid = %s::regclass and attnum > 0"
    for table in ("auth_user", "auth_userprofile"):
        kept, other = (
            site.server.execute(shapes, [f"{schema}.{table}"]).fetchall() for schema in (KEEP_SCHEMA, REMOVE_SCHEMA)
        )
        assert kept == other


@pytest.mark.slow
def test_a_course_that_leaves_columns_out_is_attached_and_detached_with_them(site: Site) -> None:
    site.ok("course", "update", KEEP, "--without", "last_login,password")
    site.portal.execute(f"update {KEEP_SCHEMA}.auth_user set password = 'portal copy'")
    site.add()
    site.attach(KEEP, REMOVE)
    clean(site)
    assert site.server.execute(f"select distinct password from {KEEP_SCHEMA}.auth_user").fetchall() == [("!",)]
    site.server.execute(f"update {KEEP_SCHEMA}.auth_user set last_login = '2001-01-01'")
    site.portal.execute("update portal.auth_user set last_login = now(), last_name = 'New'")
    clean(site)
    assert site.server.execute(f"select distinct last_login::date::text, last_name from {KEEP_SCHEMA}.auth_user"
                               ).fetchall() == [("2001-01-01", "New")]  # fmt: skip
    site.ok("course", "detach", KEEP, "--yes")
    site.attach(KEEP)
    clean(site)


@pytest.mark.slow
def test_what_such_a_column_holds_on_a_server_moves_with_the_course(two: Two) -> None:
    two.ok("course", "update", KEEP, "--without", "last_login,password")
    two.server.execute(f"update {KEEP_SCHEMA}.auth_user set last_login = '2001-01-01', password = 'own'")
    waiting = two.move()
    assert waiting.code == 4
    assert two.run("course", "update", KEEP, "--without", "").code == 1  # it moves
    left = {row["object"]: row["command"] for row in waiting.data if row["command"]}
    assert set(left) == {"column auth_user.last_login", "column auth_user.password"}
    for command in left.values():
        shell(command)
    assert two.move("--finish").code == 0
    held = f"select distinct last_login::date::text, password from {KEEP_SCHEMA}.auth_user"
    assert two.west.execute(held.encode()).fetchall() == [("2001-01-01", "own")]
    two.portal.execute("update portal.auth_user set last_login = now(), password = 'x', last_name = 'New'")
    two.wait()
    assert two.west.execute(held.encode()).fetchall() == [("2001-01-01", "own")]
    two.ok("replication", "verify")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["prepare", "update_course", "finish", "reshape"])
@pytest.mark.parametrize(("first", "then"), [("", "password,first_name"), ("password,first_name", "")])
def test_an_update_that_was_killed_is_run_again(
    streaming: Site, monkeypatch: pytest.MonkeyPatch, step: str, first: str, then: str
) -> None:
    streaming.ok("course", "update", KEEP, "--without", first)

    def killed(*_: object, **options: object) -> None:
        if step != "reshape" or options.get("is_final"):
            raise KeyboardInterrupt
        original(*_, **options)

    original = getattr(shape, step)
    monkeypatch.setattr(shape, step, killed)
    with writers(streaming):
        streaming.run("course", "update", KEEP, "--without", then)
        monkeypatch.undo()
        until(lambda: streaming.states() == {KEEP: "ok", REMOVE: "ok"})  # the stream goes on, whatever was done
        streaming.ok("course", "update", KEEP, "--without", then)
    clean(streaming)
