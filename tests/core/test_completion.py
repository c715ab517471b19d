"""Shell completion, as bash, zsh and fish ask for it: names from the database, or silence."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, PROGRAM, environment, process

BASH = """
eval "$(rollbook --show-completion bash)"
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_rollbook_completion rollbook
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(*words: str, **env: str) -> tuple[list[str], str]:
    """What bash offers for the last word, and what it would print over the prompt."""
    script = BASH.format(words=" ".join(f"'{word}'" for word in ("rollbook", *words)))
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True,
        env=environment(
            _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
            PATH=f"{Path(PROGRAM).parent}:{os.environ['PATH']}", **env,
        ),
    )  # fmt: skip
    return done.stdout.split(), done.stderr


@pytest.mark.slow
def test_bash_completes_courses_groups_and_servers_from_the_database(school: Connection[Any], dsn: str) -> None:
    school.execute("insert into portal.student_usertestgroup (name, description) values ('beta', ''), ('beta-2', '')")
    for words, offered in (
        (("course", "show", "MI"), [KEEP]),
        (("course", "show", "nothing"), []),
        (("enrollment", "list", "--course", "MI"), [KEEP]),
        (("group", "show", "beta"), ["beta", "beta-2"]),
        (("course", "sh"), ["show"]),
    ):
        assert in_bash(*words, ROLLBOOK_DSN=dsn) == (offered, ""), words
    quoted = f'"{dsn}"'  # as bash hands on what was typed
    assert in_bash("course", "show", "-d", quoted, "MI", ROLLBOOK_DSN="host=/nonexistent") == ([KEEP], "")


@pytest.mark.parametrize(
    ("shell", "offer"),
    [("bash", f"{KEEP}\n"), ("zsh", f"""_arguments '*: :(("{KEEP}"))'\n"""), ("fish", f"{KEEP}\n")],
)
def test_each_shell_is_answered_in_its_own_form(school: Connection[Any], dsn: str, shell: str, offer: str) -> None:
    del school
    line = "rollbook course show MI"
    asked = {
        "_ROLLBOOK_COMPLETE": f"complete_{shell}", "COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": "3",
        "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    answer = process(env={**asked, "ROLLBOOK_DSN": dsn})
    assert (answer.code, answer.out, answer.err) == (0, offer, "")


@pytest.mark.parametrize("dsn", ["host=/nonexistent", "dbname=", "=;", "host=192.0.2.1 dbname=portal"])
def test_without_a_database_completion_is_silent_and_does_not_hang(dsn: str, tmp_path: Path) -> None:
    began = time.monotonic()
    assert in_bash("course", "show", "MI", ROLLBOOK_DSN=dsn, PGHOST=str(tmp_path)) == ([], "")
    assert time.monotonic() - began < 30  # of a machine that does nothing else: 1.5 s
