"""The README says what happens: its SQL is run, its demo is compared line by line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.tools import pictures

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_sql_gives_what_the_readme_says(db: Connection[Any]) -> None:
    (script,) = blocks("sql")
    seen = 0
    result: str | None = None
    for line in script.splitlines():
        if line.startswith("-- "):
            assert result == line[3:]
            seen += 1
            continue
        cursor = db.execute(line.encode())
        row = cursor.fetchone() if cursor.description else None
        result = str(row[0]) if row else None
    assert seen == 3


def test_the_demo_prints_what_the_readme_shows(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    home = Path("/tmp") / f"rb-readme-{tmp_path_factory.getbasetemp().name}"  # a socket has a short path
    monkeypatch.setenv("ROLLBOOK_DEMO_DIR", str(home))
    program = [str(Path(sys.executable).parent / "rollbook"), "demo"]
    try:
        done = subprocess.run([*program, "up"], capture_output=True, text=True, check=True)
        status = pictures.status(
            {**os.environ, "TERM": "xterm", "ROLLBOOK_DSN": f"host={home} port=5432 dbname=portal user=postgres"}
        )
    finally:
        subprocess.run([*program, "down"], capture_output=True, check=True)
    said = [line.rstrip() for line in done.stdout.splitlines()]
    shown = blocks("console")[1].removeprefix("$ make demo\n").splitlines()
    first, *rest = shown
    assert re.sub(r"\d+\.\d+|/tmp/\S+", "", said[0]) == re.sub(r"\d+\.\d+|/tmp/\S+", "", first)
    body, tail = rest[: rest.index("...")], rest[rest.index("...") + 1 :]
    assert said[1 : 1 + len(body)] == body
    timeless = [re.sub(r"\d+\.\d ms", "", line) for line in said]
    assert [line for line in tail if line != "..." and re.sub(r"\d+\.\d ms", "", line) not in timeless] == []
    assert pictures.shape(pictures.drawn()) == pictures.shape(status), "stale: run `make pictures`"
