"""The only module that writes to a stream: answers to stdout, all else to stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rollbook.core.command import Format, Run, When
from rollbook.core.errors import PIPE_CLOSED, AdminError, NotConfirmedError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]

# A word is never told by colour alone: each state has a mark.
MARKS = {
    "ok": ("✓", "green"), "match": ("✓", "green"), "active": ("✓", "green"),
    "drifted": ("✗", "red"), "differs": ("✗", "red"), "broken": ("✗", "red"), "missing": ("✗", "red"),
    "not_comparable": ("✗", "red"), "unreachable": ("✗", "red"), "changed": ("!", "yellow"), "extra": ("!", "yellow"),
    "unknown": ("?", "yellow"), "created": ("+", "green"), "removed": ("-", "yellow"), "unchanged": ("=", "dim"),
    "lagging": ("!", "yellow"), "paused": ("!", "yellow"), "detached": ("!", "yellow"), "copying": ("→", "cyan"),
    "activated": ("✓", "green"), "deactivated": ("-", "yellow"), "granted": ("+", "green"), "revoked": ("-", "yellow"),
    "attached": ("+", "green"), "resumed": ("✓", "green"), "would attach": ("+", "cyan"),
    "accepted": ("✓", "green"), "rejected": ("✗", "red"), "cancelled": ("-", "yellow"), "due": ("→", "cyan"),
    "would create": ("+", "cyan"), "would remove": ("-", "cyan"), "would change": ("!", "cyan"),
}  # fmt: skip
MARKED = ("state", "verdict", "outcome", "verdict_after", "finding", "damage")
# What a dry run reports in place of an outcome.
PLANNED = {
    "activated": "would activate", "cancelled": "would cancel", "changed": "would change", "created": "would create",
    "deactivated": "would deactivate", "discarded": "would discard", "granted": "would grant",
    "removed": "would remove", "revoked": "would revoke",
}  # fmt: skip
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the line feed
LIMIT_ON_TERMINAL = 100


def chosen_format(run: Run) -> Format:
    """Return the format of the answer: as asked, else a table on a terminal and tsv in a pipe or a file."""
    if run.json:
        return Format.json
    if run.csv:
        return Format.csv
    if run.format:
        return Format(run.format)
    return Format.table if run.output == "-" and sys.stdout.isatty() else Format.tsv


def wants_json(run: Run) -> bool:
    """Say whether the answer, and so an error, is JSON."""
    return chosen_format(run) in (Format.json, Format.jsonl)


@contextmanager
def sink(run: Run) -> Iterator[IO[str]]:
    """Yield where the answer goes. A closed pipe ends the program silently with 141; a file is the user's alone."""
    if run.output != "-":
        try:
            how = os.O_APPEND if run.begun else os.O_TRUNC
            descriptor = os.open(run.output, os.O_WRONLY | os.O_CREAT | how, 0o600)
            run.begun = True
        except OSError as exc:
            raise UsageError(f"cannot write {run.output}", why=exc.strerror, fix="name another file with -o") from exc
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None


def console(run: Run, stream: IO[str]) -> Console:
    """Return a Rich console on a stream: its colour judged by that stream alone; never cut where nobody looks."""
    from rich.console import Console  # 0.06 s

    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    color = run.color is When.always or (run.color is When.auto and (terminal or bool(os.environ.get("FORCE_COLOR"))))
    if run.color is When.auto and os.environ.get("NO_COLOR"):
        color = False
    columns = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else int(columns) if columns.isdecimal() and int(columns) else 10_000
    return Console(
        file=stream, force_terminal=terminal or color, force_interactive=stream.isatty(), no_color=not color,
        color_system="standard" if color else None, width=width, highlight=False, soft_wrap=False, legacy_windows=False,
    )  # fmt: skip


