"""Configuration files with profiles: what wins, what is refused, and what goes on working with a broken one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from rollbook.core import config
from rollbook.core.command import Run
from rollbook.core.log import log_bug
from tests.core.test_completion import in_bash
from tests.program import KEEP, REMOVE, process
from tests.school import Rollbook


class Files:
    """The files that the program looks for."""

    def __init__(self, home: Path) -> None:
        self.system = home / "etc" / "config.toml"
        self.user = home / "home" / "rollbook" / "config.toml"
        self.named = home / "named.toml"
        for path in (self.system, self.user):
            path.parent.mkdir(parents=True)

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write one of them."""
        path.write_text(text)
        path.chmod(mode)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """None of the files is there yet."""
    found = Files(tmp_path)
    monkeypatch.setattr(config, "SYSTEM", found.system)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ROLLBOOK_LOG_FILE")
    return found


def settings(rollbook: Rollbook, *options: str) -> dict[str, tuple[Any, str]]:
    """What `config show` says: key -> value, source."""
    answer = rollbook("config", "show", "--json", *options, dsn=None)
    assert answer.code == 0, answer.err
    return {row["key"]: (row["value"], row["source"]) for row in answer.data}


def test_an_option_wins_over_its_variable_that_over_the_files_and_these_over_each_other(
    rollbook: Rollbook, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, user, named = files.system, files.user, files.named
    assert settings(rollbook)["color"] == ("auto", "default")
    files.write(system, 'timeout = 1\ndsn = "a"\nactor = "Ada"\n[profiles.test]\ntimeout = 2\n')
    assert settings(rollbook)["timeout"] == (1, str(system))
    assert settings(rollbook, "--profile", "test")["timeout"] == (2, f"{system} [profiles.test]")
    files.write(user, 'profile = "test"\ndsn = "b"\n[profiles.test]\nno_input = true\n')
    found = settings(rollbook)
    assert found["profile"] == ("test", str(user))
    assert (found["timeout"], found["dsn"]) == ((2, f"{system} [profiles.test]"), ("b", str(user)))
    assert (found["no_input"], found["actor"]) == ((True, f"{user} [profiles.test]"), ("Ada", str(system)))
    files.write(named, 'dsn = "postgresql://ada:secret@host/db"\npager = ""\n')
    for how in ("option", "variable"):
        if how == "variable":
            monkeypatch.setenv("ROLLBOOK_CONFIG", str(named))
        found = settings(rollbook, *(("--config", str(named)) if how == "option" else ()))
        assert (found["dsn"], found["pager"]) == (("postgresql://ada:***@host/db", str(named)), ("", str(named)))
    for name, text in (("DSN", "c"), ("TIMEOUT", "3.5"), ("FORMAT", "jsonl"), ("PAGER", "more"), ("ACTOR", "Bob")):
        monkeypatch.setenv(f"ROLLBOOK_{name}", text)
    found = settings(rollbook)
    assert [found[key] for key in ("dsn", "timeout", "pager", "actor")] == [
        ("c", "ROLLBOOK_DSN"), (3.5, "ROLLBOOK_TIMEOUT"), ("more", "ROLLBOOK_PAGER"), ("Bob", "ROLLBOOK_ACTOR"),
    ]  # fmt: skip
    shown = rollbook("config", "show", "--fields", "value,source", dsn=None)
    assert '{"value": "jsonl", "source": "ROLLBOOK_FORMAT"}' in shown.out.splitlines()
    found = settings(rollbook, "-d", "password=secret dbname=d", "--timeout", "4", "--color", "never")
    assert found["dsn"] == ("password=*** dbname=d", "--dsn")
    assert (found["timeout"], found["color"]) == ((4, "--timeout"), ("never", "--color"))


def test_commands_do_as_the_files_say(
    rollbook: Rollbook, files: Files, school: Connection[Any], dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files.write(files.user, f'actor = "Grace"\nformat = "json"\n[profiles.here]\ndsn = "{dsn}"\n[profiles.there]\n'
                'dsn = "host=/nonexistent"\n')  # fmt: skip
    listed = ("course", "list", "--fields", "course")
    assert rollbook(*listed, "--profile", "here", dsn=None).column("course") == [KEEP, REMOVE]
    monkeypatch.setenv("ROLLBOOK_PROFILE", "here")
    assert rollbook(*listed, "--csv", dsn=None).cells() == [["course"], [KEEP], [REMOVE]]
    assert rollbook(*listed, "-o", str(tmp_path / "x.csv"), dsn=None).code == 0
    assert (tmp_path / "x.csv").read_text() == f"course\n{KEEP}\n{REMOVE}\n"  # the ending wins
    assert rollbook(*listed, "--profile", "there", dsn=None).code == 3
    assert rollbook("user", "update", "ada", "--goals", "x", dsn=None).code == 0
    assert school.execute("select on_behalf_of from rollbook.history order by id desc limit 1").fetchone() == ("Grace",)
    more = {"XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"]}
    assert in_bash("course", "show", "MI", ROLLBOOK_PROFILE="here", **more) == ([KEEP], "")
    # The limits of rollbook check; a broken file is UNKNOWN to a monitor.
    files.write(files.user, "check_warning = 20\ncheck_critical = 40\n")
    monkeypatch.delenv("ROLLBOOK_PROFILE")
    for options, fault in (
        (("--warning", "50"), "40 is below --warning 50"),
        (("--critical", "5"), "5 is below --warning 20"),
    ):
        answer = rollbook("check", "replication", *options, dsn=dsn)
        assert (answer.code, fault in answer.err) == (2, True), answer.err
    assert rollbook("check", "replication", "--warning", "30", dsn=dsn).code == 0
    files.write(files.user, "check_max_age = 'old'\n")
    answer = rollbook("check", "--nagios", dsn=dsn)
    assert (answer.code, answer.out.startswith("ROLLBOOK UNKNOWN - ")) == (3, True)
    monkeypatch.setenv("ROLLBOOK_PROFILE", "here")
    # PG* mean what they mean where no dsn is configured; and -d wins over a profile.
    files.write(files.user, "[profiles.here]\ntimeout = 5\n")
    monkeypatch.setenv("PGHOST", "/nonexistent")
    assert rollbook("course", "list", dsn=None).code == 3
    assert rollbook("course", "list", dsn=dsn).code == 0
    # A bug is logged where the file says.
    files.write(files.user, f'log_file = "{tmp_path}/bugs.log"\n')
    run = Run()
    monkeypatch.delenv("ROLLBOOK_PROFILE")
    run.configure()
    assert log_bug(run, "trace") == tmp_path / "bugs.log"


def test_a_configured_timeout_is_not_for_long_work(files: Files) -> None:
    files.write(files.user, "timeout = 5\n")
    short, long = Run(), Run(long=True)
    short.configure()
    long.configure()
    assert (short.timeout, long.timeout) == (5, None)


def test_a_profile_and_a_variable_that_name_two_databases_are_refused(
    rollbook: Rollbook, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(files.user, 'dsn = "production"\n[profiles.staging]\ndsn = "staging"\n')
    assert settings(rollbook, "--profile", "staging")["dsn"][0] == "staging"
    monkeypatch.setenv("ROLLBOOK_DSN", "production")
    answer = rollbook("course", "list", "--profile", "staging", dsn=None)
    assert (answer.code, answer.err.splitlines()[0]) == (
        2, "error: profile staging has one dsn, ROLLBOOK_DSN another"
    )  # fmt: skip
    assert settings(rollbook, "--profile", "staging", "-d", "x")["dsn"] == ("x", "--dsn")


@pytest.mark.parametrize(
    ("text", "line", "problem", "why"),
    [
        ("# a\ntiemout = 3\n", 2, "there is no key tiemout", "the nearest is timeout"),
        ("[profiles.a]\ntimeout = 5\n\n[profiles.b]\npasword = 'secret'\n", 5, "there is no key pasword", "known are"),
        ("timeout = '5'\n", 1, "timeout has a wrong value", "it must be a number of seconds above 0"),
        ("timeout = true\n", 1, "timeout has a wrong value", "it must be a number of seconds above 0"),
        ("timeout = inf\n", 1, "timeout has a wrong value", "it must be a number of seconds above 0"),
        ("\nno_input = 'yes'\n", 2, "no_input has a wrong value", "it must be true or false"),
        ("color = 'blue'\n", 1, "color has a wrong value", "it must be one of auto, always, never"),
        ("log_file = 'here.log'\n", 1, "log_file has a wrong value", "it must be an absolute path"),
        ("dsn = ['secret']\n", 1, "dsn has a wrong value", "it must be a text"),
        ("profiles = 3\n", 1, "profiles is not a table of profiles", None),
        ("timeout = 5\ndsn = 'secret\n", 2, "it is not TOML", "at end of document"),
        ("profile = 'b'\n[profiles.a]\n", None, "there is no profile b, which {file} names", "known are a"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_line_and_breaks_no_help(
    rollbook: Rollbook, files: Files, text: str, line: int | None, problem: str, why: str | None
) -> None:
    files.write(files.user, text)
    answer = rollbook("course", "list", "--json", dsn=None)
    error = json.loads(answer.err)["error"]
    where = f"{files.user} line {line}: " if line else ""
    assert (answer.code, answer.out, error["message"]) == (2, "", where + problem.format(file=files.user))
    assert why is None or why in error["why"]
    assert "secret" not in answer.err
    checked = rollbook("config", "check", "--json", dsn=None)
    assert (checked.code, [row["line"] for row in checked.data]) == (1, [line])
    assert rollbook("config", "path", "--json", dsn=None).data[0] == {
        "path": str(files.user), "kind": "user", "state": "broken" if line else "read",
    }  # fmt: skip
    assert rollbook("config", "show", dsn=None).code == 2
    version = rollbook("version", dsn=None)
    assert (version.code, problem.format(file=files.user) in version.err) == (0, True)
    assert rollbook("course", "list", "--help", dsn=None).code == 0


def test_a_password_that_others_may_read_is_refused(rollbook: Rollbook, files: Files) -> None:
    with_password = "[profiles.a]\ndsn = 'host=h password=secret'\n"
    files.write(files.user, with_password, 0o644)
    answer = rollbook("config", "show", dsn=None)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"error: {files.user} line 2: the dsn has a password, and others may read this file",
        "why:   its mode is 0644", f"fix:   chmod 600 {files.user}",
    ]  # fmt: skip
    files.write(files.user, with_password, 0o600)
    assert settings(rollbook)["dsn"] == (None, "default")
    files.write(files.user, "dsn = 'service=portal'\n", 0o644)  # no secret
    assert settings(rollbook)["dsn"][0] == "service=portal"
    files.write(files.user, "pager = 'less'\n", 0o646)  # a program that somebody else chooses
    answer = rollbook("config", "show", dsn=None)
    assert (answer.code, "others may write this file" in answer.err) == (2, True), answer


def test_init_writes_a_file_that_works_and_never_overwrites(rollbook: Rollbook, files: Files) -> None:
    del files
    planned = rollbook("config", "init", "-n", dsn=None)
    assert rollbook("config", "path", "--json", dsn=None).data[0]["state"] == "missing"
    assert (rollbook("config", "init", dsn=None).code, rollbook("config", "check", dsn=None).code) == (0, 0)
    path = Path(rollbook("config", "path", "--json", dsn=None).data[0]["path"])
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, planned.out)
    assert all(f"\n# {key} = " in planned.out for key in config.KEYS)
    path.write_text(path.read_text().replace("\n# timeout = ", "\ntimeout = "))
    again = rollbook("config", "init", dsn=None)
    assert (again.code, settings(rollbook)["timeout"]) == (1, (60, str(path)))
    assert again.err.startswith(f"error: {path} exists already")
    # Every example is a value that its key takes.
    text = planned.out.replace("\n# ", "\n#").replace("\n#[", "\n[")
    keys = [line[1:] for line in text.splitlines() if " = " in line and line.startswith("#")]
    path.write_text("\n".join(line for line in keys[1 : len(config.KEYS) + 1]) + "\n")
    assert rollbook("config", "check", dsn=None).out.count("\n") == 1, path.read_text()
    other = path.with_name("other.toml")
    options = ("--config", str(other), "--profile", "a b", "-d", "password=secret", "--timeout", "7")
    assert rollbook("config", "init", *options, dsn=None).code == 0
    found = settings(rollbook, "--config", str(other))
    assert (found["profile"], found["timeout"]) == (("a b", str(other)), (7, f"{other} [profiles.a b]"))
    assert found["dsn"][0] == "password=***"


def forbidden(*_: object, **__: object) -> str:
    """A file of somebody else's."""
    raise PermissionError(13, "Permission denied")


def test_a_file_that_was_named_must_be_there_and_one_of_a_variable_too(
    rollbook: Rollbook, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = rollbook("course", "list", "--config", str(files.named), dsn=None)
    assert (answer.code, answer.err.splitlines()[0]) == (2, f"error: {files.named}: it cannot be read")
    answer = rollbook("config", "show", "--profile", "x", dsn=None)
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: there is no profile x, which --profile names")
    monkeypatch.setenv("ROLLBOOK_TIMEOUT", "soon")
    answer = rollbook("config", "show", dsn=None)
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: ROLLBOOK_TIMEOUT has a wrong value")
    monkeypatch.delenv("ROLLBOOK_TIMEOUT")
    files.system.mkdir()  # what cannot be read is an error, but for a system's file that is for others
    assert rollbook("config", "show", dsn=None).code == 2
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", forbidden)
        assert rollbook("config", "path", "--json", dsn=None).column("state") == ["broken", "unreadable"]
    env = {"HOME": "", "XDG_CONFIG_HOME": "relative"}  # a user without a home
    assert process("config", "show", "--json", env=env).code == 0
