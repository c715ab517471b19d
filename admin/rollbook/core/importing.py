r"""Files of rows, and the one place where such a file is imported.

CSV as RFC 4180 has it is read, checked for form, and COPYed into a temporary table to work on. What a row means is
SQL's to judge: it finds the wrong rows of `pg_temp.staged` and notes them in `pg_temp.problem`. What was done to each
row ends up in `pg_temp.outcome`. A blank field leaves a value alone; `\N` stands for null.
"""

from __future__ import annotations

import codecs
import csv
import gc
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core import history, render
from rollbook.core.command import Format, OnError
from rollbook.core.errors import PartialError, RefusedError, UsageError
from rollbook.core.rows import Row, nearest, one

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

csv.field_size_limit(10_000_000)  # a goal or an address can be long; the column decides
SEPARATORS = ";\t|,"  # what programs write between fields, when it is not what was named
SHOWN_VALUE = 200  # characters of a wrong value that are shown
ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})  # as COPY reads them
BATCH = 1000  # rows between two words of progress

# A client that is gone ends its work on the server as well. The memory is for joining a large file in one go.
SETTINGS = """
set local client_connection_check_interval = '1s';
set local work_mem = '64MB';
set local hash_mem_multiplier = 2
"""

TABLES: LiteralString = """
create temporary table problem (line integer, column_name text, value text, reason text, file text) on commit drop;
create temporary table outcome (line integer, outcome text, detail text, file text) on commit drop;
create temporary table normal (line integer, email text) on commit drop
"""

PROBLEMS = """
select p.line, p.column_name as "column", left(p.value, %s) as value, p.reason, p.file
from pg_temp.problem as p order by p.file nulls first, p.line, p.column_name, p.reason
"""

# With skip, what was rejected is an outcome too. Before `drop_problem_rows`.
REJECTED = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    p.line, 'rejected', string_agg(concat_ws(': ', p.column_name, p.reason), '; ' order by p.column_name, p.reason),
    p.file
from pg_temp.problem as p group by p.file, p.line
"""


# Addresses of this form are right as they stand, and need no more looking at.
ODD_EMAILS = r"""
select s.line, s.email
from pg_temp.staged as s
where s.email <> '\N' and not (
        length(s.email) <= 64
        and s.email ~ '^[A-Za-z0-9_+-]+(?:[.][A-Za-z0-9_+-]+)*@(?:[a-z0-9]+(?:-[a-z0-9]+)*[.])+[a-z][a-z]+$'
        and split_part(s.email, '.', -1) <> all(%s)
    ) and not exists (select from pg_temp.problem as p where p.line = s.line and p.file is null)
"""


@dataclass(frozen=True)
class Sheet:
    """What a kind of file holds: the columns that are read, those that must be there, and those that name a row."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    key: tuple[str, ...]


@dataclass(frozen=True)
class Staged:
    """A file that stands in pg_temp.staged: its columns, as the header has them, and how many rows."""

    header: list[str]
    rows: int


@dataclass(frozen=True)
class Import:
    """A kind of import: its sheet, what finds the wrong rows, what applies the others, and what the answer shows.

    `check` notes in pg_temp.problem every rule that a row would break, and may lock what it has looked at. `apply`
    writes, and notes in pg_temp.outcome what it did: created, changed, removed or unchanged. Imports with the same
    `turn` wait for each other, so that none finds out too late that the other was first.
    """

    sheet: Sheet
    turn: str
    check: Callable[[Conn, Staged], None]
    apply: Callable[[Conn, Staged], None]
    columns: tuple[str, ...]
    stage: Callable[[Conn, Run, Sheet, str, Callable[[int], None]], Staged] | None = None
    file: str | None = None  # which of several files the staged rows are from


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(name: str, encoding: str) -> Iterator[IO[str]]:
    """Yield a file, or stdin for `-`, as text. Raises UsageError if it cannot be read, or the encoding is unknown."""
    try:
        "".encode(encoding)
        if name == "-":
            text = io.TextIOWrapper(sys.stdin.buffer, encoding=encoding, newline="")
            try:
                yield text
            finally:
                text.detach()  # or stdin would be closed with it
        else:
            with Path(name).open(encoding=encoding, newline="") as file:
                yield file
    except LookupError as exc:
        raise UsageError(f"{encoding} is no encoding", fix="try utf-8, utf-16, latin-1, cp1252") from exc
    except OSError as exc:
        raise UsageError(f"cannot read {name}", why=exc.strerror, fix="name another file, or - for stdin") from exc


