"""The options that many commands share, declared once; every command takes them after its verb."""

import inspect
import os
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core.errors import UsageError
from rollbook.core.nouns import NOUNS

if TYPE_CHECKING:
    from rollbook.core.db import Caller, Conn
    from rollbook.core.since import Period


class Format(StrEnum):
    """How an answer is written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"


class Document(StrEnum):
    """How an answer that is not a list of rows is written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"


# The ending of a file -> the format of the answer in it.
ENDINGS = {
    ".csv": Format.csv, ".json": Format.json, ".jsonl": Format.jsonl, ".tsv": Format.tsv, ".txt": Format.table,
}  # fmt: skip
# Endings of files that hold something else: TSV under such a name would mislead.
OTHER_ENDINGS = (
    ".bmp", ".bz2", ".db", ".doc", ".docx", ".eps", ".gif", ".gz", ".htm", ".html", ".jpeg", ".jpg", ".md", ".ods",
    ".odt", ".parquet", ".pdf", ".png", ".ps", ".rtf", ".sqlite", ".svg", ".tar", ".tex", ".webp", ".xls", ".xlsx",
    ".xml", ".xz", ".yaml", ".yml", ".zip", ".zst",
)  # fmt: skip


class OnError(StrEnum):
    """What a wrong row of a file does to the others."""

    abort = "abort"
    skip = "skip"


class When(StrEnum):
    """When to colour."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class Author:
    """Who writes, as the program knows it; the database adds the role itself."""

    os_user: str
    on_behalf_of: str | None  # the actor of the configuration, such as ROLLBOOK_ACTOR


@dataclass
class Run:
    """One call of a command: its name and the values of the shared options."""

    name: str = "rollbook"
    long: bool = False
    writes: bool = False
    needs: str = "rollbook_monitor"  # the role of Rollbook's that may run it
    is_of_people: bool = False  # it needs the default's tables
    dsn: str | None = None
    config: str | None = None
    profile: str | None = None
    timeout: float | None = None
    color: When | None = None
    no_input: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    format: Format | Document | None = None
    usual_format: Format | None = None  # of a list, unless an option or the file's ending says it
    json: bool = False
    csv: bool = False
    output: str = "-"
    begun: bool = False  # something has been written to `output`
    fields: str | None = None
    no_header: bool = False
    wide: bool = False
    no_pager: bool = False
    limit: int | None = None
    all: bool = False
    sort: str | None = None
    match: str | None = None
    since: str | None = None
    until: str | None = None
    dry_run: bool = False
    yes: bool = False
    reason: str | None = None
    on_error: OnError = OnError.abort
    rejects: str | None = None
    template: bool = False
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    watch: float | None = None
    count: int | None = None
    html: str | None = None
    pager: str | None = None
    actor: str | None = None
    log_file: str | None = None
    check_warning: float | None = None  # seconds
    check_critical: float | None = None  # seconds
    check_max_age: str | None = None
    by_superuser: bool = False  # its session on the portal is a superuser's

    @property
    def given(self) -> "dict[str, Any]":
        """Return the values of the options that the configuration has defaults for; None where an option is absent."""
        options = {"dsn": self.dsn, "timeout": self.timeout, "format": self.format, "color": self.color}
        return {**options, "no_input": self.no_input or None}

    def configure(self, *, lists: bool = False) -> None:
        """Take from variables and files what no option says. Raises UsageError for a broken file or variable.

        `lists`: the answer is a list, for which the configured format counts. Long work takes no configured timeout.
        """
        from rollbook.core.config import settings  # --help reads no files

        found = {name: setting.value for name, setting in settings(self.config, self.profile, self.given).items()}
        self.dsn, self.pager, self.actor, self.log_file = (found[key] for key in ("dsn", "pager", "actor", "log_file"))
        self.check_warning, self.check_critical, self.check_max_age = (
            found[f"check_{name}"] for name in ("warning", "critical", "max_age")
        )
        self.no_input, self.color = found["no_input"], When(found["color"])
        if self.timeout is None and not self.long:
            self.timeout = found["timeout"]
        if lists and self.format is None and found["format"]:
            self.usual_format = Format(found["format"])

    @property
    def ending_format(self) -> Format | None:
        """Return the format that the ending of the file of -o means, if any."""
        return ENDINGS.get(Path(self.output).suffix.lower())

    def check_ending(self, formats: type[Format] | type[Document]) -> None:
        """Raise UsageError if the ending of the file of -o means a format that this answer does not have."""
        ending = Path(self.output).suffix.lower()
        known = [name for name, kind in ENDINGS.items() if kind in list(formats)]
        if self.format or self.json or self.csv or ending in known:
            return
        if ending in ENDINGS or ending in OTHER_ENDINGS:
            raise UsageError(
                f"cannot write a {ending} file", why=f"the supported endings are {', '.join(known)}",
                fix="name a file with one of these endings, or add --format",
            )  # fmt: skip

    def check(self, columns: tuple[str, ...]) -> None:
        """Raise UsageError for an output option that cannot be met, before anything is asked or done."""
        for name in [part.strip().removeprefix("-") for part in f"{self.fields or ''},{self.sort or ''}".split(",")]:
            if name and name not in columns:
                raise UsageError(f"there is no column {name}", fix=f"columns: {', '.join(columns)}")
        if self.json and self.csv:
            raise UsageError("--json and --csv exclude each other")
        if self.since is not None or self.until is not None:
            _ = self.period
        if self.html is not None:
            style = None if "ROLLBOOK_FORMAT" in os.environ else self.format
            others = {
                "--format": style, "--json": self.json, "--csv": self.csv, "--output": self.output != "-",
                "--watch": self.watch,
            }  # fmt: skip
            if other := next((name for name, is_given in others.items() if is_given), None):
                raise UsageError(f"--html and {other} exclude each other", why="the page is the answer")
        for file, option in ((self.output, "-o"), (self.html or "-", "--html")):
            if file != "-":
                from rollbook.core.files import check_writable  # --help needs no files

                check_writable(file, option)

    @property
    def period(self) -> "Period":
        """Return the times of --since and --until. Raises UsageError."""
        from rollbook.core.since import period  # --help needs no times

        return period(self.since, self.until)

    @property
    def verb(self) -> str:
        """Return the command's name as the history keeps it, such as `user update`."""
        return self.name.removeprefix("rollbook ")

    @property
    def author(self) -> Author:
        """Return who the history says has written: the operating system's user, and the actor."""
        import getpass

        from rollbook.core.values import visible

        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a number without a name, as in a container
            user = str(os.getuid())
        behalf = " ".join(visible(self.actor or "").split())
        return Author(visible(user)[:200], behalf[:200] or None)

    def caller(self, timeout: float | None = None) -> "Caller":
        """Return who asks a course server; `timeout` in seconds where --timeout does not bound the question alone."""
        from rollbook.core.db import Caller

        return Caller(self.name, self.timeout if timeout is None else timeout)

    @contextmanager
    def connect(self, *, migrated: bool = True) -> "Iterator[Conn]":
        """Connect as the options say; with --dry-run everything is rolled back at the end."""
        from rollbook.core.db import connect  # psycopg costs 0.2 s, which --help must not pay

        with connect(
            self.dsn,
            name=self.name,
            timeout=self.timeout,
            long=self.long,
            keep=not self.dry_run,
            migrated=migrated,
            default_tables=self.is_of_people,
            verbose=self.verbose,
            writes=self.writes,
        ) as conn:
            self.by_superuser = conn.info.parameter_status("is_superuser") == "on"
            yield conn


