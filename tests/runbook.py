"""Runs the commands of docs/upgrade.md as they are printed there: the text of the page is what is tested."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.program import ROOT, environment

PAGE = ROOT / "docs" / "upgrade.md"
BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
AS_POSTGRES = "# as postgres"


def blocks(heading: str) -> list[str]:
    """Return the shell blocks below a heading of the page, up to the next heading."""
    found = [textwrap.dedent(script) for _, script in BLOCK.findall(section(heading))]
    assert found, heading
    return found


def query(heading: str) -> bytes:
    """Return the SQL block below a heading."""
    (found,) = re.findall(r"^```sql\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    return str(found).encode()


def section(heading: str, page: Path = PAGE) -> str:
    """Return the text below a heading; comments of blocks are indented, so that they are no headings."""
    (found,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def follow(heading: str, server: PrivateServer, **variables: str | Path) -> list[str]:
    """Run the blocks of a section, those of the server's user as that one; return what each printed."""
    printed = []
    path = os.pathsep.join([str(Path(sys.executable).parent), str(find_bindir()), os.environ["PATH"]])
    env = environment(PATH=path, PGOPTIONS="", **{name: str(value) for name, value in variables.items()})
    for script in blocks(heading):
        is_postgres = script.lstrip().startswith(AS_POSTGRES)
        user = server._user if is_postgres else None
        how = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        output = server.home / "runbook.out"
        with output.open("w+") as sink:  # a file: a server that a block starts keeps it open
            done = subprocess.run(
                ["bash", "-eu", "-c", script], cwd=server.home, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env={**env, "PGHOST": str(server.home)} if is_postgres else env, check=False, timeout=300,
                **how,  # type: ignore[call-overload]
            )  # fmt: skip
        printed.append(output.read_text())
        print(f"{script}\n{printed[-1]}")  # what a failed test shows
        assert done.returncode == 0, f"{script}\n{printed[-1]}"
    return printed


def take_over(server: PrivateServer, portal: str, route: str = "") -> None:
    """Follow the section that all of them end with."""
    follow("Take the servers over", server, ROLLBOOK_DSN=portal, ROUTE=route or portal)
