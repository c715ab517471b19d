"""The configuration: TOML files with profiles. An option wins over its variable, that over a file, that over a default.

Nothing here is imported for --help; where there is no file, tomllib is not either.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollbook.core.errors import RefusedError, UnreachableError, UsageError

SYSTEM = Path("/etc/rollbook/config.toml")
MOST_SECONDS = 2_000_000  # PostgreSQL's statement_timeout is an integer of milliseconds
WORDS = {"text": "a text", "path": "an absolute path, as a text", "seconds": "a number of seconds above 0",
         "flag": "true or false", "age": "an age, as a text such as 36h or 7d"}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """What a file may set: `kind` is one of WORDS, or `choice`."""

    name: str
    kind: str
    text: str  # one sentence
    example: Any
    variable: str | None = None  # of the environment; it wins over every file
    choices: tuple[str, ...] = ()
    default: Any = None

    def fault(self, value: object) -> str | None:
        """Return why a value cannot be this key's, None if it can. The value, maybe a secret, is not repeated."""
        if self.kind == "choice":
            return None if value in self.choices else f"it must be one of {', '.join(self.choices)}"
        good = {
            "text": isinstance(value, str),
            "path": isinstance(value, str) and (not value or expanded(value).is_absolute()),
            "seconds": isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            and 0.001 <= value <= MOST_SECONDS,
            "flag": isinstance(value, bool),
            "age": isinstance(value, str) and is_age(value),
        }[self.kind]  # fmt: skip
        return None if good else f"it must be {WORDS[self.kind]}"


