"""`--watch`: redrawn in place on a terminal, a line a look in a pipe; and the charts of block characters."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import deque
from typing import Any

import pexpect
import psycopg
import pytest
from psycopg import Connection, sql

from rollbook.core.chart import chart
from rollbook.core.watch import sparklines
from tests.program import KEEP, PROGRAM, environment, process
from tests.school import Rollbook

pytestmark = pytest.mark.slow  # `make check` runs it

ENTER, LEAVE, HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"
SHOW_CURSOR = "\x1b[?25h"


def watching(dsn: str, *options: str, size: tuple[int, int] = (24, 100), **env: str) -> pexpect.spawn:
    """Watch the status on a terminal."""
    variables = environment(**{"TERM": "xterm-256color", **env})
    command = ["status", *(options or ("--watch", "60")), "-d", dsn]
    return pexpect.spawn(PROGRAM, command, dimensions=size, encoding="utf-8", env=variables, timeout=20)


def ended(child: pexpect.spawn) -> tuple[int, str]:
    """Wait for the end; return the exit code and what was written since the last `expect`."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, str(child.before)


def frames(written: str) -> list[list[str]]:
    """The lines of each picture."""
    inside = written.partition(ENTER)[2].partition(LEAVE)[0]
    return [frame.split("\r\n") for frame in inside.split(HOME) if "Ctrl-C" in frame]


def test_a_terminal_is_redrawn_in_place_and_keeps_the_last_answer(broken: str) -> None:
    child = watching(broken, "--watch", "0.1", "--count", "3")
    code, written = ended(child)
    assert code == 4
    assert written.startswith(ENTER)
    pictures = frames(written)
    assert len(pictures) == 3
    for lines in pictures:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  every 0\.1 s; Ctrl-C ends", lines[0]), lines
        screen = "\n".join(lines)
        assert screen.index("attention:") < screen.index("COURSE")  # what a small terminal cuts comes last
    after = written.partition(LEAVE)[2]
    assert (SHOW_CURSOR in written, "attention:" in after, "Ctrl-C ends" in after) == (True, True, True)


@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whatever_ends_it_gives_the_terminal_back(seen: str, signal_: signal.Signals, code: int) -> None:
    child = watching(seen)
    child.expect("VERDICT")
    child.kill(signal_)
    found, rest = ended(child)
    assert found == code
    after = rest.partition(LEAVE)[2]
    assert (SHOW_CURSOR in rest, "VERDICT" in after, "Traceback" in after) == (True, True, False)
    assert ("interrupted" in after) == (code == 130)


def test_ctrl_z_gives_the_terminal_back_until_it_continues(seen: str) -> None:
    child = watching(seen)
    child.expect("VERDICT")
    child.kill(signal.SIGTSTP)
    child.expect_exact(LEAVE)
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    child.kill(signal.SIGCONT)
    child.expect_exact(ENTER)
    child.expect("VERDICT")
    child.sendintr()
    assert ended(child)[0] == 130


@pytest.mark.parametrize("size", [(5, 60), (2, 20), (1, 8)])
def test_what_is_taller_than_the_terminal_is_cut_and_says_so(broken: str, size: tuple[int, int]) -> None:
    code, written = ended(watching(broken, "--watch", "0.1", "--count", "2", size=size, NO_COLOR="1"))
    assert code == 4
    for lines in re.findall(re.escape(HOME) + r"([^\x1b]+)", written.partition(LEAVE)[0]):
        shown = lines.split("\r\n")
        assert len(shown) == size[0]
        assert all(len(line) <= size[1] for line in shown), shown
        assert re.match(r"\d+ more\b", shown[-1]), shown


def test_a_new_size_is_used_at_once(seen: str) -> None:
    child = watching(seen, size=(4, 100))
    child.expect("more lines: the terminal is too small")
    child.setwinsize(30, 70)
    child.expect(HOME.replace("[", r"\["))
    child.expect(re.escape(KEEP.split("/", maxsplit=1)[0]))  # long before the next look
    child.sendintr()
    assert ended(child)[0] == 130


