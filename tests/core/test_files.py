"""What is written to a file is whole or not there, for the user alone, and never behind a symbolic link."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from rollbook.core.files import hidden_name
from tests.program import KEEP, PROGRAM, environment, process
from tests.school import Rollbook


def names(directory: Path) -> list[str]:
    """The names in a directory."""
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory with 64 kB of room."""
    directory = tmp_path / "small"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)], check=False).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_is_3_and_leaves_the_file_of_yesterday(
    rollbook: Rollbook, school: Connection[Any], small: Path, tmp_path: Path
) -> None:
    school.execute(
        "insert into portal.auth_user (id, username) select n, 'u' || n from generate_series(1000, 4000) as n"
    )
    target = small / "all.csv"
    target.write_text("yesterday\n")
    answer = rollbook("user", "export", "-o", str(target))
    assert (answer.code, answer.err.splitlines()[0]) == (3, f"error: cannot write {target}"), answer.err
    assert "No space left" in answer.err
    assert (target.read_text(), names(small)) == ("yesterday\n", ["all.csv"])
    wrong = "username,email\n" + "".join(f"w{n},nowhere{n:0100}\n" for n in range(1000))
    answer = rollbook("user", "import", "-", "--rejects", str(small / "wrong.csv"), stdin=wrong.encode())
    assert (answer.code, "No space left" in answer.err, names(small)) == (3, True, ["all.csv"])
    answer = rollbook("pearson", "export", "-o", str(small / "pearson"))
    assert answer.code in {0, 3}, answer.err
    assert not (tmp_path / "rollbook.log").exists()


@pytest.mark.parametrize(
    "command",
    [("user", "list", "-o", "/dev/full"), ("user", "export", "-o", "/dev/full"),
     ("course", "list", "-o", "/dev/full", "--json"),
     ("user", "import", "-", "--on-error", "skip", "--rejects", "/dev/full")],
    ids=" ".join,
)  # fmt: skip
def test_a_full_device_is_3_with_the_fact(
    rollbook: Rollbook, school: Connection[Any], command: tuple[str, ...], tmp_path: Path
) -> None:
    before = school.execute("select count(*) from portal.auth_user").fetchall()
    answer = rollbook(*command, stdin=b"username,email\nx,nowhere\nnew,new@example.org\n")
    assert (answer.code, "cannot write /dev/full" in answer.err, "No space left" in answer.err) == (3, True, True)
    assert school.execute("select count(*) from portal.auth_user").fetchall() == before
    assert not (tmp_path / "rollbook.log").exists()


@pytest.mark.parametrize("command", ["user list", "user list --json", "status", "--help", "user --help", "--version"])
def test_a_full_standard_output_is_3_and_a_full_standard_error_changes_no_code(seen: str, command: str) -> None:
    dsn = environment(ROLLBOOK_DSN=seen)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PROGRAM, *command.split()], stdout=full, stderr=subprocess.PIPE, env=dsn, check=False)
        assert (done.returncode, b"No space left" in done.stderr, b"bug" in done.stderr) == (3, True, False), (
            done.stderr
        )
        both = subprocess.run([PROGRAM, *command.split()], stdout=full, stderr=full, env=dsn, check=False)
        assert both.returncode == 3
        deaf = subprocess.run([PROGRAM, "user", "show", "nobody"], stderr=full, env=dsn, check=False)
        assert deaf.returncode == 1


def test_a_file_that_grows_too_large_says_which_limit(seen: str, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    target = tmp_path / "users.csv"
    target.write_text("yesterday\n")
    for more in (["-o", str(target)], []):
        with (tmp_path / "out").open("w") as out:
            done = subprocess.run(
                [PROGRAM, "user", "export", *more], stdout=out, stderr=subprocess.PIPE, preexec_fn=limited,
                env=environment(ROLLBOOK_DSN=seen, ROLLBOOK_LOG_FILE="/dev/null"), check=False,
            )  # fmt: skip
        assert (done.returncode, b"ulimit -f" in done.stderr) == (3, True), done.stderr
    assert (target.read_text(), names(tmp_path)) == ("yesterday\n", ["out", "users.csv"])


def test_a_file_that_is_there_becomes_the_users_alone_and_is_replaced(
    rollbook: Rollbook, seen: str, tmp_path: Path
) -> None:
    del seen
    target, other = tmp_path / "users.csv", tmp_path / "hard"
    target.write_text("old\n")
    target.chmod(0o666)
    other.hardlink_to(target)
    assert rollbook("user", "export", "-o", str(target)).code == 0
    assert (target.stat().st_mode & 0o777, target.read_text().splitlines()[0][:8]) == (0o600, "username")
    assert other.read_text() == "old\n"
    assert names(tmp_path) == ["hard", "users.csv"]


def test_a_symbolic_link_is_refused_and_its_target_untouched(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    del school
    target, link, dangling = tmp_path / "target", tmp_path / "link.csv", tmp_path / "dangling.csv"
    target.write_text("precious\n")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "nothing")
    for name in (link, dangling):
        answer = rollbook("user", "export", "-o", str(name))
        assert (answer.code, "symbolic link" in answer.err) == (2, True), answer.err
        answer = rollbook("user", "import", "-", "--rejects", str(name), stdin=b"username,email\nx,nowhere\n")
        assert (answer.code, "symbolic link" in answer.err) == (2, True), answer.err
    assert (target.read_text(), (tmp_path / "nothing").exists()) == ("precious\n", False)


@pytest.mark.parametrize("kind", ["directory", "long", "missing", "below a file", "proc"])
def test_a_file_that_cannot_be_written_is_2_before_any_work(
    rollbook: Rollbook, seen: str, tmp_path: Path, kind: str
) -> None:
    del seen
    (tmp_path / "file").write_text("x")
    name = {
        "directory": str(tmp_path), "long": str(tmp_path / ("x" * 300)), "missing": str(tmp_path / "no" / "file.csv"),
        "below a file": str(tmp_path / "file" / "x.csv"), "proc": "/proc/rollbook.csv",
    }[kind]  # fmt: skip
    answer = rollbook("user", "list", "-o", name)
    assert answer.code in ({2} if kind != "proc" else {2, 3}), answer.err
    assert ("cannot write" in answer.err, "why:" in answer.err, "bug" in answer.err) == (True, True, False), answer.err


def test_pipes_and_descriptors_are_written_directly(seen: str, tmp_path: Path) -> None:
    expected = process("user", "list", env={"ROLLBOOK_DSN": seen}).out
    assert process("user", "list", "-o", "/dev/stdout", env={"ROLLBOOK_DSN": seen}).out == expected
    target = tmp_path / "redirected"
    with target.open("w") as file:
        subprocess.run(
            [PROGRAM, "user", "list", "-o", "/dev/stdout"], stdout=file, env=environment(ROLLBOOK_DSN=seen), check=True
        )
    assert target.read_text() == expected


def test_what_a_killed_program_left_is_removed(rollbook: Rollbook, seen: str, tmp_path: Path) -> None:
    del seen
    target = tmp_path / "users.csv"
    left = target.with_name(hidden_name(target))
    left.write_text("half")
    assert rollbook("course", "list", "-o", str(target)).code == 0
    assert (names(tmp_path), KEEP in target.read_text()) == (["users.csv"], True)


def test_a_log_that_cannot_be_written_hides_no_error(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seen
    monkeypatch.setenv("ROLLBOOK_LOG_FILE", "/dev/full")
    monkeypatch.setattr("rollbook.core.render.listing", None)
    answer = rollbook("course", "list")
    assert (answer.code, "--debug" in answer.err) == (70, True), answer.err
