"""The units, the dashboard and the page about them: what they name exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from rollbook.system.metrics import FAMILIES
from rollbook.tree import every_command
from tests.program import PROGRAM

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "packaging" / "systemd").iterdir())
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
RULES = (ROOT / "packaging" / "grafana" / "rollbook.rules.yml").read_text()


def test_the_page_has_every_metric_and_every_alert() -> None:
    assert re.findall(r"^\| `(rollbook_\w+)", PAGE, re.MULTILINE) == list(FAMILIES)
    assert re.findall(r"^\| (Rollbook\w+)", PAGE, re.MULTILINE) == re.findall(r"alert: (\w+)", RULES)
    assert set(re.findall(r"rollbook_\w+", RULES)) - set(FAMILIES) == set()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((ROOT / "packaging" / "grafana" / "rollbook.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells: dict[tuple[int, int], str] = {}
    for panel in panels:
        where = panel["gridPos"]
        for x in range(where["x"], where["x"] + where["w"]):
            for y in range(where["y"], where["y"] + where["h"]):
                assert cells.setdefault((x, y), panel["title"]) == panel["title"], "two panels overlap"
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert where["x"] + where["w"] <= 24


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_as_a_user_of_its_own_and_has_no_secret(unit: Path) -> None:
    text = unit.read_text()
    assert not re.search(r"password|dsn=|host=", text, re.IGNORECASE)
    if unit.suffix == ".timer":
        assert (unit.with_suffix(".service")).exists()
        return
    assert "User=rollbook\n" in text
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, noun, *words = shlex.split(line)
    assert program == "/usr/local/bin/rollbook"
    command = every_command()[noun]
    if hasattr(command, "commands"):
        command = command.commands[words[0]]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units_and_finds_them_confined(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/rollbook", f'"{PROGRAM}"'))
    found = subprocess.run(["systemd-analyze", "verify", "--man=no", *(unit.name for unit in UNITS)], cwd=tmp_path,
                           capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    ours = [line for line in found.stderr.splitlines() if "rollbook" in line]
    assert (found.returncode, ours) == (0, [])
    for unit in UNITS:
        if unit.suffix == ".service":
            rated = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit.name], cwd=tmp_path,
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert rated.returncode == 0, rated.stdout[-300:]