def test_no_color_and_a_dumb_terminal(broken: str) -> None:
    _, plain = ended(watching(broken, "--watch", "0.1", "--count", "2", NO_COLOR="1"))
    assert (ENTER in plain, "\x1b[31m" in plain, "✗" in plain) == (True, False, True)
    _, coloured = ended(watching(broken, "--watch", "0.1", "--count", "2"))
    assert "\x1b[31m" in coloured
    _, dumb = ended(watching(broken, "--watch", "0.1", "--count", "2", TERM="dumb"))
    assert ("\x1b" in dumb, len(re.findall(r"(?m)^20\d\d-\S+Z .*\r$", dumb))) == (False, 2)


def test_a_log_of_statements_is_not_drawn_over(seen: str) -> None:
    code, lines = ended(watching(seen, "--watch", "0.1", "--count", "2", "-v"))
    assert (code, ENTER in lines, lines.count("routing_fault"), lines.count("Z  ")) == (0, False, 2, 2), lines


@pytest.mark.parametrize("command", ["status", "replication status"])
def test_a_pipe_gets_a_line_a_look(rollbook: Rollbook, broken: str, command: str) -> None:
    del broken
    watch = (*command.split(), "--watch", "0.1", "--count", "3")
    for style, delimiter in (("tsv", "\t"), ("csv", ",")):
        head, *lines = rollbook(*watch, "--format", style).cells(delimiter)
        assert (head[:2], head[-2:], len(lines)) == (["at", "courses"], ["lag_seconds", "server"], 3)
        for line in lines:
            found = dict(zip(head, line, strict=True))
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["at"])
            assert (found["courses"], found["drifted"], found["ok"], found["server"]) == ("2", "1", "0", "")
    table = rollbook(*watch, "--format", "table").out.splitlines()
    assert len(table) == 4
    assert len({line.index("Z") for line in table[1:]} | {len(line) for line in table[1:]}) == 2  # in columns
    fields = rollbook(*watch, "--fields", "course,state", "--csv").cells()
    assert fields == [["course", "state"], *fields[1:3] * 3]
    documents = [json.loads(line) for line in rollbook(*watch, "--json").out.splitlines()]
    once = rollbook(*command.split(), "--json").data
    assert len(documents) == 3
    assert [list(each) for each in documents] == [list(once)] * 3 if command == "status" else True


def test_watching_goes_on_while_the_portal_does_not_answer(school: Connection[Any], dsn: str) -> None:
    allow = sql.SQL("alter database {} allow_connections {}")
    name = sql.Identifier(school.info.dbname)
    command = [PROGRAM, "status", "--watch", "0.1", "--json", "-d", dsn]
    with (
        psycopg.connect(dsn, dbname="postgres", autocommit=True) as other,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        ) as child,
    ):
        assert child.stdout
        assert child.stderr
        assert json.loads(child.stdout.readline())["courses"]
        other.execute(allow.format(name, sql.SQL("false")))
        assert json.loads(child.stderr.readline())["error"]["exit_code"] == 3
        other.execute(allow.format(name, sql.SQL("true")))
        assert any(json.loads(line)["courses"] for line in child.stdout)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)
    assert child.returncode == 130
    first = process("status", "--watch", "0.1", "-d", "host=/nonexistent")
    assert (first.code, first.out) == (3, "")


def test_the_servers_that_lag_most_have_a_sparkline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    history: dict[str, deque[float | None]] = {f"s{number}": deque([0.001, 0.002]) for number in range(6)}
    history["s3"] = deque([0.5, 4])
    history["s5"] = deque([2, None])
    lines = sparklines(history, 80).splitlines()
    assert lines[:2] == ["lag s5 -x now not known, at most 2 s", "lag s3 _# now 4 s, at most 4 s"]
    assert (len(lines), lines[-1]) == (6, "1 more server lags less")
    history = {"east": deque(float(number) for number in range(200))}
    assert all(len(line) <= 80 for line in sparklines(history, 100).splitlines())
    assert sparklines({}, 80) == ""


def test_a_chart_is_to_scale_and_has_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    assert chart([0, 0.1, 0.5, 1, 2, None, 1], 1) == ["▁▁▄██ █"]
    assert chart([0, 0.5, 0.75, None, 1], 1, rows=2) == ["  ▄ █", "▁██ █"]
    for variables in ({"LC_ALL": "C"}, {"LC_ALL": "", "LC_CTYPE": "C.UTF-8", "LANG": "C"}):
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        assert chart([0, 0.5, None, 1], 1) == ["_- #"]
    monkeypatch.setenv("LANG", "de_DE.utf8")
    assert chart([1], 1) == ["█"]
