"""Reading a file of rows, which is CSV (RFC 4180), perhaps packed by gzip, or an .xlsx workbook."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rollbook.core import render
from rollbook.core.command import Run
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.file_kind import (
    BEGIN,
    GZIP,
    MARKS,
    OLE,
    ZIP,
    Rejoined,
    check_markup,
    check_ole,
    check_text,
    workbook_file,
)  # fmt: skip
from rollbook.core.files import check_writable
from rollbook.core.rows import nearest
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    from rollbook.core.workbook import Fault, Workbook

csv.field_size_limit(10_000_000)  # a goal or an address can be long; the column sets the limit
BLOCK = 1 << 16  # bytes that are read at once
SEPARATOR_LINE = re.compile('sep=([^"\r\n])', re.IGNORECASE)  # Excel's first line
SEPARATORS = ";\t|,"  # tried when the header does not have the delimiter that was named


@dataclass(frozen=True)
class Sheet:
    """A kind of file: its columns, the required ones, those that identify a row. One of `either` is required too."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    key: tuple[str, ...]
    either: tuple[str, ...] = ()


@contextmanager
def opened(name: str, encoding: str) -> Iterator[io.TextIOWrapper | Workbook]:
    """Yield a file, or stdin for `-`, as text, or as a workbook if its content is one; what gzip wrote is unpacked.

    A byte order mark says more than `encoding`. Raises UsageError for an unreadable file, an empty one, or an unknown
    encoding; RefusedError for a file that is something else.
    """
    try:
        "".encode(encoding)
        with raw(name) as content:
            yield from read(content, encoding, name)
    except LookupError as exc:
        raise UsageError(f"unknown encoding {encoding}", fix="try utf-8, utf-16, latin-1, cp1252") from exc
    except IsADirectoryError as exc:
        is_bundle = (Path(name) / "manifest.csv").is_file()
        fix = f"rollbook user import --oneroster {quoted(name)}" if is_bundle else "name a file in it"
        raise UsageError(f"{name} is a directory", why="a OneRoster bundle" if is_bundle else None, fix=fix) from exc
    except OSError as exc:
        raise UsageError(f"cannot read {name}", why=exc.strerror, fix="name another file, or - for stdin") from exc


@contextmanager
def raw(name: str) -> Iterator[IO[bytes]]:
    """Yield the bytes of a file, or of stdin for `-`, which stays open. Raises OSError."""
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def read(
    content: IO[bytes], encoding: str, name: str, *, packed: bool = False
) -> Iterator[io.TextIOWrapper | Workbook]:
    """Yield once, as `opened` does. `packed`: gzip has been unpacked."""
    with damaged(name):
        begin = content.read(BEGIN)
    stream = io.BufferedReader(Rejoined(begin, content, shown(name)), BLOCK)
    if not begin:
        raise UsageError(f"{shown(name)} is empty", fix="export it again; the first line is the header")
    if begin.startswith(GZIP) and not packed:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield from read(unpacked, encoding, name, packed=True)  # type: ignore[arg-type]
        return
    if begin.startswith(OLE):
        check_ole(stream, shown(name))
    if begin.startswith(ZIP):
        from rollbook.core.workbook import Workbook  # zipfile costs start-up time

        with damaged(name):
            file = workbook_file(stream, shown(name))
        with file:
            yield Workbook(file, shown(name))
        return
    skipped = stream.read(len(codecs.BOM_UTF8)) if begin.startswith(codecs.BOM_UTF8) else b""
    begin = begin.removeprefix(skipped)  # what follows may still be what --encoding says
    mark = next((mark for mark in MARKS if begin.startswith(mark)), None)
    if mark is None:
        check_text(begin, encoding, shown(name))
    encoding = MARKS[mark] if mark else encoding
    check_markup(begin.decode(encoding, "ignore"), shown(name))
    if name != "-" and not packed and content.seekable():  # the plain file is faster, and its size bounds a line
        content.seek(len(skipped))
        yield io.TextIOWrapper(content, encoding=encoding, newline="")
    else:
        yield io.TextIOWrapper(stream, encoding=encoding, newline="")


@contextmanager
def damaged(name: str) -> Iterator[None]:
    """Raise RefusedError for a file of gzip that is cut off or damaged."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise RefusedError(
            f"{shown(name)} is cut off" if isinstance(exc, EOFError) else f"{shown(name)} is damaged", why=str(exc),
            fix="copy it again" if name == "-" else f"copy it again; gzip -t {quoted(name)} checks it",
        ) from exc  # fmt: skip


class Records:
    """Line number and fields of each record; `faults` are those of a workbook's cells, complete after the last one."""

    def __init__(self, rows: Iterator[tuple[int, list[str]]], workbook: Workbook | None = None) -> None:
        """Take the rows, and the workbook that they come from."""
        self.rows = rows
        self.workbook = workbook

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Return the rows that are left."""
        return self.rows

    def __next__(self) -> tuple[int, list[str]]:
        """Return the next row."""
        return next(self.rows)

    @property
    def faults(self) -> list[Fault]:
        """Return what is wrong in the cells that were read."""
        return self.workbook.faults if self.workbook else []


def records(file: io.TextIOWrapper | Workbook, run: Run, name: str) -> Records:
    """Return the line number and fields of each record, header first; the first line of the file is line 1.

    Raises RefusedError for malformed CSV or a wrong encoding. Skips empty lines. The line of a workbook is its row.
    """
    if isinstance(file, io.TextIOWrapper):
        return Records(csv_rows(file, run, name))
    return Records(sheet_rows(file, run), file)


def sheet_rows(workbook: Workbook, run: Run) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a workbook's sheet; report which sheet it is, if others have rows too."""
    rows = workbook.rows()
    yield from islice(rows, 1)
    if run.rejects is None and (run.delimiter, run.encoding) != (Run.delimiter, Run.encoding):
        render.note(run, "--delimiter and --encoding are not used for a workbook")
    if workbook.sheet and workbook.unread:
        render.note(run, f"read the sheet {workbook.sheet.title!r}, not {', '.join(map(repr, workbook.unread))}")
    yield from rows


