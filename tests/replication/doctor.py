"""`rollbook doctor` in tests: what it finds, and its printed fixes, run as they are printed."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.replication.conftest import Db, Site, remedy

Finding = dict[str, Any]


@dataclass(frozen=True)
class Trap:
    """What is done on the portal (`here`) or on the server, and the line that names it."""

    harm: str
    check: str
    found: str
    where: str = "portal"
    since: int = 150000  # the version of PostgreSQL from which on it can be


def findings(site: Site, *arguments: str) -> list[Finding]:
    """What doctor finds, `ok` apart."""
    answer = site.run("doctor", "--json", *arguments)
    assert answer.code in (0, 3, 4), answer
    assert all(list(row) == ["check", "where", "state", "found", "wanted", "fix"] for row in answer.data)
    return list(answer.data)


def named(found: list[Finding], trap: Trap) -> list[Finding]:
    """The lines that name a trap."""
    return [each for each in found if (each["check"], each["where"]) == (trap.check, trap.where)
            and trap.found in each["found"]]  # fmt: skip


def follow(site: Site, finding: Finding) -> None:
    """Run what is printed, step by step, each at its place."""
    place = finding["where"]
    for printed in str(finding["fix"]).split("; or: ")[0].split("; then: "):
        step, side = printed, site.server if place == site.name else site.portal
        if found := re.match(r"on (the portal|server \w+): (.*)", step, re.DOTALL):
            side, step = site.portal if found[1] == "the portal" else site.server, found[2]
        if step.startswith("rollbook "):
            answer = remedy(site, step)
            assert answer.code == 0, (step, answer)
        elif re.match(r"(sed|chmod|echo) ", step):
            subprocess.run(["bash", "-c", step], check=True)
        else:
            run_sql(side, step)


def run_sql(side: Db, text: str) -> None:
    """Run statements one by one, as psql does: some do not run in a block of several."""
    for statement in filter(None, (part.strip() for part in re.split(r";(?=(?:[^']*'[^']*')*[^']*$)", text))):
        side.execute(statement.encode())
