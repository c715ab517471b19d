"""The exchange files of Pearson VUE: tab separated lines in Latin-1, and the zip archives of their answers.

Nothing here knows the database. Formats: CDD (candidates) and EAD (authorizations) go out, VCDC and EAC come back.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import lzma
import os
import re
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Literal

from rollbook.core.errors import RefusedError

Kind = Literal["cdd", "ead"]

ENCODING = "iso-8859-1"
TIME = "%Y/%m/%d %H:%M:%S"
NOT_LATIN_1 = "Must only use characters in Latin-1 (iso-8859-1) encoding"

# A member's prefix -> the kind of file that it answers, and the columns of our id and of theirs.
ANSWERS: dict[str, tuple[Kind, str, str]] = {
    "vcdc-": ("cdd", "ClientCandidateID", "CandidateID"),
    "eac-": ("ead", "ClientAuthorizationID", "AuthorizationID"),
}
NEEDED = ("Status", "Date", "Message")
# The answers to 100,000 records are about 10 MB; what is far more is no answer.
MAX_MEMBERS = 1_000
MAX_BYTES = 64 * 1024 * 1024
LARGEST_ID = 2**31 - 1
CHUNK = 1024 * 1024


# --- files that go out ------------------------------------------------------------------------------------------------


class Outgoing:
    """A file on its way into a folder: written under a hidden name, flushed to the disk, renamed at the end.

    The hidden file is made exclusively, so that of two programs that choose the same name one takes the next; it is
    locked while its writer lives, so that what a killed program left is known as such, and removed.
    """

    def __init__(self, folder: Path, kind: Kind, at: datetime, taken: set[str]) -> None:
        self.folder, self.kind = folder, kind
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self.name, self.aside, self._file = self._open(at, taken)
        except OSError as exc:
            raise RefusedError(
                f"cannot write into {folder}", why=exc.strerror, fix="name a folder that you may write to with -o"
            ) from exc
        self._hash = hashlib.sha256()

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(f".{self.kind}-*.dat.part"):
            with suppress(OSError), path.open("rb") as left:  # its writer lives, or it is not ours to remove
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def _open(self, at: datetime, taken: set[str]) -> tuple[str, Path, IO[bytes]]:
        for number in range(1, 10_000):
            name = file_name(self.kind, at, number)
            aside = self.folder / f".{name}.part"
            if name in taken or (self.folder / name).exists():
                continue
            try:
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (self.folder / name).exists():  # its writer was done between the two looks
                os.close(descriptor)
                aside.unlink()
                continue
            return name, aside, os.fdopen(descriptor, "wb", CHUNK)
        raise RefusedError(f"{self.folder} holds ten thousand files of one second")

    def write(self, line: bytes) -> None:
        """Add bytes to the file."""
        self._hash.update(line)
        self._file.write(line)

    def settle(self) -> str:
        """Flush the content to the disk, still under the hidden name; return its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def publish(self) -> Path:
        """Give the file its name, for good: the folder is flushed as well."""
        path = self.folder / self.name
        self.aside.rename(path)
        self._file.close()
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path

    def discard(self) -> None:
        """Leave nothing of a file that has not been published."""
        self.aside.unlink(missing_ok=True)
        self._file.close()


def file_name(kind: Kind, at: datetime, number: int = 1) -> str:
    """Return `cdd-YYYYMMDD-HHMMSS.dat` in UTC; of the second file of a second `-2` before the dot."""
    more = "" if number == 1 else f"-{number}"
    return f"{kind}-{at.astimezone(UTC):%Y%m%d-%H%M%S}{more}.dat"


def line(copied: bytes | bytearray | memoryview) -> bytes:
    """Return a line of PostgreSQL's COPY (CSV, UTF-8, ended by a line feed) as Pearson reads it.

    Only the end of the line changes: a line feed inside a quoted value stays. Raises UnicodeEncodeError.
    """
    text = bytes(copied)
    if text.isascii():
        return text[:-1] + b"\r\n"
    return text[:-1].decode().encode(ENCODING) + b"\r\n"


def why_not(header: bytes, copied: bytes) -> tuple[dict[str, str], str]:
    """Return a record's values by column, and which of them are outside Latin-1."""
    names, values = csv.reader([header.decode(), copied.decode()], delimiter="\t")
    wrong = [f"{name}: {NOT_LATIN_1}" for name, value in zip(names, values, strict=True) if not is_latin_1(value)]
    return dict(zip(names, values, strict=True)), "; ".join(wrong)


def is_latin_1(text: str) -> bool:
    """Say whether Pearson's encoding has all of the characters."""
    try:
        text.encode(ENCODING)
    except UnicodeEncodeError:
        return False
    return True


# --- answers that come back -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A line of a confirmation file. `fault` says why it cannot be applied, `remark` what of it cannot."""

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
    """A confirmation file of an archive."""

    name: str
    kind: Kind
    sha256: str
    answers: list[Answer] = field(default_factory=list)


