"""No SQLSTATE ends as a bug in rollbook: each has a fact, an exit code and, where somebody can act, a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, errors

from rollbook.core.conninfo import sentences
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.sqlstate import CLASSES, STATES, translate
from tests.program import KEEP
from tests.school import Rollbook

ERRORS = {
    kind.sqlstate: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate
}


def test_every_sqlstate_that_psycopg_knows_is_an_error_of_ours() -> None:
    assert len(ERRORS) > 230
    meant: dict[str, AdminError] = {state: translate(kind("the server's words")) for state, kind in ERRORS.items()}
    assert {
        state: error for state, error in meant.items() if error.exit_code not in {1, 3, 4} or not error.message
    } == {}
    assert {state: error for state, error in meant.items() if "the server's words" not in f"{error} {error.why}"} == {}
    assert {state[:2] for state in ERRORS} - CLASSES.keys() == set()
    assert STATES.keys() - ERRORS.keys() - {"25P04"} == set()


@pytest.mark.parametrize(
    ("state", "code"),
    [("53100", 3), ("53200", 3), ("53300", 3), ("58030", 3), ("58P01", 3), ("25P03", 3), ("25006", 3), ("57P01", 3),
     ("57P05", 3), ("08006", 3), ("28P01", 3), ("3D000", 3), ("XX001", 3), ("P0001", 1), ("23505", 1), ("40001", 1)],
)  # fmt: skip
def test_what_the_server_cannot_do_is_3_and_what_it_refuses_is_1(state: str, code: int) -> None:
    error = translate(ERRORS[state]("the server's words"))
    assert error.exit_code == code
    assert error.fix or not isinstance(error, UnreachableError) or state.startswith(("08", "57"))


@pytest.mark.parametrize(
    ("said", "fix"),
    [("sorry, too many clients already", "max_connections"),
     ('too many connections for role "ada"', "raise the limit"),
     ('password authentication failed for user "ada"', "pg_hba.conf"), ('role "ada" does not exist', "pg_hba.conf"),
     ('database "none" does not exist', "-d CONNINFO"), ("the database system is starting up", "in a moment"),
     ("Connection refused", "the server is running")],
)  # fmt: skip
def test_a_refused_connection_has_a_fix_of_its_own(said: str, fix: str) -> None:
    error = translate(psycopg.OperationalError(f"connection failed: FATAL:  {said}"))
    assert (error.exit_code, fix in (error.fix or ""), said in (error.why or "")) == (3, True, True), error.fix


def test_the_lines_of_libpq_become_sentences() -> None:
    for said, words in (
        ("Connection refused\n\tIs the server running on that host?", "Connection refused. Is the server running on "
         "that host?"),
        ("All failures were:\n- host: a: refused\n- host: b: refused", "All failures were: - host: a: refused. "
         "- host: b: refused"),
        ("FATAL:  no such database", "FATAL: no such database"), ("it is down.\n", "it is down."), ("", ""),
        ("no password=x\nhere", "no password=*** here"),
    ):  # fmt: skip
        assert sentences(said) == words


def test_a_class_of_somebody_elses_is_a_refusal() -> None:
    class TheirsError(psycopg.DatabaseError):
        sqlstate = "ZZ123"

    assert translate(TheirsError("the portal's words")).exit_code == 1


@pytest.mark.parametrize("state", ["P0001", "ZZ123", "53100", "58030", "XX000", "25P03"])
def test_an_error_of_the_portals_own_trigger_is_told_and_not_logged(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, state: str
) -> None:
    school.execute(
        f"""create function portal.no() returns trigger language plpgsql as $$ begin
        raise exception E'not %\\x1b]0;owned\\x07\\u202e', new.email using errcode = '{state}', hint = 'their hint';
        end $$;
        create trigger no before update on portal.auth_user for each row execute function portal.no()"""
    )
    answer = rollbook("user", "update", "ada", "--first-name", "Ada")
    assert (answer.code, answer.out) == (1 if state in {"P0001", "ZZ123"} else 3, "")
    assert ("not ada@" in answer.err, "portal.no()" in answer.err or answer.code == 3) == (True, True), answer.err
    assert "their hint" in answer.err or answer.code == 3
    assert {"\x1b", "\x07", "\u202e"} & set(answer.err) == set()
    assert not (tmp_path / "rollbook.log").exists()
    assert rollbook("user", "show", "ada", "--json").row["account"]["first_name"] != "Ada"


def test_a_transaction_that_was_idle_too_long_says_so(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollbook.replication.queries import courses

    list_courses = courses.list_courses

    def slow(conn: Connection[Any], *args: Any, **kwargs: Any) -> Any:
        conn.execute("set local idle_in_transaction_session_timeout = '10ms'")
        import time

        time.sleep(0.2)
        return list_courses(conn, *args, **kwargs)

    monkeypatch.setattr(courses, "list_courses", slow)
    del school
    answer = rollbook("course", "list")
    assert (answer.code, "idle too long" in answer.err) == (3, True), answer.err
    assert KEEP not in answer.out


def test_a_sequence_behind_its_table_has_a_line_that_moves_it(rollbook: Rollbook, db: Connection[Any]) -> None:
    db.execute("select rollbook.create_course('a/b/c')")
    db.execute("insert into portal.auth_user (id, username, email) overriding system value values "
               "(1, 'ann', 'ann@school.example'), (2, 'ben', 'ben@school.example')")  # fmt: skip
    db.execute("insert into portal.auth_userprofile (id, user_id, name) overriding system value values (1, 1, 'Ann')")
    db.execute("insert into portal.student_courseenrollment (id, user_id, course_id) overriding system value "
               "values (1, 1, 'a/b/c')")  # fmt: skip
    for command in (
        ("user", "create", "dora", "--email", "dora@school.example", "--name", "Dora D"),
        ("enrollment", "add", "a/b/c", "ben"),
    ):
        answers = []
        for _ in range(4):  # a user, a profile, an enrollment: each has its own
            answer = rollbook(*command)
            answers.append(answer)
            if answer.code == 0:
                break
            assert (answer.code, "fix:   select setval(" in answer.err) == (1, True), answer.err
            db.execute(answer.err.split("fix:   ")[1].encode())
        assert answers[-1].code == 0
        assert len(answers) > 1
