"""`rollbook top` on a real terminal: keys are typed, and what a person would see is read from the screen."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pexpect
import psycopg
import pyte
import pytest
from psycopg import Connection, sql

from rollbook.replication.board import Board
from rollbook.replication.state import Line
from tests.program import KEEP, PROGRAM, REMOVE, damage, environment, process

ENTER, ESCAPE, LEAVE_SCREEN, SHOW_CURSOR = "\r", "\x1b", "\x1b[?1049l", "\x1b[?25h"


class Terminal:
    """A terminal on which a shell runs a command, and prints its exit code and the settings of the terminal."""

    def __init__(self, command: list[str], *, size: tuple[int, int] = (30, 120), **env: str) -> None:
        self.display = pyte.Screen(size[1], size[0])
        self.stream = pyte.Stream(self.display)
        self.raw = ""
        variables = environment(**{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **env})
        # The program is the leader of what the terminal's keys and signals reach, as in a shell that a person uses.
        line = f"trap : INT TERM; {shlex.join(command)}; echo CODE=$?; stty -a"
        self.child = pexpect.spawn("bash", ["-c", line], dimensions=size, encoding="utf-8", env=variables, timeout=20)

    @property
    def screen(self) -> str:
        """What is seen now."""
        return "\n".join(line.rstrip() for line in self.display.display)

    def read(self, seconds: float) -> None:
        """Read what the program draws within some time, if anything."""
        try:
            text = self.child.read_nonblocking(65536, timeout=seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += text
        self.stream.feed(text)

    def until(self, wanted: str | Callable[[str], bool], *, seconds: float = 30) -> str:
        """Read until the screen shows a text (a pattern), and return the screen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if wanted(self.screen) if callable(wanted) else re.search(wanted, self.screen):
                return self.screen
            self.read(0.1)
        raise AssertionError(f"{wanted} is not on the screen:\n{self.screen}")

    def type(self, keys: str, wanted: str | Callable[[str], bool]) -> str:
        """Type keys, and wait for what they show."""
        self.child.send(keys)
        return self.until(wanted)

    def ended(self) -> int:
        """Wait for the end, check that the terminal is as before, and return the exit code."""
        self.until(r"CODE=\d+[\s\S]*icanon")
        after = self.raw.rpartition(LEAVE_SCREEN)[2]
        assert (LEAVE_SCREEN in self.raw, SHOW_CURSOR in self.raw, "Traceback" in after) == (True, True, False)
        assert re.search(r"(?<!-)\bicanon\b", after)
        assert re.search(r"(?<!-)\becho\b", after)
        assert re.search(r"(?<!-)\bisig\b", after)
        assert not re.search(r"\x1b\[\?100[0-6]h|\x1b\[\?2004h", after)  # no mouse, no bracketed paste
        found = re.search(r"CODE=(\d+)", after)
        assert found
        self.child.close()
        return int(found[1])


def rows(screen: str) -> list[str]:
    """The lines of the table, below its headings."""
    lines = screen.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("COURSE"))
    return [line for line in lines[start + 1 : -4] if line.strip()]


@pytest.mark.slow
def test_every_key_on_a_terminal(school: Connection[Any], dsn: str) -> None:
    damage(school)
    differing = school.execute("select * from rollbook.verify()").fetchall()
    terminal = Terminal([PROGRAM, "top", "--interval", "0.5", "-d", dsn])
    screen = terminal.until("✗ drifted.*\n.*✓ ok")
    assert school.info.dbname in screen
    assert [row.split()[0] for row in rows(screen)] == [KEEP, REMOVE]  # the worst first
    assert "every 0.5 s · worst first" in screen

    terminal.type("sss", "by rows/s")
    terminal.type("s", "worst first")
    screen = terminal.type("/edX/toy" + ENTER, "filter: edX/toy")
    assert [row.split()[0] for row in rows(screen)] == [REMOVE]
    terminal.type(ESCAPE, lambda screen: "filter:" not in screen and len(rows(screen)) == 2)
    terminal.type("\x1b[A", KEEP + " · schema")  # up
    terminal.type("v", "1 course compared; 1 differs in 3 rows")
    screen = terminal.type(ESCAPE, "rollbook replication repair '?" + KEEP)  # the verdict is recorded
    assert "3 rows differed" in screen
    terminal.type(ENTER, rf"(?s)^{KEEP}\nCourse\n.*differing_rows +3")
    terminal.type(ESCAPE, "worst first")
    terminal.type("c", "is on no server|not on a server")
    terminal.type("?", "No key changes a copy")
    terminal.type("q", "worst first")

    at = re.search(r"this is of (\S+);", terminal.type(" ", r"paused: this is of \d\d:\d\d:\d\d"))
    assert at
    terminal.read(1.5)
    assert f"this is of {at[1]};" in terminal.screen
    terminal.type(" ", "every 0.5 s")
    school.execute("select pg_stat_force_next_flush()")
    school.execute("update portal.auth_user set first_name = 'Bobby' where username = 'bob'")
    terminal.until(r"· [1-9]\d* rows/s")

    allow, name = sql.SQL("alter database {} allow_connections {}"), sql.Identifier(school.info.dbname)
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as other:
        other.execute(allow.format(name, sql.SQL("false")))
        lost = r"✗ the portal is unreachable since \d\d:\d\d:\d\d; last answer \d\d:\d\d:\d\d"
        unknown = [["?", "unknown", "–"]] * 2
        screen = terminal.until(  # a screen is drawn in pieces
            lambda screen: bool(re.search(lost, screen)) and [row.split()[1:4] for row in rows(screen)] == unknown
        )
        assert ("drifted" in screen, "✓ ok" in screen) == (False, False)
        other.execute(allow.format(name, sql.SQL("true")))
    screen = terminal.until("✗ drifted.*\n.*✓ ok")
    assert "unreachable" not in screen

    terminal.child.send("q")
    assert terminal.ended() == 0
    assert school.execute("select * from rollbook.verify()").fetchall() == differing  # no key repaired it