def records(file: IO[str], run: Run, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line and fields of each record, the header first. Lines are those of the file, which begins with line 1.

    Raises RefusedError for what is no CSV, or not in its encoding. Empty lines are none.
    """
    if len(run.delimiter) != 1 or run.delimiter in '\r\n"':
        raise UsageError("--delimiter is one character, and no quote", fix="--delimiter ';', or $'\\t' for a tab")
    reader = csv.reader(file, delimiter=run.delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            here, line = line, reader.line_num + 1
            if any(fields):
                yield here, fields
    except csv.Error as exc:
        raise RefusedError(
            f"line {line} of {shown(name)} is no CSV", why=str(exc),
            fix='quote a field with line ends, quotes or delimiters, and double each quote in it: "say ""so"""',
        ) from exc  # fmt: skip
    except UnicodeDecodeError as exc:
        where = undecodable_line(name, run.encoding) or f"{line} or soon after"
        raise RefusedError(
            f"{shown(name)} is not {run.encoding.removesuffix('-sig')}, at line {where}", why=exc.reason,
            fix=f"name its encoding: --encoding {guessed_encoding(name)}",
        ) from exc  # fmt: skip
    except UnicodeError as exc:  # utf-16 without its mark
        raise RefusedError(f"{shown(name)} is not {run.encoding}", why=str(exc), fix="name its --encoding") from exc


def shown(name: str) -> str:
    """Return how a file is called in messages and in the history: without its folders."""
    return "stdin" if name == "-" else Path(name).name


def undecodable_line(name: str, encoding: str) -> int | None:
    """Return the line of the first byte that is not in the encoding; None where it cannot be read again."""
    if name == "-" or not Path(name).is_file():
        return None
    content = Path(name).read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as exc:
        return content.count(b"\n", 0, exc.start) + 1
    return None


def guessed_encoding(name: str) -> str:
    """Return what a file that is not UTF-8 is likely to be in."""
    begin = b""
    if name != "-" and Path(name).is_file():
        with Path(name).open("rb") as file:
            begin = file.read(2)
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"


def line_count(name: str) -> int | None:
    """Return about how many rows a file has; None for a stream."""
    if name == "-" or not Path(name).is_file():
        return None
    with Path(name).open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)


def checked_header(sheet: Sheet, found: Sequence[str] | None, delimiter: str = ",") -> list[str]:
    """Return the header's names. Raises UsageError for unknown, double and missing ones, before any row is read."""
    expected = f"columns: {', '.join(sheet.columns)}"
    if not found:
        raise UsageError("the file has no header", fix=expected)
    names = [name.strip() for name in found]
    if len(names) == 1 and names[0] not in sheet.columns:
        for other in SEPARATORS.replace(delimiter, ""):
            if other in names[0]:
                shell = "$'\\t'" if other == "\t" else f"'{other}'"
                raise UsageError(
                    f"the header has no {delimiter!r}, but {other!r}", why="fields seem to be separated by that",
                    fix=f"add --delimiter {shell}",
                )  # fmt: skip
    for position, name in enumerate(names, start=1):
        if not name:
            raise UsageError(f"column {position} has no name", fix=expected)
        if name not in (*sheet.columns, "line", "error"):  # the last two: a file of rejects, corrected
            raise UsageError(
                f"there is no column {clipped(name)!r}", why=nearest(name.lower(), sheet.columns), fix=expected
            )
        if names.count(name) > 1:
            raise UsageError(f"the column {name} is there twice", fix=expected)
    if missing := [name for name in sheet.required if name not in names]:
        several = "columns {} are" if len(missing) > 1 else "column {} is"
        raise UsageError(f"the {several.format(', '.join(missing))} missing", fix=expected)
    return names


