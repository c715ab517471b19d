"""A command line that no command takes: one error, and a remedy that works when it is pasted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import import_module
from typing import Any

import pexpect
import pytest
from psycopg import Connection

from rollbook.core.nouns import NOUNS
from rollbook.tree import every_command
from tests.program import PROGRAM, environment
from tests.school import Rollbook


@pytest.mark.parametrize(
    ("typed", "remedy"),
    [
        ("--json course list", "rollbook course list --json"),
        ("course --json list", "rollbook course list --json"),
        ("--format json --no-header course list", "rollbook course list --format json --no-header"),
        ("users", "rollbook user --help"),
        ("users list", "rollbook user list"),
        ("uzer list", "rollbook user list"),
        ("user get ada", "rollbook user show ada"),
        ("user get", "rollbook user show --help"),
        ("users ls", "rollbook user list"),
        ("verify", "rollbook replication verify"),
        ("user frobnicate", "rollbook user --help"),
        ("frobnicate", "rollbook --help"),
        ("--frobnicate", "rollbook --help"),
        ("--frobnicate course list", "rollbook course list --help"),
    ],
)
def test_a_wrong_command_line_is_2_and_its_remedy_works(
    rollbook: Rollbook, school: Connection[Any], typed: str, remedy: str
) -> None:
    del school
    answer = rollbook(*typed.split(), dsn=None)
    assert (answer.code, answer.out) == (2, "")
    if "json" not in typed:
        first, last = answer.err.splitlines()
        assert (first.startswith("error: "), last) == (True, f"fix:   {remedy}")
    else:
        assert f'"hint": "{remedy}"' in answer.err or f"fix:   {remedy}" in answer.err
    assert rollbook(*shlex.split(remedy)[1:], dsn=None if "--help" in remedy else "").code == 0


def test_help_before_a_command_is_its_help(rollbook: Rollbook) -> None:
    for words in ((), ("course",), ("course", "list"), ("status",)):
        asked = rollbook("help", *words, dsn=None)
        assert (asked.code, asked.out) == (0, rollbook(*words, "--help", dsn=None).out)
    assert "fix:   rollbook course --help" in rollbook("help", "courses", dsn=None).err


def test_the_help_of_a_noun_is_the_line_of_the_table() -> None:
    for noun, command in every_command().items():
        assert command.help.split("\n")[0] == NOUNS[noun].help, noun
        assert import_module(f"rollbook.{NOUNS[noun].module}").app


def test_a_call_imports_the_module_of_its_noun_alone() -> None:
    code = "import sys; from rollbook.cli import run; run(sys.argv[1:]); print(*sys.modules)"
    for words, expected in ((["--help"], set()), (["exam", "list", "--help"], {"rollbook.testcentre.commands.exam"})):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=environment()
        )
        modules = {name for name in done.stdout.splitlines()[-1].split() if ".commands." in name}
        assert modules == expected


@pytest.mark.parametrize("words", ["--help", "user create --help", "schema sql"])
def test_a_closed_pipe_is_141_in_the_shell(words: str) -> None:
    script = f"set -o pipefail; {shlex.quote(PROGRAM)} {words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment())
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("user list", "interrupted"),
        ("user deactivate ada", "interrupted; the open transaction was rolled back"),
        ("user deactivate ada --dry-run", "interrupted"),
    ],
)
def test_ctrl_c_says_what_it_left(school: Connection[Any], dsn: str, words: str, said: str) -> None:
    with school.transaction():
        school.execute("lock table portal.auth_user in access exclusive mode")
        child = pexpect.spawn(PROGRAM, [*words.split(), "-d", dsn], encoding="utf-8", env=environment(), timeout=30)
        waiting = "select count(*) from pg_locks where relation = 'portal.auth_user'::regclass and not granted"
        while school.execute(waiting).fetchone() == (0,):
            pass
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == 130
    assert child.before.replace("^C", "").strip() == said


def test_an_interrupt_between_a_statement_and_its_answer_brings_no_words_of_the_driver(dsn: str) -> None:
    script = f"""
from rollbook.core.db import session
with session({dsn!r}, name="rollbook") as conn:
    conn.execute("select 1")
    conn.pgconn.send_query(b"select pg_catalog.pg_sleep(1)")
    raise KeyboardInterrupt
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, "ignored" in ended.stderr, ended.stderr.splitlines()[-1]) == (
        -2, False, "KeyboardInterrupt"
    )  # fmt: skip
