"""`rollbook course pause`, `resume`, `update --on-fault`, and what the others report of a broken course."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE
from tests.school import Rollbook


def reported(rollbook: Rollbook, course: str) -> tuple[int, str, str, str]:
    """Return what status reports of a course: the exit code, state, reason and remedy."""
    answer = rollbook("status", course, "--json")
    (line,) = answer.data["courses"]
    return answer.code, line["state"], line["reason"], line["fix"]


def test_pause_lets_the_portal_continue_and_resume_brings_all_back(rollbook: Rollbook, school: Connection[Any]) -> None:
    paused = rollbook("course", "pause", KEEP, "--reason", "moving house", "--json")
    assert (paused.code, paused.row["state"], paused.row["outcome"]) == (0, "paused", "paused")
    assert (paused.row["pause_reason"], paused.row["paused_by"]) == ("moving house", "postgres")
    assert rollbook("course", "pause", KEEP, "--json").row["outcome"] == "unchanged"
    school.execute(f"drop schema {KEEP_SCHEMA} cascade")
    school.execute("update portal.auth_user set first_name = 'New'")
    code, state, reason, fix = reported(rollbook, KEEP)
    assert (code, state, fix) == (4, "paused", f"rollbook course resume '{KEEP}'")
    assert reason.endswith("moving house")
    shown = rollbook("course", "show", KEEP, "--json").data
    assert (shown["pause_reason"], shown["on_fault"], bool(shown["paused_at"])) == ("moving house", "refuse", True)
    refused = rollbook("replication", "repair", KEEP, "--yes")
    assert refused.code != 0
    assert f"rollbook course resume '{KEEP}'" in refused.err
    resumed = rollbook("course", "resume", KEEP, "--json")
    assert resumed.code == 0
    assert [row["table"] for row in resumed.data] == list(COPIED)
    assert reported(rollbook, KEEP)[:2] == (0, "ok")
    assert rollbook("replication", "verify").code == 0
    history = rollbook("history", "list", "--course", KEEP, "--json").data
    assert [row["outcome"] for row in history] == ["resumed", "paused", "paused"]


def test_a_fault_pauses_a_course_that_says_so(rollbook: Rollbook, school: Connection[Any]) -> None:
    updated = rollbook("course", "update", KEEP, "--on-fault", "pause", "--json")
    assert (updated.code, updated.row["outcome"]) == (0, "updated")
    assert rollbook("course", "update", KEEP, "--on-fault", "pause", "--json").row["outcome"] == "unchanged"
    assert rollbook("course", "update", "x", "--on-fault", "pause").code == 1
    school.execute(f"drop table {KEEP_SCHEMA}.auth_user")
    school.execute("update portal.auth_user set first_name = 'New'")
    code, state, reason, _ = reported(rollbook, KEEP)
    assert (code, state) == (4, "paused")
    assert "auth_user" in reason
    assert "SQLSTATE 42P01" in reason
    assert rollbook("course", "resume", KEEP).code == 0
    assert rollbook("replication", "verify").code == 0


def test_create_takes_on_fault(rollbook: Rollbook, school: Connection[Any]) -> None:
    assert rollbook("course", "create", "new", "--on-fault", "pause").code == 0
    assert school.execute("select on_fault from rollbook.course where course_id = 'new'").fetchall() == [("pause",)]


def test_resume_stays_paused_while_a_copy_cannot_be_written(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint own check (first_name <> 'New') not valid")
    rollbook("course", "pause", KEEP)
    school.execute("update portal.auth_user set first_name = 'New'")
    refused = rollbook("course", "resume", KEEP)
    assert refused.code == 1
    assert KEEP in refused.err
    assert "own" in refused.err
    assert reported(rollbook, KEEP)[1] == "paused"


def test_a_schema_that_is_gone_is_named_and_repair_recreates_it(rollbook: Rollbook, school: Connection[Any]) -> None:
    held = school.execute(f"select id from {KEEP_SCHEMA}.auth_user order by id").fetchall()
    school.execute(f"drop schema {KEEP_SCHEMA} cascade")
    told = (4, "broken", f"schema {KEEP_SCHEMA} is gone", f"rollbook replication repair '{KEEP}'")
    assert reported(rollbook, KEEP) == told
    assert rollbook("replication", "verify", KEEP).code == 3
    asked = rollbook("replication", "repair", KEEP, "--no-input")
    assert (asked.code, "is gone" in asked.err) == (6, True)
    assert rollbook("replication", "repair", KEEP, "--yes").code == 0
    assert reported(rollbook, KEEP)[:2] == (0, "ok")
    assert school.execute(f"select id from {KEEP_SCHEMA}.auth_user order by id").fetchall() == held  # leavers too


def test_a_portal_statement_that_a_course_stops_says_how_to_continue(
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    school.execute(f"drop schema {KEEP_SCHEMA} cascade")
    refused = rollbook("user", "update", "ada", "--first-name", "New")
    assert (refused.code, f"rollbook course pause '{KEEP}'" in refused.err) == (1, True), refused.err
    assert rollbook("course", "pause", KEEP).code == 0
    assert rollbook("user", "update", "ada", "--first-name", "New").code == 0
    assert reported(rollbook, REMOVE)[:2] == (0, "ok")