def clipped(text: str, length: int = 60) -> str:
    """Return a text that fits into a message."""
    return text if len(text) <= length else text[: length - 1] + "…"


def stage(conn: Conn, run: Run, sheet: Sheet, name: str, advance: Callable[[int], None]) -> Staged:
    """Read a file into pg_temp.staged: line, and a text column for each of the sheet's.

    `advance` is told how many rows more are in. Raises UsageError for a file that cannot be read or has no good
    header, RefusedError for one that is no CSV or not in its encoding.
    """
    with opened(name, run.encoding) as file:
        found = records(file, run, name)
        _, first = next(found, (1, None))
        header = checked_header(sheet, first, run.delimiter)
        return load(conn, "staged", sheet.columns, header, found, advance=advance, analyzed=sheet.key)


def load(
    conn: Conn, table: LiteralString, columns: Sequence[str], header: list[str], rows: Iterator[tuple[int, list[str]]],
    *, advance: Callable[[int], None] = lambda _: None, file: str | None = None, analyzed: Sequence[str] = (),
) -> Staged:  # fmt: skip
    """COPY records into a new temporary table with these columns; what the header has besides is passed over.

    `analyzed` are the columns that rows are found by, if not all. A record with too few or too many fields, or with a
    NUL, is a problem, and stands there as far as it can.
    """
    typed = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(column)) for column in columns)
    place = sql.Identifier(table)
    conn.execute(sql.SQL("create temporary table {} (line integer, {}) on commit drop").format(place, typed))
    kept = [index for index, column in enumerate(header) if column in columns]
    listed = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(header[index])) for index in kept)
    wrong: list[tuple[int, str, str | None]] = []
    count = 0
    batch: list[str] = []
    statement = sql.SQL("copy pg_temp.{} (line{}) from stdin (null '')").format(place, listed)
    with conn.cursor().copy(statement) as copy:
        for line, fields in rows:
            values = fields
            if len(fields) != len(header):
                wrong.append((line, f"{len(fields)} fields, the header has {len(header)}", file))
                values = [*fields, *[""] * len(header)]  # what is there goes to the rejects
            if "\x00" in "".join(values):
                wrong.append((line, "a NUL character, which cannot be stored", file))
                values = [value.replace("\x00", "") for value in values]
            batch.append(copy_line(line, [values[index] for index in kept]))
            count += 1
            if count % BATCH == 0:
                copy.write("".join(batch))
                batch.clear()
                advance(BATCH)
        copy.write("".join(batch))
    conn.cursor().executemany("insert into pg_temp.problem (line, reason, file) values (%s, %s, %s)", wrong)
    found = sql.SQL(", ").join(map(sql.Identifier, ("line", *(analyzed or columns))))
    conn.execute(sql.SQL("analyze pg_temp.{} ({})").format(place, found))
    return Staged([header[index] for index in kept], count)


def copy_line(line: int, values: list[str]) -> str:
    """Return a record in COPY's text format; an empty value is null."""
    text = "\t".join(values)
    if "\\" in text or "\n" in text or "\r" in text or text.count("\t") >= len(values):
        text = "\t".join(value.translate(ESCAPED) for value in values)
    return f"{line}\t{text}\n"


# --- what is wrong ----------------------------------------------------------------------------------------------------


def problems(conn: Conn) -> list[Row]:
    """Return what is wrong: line column value reason (and file, where there are several), by line."""
    found = conn.execute(PROBLEMS, [SHOWN_VALUE]).fetchall()
    if not any(row["file"] for row in found):
        for row in found:
            del row["file"]
    return found


