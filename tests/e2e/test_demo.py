"""`rollbook demo`: the main job on a private server, also interrupted, crashed, twice, and in the way of others."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST
from tests.program import COPIED, PACKAGE, PROGRAM, Result
from tests.replication.conftest import until

BROKEN = "edX/DemoX/2012_Fall"


@pytest.fixture
def nest() -> Iterator[Path]:
    """A short path, as a socket needs; whatever runs below it at the end is stopped."""
    with tempfile.TemporaryDirectory(prefix="rbd", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for pid in processes(Path(folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home(nest: Path) -> Path:
    """Where a demo of the test's own would be."""
    return nest / "d"


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has only this demo."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PG", "ROLLBOOK_", "PYTHON"))}
    bindir = {"PG_BINDIR": os.environ["PG_BINDIR"]} if "PG_BINDIR" in os.environ else {}
    own = {"ROLLBOOK_DEMO_DIR": str(home), "ROLLBOOK_DSN": f"host={home} port=5432 dbname=portal user=postgres"}
    return kept | bindir | own | {"ROLLBOOK_LOG_FILE": str(home.parent / "rollbook.log")} | more


def run(home: Path, *arguments: str, as_user: str | None = None) -> Result:
    """Run the program, perhaps as somebody else."""
    command = [*(("runuser", "-u", as_user, "--") if as_user else ()), PROGRAM, *arguments]
    done = subprocess.run(command, env=environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=120, cwd="/")  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def processes(home: Path) -> list[int]:
    """The postmasters whose data lies below a folder."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"{home}/" in line.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(line.parent.name))
    return found


def dump(home: Path) -> list[tuple[Any, ...]]:
    """Every copy in the broken course."""
    with psycopg.connect(environment(home)["ROLLBOOK_DSN"]) as conn:
        return [
            row for table in COPIED
            for row in conn.execute(f"select t::text from course_edx_demox_2012_fall.{table} as t order by id")
        ]  # fmt: skip


@pytest.mark.slow
def test_the_newcomers_path_ends_where_it_began(home: Path) -> None:
    up = run(home, "demo", "up")
    assert (up.code, "Traceback" in up.err) == (0, False), up
    assert "5 courses compared; all copies are equal to the portal." in up.out
    assert f"export ROLLBOOK_DSN='{environment(home)['ROLLBOOK_DSN']}'" in up.out
    assert re.search(r"^candidate +\w+ +Phone: no digits *$", up.out, re.MULTILINE)
    assert home.stat().st_mode & 0o777 == 0o700
    sent = run(home, "pearson", "list", "--json").data
    assert [(row["kind"], row["rows"], row["accepted"], row["rejected"], row["waiting"]) for row in sent] == [
        ("eac", 0, 0, 0, 0), ("vcdc", 1, 1, 0, 0), ("ead", 0, 0, 0, 0), ("cdd", 1, 1, 0, 0),
        ("eac", 3, 3, 0, 0), ("vcdc", 3, 2, 1, 0), ("ead", 3, 3, 0, 0), ("cdd", 3, 2, 1, 0),
    ]  # fmt: skip
    status = run(home, "demo", "status", "--json").data
    assert status.items() >= {"dsn": environment(home)["ROLLBOOK_DSN"], "users": 1202, "courses": 5}.items()

    assert run(home, "demo", "up", "--quiet").code == 0
    again = run(home, "demo", "status", "--json").data
    assert {**again, "observed_at": None} == {**status, "observed_at": None}

    whole = dump(home)
    damage = run(home, "demo", "break", "--json").data
    assert [(row["course"], row["table"], row["damage"]) for row in damage] == [
        (BROKEN, table, word) for table, word in zip(COPIED, ("changed", "missing", "extra"), strict=True)
    ]
    verify = run(home, "replication", "verify", "--rows", "--json")
    assert (verify.code, [(row["table"], row["finding"], row["row_id"]) for row in verify.data]) == (
        4,
        [(row["table"], row["damage"], row["row_id"]) for row in damage],
    )
    broken = dump(home)
    assert (run(home, "replication", "repair", "-n").code, dump(home)) == (0, broken)
    assert (run(home, "replication", "repair", "--yes").code, dump(home)) == (0, whole)
    assert run(home, "replication", "verify").code == 0

    assert (run(home, "demo", "down").code, home.exists(), processes(home)) == (0, False, [])
    assert (run(home, "demo", "down").code, home.exists()) == (0, False)
    refused = run(home, "demo", "break")
    assert (refused.code, refused.out, "rollbook demo up" in refused.err) == (1, "", True)


@pytest.mark.slow
def test_a_shell_takes_the_printed_lines_where_a_path_has_a_blank(nest: Path) -> None:
    """As after `make demo` in a checkout, and with a TMPDIR, whose paths have blanks and an apostrophe."""
    temporary = nest / "Ada's tmp"
    temporary.mkdir()
    (nest / "my checkout").symlink_to(Path(sys.executable).parents[1])
    python = nest / "my checkout" / "bin" / "python"
    env = environment(nest, TMPDIR=str(temporary))
    del env["ROLLBOOK_DEMO_DIR"], env["ROLLBOOK_DSN"]
    done = subprocess.run(
        [python, "-m", "rollbook", "demo", "up"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (home,) = temporary.iterdir()
    exports = [line for line in done.stdout.splitlines() if line.startswith("  export ")]
    assert len(exports) == 2
    script = "\n".join([*exports, 'printf "%s\\n" "$PATH"', "rollbook demo status --json", "rollbook demo down"])
    pasted = subprocess.run(["sh", "-euc", script], env=env, capture_output=True, text=True, check=False)
    assert (pasted.returncode, home.exists(), processes(home)) == (0, False, []), pasted.stderr
    assert pasted.stdout.splitlines()[0] == f"{python.parent}:{env['PATH']}"


def test_each_checkout_has_a_demo_of_its_own(nest: Path) -> None:
    homes = []
    for name in ("one", "two", "one"):
        source = nest / name / "admin"
        shutil.copytree(PACKAGE.parent, source, dirs_exist_ok=True)
        code = "from rollbook.system.demo.platform import demo_home; print(demo_home())"
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(source), "TMPDIR": str(nest)}
        homes.append(
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        )
    assert homes[0] == homes[2] != homes[1]
    assert all(home.startswith(f"{nest}/rollbook-demo-{os.geteuid()}-") for home in homes)


@pytest.mark.slow
def test_up_mends_a_demo_whose_server_was_killed_while_the_port_is_taken(home: Path) -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # somebody has it: that is as good
            taken.bind(("127.0.0.1", 5432))
            taken.listen()
        assert run(home, "demo", "up").code == 0
        postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        assert run(home, "status").code == 3
        assert run(home, "demo", "status").code in (1, 3)
        up = run(home, "demo", "up")
        assert (up.code, run(home, "replication", "verify").code) == (0, 0), up
    assert (run(home, "demo", "down").code, home.exists(), processes(home)) == (0, False, [])


@pytest.mark.slow
def test_up_after_ctrl_c_at_any_moment_comes_up(home: Path) -> None:
    for seconds in (0.3, 0.8, 1.5, 2.2):
        with subprocess.Popen(
            [PROGRAM, "demo", "up"], env=environment(home), start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            time.sleep(seconds)
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGINT)
            _, err = running.communicate(timeout=60)
        if seconds > 0.3:  # before that Python is starting; -SIGINT: it was done and ending
            assert (running.returncode in (0, 130, -signal.SIGINT), "Traceback" in err) == (True, False), (seconds, err)
    up = run(home, "demo", "up")
    assert (up.code, run(home, "replication", "verify").code) == (0, 0), up
    assert run(home, "demo", "status", "--json").data["users"] == 1202
    assert (run(home, "demo", "down").code, home.exists(), processes(home)) == (0, False, [])


@pytest.mark.slow
def test_a_server_that_ends_by_itself_just_before_it_is_stopped_is_stopped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(self: PrivateServer, program: str, *arguments: str, check: bool = True) -> int:
        os.kill(postmaster, signal.SIGKILL)
        until(lambda: not self.is_running())
        return original(self, program, *arguments, check=check)

    original = PrivateServer._run
    server = PrivateServer(home, settings=FAST)
    server.start()
    postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
    monkeypatch.setattr(PrivateServer, "_run", late)
    server.stop("immediate")
    monkeypatch.undo()
    server.start()
    assert server.is_running()
    server.remove()
    assert (home.exists(), processes(home)) == (False, [])


def test_a_path_too_long_for_a_socket_is_refused_and_not_made(nest: Path) -> None:
    home = nest / ("long" * 30)
    up = run(home, "demo", "up")
    assert (up.code, up.out, home.exists()) == (1, "", False)
    assert "too long for a Unix socket" in up.err
    assert "ROLLBOOK_DEMO_DIR" in up.err
    assert run(home, "demo", "down").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused_and_left_alone(home: Path) -> None:
    home.mkdir()
    (home / "precious").write_text("theirs")
    os.chown(home, 12345, 12345)
    up = run(home, "demo", "up")
    assert (up.code, up.out, "belongs to somebody else" in up.err) == (1, "", True)
    assert (home / "precious").exists()
    assert home.stat().st_uid == 12345


def test_a_folder_that_is_no_demo_is_never_emptied(home: Path) -> None:
    home.mkdir()
    (home / "precious").write_text("mine, no demo")
    run(home, "demo", "down")
    assert (home / "precious").exists()


def as_nobody() -> str | None:
    """Why the program cannot be run as an ordinary user here; None where it can."""
    if os.geteuid() != 0:
        return "not root: every other test is an ordinary user's"
    if not shutil.which("runuser"):
        return "no runuser"
    tried = subprocess.run(
        ["runuser", "-u", "nobody", "--", PROGRAM, "--help"], capture_output=True, text=True, check=False, cwd="/"
    )
    return None if tried.returncode == 0 else f"nobody cannot run this Python: {tried.stderr.strip()[:120]}"


def test_the_demo_runs_for_an_ordinary_user(nest: Path) -> None:
    if reason := as_nobody():
        pytest.skip(reason)
    nest.chmod(0o777)
    home = nest / "d"
    up = run(home, "demo", "up", as_user="nobody")
    assert up.code == 0, up
    assert run(home, "replication", "verify", as_user="nobody").code == 0
    assert (run(home, "demo", "down", as_user="nobody").code, home.exists(), processes(home)) == (0, False, [])