def csv_rows(file: io.TextIOWrapper, run: Run, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each record of a CSV file."""
    if len(run.delimiter) != 1 or run.delimiter in '\r\n"':
        raise UsageError(
            "--delimiter must be one character, not a quote or a line end", fix="--delimiter ';', or $'\\t' for a tab"
        )
    line = 1
    try:
        with damaged(name):
            reader, begin = csv.reader(file, delimiter=run.delimiter, strict=True), 1
            first = next(reader, [])
            if named := SEPARATOR_LINE.fullmatch(run.delimiter.join(first)):
                reader, begin, line = csv.reader(file, delimiter=named[1], strict=True), 2, 2
            else:
                line = reader.line_num + 1
                if any(first):
                    yield 1, first
            for fields in reader:
                here, line = line, reader.line_num + begin
                if any(fields):
                    yield here, fields
    except csv.Error as exc:
        raise RefusedError(
            f"line {line} of {shown(name)} is not valid CSV", why=str(exc),
            fix='quote fields that contain line ends, quotes or delimiters, and double each quote: "say ""so"""',
        ) from exc  # fmt: skip
    except UnicodeError as exc:
        encoding = file.encoding.removesuffix("-sig")
        where = undecodable_line(name, file.encoding) or f"{line} or soon after"
        raise RefusedError(
            f"{shown(name)} is not {encoding}, at line {where}", why=getattr(exc, "reason", str(exc)),
            fix=f"name its encoding: --encoding {guessed_encoding(name, encoding)}",
        ) from exc  # fmt: skip


def shown(name: str) -> str:
    """Return the name of a file for messages and the history: without its directory."""
    return "stdin" if name == "-" else Path(name).name


def undecodable_line(name: str, encoding: str) -> int | None:
    """Return the line of the first byte that does not decode; None without one, or if it cannot be read twice."""
    if name == "-" or not Path(name).is_file():
        return None
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 0
    with raw(name) as packed:
        is_packed = packed.read(len(GZIP)) == GZIP
        packed.seek(0)
        content = gzip.GzipFile(fileobj=packed) if is_packed else packed
        for block in iter(lambda: content.read(BLOCK), b""):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as exc:
                pending = exc.object[: -len(block)]
                return lines + exc.object.count(b"\n", 0, exc.start) - pending.count(b"\n") + 1
            except UnicodeError:  # utf-16 without its mark
                return 1
            lines += block.count(b"\n")
    return None


def guessed_encoding(name: str, tried: str) -> str:
    """Return the likely encoding of a file that is not in the one that was tried."""
    others = [other for other in ("utf-8", "cp1252", "latin-1") if other != codecs.lookup(tried).name]
    if name == "-":
        return "cp1252" if "cp1252" in others and "utf-8" not in others else "latin-1"
    return next(other for other in others if undecodable_line(name, other) is None)


def line_count(name: str) -> int | None:
    """Return the approximate number of rows of a file; None for a stream, and for what is packed."""
    if name == "-" or not Path(name).is_file():
        return None
    with raw(name) as file:
        if file.read(len(ZIP)).startswith((GZIP, ZIP)):
            return None
        file.seek(0)
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)


def checked_header(sheet: Sheet, found: Sequence[str] | None, delimiter: str = ",") -> list[str]:
    """Return the column names. Raises UsageError for unknown, repeated and missing ones, before any row is read."""
    expected = f"columns: {', '.join(sheet.columns)}"
    if not found:
        raise UsageError("the file has no header", fix=expected)
    names = [name.strip() for name in found]
    if len(names) == 1 and names[0] not in sheet.columns:
        for other in SEPARATORS.replace(delimiter, ""):
            if other in names[0]:
                shell = "$'\\t'" if other == "\t" else f"'{other}'"
                raise UsageError(
                    f"the header has no {delimiter!r}, but {other!r}", why="that seems to be the delimiter",
                    fix=f"add --delimiter {shell}",
                )  # fmt: skip
    for position, name in enumerate(names, start=1):
        if not name:
            raise UsageError(f"column {position} has no name", fix=expected)
        if name not in (*sheet.columns, "line", "error"):  # the last two come from a corrected file of rejects
            raise UsageError(
                f"unknown column {clipped(name)!r}", why=nearest(name.lower(), sheet.columns), fix=expected
            )
        if names.count(name) > 1:
            raise UsageError(f"column {name} appears twice", fix=expected)
    if missing := [name for name in sheet.required if name not in names]:
        several = "columns {} are" if len(missing) > 1 else "column {} is"
        raise UsageError(f"the {several.format(', '.join(missing))} missing", fix=expected)
    if sheet.either and not {*sheet.either} & {*names}:
        raise UsageError(f"the file needs a column {' or '.join(sheet.either)}", fix=expected)
    return names


def clipped(text: str, length: int = 60) -> str:
    """Return a text short enough for a message."""
    return text if len(text) <= length else text[: length - 1] + "…"


def check_rejects(run: Run, name: str) -> None:
    """Raise UsageError, before any work, for a file of rejects that cannot be written or is the input."""
    if run.rejects is None:
        return
    target = Path(run.rejects)
    if target.exists() and Path(name).exists() and target.samefile(name):
        raise UsageError("--rejects names the input file", fix="name another file")
    check_writable(run.rejects, "--rejects")
