"""`rollbook replication`, `status` and `version`: what differs, what is mended, what is said of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from psycopg import Connection

from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, damage, rows, snapshot
from tests.school import Rollbook

USER, PROFILE, ENROLLMENT = COPIED


def test_verify_counts_and_lists_exactly_what_differs(rollbook: Rollbook, broken: str) -> None:
    del broken
    answer = rollbook("replication", "verify", "--json")
    assert answer.code == 4
    assert [list(row.values()) for row in answer.data] == [
        [KEEP, USER, 2, 2, 0, 1, 0, "differs", None, 0],
        [KEEP, PROFILE, 2, 1, 1, 0, 0, "differs", None, 0],
        [KEEP, ENROLLMENT, 2, 3, 0, 0, 1, "differs", None, 0],
        *([REMOVE, table, 1, 1, 0, 0, 0, "match", None, 0] for table in COPIED),
    ]
    found = rollbook("replication", "verify", "--rows", "--json")
    assert (found.code, [list(row.values()) for row in found.data]) == (
        4,
        [
            [KEEP, USER, "changed", 101, ["email"], None],
            [KEEP, PROFILE, "missing", 202, None, None],
            [KEEP, ENROLLMENT, "extra", 999, None, None],
        ],
    )


def test_verify_is_narrowed_to_courses_and_tables(rollbook: Rollbook, broken: str) -> None:
    del broken
    assert rollbook("replication", "verify", REMOVE).code == 0
    assert rollbook("replication", "verify", KEEP, KEEP, "--json").column("course") == [KEEP] * 3
    assert rollbook("replication", "verify", "--table", PROFILE, "--json").column("table") == [PROFILE] * 2
    assert rollbook("replication", "verify", "nope").code == 1
    assert rollbook("replication", "verify", "--table", "nope").code == 2


def test_a_table_of_verify_ends_with_the_verdict_and_the_next_command(rollbook: Rollbook, broken: str) -> None:
    del broken
    lines = rollbook("replication", "verify", "--format", "table").out.splitlines()
    assert lines[-2:] == [
        "2 courses compared; 1 differs in 3 rows.",
        "  rollbook replication repair    shows what it would do and asks",
    ]


def test_repair_mends_what_differs_and_a_second_time_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    whole = {name: found for name, found in snapshot(school).items() if name.startswith("course_")}
    damage(school)
    answer = rollbook("replication", "repair", "--yes", "--json")
    assert (answer.code, [list(row.values()) for row in answer.data]) == (
        0,
        [[KEEP, USER, 0, 1, 0, "match"], [KEEP, PROFILE, 1, 0, 0, "match"], [KEEP, ENROLLMENT, 0, 0, 1, "match"]],
    )
    before = snapshot(school)
    assert {name: found for name, found in before.items() if name.startswith("course_")} == whole
    again = rollbook("replication", "repair", "--json")
    assert (again.code, again.data, snapshot(school)) == (0, [], before)
    assert rollbook("replication", "verify").code == 0


def test_repair_leaves_the_courses_own_columns(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(f"alter table {KEEP_SCHEMA}.auth_user add column note text default 'mine'")
    damage(school)
    assert rollbook("replication", "repair", KEEP, "--yes").code == 0
    assert rows(school, f"{KEEP_SCHEMA}.auth_user", "id", "note") == [(101, "mine"), (102, "mine")]


def test_repair_of_one_course_leaves_the_others(rollbook: Rollbook, school: Connection[Any]) -> None:
    damage(school)
    damage(school, REMOVE_SCHEMA)
    answer = rollbook("replication", "repair", REMOVE, "--yes", "--json")
    assert (answer.code, set(answer.column("course"))) == (0, {REMOVE})
    assert rollbook("replication", "verify", "--rows", "--json").column("course") == [KEEP] * 3


def test_repair_without_a_terminal_asks_for_yes_and_writes_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    damage(school)
    before = snapshot(school)
    for options in ((), ("--no-input",), ("--json",)):
        answer = rollbook("replication", "repair", *options)
        assert (answer.code, answer.out, "--yes" in answer.err) == (6, "", True)
    assert snapshot(school) == before


def lame(db: Connection[Any], schema: str) -> None:
    """Make a course that cannot be compared."""
    db.execute(f"drop table {schema}.auth_userprofile")


def test_a_course_that_cannot_be_compared_is_3_never_0(rollbook: Rollbook, school: Connection[Any]) -> None:
    lame(school, REMOVE_SCHEMA)
    answer = rollbook("replication", "verify", "--json")
    assert answer.code == 3
    assert [row["verdict"] for row in answer.data if row["course"] == REMOVE] == ["match", "not_comparable", "match"]
    assert [row["missing"] for row in answer.data if row["table"] == PROFILE] == [0, None]
    status = rollbook("replication", "status", "--json")
    assert (status.code, status.data[0]["course"], status.data[0]["state"]) == (4, REMOVE, "broken")
    assert rollbook("replication", "repair", "--yes").code == 0  # which recreates it
    assert rollbook("replication", "verify").code == 0


def test_a_course_that_fails_does_not_stop_the_others(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("insert into portal.student_courseenrollment (user_id, course_id) values (102, %s)", [REMOVE])
    damage(school)
    school.execute("set session_replication_role = replica")  # an extra user whom a row of the course's own needs
    school.execute(f"delete from {REMOVE_SCHEMA}.student_courseenrollment where user_id = 102")
    school.execute("delete from portal.student_courseenrollment where user_id = 102 and course_id = %s", [REMOVE])
    school.execute("reset session_replication_role")
    school.execute(f"create table {REMOVE_SCHEMA}.grade as select 102::bigint as user_id")
    school.execute(f"alter table {REMOVE_SCHEMA}.grade add foreign key (user_id) references {REMOVE_SCHEMA}.auth_user")
    answer = rollbook("replication", "repair", "--yes", "--json")
    assert (answer.code, set(answer.column("course"))) == (5, {KEEP})
    assert f"{REMOVE}: course {REMOVE} has rows of its own" in answer.err
    assert rollbook("replication", "verify", KEEP).code == 0
    assert rows(school, f"{REMOVE_SCHEMA}.auth_user", "id") == [(101,), (102,)]


def test_repair_where_one_course_cannot_be_repaired_is_partial(rollbook: Rollbook, school: Connection[Any]) -> None:
    damage(school)
    school.execute(f"alter table {REMOVE_SCHEMA}.auth_user drop column id cascade")
    answer = rollbook("replication", "repair", "--yes", "--json")
    assert (answer.code, set(answer.column("course")), REMOVE in answer.err) == (5, {KEEP}, True)


def test_status_remembers_the_verdict_and_names_the_command(rollbook: Rollbook, school: Connection[Any]) -> None:
    healthy = rollbook("status", "--json")
    assert (healthy.code, [row["state"] for row in healthy.data["courses"]]) == (0, ["ok", "ok"])
    assert [row["verified_at"] for row in healthy.data["courses"]] == [None, None]
    damage(school)
    rollbook("replication", "verify")
    sick = rollbook("status", "--json")
    assert (sick.code, [(c["course"], c["state"], c["verdict"]) for c in sick.data["courses"]]) == (
        4, [(KEEP, "drifted", "differs"), (REMOVE, "ok", "match")],
    )  # fmt: skip
    screen = rollbook("status", "--format", "table")
    assert screen.code == 4
    assert "1 of 2 courses needs attention" in screen.out
    assert f"  rollbook replication repair '{KEEP}'" in screen.out.splitlines()
    for command in ("status", "replication status"):
        assert [rollbook(*command.split(), *only).code for only in ((KEEP,), (REMOVE,), ("nope",))] == [4, 0, 1]
    rollbook("replication", "repair", "--yes")
    assert rollbook("status").code == 0


def test_status_has_zero_lag_where_the_copies_are_in_the_portal(rollbook: Rollbook, seen: str) -> None:
    del seen
    (first, _) = rollbook("replication", "status", "--json").data
    assert first.items() >= {
        "course": KEEP, "target": f"schema {KEEP_SCHEMA}", "kind": "schema", "lag_bytes": 0, "lag_seconds": 0,
        "pending_changes": 0, "oldest_pending_seconds": None, "error_count": 0,
    }.items()  # fmt: skip


@pytest.mark.parametrize("command", ["status", "replication status"])
def test_watch_repeats_as_often_as_told(rollbook: Rollbook, seen: str, command: str) -> None:
    del seen
    watched = rollbook(*command.split(), "--watch", "0.1", "--count", "3", "--format", "jsonl")
    once = rollbook(*command.split(), "--format", "jsonl")
    assert (watched.code, len(watched.out.splitlines())) == (0, 3 * len(once.out.splitlines()))


def test_version_tells_what_a_bug_report_needs(rollbook: Rollbook, seen: str) -> None:
    found = rollbook("version", "--json", dsn=seen).data
    assert (
        found.items()
        >= {"rollbook": version("rollbook"), "ships_revision": "0002", "database_revision": "0002"}.items()
    )
    assert found["server"]
    nowhere = rollbook("version", "--json", dsn="host=/nonexistent")
    assert (nowhere.code, nowhere.data["server"], nowhere.data["database_revision"]) == (0, None, None)
    assert "no database" in nowhere.err
    assert rollbook("--version", dsn=None).out == f"rollbook {version('rollbook')}\n"
