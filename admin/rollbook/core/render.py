"""What commands write: answers to stdout in the chosen format, everything else to stderr."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rollbook.core.command import Format, Run
from rollbook.core.errors import AdminError, NotConfirmedError, UnreachableError, UsageError
from rollbook.core.output import sink
from rollbook.core.table import mapping, table
from rollbook.core.values import flat, one_line, plain, visible

if TYPE_CHECKING:
    from rollbook.core.remains import Remain

Row = dict[str, Any]

# What a dry run reports in place of an outcome.
PLANNED = {
    "activated": "would activate", "archived": "would archive", "archived and removed": "would archive and remove",
    "cancelled": "would cancel", "changed": "would change", "cleared": "would clear", "closed": "would close",
    "created": "would create", "deactivated": "would deactivate",
    "discarded": "would discard", "granted": "would grant", "moved": "would move", "opened": "would open",
    "removed": "would remove", "renamed": "would rename", "restored": "would restore", "revoked": "would revoke",
}  # fmt: skip
LIMIT_ON_TERMINAL = 100
LABELLED = re.compile(r"\s*\n\s*(?=(?:error|why|fix):)")  # what others wrote begins no line that looks like one of ours


def chosen_format(run: Run) -> Format:
    """Return the format, by an option, the file's ending, or the configuration; else table on a terminal, else tsv."""
    if run.json:
        return Format.json
    if run.csv:
        return Format.csv
    if run.format:
        return Format(run.format)
    if run.output != "-":
        return run.ending_format or run.usual_format or Format.tsv
    if run.usual_format:
        return run.usual_format
    return Format.table if sys.stdout.isatty() else Format.tsv


def wants_json(run: Run) -> bool:
    """Return whether the answer, and so an error, is JSON."""
    return chosen_format(run) in (Format.json, Format.jsonl)


def indented(value: Any, start: str = "\n") -> str:  # noqa: ANN401
    """Return json.dumps(value, indent=2), in a tenth of the time: the encoder in C takes separators, but no indent.

    `start` begins a line at the depth of the value.
    """
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not items:
        return json.dumps(value, ensure_ascii=False)
    deeper = f"{start}  "
    if not any(isinstance(item, dict | list) and item for item in items):
        text = json.dumps(value, ensure_ascii=False, separators=(f",{deeper}", ": "))
        return f"{text[0]}{deeper}{text[1:-1]}{start}{text[-1]}"
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {indented(item, deeper)}" for key, item in value.items()]
        return f"{{{deeper}{f',{deeper}'.join(parts)}{start}}}"
    return f"[{deeper}{f',{deeper}'.join(indented(item, deeper) for item in value)}{start}]"


def is_drawn(run: Run) -> bool:
    """Return whether the answer is a table on a terminal."""
    return chosen_format(run) is Format.table and run.output == "-" and sys.stdout.isatty()


def is_live(run: Run) -> bool:
    """Return whether the answers of --watch are redrawn in place: a terminal that can, without a log of statements."""
    return is_drawn(run) and os.environ.get("TERM") != "dumb" and not run.verbose


