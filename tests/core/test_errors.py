"""Every exit code that can occur, in table and JSON; errors in three lines or one of JSON; nothing changed by them."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.replication.apply_error import Fault
from rollbook.replication.fence import FaultError
from rollbook.replication.link import Server
from rollbook.replication.queries import courses
from rollbook.replication.session import Session
from tests.program import KEEP, PROGRAM, REMOVE_SCHEMA, damage, environment, process, snapshot
from tests.school import Rollbook

# Every command that opens the database, in a form that works on the platform of `populate`.
COMMANDS = [
    ("course", "list"), ("course", "show", KEEP), ("course", "create", "new"),
    ("course", "delete", KEEP, "--confirm", KEEP), ("user", "list"), ("user", "show", "ada"),
    ("user", "create", "zoe", "--email", "zoe@example.org"), ("user", "update", "ada", "--name", "xy"),
    ("user", "count"), ("enrollment", "add", KEEP, "dan"), ("enrollment", "remove", KEEP, "ada"),
    ("enrollment", "list", "--course", KEEP), ("enrollment", "count"), ("replication", "verify"),
    ("replication", "repair", "--yes"), ("replication", "status"), ("status",), ("schema", "check"),
    ("user", "activate", "dan"), ("user", "deactivate", "bob"), ("user", "grant", "bob", "--staff"),
    ("user", "revoke", "ada", "--staff"), ("user", "password", "ada", "--unusable"), ("registration", "list"),
    ("registration", "show", "dan"), ("registration", "activate", "dan"), ("registration", "renew", "dan"),
    ("user", "delete", "eve", "--confirm", "eve"),
]  # fmt: skip
MOVES = [("schema", "current"), ("schema", "upgrade"), ("schema", "downgrade", "--to", "base", "--yes")]
LOOKS = ("list", "show", "count", "verify", "repair", "status", "check")
WRITES = [command for command in COMMANDS if command[-1] != "status" and command[1] not in LOOKS]


def named(command: tuple[str, ...]) -> str:
    """The name of a command in the report."""
    return " ".join(command[:2])


def same_in_json(rollbook: Rollbook, code: int, *command: str, dsn: str | None = "") -> str:
    """Assert the code, in both formats, nothing on stdout, errors in their form; return the plain error."""
    plain, machine = (rollbook(*command, *style, dsn=dsn) for style in ((), ("--json",)))
    assert (plain.code, machine.code, plain.out, machine.out) == (code, code, "", ""), plain.err + machine.err
    assert {line.partition(" ")[0] for line in plain.err.splitlines()} <= {"error:", "why:", "fix:", "remains:"}
    assert plain.err.startswith(("error: ", "remains: "))  # what would stay comes before the question
    (line,) = machine.err.splitlines()
    error = json.loads(line)["error"]
    assert list(error) == ["code", "message", "why", "hint", "exit_code", "details"]
    assert (error["exit_code"], bool(error["message"])) == (code, True)
    return plain.err


@pytest.mark.parametrize("command", [*COMMANDS, *MOVES], ids=named)
def test_no_server_is_3(rollbook: Rollbook, command: tuple[str, ...], tmp_path: Path) -> None:
    assert "fix:" in same_in_json(rollbook, 3, *command, dsn=f"host={tmp_path} dbname=portal")


def test_a_login_without_rights_is_3_and_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], stranger: str
) -> None:
    before = snapshot(school)
    for command in [*COMMANDS, *MOVES[1:]]:
        assert "permission" in same_in_json(rollbook, 3, *command, dsn=stranger), command
    school.execute("grant select on public.rollbook_revision to rb_stranger")
    for command in COMMANDS:
        answer = rollbook(*command, dsn=stranger)
        assert (answer.code, answer.out, "permission" in answer.err) == (3, "", True), command
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("found", "remedy"),
    [(None, "rollbook schema upgrade"), ("0001", "rollbook schema upgrade"), ("9999", "install the release")],
    ids=str,
)
def test_a_database_not_at_the_head_is_4_and_names_the_remedy(
    rollbook: Rollbook, school: Connection[Any], bare: str, found: str | None, remedy: str
) -> None:
    if found:
        school.execute("update public.rollbook_revision set version_num = %s", [found])
    before = snapshot(school)
    for command in COMMANDS:
        assert f"fix:   {remedy}" in same_in_json(rollbook, 4, *command, dsn="" if found else bare), command
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (1, ("user", "show", "nobody")),
        (1, ("course", "create", KEEP)),
        (2, ("course", "list", "--nonsense")),
        (2, ("course", "list", "--fields", "nonsense")),
        (2, ("user", "list", "--sort", "nonsense")),
        (2, ("user", "list", "--limit", "x")),
        (2, ("user", "list", "--timeout", "0")),
        (2, ("user", "update", "ada")),
        (2, ("course", "show")),
        (2, ("course", "create")),
        (2, ("user", "create", "zoe")),
        (2, ("course", "nonsense")),
        (2, ("nonsense",)),
        (6, ("course", "delete", KEEP)),
        (6, ("schema", "downgrade", "--to", "base")),
    ],
)
def test_a_refusal_has_its_code_and_form(
    rollbook: Rollbook, seen: str, code: int, command: tuple[str, ...]
) -> None:  # fmt: skip
    same_in_json(rollbook, code, *command, dsn=None if command[-1] == "nonsense" and len(command) < 3 else seen)


def test_format_json_has_errors_in_json_as_json_has(rollbook: Rollbook, seen: str) -> None:
    del seen
    for style in (("--json",), ("--format=json",), ("--format", "json"), ("--format", "jsonl")):
        assert json.loads(rollbook("course", "list", *style, "--nonsense").err)["error"]["exit_code"] == 2


@pytest.mark.parametrize("option", [("--fields", "nonsense"), ("-o", "/nonexistent/file")], ids=["fields", "file"])
def test_an_answer_that_cannot_be_written_is_2_before_anything_is_done(
    rollbook: Rollbook, school: Connection[Any], option: tuple[str, str]
) -> None:
    before, wrote = snapshot(school), []
    for command in WRITES:
        answer = rollbook(*command, *option)
        assert (answer.code, answer.out) == (2, ""), command
        if snapshot(school) != before:
            wrote.append(named(command))
            before = snapshot(school)
        if command[:2] == ("course", "delete"):
            rollbook("course", "create", KEEP)  # for the commands after it
            before = snapshot(school)
    assert wrote == []


def test_the_more_serious_code_wins(rollbook: Rollbook, school: Connection[Any]) -> None:
    nowhere = "host=/nonexistent"
    assert rollbook("course", "list", "--fields", "nonsense", dsn=nowhere).code == 2  # 2 over 3
    assert rollbook("course", "delete", KEEP, "--fields", "nonsense").code == 2  # 2 over 6
    damage(school)
    school.execute(f"drop table {REMOVE_SCHEMA}.auth_userprofile")
    assert rollbook("replication", "verify").code == 3  # 3 over 4
    assert rollbook("replication", "repair").code == 6  # 6 over 3


def test_a_statement_that_takes_too_long_is_3(rollbook: Rollbook, school: Connection[Any], dsn: str) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("lock table portal.auth_user in access exclusive mode")
        before = same_in_json(rollbook, 3, "user", "update", "ada", "--name", "x", "--timeout", "0.5")
    assert "another session holds a lock" in before
    assert "select pg_terminate_backend(" in before
    assert school.execute("select count(*) from portal.auth_userprofile where name = 'x'").fetchone() == (0,)


def test_a_server_that_only_reads_refuses_writes_and_is_no_bug(
    rollbook: Rollbook, school: Connection[Any], dsn: str
) -> None:
    standby = f"{dsn} options='-c default_transaction_read_only=on'"
    before = snapshot(school)
    for command in WRITES:
        answer = rollbook(*command, dsn=standby)
        assert (answer.code in (1, 3), answer.out) == (True, ""), answer.err
    assert rollbook("replication", "verify", dsn=standby).code == 0
    assert snapshot(school) == before


def test_a_bug_is_70_logged_and_without_a_traceback_unless_asked(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del seen

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(courses, "list_courses", fail)
    error = same_in_json(rollbook, 70, "course", "list")
    assert ("planted" in error, str(tmp_path / "rollbook.log") in error) == (True, True)
    log = tmp_path / "rollbook.log"
    assert ("Traceback" in log.read_text(), log.stat().st_mode & 0o777) == (True, 0o600)
    assert json.loads(rollbook("course", "list", "--json").err)["error"]["code"] == "bug"
    assert "Traceback" in rollbook("course", "list", "--debug").err


def test_a_log_that_cannot_be_written_does_not_hide_the_bug(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seen

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(courses, "list_courses", fail)
    monkeypatch.setenv("ROLLBOOK_LOG_FILE", "/dev/null/rollbook.log")
    answer = rollbook("course", "list")
    assert (answer.code, "planted" in answer.err) == (70, True)


def test_debug_shows_the_traceback_of_a_refusal(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert "Traceback" not in rollbook("user", "show", "nobody").err
    assert "Traceback" in rollbook("user", "show", "nobody", "--debug").err


DRY = [
    (("course", "create", "new"), "would create"),
    (("course", "delete", KEEP), "would remove"),
    (("user", "create", "zoe", "--email", "zoe@example.org", "--course", KEEP), "would create"),
    (("user", "update", "ada", "--name", "xy"), ""),
    (("user", "activate", "dan"), "would activate"),
    (("user", "deactivate", "ada", "bob"), "would deactivate"),
    (("user", "grant", "dan", "bob", "--staff"), "would grant"),
    (("user", "revoke", "ada", "--staff"), "would revoke"),
    (("user", "password", "ada", "--unusable"), "would change"),
    (("user", "delete", "eve"), "would remove"),
    (("registration", "activate", "dan"), "would activate"),
    (("registration", "renew", "dan"), "would change"),
    (("registration", "renew", "ada"), "would create"),
    (("enrollment", "add", KEEP, "dan"), "would create"),
    (("enrollment", "remove", KEEP, "ada"), "would remove"),
    (("replication", "repair"), "would match"),
]


@pytest.mark.parametrize(("command", "word"), DRY, ids=lambda value: named(value) if isinstance(value, tuple) else "")
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    rollbook: Rollbook, school: Connection[Any], command: tuple[str, ...], word: str
) -> None:
    damage(school)
    before = snapshot(school)
    for style in ("json", "table"):
        answer = rollbook(*command, "-n", "--format", style)
        assert (answer.code, word in answer.out) == (0, True), answer
        assert answer.out not in ("", "[]\n")
    assert snapshot(school) == before


def test_full_disk_is_an_error_in_words(dsn: str, school: Connection[Any]) -> None:
    del school
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PROGRAM, "user", "list", "-d", dsn], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=environment(), check=False)  # fmt: skip
    assert (done.returncode not in (0, 70), done.stderr.startswith("error: ")) == (True, True), done


def test_a_closed_pipe_is_141_in_silence(db: Connection[Any], dsn: str) -> None:
    db.execute(
        "insert into portal.auth_user (username) select repeat('u', 100) || n from generate_series(1, 2000) as n"
    )
    for style in ("tsv", "json", "table"):
        command = [PROGRAM, "user", "list", "--all", "--format", style, "-d", dsn]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
            assert running.stdout
            assert running.stderr
            running.stdout.readline()
            running.stdout.close()
            assert (running.wait(30), running.stderr.read()) == (141, b"")


def test_ctrl_c_is_130_and_nothing_is_half_done(school: Connection[Any], dsn: str) -> None:
    before = snapshot(school)
    watching = [PROGRAM, "status", "--watch", "1", "-d", dsn]
    with subprocess.Popen(watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
        assert running.stdout
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
    assert (running.returncode, b"interrupted" in err, b"Traceback" in err) == (130, True, False)
    adding = [PROGRAM, "enrollment", "add", KEEP, "dan", "-d", dsn]
    with psycopg.connect(dsn) as other:
        other.execute("lock table portal.student_courseenrollment in share mode")
        with subprocess.Popen(adding, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
            waits = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            while school.execute(waits).fetchone() != (1,):
                assert running.poll() is None
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=10)
    assert (running.returncode, out, b"Traceback" in err) == (130, b"", False)
    assert snapshot(school) == before


@pytest.mark.slow
def test_ctrl_c_at_any_moment_leaves_no_traceback(school: Connection[Any], dsn: str) -> None:
    """While the program is loaded, before and after the answer, and while a server does not answer at all."""
    before = snapshot(school)
    with socket.create_server(("127.0.0.1", 0)) as stalled:  # it takes a connection, and says nothing
        silent = f"host=127.0.0.1 port={stalled.getsockname()[1]} dbname=x"
        for number in range(12):
            command = [PROGRAM, *("group create zoe -n" if number % 2 else "status").split()]
            where = silent if number in (9, 10) else dsn
            with subprocess.Popen(
                [*command, "-d", where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
            ) as running:
                time.sleep(0.1 + number * 0.15)
                running.send_signal(signal.SIGINT)
                _, err = running.communicate(timeout=30)
            # Python itself starts for some 50 ms, longer on a busy machine, and finds the program.
            # In there it has its own words.
            if number < 3 and err.startswith(b"Fatal Python error: init_import_site"):
                continue
            assert running.returncode in (0, 4, 130, -signal.SIGINT), (number, err)
            assert b", in main\n" not in err, (number, err.decode())
    assert snapshot(school) == before


def test_an_error_that_follows_ctrl_c_is_ctrl_c(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As psycopg's words on a statement that was cut off; a Ctrl-C at the commit does not promise a rollback."""
    before = snapshot(school)

    def cut_off(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise psycopg.OperationalError("sending query failed: another command is already in progress")

    monkeypatch.setattr("rollbook.core.history.record", cut_off)
    answer = rollbook("user", "update", "ada", "--goals", "none")
    assert (answer.code, answer.err) == (130, "\ninterrupted; the open transaction was rolled back\n")
    assert snapshot(school) == before
    monkeypatch.undo()

    def pressed(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rollbook.core.db.Session.commit", pressed)
    answer = rollbook("user", "update", "ada", "--goals", "none")
    assert answer.code == 130


def test_a_process_without_a_terminal_does_not_wait_for_an_answer(school: Connection[Any], dsn: str) -> None:
    damage(school)
    before = snapshot(school)
    answer = process("replication", "repair", "-d", dsn, stdin=b"y\n")
    assert (answer.code, answer.out, snapshot(school)) == (6, "", before)


@pytest.mark.parametrize(
    ("command", "closed", "code"),
    [
        ("user import -", "<&-", 2), ("user password ada --stdin", "<&-", 1), ("user list", ">&-", 0),
        ("user list", ">&- 2>&-", 0), ("user show nobody", "<&- >&- 2>&-", 1),
    ],
)  # fmt: skip
def test_closed_streams_are_no_bug(seen: str, command: str, closed: str, code: int) -> None:
    done = subprocess.run(
        f"{shlex.quote(PROGRAM)} {command} -d {shlex.quote(seen)} {closed}", shell=True, capture_output=True, text=True,
        env=environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, "bug" in done.stderr) == (code, False), done.stderr


def test_an_error_that_is_made_of_something_else_names_what_it_is_about() -> None:
    fault = Fault("course_x", "auth_user", "7", "insert", "23514", "refused", "0/1", KEEP)
    server = Server("east", None, None, "1/1")
    error = FaultError(Session(None, None, server, 1.0), fault)  # type: ignore[arg-type]
    named = error.about(f"course {KEEP}", server="east")
    assert (type(named), named.exit_code, named.why, named.fix) == (FaultError, 3, error.why, error.fix)
    assert named.message == f"course {KEEP}: {error.message}"
    assert named.details == {**error.details, "server": "east"}