def note(run: Run, text: str) -> None:
    """Say something that is not the answer, on stderr; nothing with --quiet."""
    if not run.quiet:
        print(harmless(text), file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """Return a text whose control characters cannot steer a terminal."""
    return CONTROL.sub("�", text)


def error(run: Run, exc: AdminError) -> None:
    """Report an error on stderr: fact, reason and remedy, or one line of JSON where the answer is JSON."""
    if wants_json(run):
        body = {
            "code": exc.code, "message": exc.message, "why": exc.why, "hint": exc.fix, "exit_code": exc.exit_code,
            "details": exc.details,
        }  # fmt: skip
        print(json.dumps({"error": body}, ensure_ascii=False, default=str), file=sys.stderr)
        return
    for label, text in (("error", exc.message), ("why", exc.why), ("fix", exc.fix)):
        if text:
            print(f"{label + ':':<6}", harmless(text).replace("\n", "\n" + " " * 7), file=sys.stderr)


def faults(problems: Iterable[Row]) -> None:
    """Say on stderr, a line each, what is wrong in a file: line, column, value, reason (and the file, of several)."""
    for row in problems:
        where = f"{row['file']} line {row['line']}" if row.get("file") else f"line {row['line']}"
        column = f", {row['column']}" if row["column"] else ""
        value = "" if row["value"] is None else f": {row['value']!r}"
        print(f"{where}{column}{value}: {row['reason']}", file=sys.stderr)


def trace(content: str) -> None:
    """Show a traceback on stderr."""
    print(content, file=sys.stderr)


def confirm(run: Run, question: str) -> None:
    """Ask yes or no on the terminal. Raises NotConfirmedError on no, or where nobody can be asked."""
    if run.yes or run.dry_run:
        return
    if run.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmedError(f"not confirmed: {question}", fix="add --yes if that is what you want")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmedError("not confirmed; nothing was changed")


def secret(run: Run, question: str, *, fix: str) -> str:
    """Ask for a secret on the terminal, without an echo. Raises NotConfirmedError where nobody can be asked."""
    if run.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmedError(f"nobody can be asked: {question}", fix=fix)
    from getpass import getpass

    try:
        return getpass(f"{question}: ", stream=sys.stderr)
    except EOFError:
        raise NotConfirmedError("no answer; nothing was changed", fix=fix) from None


# --- values -----------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value for JSON: times as RFC 3339 in UTC, everything else as it is."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(value: Any) -> str:  # noqa: ANN401
    """Return a value for a CSV or TSV cell: null is empty, lists joined with commas, booleans true and false."""
    if value is None or isinstance(value, str):
        return value or ""
    if type(value) is int:
        return str(value)
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(flat(item) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def human(name: str, value: Any) -> str:  # noqa: ANN401
    """Return a value for a reader: sizes and ages in words, marks before states."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return ago(value)
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return f"{value:g} s"
    if isinstance(value, list):
        return ", ".join(human(name, item) for item in value)
    mark, _ = marked(name, value)
    # What students write must not steer the operator's terminal.
    return f"{mark} {value}" if mark else harmless(flat(value))


def marked(name: str, value: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return the mark and the colour of a state; empty for anything else."""
    return MARKS.get(str(value), ("", "")) if name in MARKED or name.endswith("_copy") else ("", "")


def ago(at: datetime) -> str:
    """Return how long ago a time was, or the date where that says more."""
    seconds = time.time() - at.timestamp()
    for unit, length, until in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400)):
        if 0 <= seconds < until:
            return f"{int(seconds // length)} {unit} ago"
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def plural(count: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Return bytes in the unit that leaves up to four digits."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"


# --- answers ----------------------------------------------------------------------------------------------------------


def picked(run: Run, columns: Sequence[str]) -> list[str]:
    """Return the columns that --fields leaves, in its order."""
    asked = [name.strip() for name in (run.fields or "").split(",") if name.strip()]
    hidden = {name[1:] for name in asked if name.startswith("-")}
    kept = [name for name in asked if not name.startswith("-")]
    if unknown := [name for name in {*kept, *hidden} if name not in columns]:
        raise UsageError(f"there is no column {unknown[0]} here", fix=f"columns: {', '.join(columns)}")
    return [name for name in kept or columns if name not in hidden]


def ordered(run: Run, rows: list[Row]) -> list[Row]:
    """Return the rows in the order of --sort; nulls last."""
    for key in reversed(run.sort.split(",") if run.sort else []):
        name, down = key.strip().removeprefix("-"), key.strip().startswith("-")
        present = sorted((row for row in rows if row[name] is not None), key=lambda row: row[name], reverse=down)
        rows = present + [row for row in rows if row[name] is None]
    return rows


def shown_limit(run: Run) -> int | None:
    """Return how many rows a list shows: --limit, else 100 on a terminal, else all."""
    if run.all:
        return None
    return run.limit if run.limit is not None else LIMIT_ON_TERMINAL if chosen_format(run) is Format.table else None


def fetch_limit(run: Run) -> int | None:
    """Return how many rows of a list to fetch: those that are shown, or all where --sort orders them first."""
    return None if run.sort else shown_limit(run)


def listing(
    run: Run, found: list[Row], columns: Sequence[str], *, empty: str, total: int | None = None, bar: str | None = None
) -> None:
    """Write a list that takes --limit, --all and --sort: `found` are the first `fetch_limit` of `total` rows.

    `total` None: `found` is all there is.
    """
    total = len(found) if total is None else total
    rows(run, ordered(run, found)[: shown_limit(run)], columns, empty=empty, total=total, bar=bar)


def rows(
    run: Run, found: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str = "nothing found",
    total: int | None = None, bar: str | None = None,
) -> None:  # fmt: skip
    """Write rows in the chosen format. `columns` are the keys, in order; `total` is the number without a limit.

    `bar` names a column of numbers that a terminal shows as bars as well. With --dry-run an outcome is written as a
    plan: `created` as `would create`.
    """
    answer: list[Row] = [dict(row) for row in found]
    if run.dry_run and "outcome" in columns:
        answer = [row | {"outcome": PLANNED.get(row["outcome"], row["outcome"])} for row in answer]
    names, style = picked(run, columns), chosen_format(run)
    with sink(run) as out:
        if style is Format.json:
            json.dump([plain({n: row[n] for n in names}) for row in answer], out, ensure_ascii=False, indent=2)
            out.write("\n")
        elif style is Format.jsonl:
            for row in answer:
                out.write(json.dumps(plain({n: row[n] for n in names}), ensure_ascii=False) + "\n")
        elif style is Format.csv:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerows([] if run.no_header else [names])
            writer.writerows([flat(row[n]) for n in names] for row in answer)
        elif style is Format.tsv:
            clean = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})  # as PostgreSQL's COPY
            lines = [] if run.no_header else [names]
            lines += [
                [cell if type(cell) is str else flat(cell) for cell in map(row.__getitem__, names)] for row in answer
            ]
            for line in lines:
                joined = "\t".join(line)
                if "\\" in joined or "\n" in joined or "\r" in joined or joined.count("\t") >= len(line):
                    joined = "\t".join(cell.translate(clean) for cell in line)
                out.write(joined + "\n")
        elif not answer:
            out.write(f"({empty})\n")
        else:
            table(run, out, answer, names, bar if out.isatty() and bar in names else None)
    if total is not None and total > len(answer):
        note(run, f"{len(answer)} of {total} rows; --all shows all")


