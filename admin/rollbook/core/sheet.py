"""Reading a CSV file (RFC 4180): opening, encodings, records, the header; and writing the file of rejected rows."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.files import check_writable
from rollbook.core.rows import nearest

if TYPE_CHECKING:
    from rollbook.core.command import Run

csv.field_size_limit(10_000_000)  # a goal or an address can be long; the column sets the limit
SEPARATORS = ";\t|,"  # tried when the header does not have the delimiter that was named


@dataclass(frozen=True)
class Sheet:
    """A kind of file: its columns, the required ones, those that identify a row. One of `either` is required too."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    key: tuple[str, ...]
    either: tuple[str, ...] = ()


@contextmanager
def opened(name: str, encoding: str) -> Iterator[IO[str]]:
    """Yield a file, or stdin for `-`, as text. Raises UsageError for an unreadable file or an unknown encoding."""
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
        raise UsageError(f"unknown encoding {encoding}", fix="try utf-8, utf-16, latin-1, cp1252") from exc
    except OSError as exc:
        raise UsageError(f"cannot read {name}", why=exc.strerror, fix="name another file, or - for stdin") from exc


def records(file: IO[str], run: Run, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each record, header first; the first line of the file is line 1.

    Raises RefusedError for malformed CSV or a wrong encoding. Skips empty lines.
    """
    if len(run.delimiter) != 1 or run.delimiter in '\r\n"':
        raise UsageError(
            "--delimiter must be one character, not a quote or a line end", fix="--delimiter ';', or $'\\t' for a tab"
        )
    reader = csv.reader(file, delimiter=run.delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            here, line = line, reader.line_num + 1
            if any(fields):
                yield here, fields
    except csv.Error as exc:
        raise RefusedError(
            f"line {line} of {shown(name)} is not valid CSV", why=str(exc),
            fix='quote fields that contain line ends, quotes or delimiters, and double each quote: "say ""so"""',
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
    """Return the name of a file for messages and the history: without its directory."""
    return "stdin" if name == "-" else Path(name).name


def undecodable_line(name: str, encoding: str) -> int | None:
    """Return the line of the first byte that does not decode; None for a file that cannot be read twice."""
    if name == "-" or not Path(name).is_file():
        return None
    content = Path(name).read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as exc:
        return content.count(b"\n", 0, exc.start) + 1
    return None


def guessed_encoding(name: str) -> str:
    """Return the likely encoding of a file that is not UTF-8."""
    begin = b""
    if name != "-" and Path(name).is_file():
        with Path(name).open("rb") as file:
            begin = file.read(2)
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"


def line_count(name: str) -> int | None:
    """Return the approximate number of rows of a file; None for a stream."""
    if name == "-" or not Path(name).is_file():
        return None
    with Path(name).open("rb") as file:
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
