"""Write docs/reference/ and the man pages from the program, the SQL files and the tables in the code.

`make reference` writes docs/reference/*.md, `make man` writes build/man/*.1.
A test fails when docs/reference/ is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from rich.markup import render

from rollbook import cli
from rollbook.core.config import KEYS
from rollbook.core.environment import VARIABLES
from rollbook.core.errors import EXIT_CODES
from rollbook.core.shape import default, shaped
from rollbook.tree import Root, load

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SHARED = ("Common options", "Output options", "File options")

MEANINGS = {
    "RB001": "Somebody other than the routing writes a copy.",
    "RB002": "The id of a user changes.",
    "RB003": "The course id or on_leave is invalid.",
    "RB004": "A foreign key in a course's schema forbids the removal of a copy. The message names the course.",
    "RB005": "The course already exists.",
    "RB006": "The course does not exist.",
    "RB007": "The course has columns, tables or other objects of its own, or other objects depend on its copies.",
    "RB008": "A copy lacks a table or a column and cannot be compared.",
    "RB009": "The function runs at READ COMMITTED only.",
    "RB010": "The role rollbook_owner has rights that it must not have, or the caller may not act for it.",
    "RB011": "The course is on a server, or servers are left.",
    "RB012": "A key or a request is unknown, used or expired.",
    "RB013": "A value is invalid: a name, an e-mail address, a meta, the shares of groups.",
    "RB014": "The e-mail address or the name belongs to another user or group.",
    "RB015": "The year of birth is not within the last 120 years.",
    "RB016": "The test centre would not accept the candidate or the authorization. The detail names each field.",
    "RB017": "The student may not register for the exam.",
    "RB018": "A trigger that is not Rollbook's runs a function of schema rollbook.",
    "RB019": "The role may not create, drop, pause or resume courses, grant rights on them, or recreate what is gone.",
    "RB020": "A copy of a course cannot be written. The message names course and table, the hint two ways out.",
    "RB021": "The course is paused, and the action needs it running.",
    "RB022": "A lock was not free within lock_timeout (5 s if it is 0). The detail names the sessions that hold it.",
    "RB023": "The role is unknown, or is one of Rollbook's own.",
    "RB024": "The database holds a Django site, which is adopted: an upgrade would make an empty portal beside it.",
    "RB025": "A downgrade to base would drop the tables of a site that was adopted.",
    "RB028": "A column that cannot be left out of a course: unknown, or a key.",
    "RB055": "The course was renamed, or cannot be renamed now.",
    "RB054": "The schema that a course is restored with belongs to another course, or is none of a course.",
    "RB053": "The course is closed: it takes no new enrollments, by whatever path.",
}

COMMENT = re.compile(r"^comment on (?:\w+) rollbook\.(\S+?)(?:\([^)]*\))? is\s+((?:'(?:[^']|'')*'\s*)+);", re.MULTILINE)

DIRECTORIES = {
    "functions/api": "Functions for applications and DBAs",
    "functions/accounts": "Accounts",
    "functions/testcentre": "Test centre",
    "functions/servers": "Course servers",
    "functions/checks": "Parts of verify, compare and drop",
    "functions/shape": "What is copied, generated from the declaration",
    "functions/copies": "Copies: their tables and their rows",
    "functions/digests": "Digests, for comparing two sides without the right to read them",
    "functions/routing": "Routing",
    "views": "Views",
    "triggers": "Trigger functions",
}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option as the help shows it."""

    names: str
    text: str
    panel: str
    is_argument: bool


@dataclass(frozen=True)
class Command:
    """One page of the command line: the program, a noun or a command."""

    path: tuple[str, ...]
    usage: str
    text: str
    panel: str
    children: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    examples: tuple[str, ...] = ()
    exits: str = ""
    see: str = ""

    @property
    def name(self) -> str:
        """The command line without arguments."""
        return " ".join(self.path)


@dataclass(frozen=True)
class Refusal:
    """One `raise exception` with a code of ours."""

    code: str
    sqlstate: str
    message: str
    hint: str
    source: str


@dataclass(frozen=True)
class SqlObject:
    """A function or view: its signature and its comment, from its file."""

    name: str
    signature: str
    comment: str
    columns: dict[str, str] = field(default_factory=dict)


def plain(markup: str) -> str:
    """Remove Rich's markup."""
    return render(markup).plain