@pytest.mark.slow
def test_a_terminal_that_goes_away_while_the_first_screen_is_drawn_ends_it(broken: str) -> None:
    terminal = Terminal([PROGRAM, "top", "-d", broken])
    terminal.until("PostgreSQL")
    terminal.child.close(force=True)  # bash ends; the program has the terminal gone
    end = time.monotonic() + 20
    while (left := processes(broken)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


def processes(dsn: str) -> list[int]:
    """The processes of `rollbook top` on a database."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            found += [int(path.parent.name)] if "top" in words and dsn in words else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("\x03", 130), ("TERM", 143)])
def test_whatever_ends_it_on_a_narrow_terminal_without_colour(broken: str, end: str, code: int) -> None:
    terminal = Terminal([PROGRAM, "top", "-d", broken], size=(16, 60), NO_COLOR="1")
    screen = terminal.until(r"(?m)^MITx\S* +✗ drifted")
    assert "? help · q quit" in screen
    assert not re.search(r"\x1b\[[0-9;]*\b3[1-7]m", terminal.raw)  # no colour
    terminal.child.send("?")
    terminal.until("pause, and go on")  # from a page as well
    if end == "TERM":
        shell = terminal.child.pid
        (program,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(program), signal.SIGTERM)
    else:
        terminal.child.send(end)
    assert terminal.ended() == code


@pytest.mark.slow
def test_what_is_missing_is_named(broken: str) -> None:
    piped = process("top", "--interval", "3", "-d", broken)
    assert (piped.code, piped.out) == (2, "")
    assert "fix:   rollbook status --watch 3\n" in piped.err
    dumb = Terminal([PROGRAM, "top", "-d", broken], TERM="dumb")
    assert "rollbook status --watch 2" in dumb.until("CODE=2")
    start = "from rollbook.cli import main; sys.argv[0] = 'rollbook'; main()"
    without = [sys.executable, "-c", f"import sys; sys.modules['textual'] = None; {start}", "top", "-d", broken]
    assert "pip install 'rollbook[top]'" in Terminal(without).until("CODE=3")
    # A bug ends it as it ends any command: no variables, which may hold a password.
    bug = "import rollbook.replication.commands.top_screen as t; t.Top.draw_detail = lambda self: 1 / 0"
    failing = Terminal([sys.executable, "-c", f"import sys; {bug}; {start}", "top", "-d", f"{broken} password=secret"])
    assert "a bug in rollbook: ZeroDivisionError" in failing.until("CODE=70")
    assert "secret" not in failing.raw


def course(name: str, state: str, lag: float | None = 0.0, reason: str | None = None) -> Line:
    """A course's line of `status`."""
    unknown: dict[str, Any] = dict.fromkeys(field.name for field in fields(Line))
    return Line(
        **{**unknown, "course": name, "target": "schema x", "state": state, "lag_seconds": lag, "reason": reason}
    )


def test_the_board_knows_what_changed_between_looks() -> None:
    board, now = Board(), datetime.now(UTC)
    board.add([course("a", "ok"), course("b", "broken", 4, "a row cannot be applied")], {"a": 100, "b": 7}, now, 10.0)
    assert [track.line.course for track in board.sorted("worst first")] == ["b", "a"]
    assert [board.tracks[name].rate for name in "ab"] == [None, None]
    board.add([course("a", "ok"), course("b", "ok")], {"a": 150, "b": 3}, now, 12.0)
    assert [board.tracks[name].rate for name in "ab"] == [25.0, None]  # b's counters began again
    assert (board.rows_per_second, board.tracks["b"].error) == (25.0, "a row cannot be applied")
    assert [track.line.course for track in board.sorted("by rows/s")] == ["a", "b"]
    assert [track.line.course for track in board.sorted("worst first", "B")] == ["b"]
    board.miss("no answer", now)
    board.miss("no answer", now)
    assert (board.silent_since, list(board.tracks["b"].lags)) == (now, [4, 0.0, None, None])
    board.add([course("a", "ok"), course("c", "ok", 1)], {"a": 300, "c": 1}, now, 20.0)
    assert (board.silent_since, sorted(board.tracks)) == (None, ["a", "c"])  # b was deleted
    assert board.tracks["a"].rate is None  # nothing is known of the time between
    assert list(board.tracks["c"].lags) == [None] * 4 + [1]  # c is new


# The program with so many servers behind two relays: one is broken, and one relay is down. A file silences the portal.
PLATFORM = """
import sys
from dataclasses import replace
from pathlib import Path
from rollbook.cli import main
from rollbook.core.errors import UnreachableError
from rollbook.replication.commands import top_screen
from rollbook.replication.tree import Hop

look, count, gone = top_screen.overview, int(sys.argv.pop(1)), Path(sys.argv.pop(1))
hops = [Hop("hub-east", None, "ok", 1, 0, 0.012, 0.012, None, None),
        Hop("hub-west", None, "unreachable", 1, 2**24, None, None, "no answer", None)]
for number in range(count):
    if number % 2:
        hops.append(Hop(f"west-{number:03}", "hub-west", "unreachable", 1, None, None, None, None, None))
    else:
        state = "broken" if number == 2 else "ok"
        hops.append(Hop(f"east-{number:03}", "hub-east", state, 1, 4096, 0.02, 0.008, None, None))

def overview(*asked):
    if gone.exists():
        raise UnreachableError("the portal has gone")
    return replace(look(*asked), servers=hops)

top_screen.overview = overview
sys.argv[0] = "rollbook"
main()
"""


def tree(screen: str) -> list[str]:
    """The lines of the tree, below its headings."""
    lines = screen.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("SERVER"))
    return lines[start + 1 : lines.index("", start)]