current = Run()  # the command under way: what main() needs to know to report an error

EXAMPLE_WIDTH = 76  # cells of a line behind `$ `, at 80 columns
COMMON = "Common options"
OUTPUT = "Output options"
BULK = "File options"


def option(default: Any, kind: Any, *names: str, text: str, panel: str, **more: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return a default and an annotation for a shared option."""
    return default, Annotated[kind, typer.Option(*names, help=text, rich_help_panel=panel, **more)]


SETS: dict[str, dict[str, tuple[Any, Any]]] = {
    "common": {
        "dsn": option(None, str | None, "-d", "--dsn", metavar="CONNINFO", panel=COMMON,
                      text="The portal database: URI, key=value, service=x or a name. Default: ROLLBOOK_DSN or PG*."),
        "config": option(None, str | None, "--config", metavar="FILE", panel=COMMON,
                         text="A configuration file, see rollbook config. Default: ROLLBOOK_CONFIG."),
        "profile": option(None, str | None, "--profile", metavar="NAME", panel=COMMON,
                          text="The profile of the configuration. Default: ROLLBOOK_PROFILE."),
        "timeout": option(None, float | None, "--timeout", metavar="SECONDS", min=0.001, panel=COMMON,
                          text="Limit for connecting (10) and for each statement (60; none for long work)."),
        "verbose": option(False, bool, "-v", "--verbose", panel=COMMON,
                          text="Print each statement and its time on stderr."),
        "color": option(None, When | None, "--color", panel=COMMON,
                        text="Colour on a terminal (auto, the default), always or never."),
        "no_input": option(False, bool, "--no-input", panel=COMMON, text="Never ask; exit 6 if an answer is needed."),
        "quiet": option(False, bool, "-q", "--quiet", panel=COMMON, text="Results and errors only."),
        "debug": option(False, bool, "--debug", panel=COMMON, text="Show the traceback of an error."),
    },
    "data": {
        "format": option(None, Format | None, "--format", panel=OUTPUT,
                         text="Default: by the file's ending (-o), ROLLBOOK_FORMAT, else table, tsv in a pipe."),
        "json": option(False, bool, "--json", panel=OUTPUT, text="Short for --format json."),
        "csv": option(False, bool, "--csv", panel=OUTPUT, text="Short for --format csv."),
        "output": option("-", str, "-o", "--output", metavar="FILE", panel=OUTPUT,
                         text="Write to FILE: .csv .json .jsonl .tsv, or .txt for a table."),
        "fields": option(None, str | None, "--fields", metavar="LIST", panel=OUTPUT,
                         text="Only these columns (a,b), or all except some (-a,-b)."),
        "no_header": option(False, bool, "--no-header", panel=OUTPUT, text="No header line in table, csv and tsv."),
        "wide": option(False, bool, "--wide", panel=OUTPUT, text="Show all columns in full, wider than the terminal."),
        "no_pager": option(False, bool, "--no-pager", panel=OUTPUT, text="Do not page a long answer on a terminal."),
    },
    "document": {
        "format": option(None, Document | None, "--format", panel=OUTPUT,
                         text="Default: by the file's ending (-o), else table, also in a pipe."),
        "json": option(False, bool, "--json", panel=OUTPUT, text="Short for --format json."),
        "output": option("-", str, "-o", "--output", metavar="FILE", panel=OUTPUT,
                         text="Write to FILE: .json .jsonl, or .txt for text."),
        "no_pager": option(False, bool, "--no-pager", panel=OUTPUT, text="Do not page a long answer on a terminal."),
    },
    "listing": {
        "limit": option(None, int | None, "--limit", metavar="N", min=0, panel=OUTPUT,
                        text="At most N rows; default 100 on a terminal, none elsewhere."),
        "all": option(False, bool, "--all", panel=OUTPUT, text="All rows, also on a terminal."),
        "sort": option(None, str | None, "--sort", metavar="FIELD,-FIELD", panel=OUTPUT,
                       text="Sort by these columns; - for descending."),
        "match": option(None, str | None, "--match", metavar="TEXT", panel=OUTPUT,
                        text="Only rows in which a name contains TEXT."),
    },
    "writes": {
        "dry_run": option(False, bool, "-n", "--dry-run", panel=COMMON,
                          text="Run it, show the result, and roll it back."),
        "reason": option(None, str | None, "--reason", metavar="TEXT", panel=COMMON,
                         text="The reason, recorded in the history."),
    },
    "yes": {"yes": option(False, bool, "-y", "--yes", panel=COMMON, text="Do not ask for confirmation.")},
    "several": {
        "on_error": option(OnError.abort, OnError, "--on-error", panel=COMMON,
                           text="When a named item is unknown: abort, or skip it and continue (exit 5)."),
    },
    "bulk": {
        "on_error": option(OnError.abort, OnError, "--on-error", panel=BULK,
                           text="When a row is wrong: apply nothing, or skip it and apply the others (exit 5)."),
        "rejects": option(None, str | None, "--rejects", metavar="FILE", panel=BULK,
                          text="Write the wrong rows to FILE, with line and error, to correct and import again."),
        "template": option(False, bool, "--template", panel=BULK, text="Print the expected CSV header and exit."),
        "delimiter": option(",", str, "--delimiter", metavar="C", panel=BULK, text="Field separator."),
        "encoding": option("utf-8-sig", str, "--encoding", metavar="NAME", panel=BULK,
                           text="Encoding of the file. Default: UTF-8, with or without a byte order mark."),
    },
    "watch": {
        "watch": option(None, float | None, "--watch", metavar="SECONDS", min=0.1, panel=OUTPUT,
                        text="Repeat every SECONDS: in place on a terminal, a line each time in a pipe."),
        "count": option(None, int | None, "--count", metavar="N", min=1, panel=OUTPUT,
                        text="With --watch: stop after N times."),
    },
    "page": {
        "html": option(None, str | None, "--html", metavar="FILE", panel=OUTPUT,
                       text="Write a page with charts to FILE, for a browser or a printer; - for standard output."),
    },
}  # fmt: skip


def command(
    app: typer.Typer, verb: str, *, sets: tuple[str, ...] = (), columns: tuple[str, ...] = (), long: bool = False,
    examples: tuple[str, ...], exits: str, see: str = "", needs: str | None = None, configured: bool = True,
    times: str | None = None,
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:  # fmt: skip
    """Register a command: its own parameters, then the shared ones, which reach it as a Run, its first argument.

    So `def show(run: Run, user: User)` becomes `def call(user: User, *, dsn=..., timeout=..., json=...)` for Typer.
    `needs` is the role of Rollbook's that may run it, if it is not the one of its kind (needed_role).
    One that is not `configured` works with a broken configuration, too: it reads that itself.
    `times` is the column of a list that --since and --until are about.
    `columns` are those that --fields and --sort may name. `examples` are full command lines, without the leading
    `rollbook`; they end up in the help, with `exits` and `see`.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        written = inspect.signature(function, eval_str=True)
        shared = [*shared_parameters(sets, without=written.parameters), *(period_parameters(times) if times else ())]
        seen = [*list(written.parameters.values())[1:], *shared]  # all but `run`, then the shared options
        noun = str(app.info.name or verb).partition(" ")[0]
        role = needs or needed_role(noun, writes="writes" in sets)
        title = f"rollbook {app.info.name} {verb}" if isinstance(app.info.name, str) else f"rollbook {verb}"

        def call(**values: Any) -> int | None:  # noqa: ANN401
            global current  # noqa: PLW0603 (main() reports errors in the format that this command was asked for)
            options = {p.name: values.pop(p.name) for p in shared}
            current = Run(
                name=title, long=long, writes="writes" in sets, needs=role, is_of_people=NOUNS[noun].is_of_people,
                **options,
            )  # fmt: skip
            if configured:
                current.configure(lists="data" in sets)
            current.check(columns)
            current.check_ending(Document if "document" in sets else Format)
            return function(current, **values)

        # Each paragraph in one line: Typer keeps the line breaks of all but the first.
        call.__doc__ = "\n\n".join(" ".join(part.split()) for part in (function.__doc__ or "").split("\n\n"))
        call.__name__ = function.__name__
        call.__signature__ = written.replace(parameters=seen)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in seen}
        app.command(verb, epilog=epilog(examples, exits, see))(call)
        return function

    return register