def wrapped(text: str) -> str:
    """Return a text with lines of at most 120 characters."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False) for part in paragraphs)


def commands(command: Any = None, context: Any = None) -> Iterator[Command]:
    """Yield the program, its nouns and its commands, in the order of the help."""
    command = command or typer.main.get_command(cli.app)
    context = context or typer.Context(command, info_name="rollbook")
    path = tuple(context.command_path.split())
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    examples, exits, see = [], "", ""
    for paragraph in plain(command.epilog or "").split("\n\n"):
        if paragraph.startswith("$ "):
            examples.append(paragraph.removeprefix("$ "))
        elif paragraph.startswith("Exit codes: "):
            exits = paragraph.removeprefix("Exit codes: ").rstrip(".")
        elif paragraph.startswith("See also: "):
            see = paragraph.removeprefix("See also: ")
    yield Command(
        path=path,
        usage=command.get_usage(context).removeprefix("Usage: "),
        text=plain(command.help or ""),
        panel=str(getattr(command, "rich_help_panel", None) or ""),
        children=tuple(names),
        parameters=tuple(parameters(command, context)),
        examples=tuple(examples),
        exits=exits,
        see=see,
    )
    for name in names:
        child = load(name) if isinstance(command, Root) else command.get_command(context, name)
        yield from commands(child, typer.Context(child, info_name=name, parent=context))


def parameters(command: Any, context: Any) -> Iterator[Parameter]:
    """Yield the arguments and options of one command."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and parameter.name not in ("help", "install_completion", "show_completion"):
            names, text = record
            yield Parameter(
                names=re.sub(r" <(str|list\[(str|int)\])>$", "", names),
                text=" ".join(plain(text.replace("[", r"\[")).split()),
                panel=str(getattr(parameter, "rich_help_panel", None) or "Options"),
                is_argument=parameter.param_type_name == "argument",
            )


def statements(text: str) -> Iterator[str]:
    """Yield each `raise exception` statement: a semicolon ends it unless it stands in a string."""
    for start in re.finditer(r"raise exception\s+(?=')", text):
        end = re.match(r"(?:'(?:[^']|'')*'|[^;'])*", text[start.end() :])
        yield end.group() if end else ""


def literal(expression: str) -> str:
    """Return the strings of an SQL expression, joined, with its quotes resolved."""
    return "".join(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", expression))


def refusals() -> list[Refusal]:
    """Return every refusal of sql/ and of the revisions, by code and source."""
    found = []
    files = [path for directory in ("sql", "migrations") for path in (ROOT / directory).rglob("*.*")]
    for path in (file for file in files if file.suffix in (".sql", ".py")):
        if "frozen" in path.parts:
            continue
        for statement in statements(path.read_text()):
            state = re.search(r"errcode = '((?:RB|23R)\d+)'", statement)
            code = re.search(r"(?:errcode|constraint) = '(RB\d+)'", statement)
            message = re.match(r"'((?:[^']|'')*)'", statement)
            hint = re.search(r"\bhint =\s*(?:format\(\s*)?('(?:[^']|'')*')", statement)
            if bool(state) != bool(code) or (code and state and state[1][-2:] != code[1][-2:]):
                raise SystemExit(
                    f"{path}: a rule on data has errcode '23Rnn', constraint 'RB0nn'; else errcode 'RBnnn'"
                )
            if code and state and message:
                source = str(path.relative_to(ROOT))
                found.append(
                    Refusal(code[1], state[1], literal(message.group()), literal(hint.group(1)) if hint else "", source)
                )
    return sorted(found, key=lambda refusal: (refusal.code, refusal.source, refusal.message))


def sql_object(path: Path) -> SqlObject:
    """Read the object of one file."""
    text = shaped(path.read_text(), default())
    name = path.stem
    comments = {target: literal(value) for target, value in COMMENT.findall(text)}
    columns = {target.partition(".")[2]: comment for target, comment in comments.items() if "." in target}
    if path.parent.name == "views":
        return SqlObject(name, f"rollbook.{name}", comments[name], columns)
    made = re.search(r"^create or replace function (rollbook\..*?)\n?language ", text, re.DOTALL | re.M)
    signature = " ".join(made.group(1).split()) if made else name
    return SqlObject(name, re.sub(r"(?<=\() | (?=\))", "", signature), comments[name])


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ")


def heading(title: str, *lines: str) -> list[str]:
    """Begin a page."""
    return [f"# {title}", "", "Generated by `make reference`; do not edit.", "", *lines, ""]


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    pages = list(commands())
    leaves = [page for page in pages if not page.children]
    out = heading(
        "Command line",
        "`rollbook NOUN VERB --help` prints the same; `make man` writes manual pages. All commands share the",
        "[exit codes](exit-codes.md) and the [environment variables](environment.md).",
    )
    out += ["## Commands", ""]
    for page in pages[1:]:
        if len(page.path) == 2:
            out += [f"- [`{page.name}`](#{anchor(page.name)}): {page.text.splitlines()[0]}"]
    out += ["", "## Shared options", "", "These options mean the same in every command.", ""]
    for panel in SHARED:
        texts: dict[str, list[str]] = {}
        for leaf in leaves:
            for parameter in leaf.parameters:
                if parameter.panel == panel and parameter.text not in texts.setdefault(parameter.names, []):
                    texts[parameter.names].append(parameter.text)
        out += [f"### {panel}", "", "| option | |", "| --- | --- |"]
        out += [f"| `{cell(names)}` | {cell(' / '.join(text))} |" for names, text in texts.items()] + [""]
    for page in pages[1:]:
        out += [f"## {page.name}" if len(page.path) == 2 else f"### {page.name}", "", wrapped(page.text), ""]
        if page.children:
            continue
        out += ["```console", f"$ {page.usage}", "```", ""]
        own = [p for p in page.parameters if p.panel not in SHARED]
        if own:
            out += ["| argument or option | |", "| --- | --- |"]
            out += [f"| `{cell(p.names)}` | {cell(p.text)} |" for p in own] + [""]
        shared = [p.names.split(", ")[-1].split()[0] for p in page.parameters if p.panel in SHARED]
        out += ["Shared options: " + " ".join(f"`{name}`" for name in shared) + ".", ""]
        out += ["Examples:", "", "```console", *[f"$ {example}" for example in page.examples], "```", ""]
        out += [f"Exit codes: {page.exits}.", ""] + ([f"See also: {page.see}", ""] if page.see else [])
    return "\n".join(out).rstrip() + "\n"


def anchor(title: str) -> str:
    """Return the anchor that Markdown gives a heading."""
    return re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))


