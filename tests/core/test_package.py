"""What is installed: the package `rollbook` and nothing beside it, whatever else stands on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.program import PROGRAM, ROOT


@pytest.mark.parametrize("program", [[PROGRAM], [sys.executable, "-m", "rollbook"]])
@pytest.mark.parametrize("package", ["admin", "sql", "migrations", "portal"])
def test_the_program_starts_beside_a_site_with_packages_of_common_names(
    tmp_path: Path, package: str, program: list[str]
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise ImportError('a package of the site')\n")
    done = subprocess.run(
        [*program, "--version"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rollbook ")


def test_the_wheel_installs_rollbook_and_nothing_else_and_alembic_runs_its_migrations(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"rollbook"}
    for shipped in ("sql/grants.sql", "migrations/env.py", "system/demo/roster/students.csv", "__main__.py"):
        assert f"rollbook/{shipped}" in names
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    ini = (ROOT / "docs" / "dba.md").read_text().split("```ini\n")[1].split("```")[0]
    (tmp_path / "alembic.ini").write_text(ini)
    done = subprocess.run(
        [Path(PROGRAM).parent / "alembic", "upgrade", "head", "--sql"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert (done.returncode, "create schema rollbook" in done.stdout) == (0, True), done.stderr
