"""Archives of answers: zip files of the test centre with VCDC and EAC files, read and checked without the database."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rollbook.core.errors import RefusedError
from rollbook.testcentre.exchange_file import ENCODING, KEY, Kind

if TYPE_CHECKING:
    from pathlib import Path

TIME = "%Y/%m/%d %H:%M:%S"
# A member's prefix -> the kind of file that it answers, and the column of the test centre's own id.
ANSWERS: dict[str, tuple[Kind, str]] = {"vcdc-": ("cdd", "CandidateID"), "eac-": ("ead", "AuthorizationID")}
REQUIRED = ("Status", "Date", "Message")
# The answers to 100,000 records are about 10 MB.
MAX_MEMBERS = 1_000
MAX_BYTES = 64 * 1024 * 1024
LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class Answer:
    """A line of a confirmation file. `fault`: why it cannot be applied. `remark`: which part of it is ignored."""

    line: int
    key: str
    status: str
    date: datetime | None
    message: str
    number: int | None
    fault: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Member:
    """A confirmation file in an archive. `kind` is the kind of file that it answers."""

    name: str
    kind: Kind
    sha256: str
    answers: list[Answer] = field(default_factory=list)


def read_archive(path: Path) -> list[Member]:
    """Read and check a whole archive. Raises RefusedError if a member is not a valid confirmation file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return read_members(path, archive)
    except FileNotFoundError as exc:
        raise RefusedError(
            f"there is no file {path}", why=f'Input file is not a zipfile: "{path}"', fix="name an existing zip file"
        ) from exc
    except OSError as exc:
        raise RefusedError(f"cannot read {path}", why=exc.strerror or str(exc), fix="make it readable") from exc
    except zipfile.BadZipFile as exc:
        what = f'Input file is not a zipfile: "{path}"' if not zipfile.is_zipfile(path) else f"{path} is damaged"
        raise RefusedError(what, why=str(exc), fix="download it again") from exc
    except (zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError, RuntimeError) as exc:
        raise RefusedError(
            f"{path} is damaged, encrypted or uses an unsupported compression", why=str(exc), fix="download it again"
        ) from exc


def read_members(path: Path, archive: zipfile.ZipFile) -> list[Member]:
    """Read the members in their order. Names and declared sizes are checked before anything is unpacked."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise RefusedError(f"{path} has {len(infos)} members; the limit is {MAX_MEMBERS}", fix="split the archive")
    for number, info in enumerate(infos):
        if re.search(r"[/\\\x00-\x1f]", info.orig_filename) or info.filename in (".", ".."):
            raise RefusedError(
                f'the member name "{printable(info.orig_filename)}" in {path} contains a path',
                why="confirmation files are at the top of the archive",
                fix="pack them without directories",
            )
        if not info.filename.startswith(tuple(ANSWERS)):
            raise RefusedError(
                f'Unrecognized confirmation file type "{printable(info.filename)}" in confirmation zip file "{path}"',
                why="names of confirmation files start with vcdc- or eac-",
                fix="remove the other files",
            )
        if any(info.filename == other.filename for other in infos[:number]):
            raise RefusedError(f'{path} has two members "{info.filename}"', fix="download it again")
        if info.flag_bits & 1:
            raise RefusedError(f'the member "{info.filename}" in {path} is encrypted', fix="pack it without a password")
    left = MAX_BYTES
    if sum(info.file_size for info in infos) > left:
        raise too_large(path)
    members = []
    for info in infos:
        with archive.open(info) as file:
            content = file.read(left + 1)  # the declared size may be wrong
        left -= len(content)
        if left < 0:
            raise too_large(path)
        members.append(read_member(path, info.filename, content))
    return members


def too_large(path: Path) -> RefusedError:
    """Return the error for an archive whose content exceeds MAX_BYTES."""
    return RefusedError(
        f"{path} is too large when unpacked; the limit is {MAX_BYTES // 1024**2} MB", fix="split the archive"
    )


def printable(name: str) -> str:
    """Return a name without control characters, which could control a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", name)


def read_member(path: Path, name: str, content: bytes) -> Member:
    """Read a confirmation file: any order of columns, a byte order mark, Latin-1. Raises RefusedError."""
    kind, id_column = next(answered for prefix, answered in ANSWERS.items() if name.startswith(prefix))
    has_mark = content.startswith(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8-sig" if has_mark else ENCODING)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
        header = [column.strip() for column in next(lines, [])]
        for column in (KEY[kind], *REQUIRED):
            if header.count(column) != 1:
                raise RefusedError(
                    f'"{name}" in {path} has {"no" if column not in header else "two"} column {column}',
                    why=f"the header is: {printable(', '.join(header))[:200]}",
                    fix="ask Pearson for the file again",
                )
        found = []
        for row in lines:
            if any("\n" in field or "\r" in field for field in row):  # it contains the answers that follow
                raise RefusedError(
                    f'"{name}" in {path} has an unclosed quote before line {lines.line_num}',
                    fix="ask Pearson for the file again, or close the quote",
                )
            if "".join(row).strip():
                found.append(read_answer(kind, header, lines.line_num, row, id_column))
    except (csv.Error, UnicodeDecodeError) as exc:
        raise RefusedError(f'"{name}" in {path} cannot be read', why=str(exc), fix="ask Pearson for it again") from exc
    return Member(name, kind, hashlib.sha256(content).hexdigest(), found)


def read_answer(kind: Kind, header: list[str], number: int, row: list[str], id_column: str) -> Answer:
    """Return one line of a confirmation file, with the fault that the file alone shows."""
    values = {name: value.replace("\x00", "").strip() for name, value in zip(header, row, strict=False)}
    key, status, message = (values.get(name, "") for name in (KEY[kind], "Status", "Message"))
    given, their_id, date, fault, remark = values.get("Date", ""), None, None, "", ""
    if len(row) != len(header):
        fault = f"{len(row)} fields, the header has {len(header)}"
    elif not key and status == "Error":
        fault = f"Error in {kind.upper()} file processing ({given}): {message}"
    elif not key:
        fault = f"Encountered bad record: {' '.join(row)}"[:200]
    elif status not in ("Accepted", "Error"):
        fault = f'the status "{status}" is neither Accepted nor Error'
    try:
        date = datetime.strptime(given, TIME).replace(tzinfo=UTC)
        if date > datetime.now(UTC) + timedelta(days=1):  # every later answer would look older
            fault, date = fault or f'the date "{given}" is in the future', None
    except ValueError:
        fault = fault or f'the date "{given}" is not in the format YYYY/MM/DD HH:MM:SS'
    if text := values.get(id_column, ""):
        if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID:
            their_id = int(text)
        else:
            remark = f'{id_column} "{text[:50]}" is not a valid number and was ignored'
    return Answer(number, key, status, date, message, their_id, fault, remark)