def check_emails(conn: Conn, but: LiteralString = "") -> None:
    """Note in pg_temp.problem what is no address, as `user create` judges, and in pg_temp.normal its normal form.

    `but` is a further condition on the rows `s` that are looked at.
    """
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    for row in conn.execute(ODD_EMAILS + but, [list(SPECIAL_USE_DOMAIN_NAMES)]).fetchall():
        try:
            address = validate_email(row["email"], check_deliverability=False).normalized
        except EmailNotValidError as exc:
            conn.execute(
                "insert into pg_temp.problem (line, column_name, value, reason) values (%s, 'email', %s, %s)",
                [row["line"], row["email"], f"this is not an e-mail address: {exc}"],
            )
        else:
            if address != row["email"]:
                conn.execute("insert into pg_temp.normal values (%s, %s)", [row["line"], address])


def normalise_emails(conn: Conn) -> None:
    """Let the good rows have the normal form of their addresses; wrong ones are told as they were."""
    if one(conn, "select exists (select from pg_temp.normal) as yes")["yes"]:
        conn.execute("update pg_temp.staged as s set email = n.email from pg_temp.normal as n where n.line = s.line")


def drop_problem_rows(conn: Conn, file: str | None = None) -> None:
    """Take the rows with problems out of pg_temp.staged, which is of this file, if there are several."""
    conn.execute(
        "delete from pg_temp.staged as s using pg_temp.problem as p "
        "where p.line = s.line and p.file is not distinct from %s",
        [file],
    )


def write_rejects(conn: Conn, staged: Staged, run: Run) -> None:
    """Write the wrong rows, as they were, with line and error, into a file of the user's alone.

    In the file's delimiter and encoding, so that it is fed back with the same options. Before `drop_problem_rows`.
    """
    assert run.rejects is not None  # noqa: S101 (the caller's question)
    columns = sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(column)) for column in staged.header)
    rows = conn.execute(sql.SQL(
        "select {}, p.line, string_agg(concat_ws(': ', p.column_name, p.reason), '; ' order by p.column_name) as error "
        "from pg_temp.problem as p left join pg_temp.staged as s on s.line = p.line where p.file is null "
        "group by {}, p.line order by p.line"
    ).format(columns, columns)).fetchall()  # fmt: skip
    encoding = run.encoding.removesuffix("-sig")
    with written(run.rejects, encoding) as file:
        writer = csv.writer(file, delimiter=run.delimiter, lineterminator="\r\n")
        writer.writerow([*staged.header, "line", "error"])
        writer.writerows([row.get(column) for column in (*staged.header, "line", "error")] for row in rows)


@contextmanager
def written(name: str, encoding: str) -> Iterator[IO[str]]:
    """Yield a file to write, of the user's alone. Raises UsageError."""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as exc:
        raise UsageError(f"cannot write {name}", why=exc.strerror, fix="name another file with --rejects") from exc
    with os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace", newline="") as file:
        yield file


def check_rejects(run: Run, name: str) -> None:
    """Raise UsageError, before anything is done, for a file of rejects that cannot be written, or is the input."""
    if run.rejects is None:
        return
    target = Path(run.rejects)
    if target.exists() and Path(name).exists() and target.samefile(name):
        raise UsageError("--rejects names the file that is read", fix="name another file")
    if target.is_dir() or not os.access(target if target.exists() else target.absolute().parent, os.W_OK):
        raise UsageError(f"cannot write {run.rejects}", fix="name another file with --rejects")


# --- an import --------------------------------------------------------------------------------------------------------


def take_turn(conn: Conn, run: Run, turn: str, what: str = "import") -> None:
    """Wait until no other import (or what it is) of the kind runs; until this transaction ends the next one waits."""
    if one(conn, "select pg_try_advisory_xact_lock(hashtext(%s)) as ours", [turn])["ours"]:
        return
    render.note(run, f"another {what} is running; waiting for its end")
    conn.execute("select pg_advisory_xact_lock(hashtext(%s))", [turn])


def begin(conn: Conn) -> None:
    """Make ready for an import, in the transaction that will do all of it."""
    conn.execute(SETTINGS)
    conn.execute(TABLES)