KEYS = {
    key.name: key
    for key in (
        Key("dsn", "text", "The portal database: URI, key=value, service=x or a name. Without it PG* decide.",
            "service=portal", "ROLLBOOK_DSN"),
        Key("timeout", "seconds", "Limit for connecting and for each statement, in seconds; not for long work.",
            60, "ROLLBOOK_TIMEOUT"),
        Key("format", "choice", "How lists are written, unless the ending of -o FILE says it.",
            "table", "ROLLBOOK_FORMAT", ("table", "json", "jsonl", "csv", "tsv")),
        Key("color", "choice", "Colour on a terminal, always or never.",
            "auto", None, ("auto", "always", "never"), "auto"),
        Key("pager", "text", "The pager of a long answer on a terminal; empty: none. It wins over PAGER.",
            "less -FIRX", "ROLLBOOK_PAGER"),
        Key("no_input", "flag", "Never ask; exit 6 if an answer is needed.", True, None, (), False),
        Key("actor", "text", "The person for whom you work; recorded in the history.", "ticket 4711", "ROLLBOOK_ACTOR"),
        Key("log_file", "path", "The file for tracebacks of bugs.", "/var/log/rollbook.log", "ROLLBOOK_LOG_FILE"),
        Key("check_warning", "seconds", "The lag that is a warning of rollbook check, in seconds.", 30),
        Key("check_critical", "seconds", "The lag that is critical in rollbook check, in seconds.", 300),
        Key("check_max_age", "age", "The age of the last verify, and of records to export, in rollbook check.", "2d"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The value of a key, and where it is from: an option, a variable, a file with its profile, or the default."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file."""

    file: str
    line: int | None
    key: str | None
    problem: str
    why: str | None
    fix: str

    def error(self, more: int, config: str | None) -> UsageError:
        """Return the error for a command that needs the file; `more` are the other problems."""
        where = f"{self.file} line {self.line}" if self.line else self.file
        option = f" --config {quoted(config)}" if config else ""
        fix = f"{self.fix}; rollbook config check{option} lists {more} more" if more else self.fix
        return UsageError(f"{where}: {self.problem}", why=self.why, fix=fix)


@dataclass(frozen=True)
class File:
    """A file as it was found: `kind` is option, user or system; `state` read, missing, unreadable or broken."""

    path: Path
    kind: str
    state: str = "missing"
    values: Mapping[str, Any] = field(default_factory=dict)  # for every profile
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def is_age(text: str) -> bool:
    """Return whether a text is an age, as --max-age takes it."""
    from rollbook.core.since import AGE

    return AGE.fullmatch(text.strip()) is not None


def expanded(path: str) -> Path:
    """Return a path with ~ expanded, unchanged where there is no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def user_path() -> Path | None:
    """Return the user's file, None for a user without a home."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(given) if given.startswith("/") else expanded("~/.config")  # the XDG rule: a relative one is ignored
    return home / "rollbook" / "config.toml" if home.is_absolute() else None


def files(config: str | None) -> list[File]:
    """Return the files, the one that wins first; `config` is the value of --config."""
    named = config or os.environ.get("ROLLBOOK_CONFIG")
    places = {SYSTEM: "system"}
    if (user := user_path()) is not None:
        places = {user: "user", **places}
    if named:
        places = {Path(named): "option", **{path: kind for path, kind in places.items() if path != Path(named)}}
    return [read(path, kind) for path, kind in places.items()]


def read(path: Path, kind: str) -> File:
    """Read a file, and find everything that is wrong with it."""
    try:
        text = path.read_text("utf-8-sig")
        mode, owner = path.stat().st_mode & 0o777, path.stat().st_uid
    except (FileNotFoundError, NotADirectoryError) as exc:
        if kind != "option":
            return File(path, kind)
        fix = "name a file that exists with --config or ROLLBOOK_CONFIG"
        return File(path, kind, problems=(Problem(str(path), None, None, "it cannot be read", exc.strerror, fix),))
    except (OSError, UnicodeDecodeError) as exc:
        if kind == "system" and isinstance(exc, PermissionError):  # it is for others, such as a group
            return File(path, kind, "unreadable")
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        problem = Problem(str(path), None, None, "it cannot be read", why, "make it a readable text file, or remove it")
        return File(path, kind, "broken", problems=(problem,))
    import tomllib  # 5 ms

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"\(at line (\d+)", str(exc))
        line = int(found[1]) if found else len(text.splitlines())
        problem = Problem(str(path), line, None, "it is not TOML", str(exc), 'write lines like key = "value"')
        return File(path, kind, "broken", problems=(problem,))
    problems = tuple(Checking(str(path), text).problems(content, mode, owner))
    if problems:
        return File(path, kind, "broken", problems=problems)
    profiles = content.pop("profiles", {})
    return File(path, kind, "read", content, profiles)


@dataclass(frozen=True)
class Checking:
    """A file that is TOML, whose keys and values are looked at."""

    file: str
    text: str

    def problems(self, content: Mapping[str, Any], mode: int, owner: int) -> Iterator[Problem]:
        """Yield what is wrong: unknown keys, values that a key cannot have, and a password that others can read."""
        profiles = content.get("profiles", {})
        top = {name: value for name, value in content.items() if name not in ("profile", "profiles")}
        yield from self.of_table((), top, ("profile", "profiles"))
        if not isinstance(content.get("profile", ""), str):
            yield self.found(("profile",), "profile has a wrong value", "it must be a text", 'write profile = "NAME"')
        if not isinstance(profiles, dict) or not all(isinstance(each, dict) for each in profiles.values()):
            yield self.found(("profiles",), "profiles is not a table of profiles", None, "write [profiles.NAME]")
            return
        for name, values in profiles.items():
            yield from self.of_table(("profiles", name), values, ())
        if mode & 0o002:  # a pager is a program, and a dsn leads anywhere
            yield Problem(
                self.file, None, None, "others may write this file", f"its mode is {mode:04o}",
                f"chmod o-w {quoted(self.file)}",
            )  # fmt: skip
        tables = [((), top), *((("profiles", name), values) for name, values in profiles.items())]
        allowed = 0o640 if owner == 0 else 0o600  # as libpq: root's files may be for a group
        for path, values in tables:
            if mode & ~allowed & 0o077 and has_password(values.get("dsn")):
                yield self.found(
                    (*path, "dsn"), "the dsn has a password, and others may read this file",
                    f"its mode is {mode:04o}", f"chmod 600 {quoted(self.file)}",
                )  # fmt: skip

    def of_table(self, path: tuple[str, ...], values: Mapping[str, Any], others: tuple[str, ...]) -> Iterator[Problem]:
        """Yield what is wrong with the keys of one table; `others` are not settings, but may be meant."""
        from rollbook.core.rows import nearest

        for name, value in values.items():
            key = KEYS.get(name)
            if key is None:
                near = nearest(name, (*KEYS, *others))
                known = f"known are {', '.join((*KEYS, *others))}"
                yield self.found((*path, name), f"there is no key {name}", near or known, "correct or remove the line")
            elif why := key.fault(value):
                example = f'"{key.example}"' if isinstance(key.example, str) else str(key.example).lower()
                yield self.found((*path, name), f"{name} has a wrong value", why, f"write {name} = {example}")

    def found(self, path: tuple[str, ...], problem: str, why: str | None, fix: str) -> Problem:
        """Return a problem of the key at a path, with its line."""
        return Problem(self.file, line_of(self.text, path), path[-1], problem, why, fix)


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Return the line of a key: the last of the shortest beginning of the text that is TOML and has the key."""
    import tomllib

    lines = text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("".join(lines[:number]))
            for name in path:
                found = found[name]
        except (tomllib.TOMLDecodeError, KeyError, TypeError):
            continue
        return number
    return None


def has_password(dsn: object) -> bool:
    """Return whether a conninfo holds a password."""
    if not isinstance(dsn, str) or ("=" not in dsn and "://" not in dsn):
        return False
    from rollbook.core.conninfo import masked

    return masked(dsn) != dsn


def quoted(word: str) -> str:
    """Return a word of a command."""
    from rollbook.core.shell import quoted as in_shell

    return in_shell(word)


def chosen_profile(found: list[File], profile: str | None) -> Setting:
    """Return the name of the profile, None for none. Raises UsageError for one that no file has."""
    chosen = Setting("profile", None, "default")
    for name, source in ((profile, "--profile"), (os.environ.get("ROLLBOOK_PROFILE"), "ROLLBOOK_PROFILE"),
                         *((file.values.get("profile"), str(file.path)) for file in found)):  # fmt: skip
        if name:
            chosen = Setting("profile", name, source)
            break
    known = list(dict.fromkeys(name for file in found for name in file.profiles))
    if chosen.value and chosen.value not in known:
        from rollbook.core.rows import nearest

        read_ones = ", ".join(str(file.path) for file in found if file.state == "read") or "there is no file"
        raise UsageError(
            f"there is no profile {chosen.value}, which {chosen.source} names",
            why=nearest(chosen.value, known) or (f"known are {', '.join(known)}" if known else read_ones),
            fix="name another one, or add it: rollbook config path shows the files",
        )
    return chosen


def from_environment(key: Key) -> Setting | None:
    """Return what a key's variable says; an empty one says nothing, but for a pager. Raises UsageError."""
    text = os.environ.get(key.variable or "")
    if key.variable is None or text is None or (not text and key.name != "pager"):
        return None
    value: Any = text
    if key.kind == "seconds":
        try:
            value = float(text)
        except ValueError:
            value = None
    if why := key.fault(value):
        raise UsageError(f"{key.variable} has a wrong value", why=why, fix=f"export {key.variable}={key.example}")
    return Setting(key.name, value, key.variable)


def settings(config: str | None, profile: str | None, given: Mapping[str, Any] | None = None) -> dict[str, Setting]:
    """Return every key's setting, and `profile`. `given` are the values of options, None for one that is not there.

    Raises UsageError for a broken file, an unknown profile, or a variable with a wrong value.
    """
    found = files(config)
    if problems := [problem for file in found for problem in file.problems]:
        raise problems[0].error(len(problems) - 1, config)
    chosen = chosen_profile(found, profile)
    layers: list[tuple[str, Mapping[str, Any]]] = []
    for file in found:
        if chosen.value in file.profiles:
            layers.append((f"{file.path} [profiles.{chosen.value}]", file.profiles[chosen.value]))
        layers.append((str(file.path), file.values))
    result = {"profile": chosen}
    for key in KEYS.values():
        option = (given or {}).get(key.name)
        in_files = [Setting(key.name, values[key.name], source) for source, values in layers if key.name in values]
        by_variable = from_environment(key)
        result[key.name] = (
            Setting(key.name, option, f"--{key.name.replace('_', '-')}") if option is not None
            else by_variable or next(iter(in_files), Setting(key.name, key.default, "default"))
        )  # fmt: skip
    refuse_two_databases(result["dsn"], found, profile)
    return result


def refuse_two_databases(dsn: Setting, found: list[File], profile: str | None) -> None:
    """Raise UsageError where --profile names one database, and what wins over the profile another.

    Nobody who writes --profile staging means the ROLLBOOK_DSN that the shell still has.
    """
    own = [file.profiles[profile]["dsn"] for file in found if profile and "dsn" in file.profiles.get(profile, {})]
    if own and dsn.source != "--dsn" and dsn.value != own[0]:
        fix = f"unset {dsn.source}" if dsn.source == "ROLLBOOK_DSN" else f"remove dsn from {dsn.source}"
        raise UsageError(
            f"profile {profile} has one dsn, {dsn.source} another", why=f"{dsn.source} would win",
            fix=f"{fix}, or name the database with -d",
        )  # fmt: skip


def all_problems(file: File) -> list[Problem]:
    """Return the problems of a file, and of one that has none those of its conninfos, which a command would meet."""
    if file.problems:
        return list(file.problems)
    from rollbook.core.conninfo import conninfo

    found = []
    for name, values in ((None, file.values), *file.profiles.items()):
        try:
            conninfo(values.get("dsn", ""))
        except UsageError as exc:
            path = ("dsn",) if name is None else ("profiles", name, "dsn")
            line = line_of(file.path.read_text("utf-8-sig"), path)
            found.append(Problem(str(file.path), line, "dsn", "the dsn cannot be read", exc.why, str(exc.fix)))
    return found


def shown(value: object) -> object:
    """Return a value for the eyes: without passwords."""
    if not isinstance(value, str) or not has_password(value):
        return value
    from rollbook.core.conninfo import masked

    return masked(value)


def new_path(config: str | None) -> Path:
    """Return where a new file is written. Raises RefusedError for a user without a home."""
    named = config or os.environ.get("ROLLBOOK_CONFIG")
    path = Path(named) if named else user_path()
    if path is None:
        raise RefusedError(
            "there is no directory for the file", why="this user has no home", fix="name it: --config FILE"
        )
    return path


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, for the user alone. Raises RefusedError, UnreachableError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RefusedError(
            f"{path} exists already", why="config init never overwrites", fix="edit it, then: rollbook config check"
        ) from None
    except OSError as exc:
        raise UnreachableError(
            f"cannot write {path}", why=exc.strerror, fix="name another place: rollbook config init --config FILE"
        ) from exc
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def template(given: Mapping[str, Any], profile: str | None) -> str:
    """Return the text of a new file: every key, in comments but for the values that are given."""
    lines = [
        "# Rollbook's configuration. An option wins over its environment variable, that over this file.",
        "# A file with a password in it must be readable by you alone (mode 0600); ~/.pgpass is a better place.",
        "# rollbook config show: each value and its source. rollbook config check: what is wrong here.",
        "",
        f"profile = {toml(profile)}" if profile else '# profile = "production"',
        "# The profile if neither --profile nor ROLLBOOK_PROFILE names one.",
        "",
        "# Keys here are for every profile.",
    ]
    of_profile = {name: value for name, value in given.items() if value is not None}
    at_top = {} if profile else of_profile
    for key in KEYS.values():
        how = f" One of {', '.join(key.choices)}." if key.choices else ""
        lines += ["", f"# {key.text}{how}"]
        is_set = key.name in at_top
        lines.append(f"{'' if is_set else '# '}{key.name} = {toml(at_top[key.name] if is_set else key.example)}")
    if profile:
        lines += ["", f"[profiles.{profile if re.fullmatch(r'[A-Za-z0-9_-]+', profile) else toml(profile)}]"]
        lines += [f"{name} = {toml(value)}" for name, value in of_profile.items()] or ['# dsn = "service=portal"']
    else:
        for name in ("production", "staging"):
            lines += ["", f"# [profiles.{name}]", f'# dsn = "service={name}"']
    return "\n".join(lines) + "\n"


def toml(value: str | float | bool) -> str:
    """Return a value as TOML spells it."""
    if not isinstance(value, str):
        return str(value).lower()
    from rollbook.core.shape import quote

    return quote(value)
