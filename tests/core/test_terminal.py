"""What a terminal sees and a pipe does not: tables, colour, bars, questions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pexpect
import pytest
from psycopg import Connection
from rich.cells import cell_len

from rollbook.core.command import Run, When
from rollbook.core.output import Page
from rollbook.core.table import shortened, table
from tests.program import KEEP, PROGRAM, damage, environment, process, snapshot
from tests.school import write_old

pytestmark = pytest.mark.slow  # `make check` runs it

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


def test_what_has_long_values_is_a_table_at_eighty_columns(broken: str) -> None:
    for command, headings in (
        ("check", ["CHECK", "STATE", "VALUE", "MESSAGE"]),
        ("config show", ["KEY", "VALUE", "SOURCE"]),
    ):
        _, screen = terminal(*command.split(), "-d", f"{broken} application_name=newcomer", width=80, NO_COLOR="1")
        words = [line.replace("CRITICAL", "").split() for line in screen.splitlines()]
        assert headings in words, screen


def test_a_reason_is_wrapped_not_shortened(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('colour = "never"\n')
    _, screen = terminal("config", "check", "--config", str(file), width=120, NO_COLOR="1")
    assert "…" not in screen.rpartition("colour")[2]


def test_forty_columns_still_show_the_key_and_the_verdict(broken: str) -> None:
    for command, word in (("status", "VERDICT"), ("replication verify", "VERDICT"), ("course list", "STATE")):
        _, screen = terminal(*command.split(), "-d", broken, width=40, NO_COLOR="1")
        assert "course" in screen.casefold()
        assert word in screen.upper()
        assert "COURSE" not in screen or "hidden: " in screen  # records show all
    _, wide = terminal("course", "list", "--wide", "-d", broken, width=40, NO_COLOR="1")
    assert "hidden: " not in wide


def test_colour_is_for_terminals_and_switched_off_by_name(broken: str) -> None:
    verify = ("replication", "verify", "-d", broken)
    assert "\x1b[31m" in terminal(*verify)[1]  # red, beside the mark and the word
    plain = terminal(*verify, NO_COLOR="1")[1]
    assert ("✗ differs" in plain, "\x1b[31m" in plain) == (True, False)
    assert "\x1b" not in terminal("course", "list", "-d", broken, "--color", "never")[1]


def test_a_pipe_gets_no_escape_no_cut_and_no_bar(broken: str) -> None:
    for command in ("replication verify", "replication verify --format table", "status", "user show dan"):
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


def test_a_key_keeps_to_one_line_and_is_whole_in_a_pipe(db: Connection[Any], dsn: str) -> None:
    course = "SomeVeryLongUniversity/WithALongCourseNumber/2012_Fall_and_Winter"
    db.execute("select rollbook.create_course(%s)", [course])
    for command in ("course list", "status"):
        _, screen = terminal(*command.split(), "-d", dsn, width=80, NO_COLOR="1")
        (line,) = [line for line in screen.split("\r\n") if "SomeVery" in line]
        assert re.match(r"SomeVery\S*…\S*_Winter ", line), screen
        assert course in process(*command.split(), "--format", "table", "-d", dsn).out
    _, wide = terminal("course", "list", "--wide", "-d", dsn, width=80, NO_COLOR="1")
    assert course in wide
    _, narrow = terminal("course", "show", course, "-d", dsn, width=40, NO_COLOR="1")
    assert [line for line in narrow.split("\r\n") if len(line.rstrip()) > 40] == []
    assert re.search(r"course +SomeV\S*…\S*inter\r\n", narrow), narrow


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("command", ["user list", "schema history", "name-change list"])
def test_no_line_passes_the_edge_whatever_a_value_holds(
    school: Connection[Any], dsn: str, command: str, width: int
) -> None:
    name = "ジュリア・ラブレスとその仲間たちの長い名前 \u202eevil\u2066 \x1b[31mred\x07 line\nbreak"
    write_old(school, "update portal.auth_userprofile set name = %s", name)
    request = "insert into portal.student_pendingnamechange (user_id, new_name, rationale) select id, %s, %s "
    write_old(school, request + "from portal.auth_user", name[::-1], name)
    _, screen = terminal(*command.split(), "--no-pager", "-d", dsn, width=width, NO_COLOR="1")
    lines = [re.split(r"\r|\x1b\[2K", line)[-1] for line in screen.split("\r\n")]
    assert [line for line in lines if cell_len(line.rstrip()) > width] == [], screen
    assert not re.search("[\u202e\u2066\x07]", screen)
    if command == "name-change list":
        assert "\x1b" not in screen


def slot_rows() -> list[dict[str, Any]]:
    """Return what `replication slots` and `conflicts` show, at their longest."""
    return [
        {
            "slot": "rollbook_a_long_server_name_east", "server": "east", "courses": 12, "active": False,
            "wal_status": "unreserved", "held_bytes": 10**10, "safe_bytes": 10**9, "inactive_since": "2026-01-01 10:00",
            "alarm": "unbounded",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (slot_rows(), ("alarm", "unbounded")),
        (
            [{"course": KEEP, "server": "east", "table": "student_courseenrollment", "key": "(id)=(123456)",
              "kind": "apply", "sqlstate": "23505", "message": "duplicate key value violates unique constraint",
              "count": 17, "resolution": "rollbook replication repair " + KEEP}],
            ("message", "duplicate key", "resolution", "rollbook replication"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [80, 40])
def test_the_alarm_is_never_hidden(
    monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]], wanted: tuple[str, ...], width: int
) -> None:
    screen = Page()
    monkeypatch.setenv("COLUMNS", str(width))
    table(Run(color=When.never), screen, found, list(found[0]))
    assert all(cell_len(line) <= width for line in screen.getvalue().splitlines()), screen.getvalue()
    assert all(word in screen.getvalue().casefold() for word in wanted), screen.getvalue()


def test_shortened_texts_have_the_cells_that_there_are() -> None:
    for text in ("abcdefghij", "ジュリア・ラブレス", "aジbュcリd"):
        for room in range(1, 20):
            short = shortened(text, room)
            assert cell_len(short) <= room
            assert short == text or "…" in short
    assert shortened("MITx/6.002x/2012_Fall", 11) == "MITx/…_Fall"


# --- the pager --------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(db: Connection[Any], dsn: str) -> str:
    """A platform with more users than a screen has lines."""
    db.execute("insert into portal.auth_user (username) select 'u' || n from generate_series(1, 90) as n")
    return dsn


def test_a_long_answer_goes_to_the_pager_a_short_one_does_not(crowd: str, tmp_path: Path) -> None:
    pager = f"sh -c 'echo PAGER; cat > {tmp_path}/seen'"
    code, screen = terminal("user", "list", "-d", crowd, PAGER=pager)
    assert (code, "PAGER" in screen, len((tmp_path / "seen").read_text().splitlines()) > 90) == (0, True, True), screen
    for options in (("--limit", "3"), ("--no-pager",), ("--json",), ("-o", str(tmp_path / "answer.txt"))):
        code, screen = terminal("user", "list", *options, "-d", crowd, PAGER=pager)
        assert (code, "PAGER" in screen) == (0, False), options
    for other in ("", "no-such-pager", "sh -c 'exit 3'"):
        code, screen = terminal("user", "list", "-d", crowd, PAGER=other)
        assert (code, "u90" in screen) == (0, "sh" not in other), screen


def test_nobody_pages_without_a_keyboard_or_while_watching(crowd: str) -> None:
    pager = "sh -c 'echo PAGER; cat'"
    line = f"{shlex.quote(PROGRAM)} user list -d '{crowd}' < /dev/null"
    variables = environment(TERM="xterm-256color", PAGER=pager)
    child = pexpect.spawn("sh", ["-c", line], dimensions=(50, 100), encoding="utf-8", env=variables, timeout=20)
    child.expect(pexpect.EOF)
    assert ("PAGER" in child.before, "u90" in child.before) == (False, True)
    code, screen = terminal("status", "--watch", "0.1", "--count", "2", "-d", crowd, PAGER=pager)
    assert (code, "PAGER" in screen) == (0, False)


def test_ctrl_c_belongs_to_the_pager_and_leaves_the_terminal_sane(crowd: str) -> None:
    line = f"trap : INT; {shlex.quote(PROGRAM)} user list -d '{crowd}'; echo CODE=$?; stty -a"
    variables = environment(TERM="xterm-256color", PAGER="sh -c \"trap '' INT; echo READY; read key < /dev/tty\"")
    child = pexpect.spawn("sh", ["-c", line], dimensions=(50, 100), encoding="utf-8", env=variables, timeout=20)
    child.expect("READY")
    child.sendintr()
    child.sendline("q")
    child.expect(r"CODE=(\d+)")
    assert child.match[1] == "0"
    child.expect(pexpect.EOF)
    assert re.search(r"(?<!-)\bicanon\b", child.before)
    assert re.search(r"(?<!-)\becho\b", child.before)


HOSTILE = "a\x1b]0;owned\x07b\u202ec\u200bd\x9b1me\u200df"


@pytest.mark.parametrize("style", ["tsv", "csv", "json", "jsonl", "table"])
def test_nothing_steers_a_terminal_in_any_format(db: Connection[Any], dsn: str, style: str) -> None:
    db.execute("insert into portal.auth_user (id, username) values (1, 'ada')")
    write_old(db, "insert into portal.auth_userprofile (user_id, name) values (1, %s)", HOSTILE)
    code, screen = terminal("user", "list", "--format", style, "--wide", "-d", dsn, NO_COLOR="1")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert (
        code,
        set(shown) & set("\x1b\x07\x9b\u202e\u200b\u200d"),
        "\\u202ec\\u200bd\\u009b1me\\u200df" in shown,
    ) == (0, set(), True)
    assert "\t" in shown or style != "tsv"
    data = process("user", "list", "--format", "csv", "-d", dsn).out
    assert HOSTILE in data  # data in a pipe stays as it is


def test_a_question_and_the_faults_of_a_file_steer_no_terminal(db: Connection[Any], dsn: str, tmp_path: Path) -> None:
    db.execute("select rollbook.create_course(%s)", [HOSTILE])
    file = tmp_path / "new.csv"
    file.write_text(f"username,email\n{HOSTILE},nowhere\n")
    for arguments in (("user", "import", str(file)), ("course", "delete", HOSTILE), ("user", "show", HOSTILE)):
        for style in ((), ("--json",)):
            done = process(*arguments, *style, "-d", dsn)
            assert done.code != 0
            assert set(done.err) & set("\x1b\x07\x9b\u202e\u200b\u200d") == set(), done.err


def test_a_superuser_is_told_so_once_on_a_terminal_and_nowhere_else(db: Connection[Any], dsn: str) -> None:
    note = "connected as a superuser;\r\nrollbook_monitor would do"
    _, screen = terminal("user", "list", "-d", dsn)
    assert screen.count(note) == 1
    assert terminal("replication", "verify", "-d", dsn)[1].count(note) == 1  # two sessions
    assert note not in terminal("user", "list", "-q", "-d", dsn)[1]
    assert note not in process("user", "list", "-d", dsn).err
    assert "superuser" not in terminal("schema", "upgrade", "-d", dsn)[1]
    db.execute("do $$ begin create role rb_watch login; exception when duplicate_object then null; end $$")
    db.execute("grant rollbook_monitor to rb_watch")
    assert "superuser" not in terminal("user", "list", "-d", dsn.replace("user=postgres", "user=rb_watch"))[1]
    db.execute("revoke rollbook_monitor from rb_watch")


def test_verify_and_repair_show_rate_and_end_once_something_is_done(db: Connection[Any], dsn: str) -> None:
    db.execute("select rollbook.create_course(format('c%s', lpad(n::text, 2, '0'))) from generate_series(1, 26) as n")
    db.execute("insert into portal.auth_user (username) select 'u' || n from generate_series(1, 500) as n")
    for course in ("c01", "c26"):
        db.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) select id, %s from portal.auth_user",
            [course],
        )

    def held() -> Connection[Any]:
        holder = Connection.connect(dsn)
        holder.execute("lock table course_c26.auth_user in access exclusive mode")
        return holder

    def spawned(*command: str) -> Any:
        return pexpect.spawn(
            PROGRAM, [*command, "-d", dsn], dimensions=(50, 110), encoding="utf-8", timeout=30,
            env=environment(TERM="xterm-256color", NO_COLOR="1"),
        )  # fmt: skip

    end = r"[\d,.]+ rows/s +\d:\d\d:\d\d left, ends \d\d:\d\d:\d\d"
    with held() as holder:
        child = spawned("replication", "verify")
        child.expect(f"verify +25/26 .*{end}")
        assert "-:--:--" in child.before + child.after.split("25/26")[0]  # nothing was done yet
        holder.rollback()
    child.expect("all copies are equal")
    db.execute("set session_replication_role = replica")
    for course in ("c01", "c26"):
        db.execute(f"delete from course_{course}.auth_user".encode())
    db.execute("reset session_replication_role")
    child = spawned("replication", "repair")
    child.expect(r"\[y/N\] ")
    with held() as holder:
        child.sendline("y")
        child.expect(f"repair +1/2 .*{end}")
        holder.rollback()
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.before.count("500")) == (0, 2), child.before