def needed_role(noun: str, *, writes: bool) -> str:
    """Return the role of Rollbook's whose members may run a command of a noun."""
    if not writes:
        return "rollbook_monitor"
    return "rollbook_operator" if NOUNS[noun].is_of_people else "rollbook_owner"


def shared_parameters(sets: tuple[str, ...], without: Container[str]) -> list[inspect.Parameter]:
    """Return the common options and those of the sets, but for names that the command declares itself."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for which in ("common", *sets)
        for name, (default, annotation) in SETS[which].items()
        if name not in without
    ]


def period_parameters(column: str) -> list[inspect.Parameter]:
    """Return --since and --until of a list, about one column."""
    texts = {
        "since": f"Only with `{column}` from TIME on: -7d, yesterday, 2012-09-01, 2012-09-01T12:00 (UTC).",
        "until": f"Only with `{column}` before TIME.",
    }
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, text in texts.items()
        for default, annotation in [option(None, str | None, f"--{name}", metavar="TIME", panel=OUTPUT, text=text)]
    ]


def broken(line: str) -> str:
    """Return a command line that a shell reads as the same one, in lines that fit into help at 80 columns."""
    word = r"(?:'[^']*'|[^' ])+"
    first, *parts = re.findall(rf"-\S* (?![-<]){word}|< {word}|{word}", line)  # an option keeps its value
    lines = [first]
    for part in parts:
        if len(f"{lines[-1]} {part}") > EXAMPLE_WIDTH - (2 if part is not parts[-1] else 0):
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)


def epilog(examples: tuple[str, ...], exits: str, see: str) -> str:
    """Return what the help says below the options."""
    lines = [f"[dim]$[/dim] {broken(f'rollbook {example}')}".replace("[edX", r"\[edX") for example in examples]
    parts = ["Examples:", *lines, f"Exit codes: {exits}.", *([f"See also: {see}"] if see else [])]
    return "\n\n".join(parts)