def judged(conn: Conn, run: Run, staged: Staged) -> int:
    """Report what is wrong, write the rejects, and leave the good rows in pg_temp.staged; return how many were wrong.

    Raises RefusedError with all that is wrong, unless --on-error says skip.
    """
    found = problems(conn)
    if run.rejects is not None:
        write_rejects(conn, staged, run)
    if not found:
        return 0
    count = len({(row.get("file"), row["line"]) for row in found})
    wrong = f"{render.plural(count, 'row')} of {staged.rows} {'is' if count == 1 else 'are'} wrong"
    if not render.wants_json(run):
        render.faults(found)
    if run.on_error is OnError.abort:
        fix = "correct them" if run.rejects is None else f"correct {run.rejects}"
        raise RefusedError(
            f"{wrong}; nothing was changed", fix=f"{fix}, or apply the others with --on-error skip", problems=found
        )
    partial = PartialError(f"{wrong}, and skipped", fix=f"correct {run.rejects or 'them'}, and import that")
    partial.details["problems"] = found
    render.error(run, partial)
    conn.execute(REJECTED)
    return count


@contextmanager
def uncollected() -> Iterator[None]:
    """Let the garbage collector rest: it would look through every row again and again, and find nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@uncollected()
def imported(run: Run, kind: Import, name: str | None) -> int:
    """Import a file (`-`: stdin), all or nothing unless --on-error says skip, and return the exit code.

    Raises UsageError (no file, a bad header), RefusedError (wrong content; nothing was changed).
    """
    if run.template:
        render.text(run, run.delimiter.join(kind.sheet.columns) + "\n")
        return 0
    if name is None:
        raise UsageError("no file named", fix="name a file, or - for stdin; --template prints its header")
    check_rejects(run, name)
    with run.connect() as conn:
        begin(conn)
        with render.progress(run, run.verb, line_count(name)) as advance:
            staged = (kind.stage or stage)(conn, run, kind.sheet, name, advance)
        take_turn(conn, run, kind.turn)
        kind.check(conn, staged)
        rejected = judged(conn, run, staged)
        rows = outcomes(conn, kind) if rejected else []
        drop_problem_rows(conn, kind.file)
        normalise_emails(conn)
        conn.execute("delete from pg_temp.outcome")
        kind.apply(conn, staged)
        rows += outcomes(conn, kind)
        counts = Counter(row["outcome"] for row in rows)
        if counts.keys() - {"unchanged", "rejected"}:
            history.record(conn, run, shown(name), "imported", after=dict(counts), course_id=only_course(rows))
    rows.sort(key=lambda row: (row["file"] != kind.file, row["file"] or "", row["line"]))
    report(run, rows, kind.columns, counts)
    return PartialError.exit_code if rejected else 0


def outcomes(conn: Conn, kind: Import) -> list[Row]:
    """Return the rows that have an outcome by now: line, the sheet's key, outcome, detail."""
    keys = sql.SQL(", ").join(
        sql.SQL("s.{} as {}").format(sql.Identifier(key), sql.Identifier("course" if key == "course_id" else key))
        for key in kind.sheet.key
    )
    return conn.execute(
        sql.SQL(
            "select o.line, o.file, {}, o.outcome, o.detail from pg_temp.outcome as o "
            "left join pg_temp.staged as s on s.line = o.line and o.file is not distinct from {}"
        ).format(keys, sql.Literal(kind.file))
    ).fetchall()


def only_course(rows: Sequence[Row]) -> str | None:
    """Return the course, if all rows are of one."""
    found = {row["course"] for row in rows if "course" in row}
    return found.pop() if len(found) == 1 else None


def report(run: Run, rows: list[Row], columns: Sequence[str], counts: Counter[str]) -> None:
    """Write what was done to each row, and how many there were of each kind."""
    limit = render.LIMIT_ON_TERMINAL if render.chosen_format(run) is Format.table else None
    render.rows(run, rows[:limit], columns, empty="no rows: nothing to do")
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no rows"
    render.note(run, f"{words}; dry run: nothing was changed" if run.dry_run else words)
