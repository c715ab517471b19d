"""A command that is printed can be pasted into a shell, whatever people and courses are called."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core.shell import course_word, quoted
from tests.program import PACKAGE
from tests.school import Rollbook, write_old

# What is interpolated bare into a command: our own words, numbers, and names that the database keeps to [a-z0-9_].
PLAIN = {
    "verb", "server.name", "seen.server.name", "who", "fault.finish_lsn", "basis['existing']", "option",
    "context.command_path", "VARIABLE", "guessed_encoding(name, encoding)", "shell",
    "'downgrade' if up else 'upgrade'", "to", "names[0]", "moving.server", "course.server", "there",
    "quoted", "skip", "number", "word", "fix", "grant", "instead", "fault.fix(server, course)",
    "'repair' if fault.is_conflict else 'show'", "resync", "name", "field", "rename",
    "server.through", "relay.name", "first.name", "each.name", "behind[0]", "behind[0].name", "known.name",
    "wanted.through", "above", "behind", "moves[0].server", "where", "fault.fix(stuck, course)",
    "session.server.name", "session.source_name", "others[0]", "'move' if course.server else verb",
}  # fmt: skip


def commands_in_source() -> list[tuple[str, str]]:
    """The interpolations of every f-string that has a command or an option in it: where, and what."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.keyword) or node.arg not in {"fix", "why"}:
                continue
            for text in ast.walk(node.value):
                if isinstance(text, ast.JoinedStr):
                    words = "".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))
                    if "rollbook " in words or "--" in words:
                        found += [
                            (f"{path.name}:{text.lineno}", ast.unparse(part.value))
                            for part in text.values
                            if isinstance(part, ast.FormattedValue)
                        ]
    return found


def test_no_command_in_the_source_has_a_bare_name_in_it() -> None:
    found = commands_in_source()
    assert len(found) > 15
    safe = ("len(", "quoted(", "course_word(", "user_word(", "words(", "named(", "' '.join(map(")
    assert [each for each in found if not each[1].startswith(safe) and each[1] not in PLAIN] == []


NASTY = ["x'; touch pwned; echo '", "$(touch${IFS}pwned)", "`touch pwned`", 'a"b', "two words", "x\ny",
         "\x1b]0;owned\x07", "\u202eabc\u200b",
         "back\\slash", "é!", "\U000e0041", "\x9b1m", "~root", "*", "plain"]  # fmt: skip


@pytest.mark.parametrize("word", NASTY)
def test_a_shell_reads_back_what_was_quoted(word: str, tmp_path: Path) -> None:
    for text in (quoted(word), course_word(word)):
        shell = ["bash", "-c", f"printf %s {text}"]
        done = subprocess.run(shell, capture_output=True, cwd=tmp_path, check=True, env={"LC_ALL": "C.UTF-8"})
        assert (done.stdout.decode(), list(tmp_path.iterdir())) == (word, [])


def pasted(answer: str, where: Path) -> None:
    """Run every command that was printed, and every option to add."""
    for line in answer.splitlines():
        for begin in ("rollbook ", "--confirm "):
            if begin in line:
                command = f"true {line[line.index(begin) :]}"
                subprocess.run(
                    ["bash", "-c", command], cwd=where, capture_output=True, check=False, env={"PATH": "/bin"}
                )


def test_the_remedies_of_courses_with_hostile_names_run_nothing_else(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    courses = [each for each in NASTY if each != "plain"]
    db.execute("insert into portal.auth_user (username) values ('ada')")
    for course in courses:
        schema = db.execute("select rollbook.create_course(%s)", [course]).fetchall()[0][0]
        db.execute("insert into portal.student_courseenrollment (user_id, course_id) values (1, %s)", [course])
        db.execute(f'drop schema "{schema}" cascade'.encode())
    here = tmp_path / "here"
    here.mkdir()
    for command in (
        ("status", "--format", "table"), ("status",), ("replication", "verify"), ("schema", "check"),
        ("user", "update", "ada", "--first-name", "A"),
        *((*words, course) for course in courses for words in (("course", "delete"), ("replication", "resync"))),
    ):  # fmt: skip
        answer = rollbook(*command)
        assert answer.code not in {0, 70}, (command, answer.err)
        pasted(answer.out + answer.err, here)
        assert list(here.iterdir()) == [], (command, answer)


@pytest.mark.parametrize("username", ["$(touch${IFS}pwned)", "a;touch${IFS}pwned", "`touch${IFS}pwned`", "a'b"])
def test_the_remedies_of_a_user_with_a_hostile_name_run_nothing_else(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path, username: str
) -> None:
    write_old(db, "insert into portal.auth_user (username, email) values (%s, 'x@example.org')", username)
    here = tmp_path / "here"
    here.mkdir()
    for command in (("user", "delete"), ("registration", "show"), ("candidate", "show"), ("candidate", "update")):
        answer = rollbook(*command, username)
        assert answer.code not in {0, 70}, answer.err
        pasted(answer.out + answer.err, here)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("word", NASTY)
def test_sql_quotes_a_word_for_a_shell(db: Connection[Any], word: str) -> None:
    text = db.execute("select rollbook.shell_quote(%s)", [word]).fetchall()[0][0]
    done = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True)
    assert done.stdout.decode() == word


def test_the_hint_of_a_function_can_be_pasted(db: Connection[Any], tmp_path: Path) -> None:
    course = "x'; touch pwned; echo '"
    schema = db.execute("select rollbook.create_course(%s)", [course]).fetchall()[0][0]
    db.execute(f'create table "{schema}".grades ()'.encode())
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select rollbook.drop_course(%s)", [course])
    assert caught.value.diag.message_hint is not None
    pasted(caught.value.diag.message_hint, tmp_path)
    assert list(tmp_path.iterdir()) == []