def sql_page() -> str:
    """Return docs/reference/sql.md."""
    out = heading(
        "SQL: functions and views",
        "Each function and view is in the schema `rollbook`, in a file of its own name under `sql/`. The head of the",
        "file says when it runs, what it locks and with whose rights.",
    )
    known = set(DIRECTORIES) | {"server"}
    directories = {str(path.parent.relative_to(ROOT / "sql")) for path in (ROOT / "sql").rglob("*.sql")} - {"."}
    if directories - known:
        raise SystemExit(f"tests/tools/reference.py: DIRECTORIES lacks {', '.join(sorted(directories - known))}")
    for directory, title in DIRECTORIES.items():
        objects = [sql_object(path) for path in sorted((ROOT / "sql" / directory).glob("*.sql"))]
        out += [f"## {title}", "", f"`sql/{directory}/`", ""]
        if directory == "views":
            for view in objects:
                out += [f"### {view.name}", "", view.comment, "", "| column | |", "| --- | --- |"]
                out += [f"| `{name}` | {cell(comment)} |" for name, comment in view.columns.items()] + [""]
            continue
        for item in objects:
            out += [f"### {item.name}", "", "```sql", item.signature, "```", "", item.comment, ""]
    return "\n".join(out).rstrip() + "\n"


def environment_page() -> str:
    """Return docs/reference/environment.md."""
    out = heading(
        "Environment variables and configuration",
        "An option on the command line overrides its variable, a variable the files.",
    )
    out += ["| variable | |", "| --- | --- |"] + [f"| `{name}` | {cell(text)} |" for name, text in VARIABLES.items()]
    out += ["", "## Keys of a configuration file", "", "`rollbook config init` writes a file with all of them.", ""]
    out += ["| key | variable | |", "| --- | --- | --- |"]
    for key in KEYS.values():
        choices = f" One of {', '.join(key.choices)}." if key.choices else ""
        out += [f"| `{key.name}` | {f'`{key.variable}`' if key.variable else ''} | {cell(key.text + choices)} |"]
    return "\n".join(out) + "\n"