@pytest.mark.slow
def test_a_hundred_servers_fit_into_a_small_terminal(broken: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    command = [sys.executable, "-c", PLATFORM, "100", str(gone), "top", "--interval", "0.5", "-d", broken]
    terminal = Terminal(command, size=(24, 80))
    screen = terminal.until(r"(?s)SERVER.*COURSE.*drifted.*unknown.*q quit")
    assert tree(screen) == [
        "portal          –                                     –         –        –",
        "├─ hub-east     ✓ ok                                  1   0.012 s  0.012 s",
        "│  ├─ east-002  ✗ broken                              1    0.02 s  0.008 s",
        "│  ├─ east-000  ✓ ok                                  1    0.02 s  0.008 s",
        "│  └─ 48 more   ✓ ok                                 48         –        –",
        "└─ hub-west     ✗ unreachable                         1         –        –",
        "   ├─ west-001  ✗ unreachable through hub-west        1         –        –",
        "   ├─ west-003  ✗ unreachable through hub-west        1         –        –",
        "   └─ 48 more   ✗ unreachable through hub-west       48         –        –",
    ]
    assert [row.split()[0] for row in rows(screen)] == [KEEP, REMOVE]  # no course gives way to them
    screen = terminal.type("t", "Esc back")
    assert screen.startswith("102 servers, ")
    assert "more" not in screen
    terminal.type("\x1b[F", "└─ west-099")  # End
    terminal.type(ESCAPE, "worst first")

    gone.touch()
    lost = "the portal is unreachable since"
    screen = terminal.until(lambda screen: lost in screen and not re.search("hub-(east|west) +[^? ]", screen))
    assert {tuple(line.split()[-6:-4]) for line in tree(screen)[1:]} == {("?", "unknown")}
    gone.unlink()
    terminal.until("east-002 +✗ broken")

    terminal.child.setwinsize(16, 60)
    terminal.display.resize(16, 60)
    screen = terminal.until(lambda screen: "101 more" in screen and KEEP in screen)
    assert tree(screen)[2] == "└─ 101 more, worst  ✗ broken      101         –        –"
    terminal.child.send("q")
    assert terminal.ended() == 0
