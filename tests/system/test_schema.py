"""`rollbook schema`: the migrations as a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.system import migration as schema
from tests.program import KEEP, KEEP_SCHEMA, snapshot
from tests.school import Rollbook

MOVED = ["database", "from", "to", "outcome"]


def state(dsn: str) -> dict[str, list[str]]:
    """Every row of a database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return snapshot(conn)


def test_upgrade_and_downgrade_say_what_they_did_and_twice_is_unchanged(rollbook: Rollbook, bare: str) -> None:
    def moved(*arguments: str) -> list[Any]:
        answer = rollbook("schema", *arguments, "--json", dsn=bare)
        assert (answer.code, list(answer.row)) == (0, MOVED), answer.err
        return list(answer.row.values())[1:]

    assert moved("upgrade", "--to", "0001") == [None, "0001", "upgraded"]
    assert moved("upgrade") == ["0001", "0002", "upgraded"]
    assert moved("upgrade") == ["0002", "0002", "unchanged"]
    assert rollbook("course", "create", KEEP, dsn=bare).code == 0
    assert moved("downgrade", "--to", "0001", "--yes") == ["0002", "0001", "downgraded"]
    assert moved("downgrade", "--to", "base", "--yes") == ["0001", None, "downgraded"]
    assert moved("downgrade", "--to", "base", "--yes") == [None, None, "unchanged"]
    assert state(bare) == {}


def test_current_is_0_at_the_head_and_4_elsewhere(rollbook: Rollbook, bare: str) -> None:
    def current() -> tuple[int, list[Any]]:
        answer = rollbook("schema", "current", "--json", dsn=bare)
        return answer.code, list(answer.row.values())[1:]

    assert current() == (4, [None, False, 2])
    schema.upgrade(bare, "0001")
    assert current() == (4, ["0001", False, 1])
    schema.upgrade(bare)
    assert current() == (0, ["0002", True, 0])


def test_downgrade_asks_before_it_drops_courses(rollbook: Rollbook, school: Connection[Any], dsn: str) -> None:
    before = snapshot(school)
    for options in ((), ("--no-input",), ("--confirm", "other")):
        answer = rollbook("schema", "downgrade", "--to", "base", *options)
        assert (answer.code, answer.out) == (6, "")
    assert "every course schema" in rollbook("schema", "downgrade", "--to", "0001").err
    assert snapshot(school) == before
    assert rollbook("schema", "downgrade", "--to", "0001", "--confirm", school.info.dbname).code == 0
    assert not any(name.startswith(("course_", "rollbook.")) for name in state(dsn))
    assert len(state(dsn)["portal.student_courseenrollment"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("upgrade --to 9999", 1),
        ("upgrade --to nonsense", 1),
        ("upgrade --to base", 1),
        ("upgrade --to 0001", 1),
        ("downgrade --to 9999 --yes", 1),
        ("downgrade", 2),
        ("sql --from 9999", 1),
        ("sql --to nonsense", 1),
    ],
)
def test_a_move_that_is_none_is_refused(rollbook: Rollbook, school: Connection[Any], arguments: str, code: int) -> None:
    before = snapshot(school)
    for dry in ((), ("-n",)) if not arguments.startswith("sql") else ((),):
        answer = rollbook("schema", *arguments.split(), *dry)
        assert (answer.code, answer.out) == (code, ""), (dry, answer.out[:200])
    assert snapshot(school) == before


def test_a_downgrade_to_a_later_revision_is_refused(rollbook: Rollbook, bare: str) -> None:
    schema.upgrade(bare, "0001")
    answer = rollbook("schema", "downgrade", "--to", "0002", "--yes", dsn=bare)
    assert (answer.code, answer.out) == (1, "")


@pytest.mark.parametrize("verb", ["upgrade", "downgrade --to base --yes"])
def test_a_dry_run_prints_the_sql_and_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], bare: str, verb: str
) -> None:
    if verb == "upgrade":
        answer = rollbook("schema", "upgrade", "-n", dsn=bare)
        assert ("create schema portal" in answer.out, state(bare)) == (True, {})
    else:
        before = snapshot(school)
        answer = rollbook("schema", *verb.split(), "-n")
        assert ("drop schema rollbook" in answer.out, snapshot(school)) == (True, before)
    assert answer.code == 0


def test_sql_needs_no_server_and_holds_nothing_else(rollbook: Rollbook, tmp_path: Path) -> None:
    answer = rollbook("schema", "sql", dsn="host=/nonexistent")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("BEGIN;")
    assert answer.out.rstrip().endswith("COMMIT;")
    file = tmp_path / "review.sql"
    assert rollbook("schema", "sql", "-o", str(file), dsn=None).out == ""
    assert (file.read_text(), file.stat().st_mode & 0o777) == (answer.out, 0o600)


@pytest.mark.parametrize("range_", [("base", "head"), ("head", "base")])
def test_sql_has_the_percent_signs_of_the_files(rollbook: Rollbook, range_: tuple[str, str]) -> None:
    answer = rollbook("schema", "sql", "--from", range_[0], "--to", range_[1], dsn=None)
    assert [line for line in answer.out.splitlines() if "%%" in line] == []


def test_history_lists_the_revisions_with_their_locks(rollbook: Rollbook) -> None:
    found = rollbook("schema", "history", "--json", dsn="host=/nonexistent").data
    known = ["0001", "0002"]
    pairs = zip(known, [None, *known], strict=False)
    assert [(row["revision"], row["down_revision"]) for row in found] == list(pairs)
    assert all(row["locks"] and row["title"] for row in found)


def test_check_names_what_is_not_as_shipped(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("select setval(seqrelid, 1000) from pg_sequence")  # the rows came with ids
    assert (rollbook("schema", "check").code, rollbook("schema", "check", "--json").data) == (0, [])
    school.execute(f"alter table {KEEP_SCHEMA}.auth_user disable trigger rollbook_guard_copy")
    answer = rollbook("schema", "check", "--json")
    assert (answer.code, answer.row["object"], answer.row["kind"]) == (4, f"{KEEP_SCHEMA}.auth_user", "copy")


@pytest.mark.parametrize("verb", ["upgrade", "upgrade -n", "downgrade --to base --yes", "downgrade --to 0001 -n"])
def test_a_database_newer_than_the_program_is_left_alone(
    rollbook: Rollbook, school: Connection[Any], verb: str
) -> None:
    school.execute("update public.rollbook_revision set version_num = '9999'")
    before = snapshot(school)
    answer = rollbook("schema", *verb.split())
    assert (answer.code, answer.out, "newer than this program" in answer.err) == (4, "", True), answer.err
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("there", "word"),
    [("create schema portal; create table portal.auth_user (id integer)", "rename what is there"),
     ("create table public.rollbook_revision (version_num varchar(32) primary key); "
      "insert into public.rollbook_revision values ('0001')", "restore what is missing")],
)  # fmt: skip
def test_an_upgrade_that_fails_does_not_advise_an_upgrade(rollbook: Rollbook, bare: str, there: str, word: str) -> None:
    with psycopg.connect(bare, autocommit=True) as conn:
        conn.execute(there.encode())
        before = snapshot(conn)
        answer = rollbook("schema", "upgrade", dsn=bare)
        assert (answer.code, answer.out, word in answer.err) == (1, "", True), answer.err
        assert ("schema upgrade" in answer.err, "drop" in answer.err, "SQLSTATE" in answer.err) == (False, False, True)
        assert snapshot(conn) == before
