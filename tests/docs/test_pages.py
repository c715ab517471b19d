"""The pages name commands, options and messages that exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rollbook.tree import every_command
from tests.tools.site import ROOT, documents

SYMPTOMS = ROOT / "docs" / "troubleshooting.md"
# CHANGELOG and decisions are history.
PAGES = [path for path in documents() if path.parts[:2] not in {("CHANGELOG.md",), ("docs", "decisions")}]


@cache
def commands() -> dict[str, Any]:
    return every_command()


def quoted(text: str) -> list[str]:
    """The commands of a page: in code spans, and after a prompt."""
    return [
        *re.findall(r"(?<!`)`(rollbook [a-z][^`]*)`(?!`)", text.replace("\n", " ")),
        *re.findall(r"^ *(?:\$|[\d*]+(?: [\d*]+){4} ) *(rollbook [a-z].*)", text.replace("\\\n", " "), re.MULTILINE),
    ]


def fault(line: str) -> str | None:
    """Why a command cannot be run as it is written; None for a command that exists, with all its options."""
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:
        words = line.split()[1:]
    command: Any = commands().get(words[0])
    path, rest = words[:1], words[1:]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest[0]]
        path, rest = [*path, rest[0]], rest[1:]
    if command is None or (hasattr(command, "commands") and rest and re.fullmatch(r"[a-z-]+", rest[0])):
        return f"no command {line}"
    if hasattr(command, "commands"):
        return None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word in {"|", "||", "&&", ";", ">"}:
            break
        if re.match(r"--[a-z]", word) and word.split("=")[0].rstrip(".,|") not in known | {"--help"}:
            return f"no option {word}: {line}"
    return None


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_commands_of_a_page_exist_with_their_options(path: Path) -> None:
    assert [why for line in quoted((ROOT / path).read_text()) if (why := fault(line))] == []


def test_the_symptoms_are_what_the_program_prints() -> None:
    sources = [*(ROOT / "admin").rglob("*.py"), *(ROOT / "sql").rglob("*.sql"), *(ROOT / "migrations").rglob("*.py")]
    said = re.sub(r"\"\s*\n\s*f?\"|\s+", " ", "\n".join(path.read_text() for path in sources)).replace(
        "''", "'"
    )  # as SQL writes an apostrophe
    symptoms = [
        symptom
        for row in re.findall(r"^\| (.*?) \|", SYMPTOMS.read_text(), re.MULTILINE)
        if not row.startswith("PostgreSQL's ")
        for symptom in re.findall(r"`([^`]+)`", row)
    ]
    parts = {part.strip() for symptom in symptoms for part in symptom.split("…") if len(part.strip()) > 2}
    assert len(parts) > 40
    assert sorted(part for part in parts if part not in said) == []