def read_archive(path: Path) -> list[Member]:
    """Read and check a whole archive. Raises RefusedError for anything in it that is not a confirmation file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return read_members(path, archive)
    except FileNotFoundError as exc:
        raise RefusedError(f"there is no file {path}", why=f'Input file is not a zipfile: "{path}"') from exc
    except OSError as exc:
        raise RefusedError(f"cannot read {path}", why=exc.strerror or str(exc)) from exc
    except zipfile.BadZipFile as exc:
        what = f'Input file is not a zipfile: "{path}"' if not zipfile.is_zipfile(path) else f"{path} is damaged"
        raise RefusedError(what, why=str(exc), fix="fetch it again") from exc
    except (zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError, RuntimeError) as exc:
        raise RefusedError(f"{path} is damaged, encrypted or packed in a way that is not read", why=str(exc)) from exc


def read_members(path: Path, archive: zipfile.ZipFile) -> list[Member]:
    """Read the members in their order. Names and declared sizes are judged before anything is unpacked."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise RefusedError(f"{path} has {len(infos)} members, at most {MAX_MEMBERS} are read")
    for number, info in enumerate(infos):
        if re.search(r"[/\\\x00-\x1f]", info.orig_filename) or info.filename in (".", ".."):
            raise RefusedError(
                f'the member name "{printable(info.orig_filename)}" in {path} holds a path',
                why="a confirmation file stands in no folder",
            )
        if not info.filename.startswith(tuple(ANSWERS)):
            raise RefusedError(
                f'Unrecognized confirmation file type "{printable(info.filename)}" in confirmation zip file "{path}"',
                why="the names of confirmation files begin with vcdc- or eac-",
            )
        if any(info.filename == other.filename for other in infos[:number]):
            raise RefusedError(f'the member "{info.filename}" stands in {path} twice')
        if info.flag_bits & 1:
            raise RefusedError(f'the member "{info.filename}" in {path} is encrypted')
    left = MAX_BYTES
    if sum(info.file_size for info in infos) > left:
        raise too_large(path)
    members = []
    for info in infos:
        with archive.open(info) as file:
            content = file.read(left + 1)  # what is declared may be a lie
        left -= len(content)
        if left < 0:
            raise too_large(path)
        members.append(read_member(path, info.filename, content))
    return members


def too_large(path: Path) -> RefusedError:
    """Return the error for an archive that holds more than answers can be."""
    return RefusedError(f"{path} is too large when unpacked: at most {MAX_BYTES // 1024**2} MB are read")


def printable(name: str) -> str:
    """Return a name that cannot steer a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", name)


def read_member(path: Path, name: str, content: bytes) -> Member:
    """Read a confirmation file: any order of columns, a byte order mark, Latin-1. Raises RefusedError."""
    kind, key, number = next(what for prefix, what in ANSWERS.items() if name.startswith(prefix))
    marked = content.startswith(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8-sig" if marked else ENCODING)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
        header = [column.strip() for column in next(lines, [])]
        for column in (key, *NEEDED):
            if header.count(column) != 1:
                raise RefusedError(
                    f'"{name}" in {path} has {"no" if column not in header else "two"} column {column}',
                    why=f"the header is: {printable(', '.join(header))[:200]}",
                )
        found = []
        for row in lines:
            if any("\n" in field or "\r" in field for field in row):  # it would hold the answers that come after it
                raise RefusedError(
                    f'"{name}" in {path} has a quote that is not closed, before line {lines.line_num}',
                    fix="ask Pearson for the file again, or close the quote",
                )
            if "".join(row).strip():
                found.append(judge(kind, header, lines.line_num, row, key, number))
    except (csv.Error, UnicodeDecodeError) as exc:
        raise RefusedError(f'"{name}" in {path} cannot be read', why=str(exc)) from exc
    return Member(name, kind, hashlib.sha256(content).hexdigest(), found)


def judge(kind: Kind, header: list[str], number: int, row: list[str], key_column: str, id_column: str) -> Answer:
    """Return one line of a confirmation file, with what is wrong in it as far as the file alone tells."""
    values = {name: value.replace("\x00", "").strip() for name, value in zip(header, row, strict=False)}
    key, status, message = (values.get(name, "") for name in (key_column, "Status", "Message"))
    given, theirs, date, fault, remark = values.get("Date", ""), None, None, "", ""
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
        if date > datetime.now(UTC) + timedelta(days=1):  # every later answer would be older
            fault, date = fault or f'the date "{given}" lies in the future', None
    except ValueError:
        fault = fault or f'the date "{given}" is not of the form YYYY/MM/DD HH:MM:SS'
    if text := values.get(id_column, ""):
        if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID:
            theirs = int(text)
        else:
            remark = f'{id_column} "{text[:50]}" is no number that can be stored; the old one stays'
    return Answer(number, key, status, date, message, theirs, fault, remark)
