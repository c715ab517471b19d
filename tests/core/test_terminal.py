"""What a terminal sees and a pipe does not: tables, colour, bars, questions."""

from __future__ import annotations

import re
from typing import Any

import pexpect
import pytest
from psycopg import Connection

from tests.program import PROGRAM, damage, environment, process, snapshot

SCREENS = ("status", "replication verify", "user list", "enrollment list --user ada")


def terminal(*arguments: str, width: int = 100, answer: str | None = None, **env: str) -> tuple[int, str]:
    """Run the program on a terminal; return its exit code and what stood on the screen."""
    variables = environment(TERM="xterm-256color", **env)
    child = pexpect.spawn(PROGRAM, list(arguments), dimensions=(50, width), encoding="utf-8", env=variables, timeout=20)
    said = ""
    if answer is not None:
        child.expect(r"\[y/N\] ")
        said = child.before + child.after
        child.sendline(answer)
    child.expect(pexpect.EOF)
    said += child.before
    child.close()
    return child.exitstatus, said


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_longer_than_the_terminal_and_the_verdict_is_there(
    broken: str, db: Connection[Any], dsn: str, width: int
) -> None:
    for command in SCREENS:
        _, screen = terminal(*command.split(), "-d", broken, width=width, NO_COLOR="1")
        # What stands on the screen in the end: a bar is drawn over.
        lines = [re.split(r"\r|\x1b\[2K", line)[-1].rstrip() for line in screen.split("\r\n")]
        assert [line for line in lines if len(line) > width] == []
        heading = next(line for line in lines if "COURSE" in line or "USERNAME" in line)
        assert command not in ("status", "replication verify") or "VERDICT" in heading
    if width == 80:  # the summary of a platform of some size
        db.execute("insert into portal.auth_user (username) select 'u' || n from generate_series(1, 1200) as n")
        db.execute("select rollbook.create_course('c')")
        db.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) select id, 'c' from portal.auth_user"
        )
        _, screen = terminal("status", "-d", dsn, width=width, NO_COLOR="1")
        assert [line for line in screen.split("\r\n") if len(line.rstrip()) > width] == []


def test_charts_fit_the_terminal_and_their_bars_are_to_scale(db: Connection[Any], dsn: str) -> None:
    db.execute("select rollbook.create_course('a/course/with/a/rather/long/name/for/a/narrow/terminal')")
    db.execute(
        """insert into portal.auth_user (username, date_joined)
        select 'u' || n, '2012-09-01 12:00+00'::timestamptz + n / 40 * interval '31 days'
        from generate_series(0, 119) as n;
        insert into portal.student_courseenrollment (user_id, course_id, created)
        select id, 'a/course/with/a/rather/long/name/for/a/narrow/terminal',
            '2012-09-01 12:00+00'::timestamptz + row_number() over (order by id) / 100 * interval '1 day'
        from portal.auth_user"""
    )
    for command in ("user count --by month", "user count --by course", "enrollment count --by day"):
        code, screen = terminal(*command.split(), "-d", dsn, width=80, NO_COLOR="1", TZ="UTC")
        lines = [line.rstrip() for line in screen.split("\r\n")]
        assert (code, [line for line in lines if len(line) > 80]) == (0, []), screen
        bars = [line.count("█") for line in lines if "█" in line]
        if command == "enrollment count --by day":  # 99 and 21 on two days
            assert len(bars) == 2
            assert bars[0] / bars[1] == pytest.approx(99 / 21, rel=0.25)
        else:
            assert len(set(bars)) == 1
            assert bars[0] > 5


def test_forty_columns_still_show_the_key_and_the_verdict(broken: str) -> None:
    for command, word in (("status", "VERDICT"), ("replication verify", "VERDICT"), ("course list", "STATE")):
        _, screen = terminal(*command.split(), "-d", broken, width=40, NO_COLOR="1")
        assert "COURSE" in screen
        assert word in screen
        assert "hidden: " in screen
    _, wide = terminal("course", "list", "--wide", "-d", broken, width=40, NO_COLOR="1")
    assert "hidden: " not in wide


def test_colour_is_for_terminals_and_switched_off_by_name(broken: str) -> None:
    verify = ("replication", "verify", "-d", broken)
    assert "\x1b[31m" in terminal(*verify)[1]  # red, beside the mark and the word
    plain = terminal(*verify, NO_COLOR="1")[1]
    assert ("✗ differs" in plain, "\x1b[31m" in plain) == (True, False)
    assert "\x1b" not in terminal("course", "list", "-d", broken, "--color", "never")[1]


def test_a_pipe_gets_no_escape_no_cut_and_no_bar(broken: str) -> None:
    for command in ("replication verify", "replication verify --format table", "status", "user show ada"):
        answer = process(*command.split(), "-d", broken)
        assert ("\x1b" in answer.out, "…" in answer.out, answer.err) == (False, False, "")


def test_forced_colour_draws_no_bar_in_a_pipe(broken: str) -> None:
    answer = process("replication", "verify", "-d", broken, env={"FORCE_COLOR": "1"})
    assert ("\x1b" in answer.out, answer.err) == (False, "")
    table = process("replication", "verify", "--format", "table", "-d", broken, env={"FORCE_COLOR": "1"})
    assert ("\x1b[31m" in table.out, table.err) == (True, "")


@pytest.mark.parametrize("command", ["user show ada", "user list --format table"])
def test_columns_cuts_nothing_in_a_pipe(broken: str, command: str) -> None:
    assert "…" not in process(*command.split(), "-d", broken, env={"COLUMNS": "40"}).out


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 6), ("", 6)])
def test_repair_asks_on_a_terminal_and_does_as_told(school: Connection[Any], dsn: str, answer: str, code: int) -> None:
    damage(school)
    before = snapshot(school)
    found, screen = terminal("replication", "repair", "-d", dsn, answer=answer, NO_COLOR="1")
    assert (found, "repair 3 rows in 1 course" in screen) == (code, True), screen
    if code:
        assert snapshot(school) == before
    else:
        assert school.execute("select * from rollbook.verify()").fetchall() == []


def test_ctrl_c_at_the_question_is_130(school: Connection[Any], dsn: str) -> None:
    damage(school)
    before = snapshot(school)
    assert terminal("replication", "repair", "-d", dsn, answer="\x03")[0] == 130
    assert snapshot(school) == before


def test_no_input_does_not_ask_on_a_terminal(broken: str) -> None:
    code, screen = terminal("replication", "repair", "--no-input", "-d", broken)
    assert (code, "[y/N]" in screen) == (6, False)


def test_the_locale_c_still_writes_names(seen: str) -> None:
    answer = process("course", "list", "--format", "table", "-d", seen, env={"LC_ALL": "C", "LANG": "C"})
    assert (answer.code, "✓ ok" in answer.out) == (0, True)