def exit_codes_page() -> str:
    """Return docs/reference/exit-codes.md."""
    out = heading("Exit codes", "Where several apply, the first of 70, 2, 6, 3, 5, 4, 1 is returned.")
    out += ["| code | meaning |", "| --- | --- |"] + [f"| {code} | {cell(text)} |" for code, text in EXIT_CODES.items()]
    return "\n".join(out) + "\n"


def refusals_page() -> str:
    """Return docs/reference/refusals.md."""
    out = heading(
        "Refusals",
        "Errors from functions, triggers and revisions. The transaction is rolled back. The command line exits with 1.",
        "`%` stands for a value. A rule on data has SQLSTATE `23Rnn`, an integrity error to drivers and ORMs,",
        "and `RB0nn` as its constraint name. Any other refusal has its code as SQLSTATE.",
    )
    found = refusals()
    if {refusal.code for refusal in found} != set(MEANINGS):
        raise SystemExit(f"tests/tools/reference.py: MEANINGS differs: { ({r.code for r in found} ^ set(MEANINGS)) }")
    for code, meaning in MEANINGS.items():
        out += [f"## {code}", "", meaning, "", "| SQLSTATE | message | hint | raised in |", "| --- | --- | --- | --- |"]
        out += [
            f"| {r.sqlstate} | {cell(r.message)} | {cell(r.hint)} | [{Path(r.source).name}](../../{r.source}) |"
            for r in found if r.code == code
        ] + [""]  # fmt: skip
    return "\n".join(out).rstrip() + "\n"


PAGES = {
    "cli.md": cli_page,
    "sql.md": sql_page,
    "environment.md": environment_page,
    "exit-codes.md": exit_codes_page,
    "refusals.md": refusals_page,
}


def roff(text: str) -> str:
    """Escape text for roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(rf"\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines())


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a description as roff."""
    return [line for part in text.split("\n\n") for line in (".PP", roff(part))]


def man_page(page: Command) -> str:
    """Return the manual page of the program, a noun or a command."""
    title = "-".join(page.path)
    summary = page.text.split("\n\n")[0].replace("\n", " ").rstrip(".")
    out = [rf'.TH "{roff(title.upper())}" 1 "" "Rollbook {version("rollbook")}" "Rollbook"', ".nh", ".ad l", ".SH NAME"]
    out += [rf"{roff(title)} \- {roff(summary)}", ".SH SYNOPSIS", rf"\fB{roff(page.usage)}\fR"]
    out += [".SH DESCRIPTION", *paragraphs(page.text)]
    if page.children:
        out += [".SH COMMANDS"]
        out += [line for name in page.children for line in (".TP", rf"\fB{roff(f'{title}-{name}')}\fR(1)", r"\&")]
    panels: dict[str, list[Parameter]] = {}
    for parameter in page.parameters:
        panels.setdefault("Arguments" if parameter.is_argument else parameter.panel, []).append(parameter)
    for panel, members in panels.items():
        out += [f".SH {roff(panel.upper())}"]
        out += [line for p in members for line in (".TP", rf"\fB{roff(p.names)}\fR", roff(p.text) or r"\&")]
    if page.examples:
        out += [".SH EXAMPLES", ".nf", *[roff(example) for example in page.examples], ".fi"]
    if page.exits:
        out += [".SH EXIT STATUS", roff(page.exits) + "."]
    if len(page.path) == 1:
        out += [".SH EXIT STATUS"]
        out += [line for code, text in EXIT_CODES.items() for line in (".TP", rf"\fB{code}\fR", roff(text) + ".")]
        out += [".SH ENVIRONMENT"]
        out += [line for name, text in VARIABLES.items() for line in (".TP", rf"\fB{roff(name)}\fR", roff(text))]
    if page.see:
        out += [".SH SEE ALSO", roff(page.see)]
    return "\n".join(out) + "\n"


def main() -> int:
    """Write the reference, or the manual pages into the directory that --man names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--man", type=Path, metavar="DIRECTORY")
    man: Path | None = parser.parse_args().man
    directory = man or REFERENCE
    directory.mkdir(parents=True, exist_ok=True)
    texts = (
        {f"{'-'.join(page.path)}.1": man_page(page) for page in commands()}
        if man
        else {name: page() for name, page in PAGES.items()}
    )
    for name, text in texts.items():
        (directory / name).write_text(text)
    print(f"{len(texts)} pages in {directory.relative_to(ROOT) if directory.is_relative_to(ROOT) else directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
