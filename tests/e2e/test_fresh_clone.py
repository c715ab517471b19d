"""The README's two commands, in a fresh clone whose path has a blank, twice, as root and as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import ROOT

USER = "rollbook-e2e"
SILENCE = 10.0  # seconds


@pytest.fixture
def nest() -> Iterator[Path]:
    """A directory that everybody may write to."""
    with tempfile.TemporaryDirectory(prefix="rbc", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def ordinary_user() -> Iterator[str]:
    """An ordinary user of the test's own, who can run a Python that is new enough."""
    if os.geteuid() != 0 or not shutil.which("useradd") or not shutil.which("runuser"):
        pytest.skip("only root can make a user")
    subprocess.run(["useradd", "--create-home", USER], check=True)
    try:
        if subprocess.run(
            ["runuser", "-u", USER, "--", python(USER), "-c", "import ensurepip"], check=False
        ).returncode:
            pytest.skip(f"an ordinary user cannot run {python(USER)} with venv")
        yield USER
    finally:
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)


def python(user: str | None) -> str:
    """The Python to set up with: this one, or the system's for a user who may not enter this one's directory."""
    return "/usr/bin/python3" if user else str(Path(sys.base_prefix) / "bin" / "python3")


def follow_the_readme(nest: Path, user: str | None) -> None:
    """Clone, `make setup` and `make demo` twice, and end the demo."""
    home = pwd.getpwnam(user).pw_dir if user else os.environ["HOME"]
    kept = ("LANG", "PATH", "PIP_", "SSL_", "http", "HTTP")
    env = {name: text for name, text in os.environ.items() if name.startswith(kept)} | {
        "HOME": home,
        "TMPDIR": str(nest),
    }
    clone = nest / "my clone"

    def done(*command: str | Path) -> str:
        """Run a command; `make setup` prints something at least every ten seconds, also into a pipe."""
        as_user = ("runuser", "-u", user, "--") if user else ()
        printed, times = [], [time.monotonic()]
        with subprocess.Popen(
            [*as_user, *command], env=env, cwd=nest, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as ran:
            for line in ran.stdout or ():
                printed.append(line)
                times.append(time.monotonic())
        assert ran.returncode == 0, "".join(printed)[-4000:]
        silences = [(later - before, line) for before, later, line in zip(times, times[1:], printed, strict=False)]
        if "setup" in command:
            assert [each for each in silences if each[0] > SILENCE] == []
        return "".join(printed)

    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    if user:
        subprocess.run(["chown", "-R", user, clone], check=True)
    for _ in range(2):
        done("make", "-C", clone, "setup", f"PYTHON={python(user)}")
        assert "all copies are equal to the portal" in done("make", "-C", clone, "demo")
    done(clone / ".venv" / "bin" / "rollbook", "demo", "down")
    assert [path.name for path in nest.iterdir() if path.name.startswith("rollbook-demo")] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_works_in_a_fresh_clone(nest: Path) -> None:
    follow_the_readme(nest, None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_works_for_an_ordinary_user(nest: Path, ordinary_user: str) -> None:
    follow_the_readme(nest, ordinary_user)