def has_screen() -> bool:
    """Return whether a person types on, and looks at, a terminal that can be drawn on."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_terminal() -> bool:
    """Return whether a person reads stderr."""
    return sys.stderr.isatty()


def note(run: Run, *lines: str) -> None:
    """Write a remark to stderr, a line for each text; nothing with --quiet."""
    if not run.quiet:
        print("\n".join(visible(one_line(line)) for line in lines), file=sys.stderr, flush=True)


def plural(count: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def error(run: Run, exc: AdminError) -> None:
    """Report an error on stderr: fact, reason and remedy, or one line of JSON where the answer is JSON."""
    fix = exc.fix
    # A right is missing: the second is Rollbook's own. A refusal is not about this program's role.
    if exc.details.get("sqlstate") in ("42501", "RB019") and isinstance(exc, UnreachableError):
        server = exc.details.get("server")
        fix = f"ask a DBA for membership in {run.needs}" + (f" on server {server}" if server else "")
    if wants_json(run):
        body = {
            "code": exc.code, "message": exc.message, "why": exc.why, "hint": fix, "exit_code": exc.exit_code,
            "details": exc.details,
        }  # fmt: skip
        print(visible(json.dumps({"error": body}, ensure_ascii=False, default=str)), file=sys.stderr)
        return
    for label, text in (("error", exc.message), ("why", exc.why), ("fix", fix)):
        if text:
            own = LABELLED.sub(" ", text)
            print(f"{label + ':':<6}", visible(own).replace("\n", "\n" + " " * 7), file=sys.stderr)


def faults(problems: Iterable[Row]) -> None:
    """Write the problems of a file to stderr, a line each: line, column, value, reason, and the file if several."""
    for row in problems:
        where = f"{row['file']} line {row['line']}" if row.get("file") else f"line {row['line']}"
        column = f", {row['column']}" if row["column"] else ""
        value = "" if row["value"] is None else f": {row['value']!r}"
        print(visible(f"{where}{column}{value}: {row['reason']}"), file=sys.stderr)


def trace(content: str) -> None:
    """Write a traceback to stderr."""
    print(visible(content), file=sys.stderr)


def confirm(run: Run, question: str) -> None:
    """Ask yes or no on the terminal. Raises NotConfirmedError on no, or without a terminal."""
    if run.yes or run.dry_run:
        return
    if run.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmedError(f"not confirmed: {question}", fix="add --yes if that is what you want")
    print(visible(f"{one_line(question)} [y/N] "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmedError("not confirmed; nothing was changed")


def secret(run: Run, question: str, *, fix: str) -> str:
    """Ask for a secret on the terminal, without an echo. Raises NotConfirmedError without a terminal."""
    if run.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmedError(f"no terminal to ask on: {question}", fix=fix)
    from getpass import getpass

    try:
        return getpass(visible(f"{question}: "), stream=sys.stderr)
    except EOFError:
        raise NotConfirmedError("no answer; nothing was changed", fix=fix) from None


# --- answers ----------------------------------------------------------------------------------------------------------


def picked(run: Run, columns: Sequence[str]) -> list[str]:
    """Return the columns that --fields selects, in its order."""
    asked = [name.strip() for name in (run.fields or "").split(",") if name.strip()]
    hidden = {name[1:] for name in asked if name.startswith("-")}
    kept = [name for name in asked if not name.startswith("-")]
    if unknown := [name for name in {*kept, *hidden} if name not in columns]:
        raise UsageError(f"unknown column {unknown[0]}", fix=f"columns: {', '.join(columns)}")
    return [name for name in kept or columns if name not in hidden]


def ordered(run: Run, rows: list[Row]) -> list[Row]:
    """Return the rows in the order of --sort; nulls are last."""
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
    with sink(run, drawn=style is Format.table) as out:
        if style is Format.json:
            found_rows = [plain({n: row[n] for n in names}) for row in answer]
            out.write(indented(found_rows) if run.watch is None else json.dumps(found_rows, ensure_ascii=False))
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
            table(run, out, answer, names, bar=bar if out.isatty() and bar in names else None)
    if total is not None and total > len(answer):
        note(run, f"{len(answer)} of {total} rows; --all shows all")


def removed(run: Run, found: Iterable[Row], columns: Sequence[str], *, empty: str = "nothing found") -> None:
    """Write removed rows. Their `remains` are a key in JSON, else a line for each place on stderr."""
    answer = list(found)
    if wants_json(run):
        public = [row | {"remains": [each.public for each in row["remains"]]} for row in answer]
        rows(run, public, (*columns, "remains"), empty=empty)
        return
    rows(run, answer, columns, empty=empty)
    remains(run, [each for row in answer for each in row["remains"]])


def remains(run: Run, found: Sequence[Remain]) -> None:
    """Write a line for each place: what remains of all removed rows together, and how it is removed."""
    places: dict[tuple[str, str], list[Remain]] = {}
    for each in found:
        places.setdefault((each.place, each.what), []).append(each)
    for (place, what), group in places.items():
        counts = [each.count for each in group if each.count is not None]
        fix = group[0].fix if len(group) == 1 else group[0].several
        number = f"{sum(counts)}, " if counts else ""
        note(run, f"remains: {place}: {number}{what}{f'; {fix}' if fix else ''}")


def document(run: Run, content: Any, draw: Callable[[IO[str]], None]) -> None:  # noqa: ANN401
    """Write an answer that is not a list of rows: JSON, or what `draw` writes."""
    style = chosen_format(run)
    with sink(run, drawn=style is Format.table) as out:
        if style is Format.json:
            found = plain(content)
            out.write(indented(found) if run.watch is None else json.dumps(found, ensure_ascii=False))
            out.write("\n")
        elif style is Format.jsonl:
            out.write(json.dumps(plain(content), ensure_ascii=False) + "\n")
        else:
            draw(out)


def sections(run: Run, out: IO[str], parts: dict[str, Any]) -> None:
    """Write named parts one below the other: a mapping as a record, rows as a table."""
    for title, part in parts.items():
        out.write(f"{title}\n")
        if isinstance(part, dict):
            mapping(run, out, part, indent=2)
        elif part:
            table(run, out, part, list(part[0]), indent=2)
        else:
            out.write("  (none)\n")
        out.write("\n")


def page(run: Run, content: str) -> None:
    """Write a page to the file of --html, or to stdout."""
    if run.html in (None, "-"):
        with sink(run) as out:
            out.write(content)
        return
    from rollbook.core.files import written  # --help needs no files

    with written(str(run.html), "--html") as file:
        file.write(content)


def text(run: Run, content: str) -> None:
    """Write a text unchanged, such as SQL or the sentence of a verdict."""
    with sink(run, drawn=chosen_format(run) is Format.table) as out:
        out.write(content)