# On a narrow screen these go first, then the others from the right; never the key or a verdict.
FOLDED = 16
FOLDABLE = (
    "course", "table", "object", "difference", "title", "locks", "email", "before", "after", "username", "name", "file",
    "detail", "request", "message",
)  # fmt: skip
FIRST_TO_GO = (
    "member",
    "status",
    "created_at",
    "target",
    "observed_at",
    "portal_rows",
    "course_rows",
    "schema_name",
    "created",
    "is_staff",
    "is_superuser",
)


def heading(name: str) -> str:
    """Return a column's heading: the key without its unit, which the values show."""
    if name == "lag_seconds":
        return "LAG TIME"
    for unit in ("_bytes", "_seconds", "_at"):
        name = name.removesuffix(unit)
    return name.replace("_", " ").upper()


def blocks(value: float, most: float, width: int) -> str:
    """Return a bar of block characters, to an eighth of a character; what is more than nothing is seen."""
    eighths = round(width * 8 * value / most) if most > 0 else 0
    full, rest = divmod(max(eighths, 1) if value > 0 else 0, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()


def table(run: Run, out: IO[str], found: list[Row], names: list[str], bar: str | None = None) -> None:
    """Write a table; on a narrow terminal some columns are hidden, and said to be. Bars take what room is left."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    screen = console(run, out)
    cells = [{n: human(n, row[n]) for n in names} for row in found]
    width = {n: max(cell_len(heading(n)), *(cell_len(line) for c in cells for line in c[n].split("\n"))) for n in names}
    hidden: list[str] = []
    # Some columns can be folded into several lines; they need this much at least.
    least = {n: min(width[n], FOLDED) if n in FOLDABLE else width[n] for n in names}
    while not run.wide and out.isatty() and sum(least[n] + 2 for n in names) > screen.width:
        droppable = [n for n in FIRST_TO_GO if n in names[1:]] or [n for n in names[:0:-1] if n not in MARKED]
        if not droppable:
            break
        names = [n for n in names if n != droppable[0]]
        hidden.append(droppable[0])
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=not run.no_header, header_style="bold")
    numbers = {
        n for n in names if all(isinstance(r[n], int | float | None) and not isinstance(r[n], bool) for r in found)
    }
    for n in names:
        grid.add_column(heading(n), justify="right" if n in numbers else "left", overflow="fold")
    room = screen.width - sum(width[n] + 2 for n in names) - 2 if bar else 0
    most = max(row[bar] for row in found) if bar else 0
    if room >= 5:
        grid.add_column("")
    for row, cell in zip(found, cells, strict=True):
        line = [Text(cell[n], style=marked(n, row[n])[1]) for n in names]
        if bar and room >= 5:
            line.append(Text(blocks(row[bar], most, min(room, 40)), style="cyan"))
        grid.add_row(*line)
    with screen.capture() as drawn:  # Rich would meet a closed pipe with exit 1
        screen.print(grid, crop=False)
    out.write(drawn.get())
    if hidden:
        note(run, f"hidden: {', '.join(reversed(hidden))}; --wide shows all columns")


def document(run: Run, content: Any, draw: Callable[[IO[str]], None]) -> None:  # noqa: ANN401
    """Write an answer that is no list of rows: JSON as it is, everything else as `draw` does it."""
    style = chosen_format(run)
    with sink(run) as out:
        if style is Format.json:
            json.dump(plain(content), out, ensure_ascii=False, indent=2)
            out.write("\n")
        elif style is Format.jsonl:
            out.write(json.dumps(plain(content), ensure_ascii=False) + "\n")
        else:
            draw(out)


def sections(run: Run, out: IO[str], parts: dict[str, Any]) -> None:
    """Write named parts below one another: a mapping as lines of name and value, rows as a table."""
    for title, part in parts.items():
        out.write(f"{title}\n")
        if isinstance(part, dict):
            pad = max(len(name) for name in part) + 2
            for name, value in part.items():
                out.write(f"  {name:<{pad}}{human(name, value)}\n")
        elif not part:
            out.write("  (none)\n")
        else:
            block = io.StringIO()
            block.isatty = out.isatty  # type: ignore[method-assign]
            table(run, block, part, list(part[0]))
            out.writelines(f"  {line.rstrip()}\n" for line in block.getvalue().splitlines())
        out.write("\n")


def text(run: Run, content: str) -> None:
    """Write text as it is, such as SQL or a sentence of verdict."""
    with sink(run) as out:
        out.write(content)


@contextmanager
def progress(run: Run, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how much more is done: a bar on a terminal, else one line each 30 s, on stderr.

    `total` None: nobody knows how much there is.
    """
    if run.quiet:
        yield lambda _: None
        return
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(run, sys.stderr), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)
        return
    state = {"done": 0, "said": time.monotonic()}

    def tell(done: int) -> None:
        state["done"] += done
        if time.monotonic() - state["said"] >= 30:
            state["said"] = time.monotonic()
            of = "" if total is None else f" of {total}"
            print(f"{label}: {state['done']}{of}", file=sys.stderr, flush=True)

    yield tell


def log_bug(run: Run, trace: str) -> Path | None:
    """Append a traceback to the log file (ROLLBOOK_LOG_FILE, else below XDG_STATE_HOME); None if that cannot be."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = Path(os.environ.get("ROLLBOOK_LOG_FILE") or state / "rollbook" / "rollbook.log")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as log:
            log.write(f"{datetime.now(UTC).isoformat()} {run.name}\n{trace}\n")
    except OSError:
        return None
    return path
