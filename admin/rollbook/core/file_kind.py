"""What a file is by its first bytes, whatever its name: text that may be CSV, gzip, a workbook, or something else."""

from __future__ import annotations

import codecs
import io
import re
from typing import IO, TYPE_CHECKING

from rollbook.core.errors import RefusedError
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator

BEGIN = 4096  # bytes that are judged
LINE_LENGTH = 20_000_000  # bytes; more than two of the longest fields
SAVE = "open it in a spreadsheet program and save it as CSV UTF-8 or as .xlsx"
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
GZIP, ZIP, OLE = b"\x1f\x8b", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# First bytes -> what it is, the program that unpacks it, if one does.
BINARIES = {
    GZIP: ("compressed by gzip twice", "gunzip -k"),
    b"BZh": ("compressed by bzip2", "bunzip2 -k"), b"\xfd7zXZ\x00": ("compressed by xz", "unxz -k"),
    b"(\xb5/\xfd": ("compressed by zstd", "unzstd"), b"7z\xbc\xaf'\x1c": ("a 7-Zip archive", "7z x"),
    b"Rar!": ("a RAR archive", "unrar x"), b"%PDF": ("a PDF", None), b"PAR1": ("a Parquet file", None),
    b"SQLite format 3\x00": ("an SQLite database", None), b"PGDMP": ("a dump of pg_dump", None),
    b"\x89PNG": ("a picture", None), b"\xff\xd8\xff": ("a picture", None), b"{\\rtf": ("an RTF document", None),
    b"\x09\x08": ("an old .xls workbook", None), b"PK\x05\x06": ("an empty zip archive", None),
}  # fmt: skip
SEARCHED = 1 << 24  # bytes of an OLE file in which its parts are looked for
PAGE = re.compile(
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|table|div|script|meta)\b",
    re.IGNORECASE | re.DOTALL,
)
TITLE = re.compile("<title[^>]*>([^<]{1,200})", re.IGNORECASE)


def check_text(begin: bytes, encoding: str, shown: str) -> None:
    """Raise RefusedError unless a file that begins so, and has no byte order mark, may be text in this encoding."""
    for magic, (what, unpack) in BINARIES.items():
        if begin.startswith(magic):
            fix = f"{unpack} {quoted(shown)}, and name what that writes" if unpack else "name a CSV file, or .xlsx"
            raise RefusedError(f"{shown} is {what}, not CSV", fix=fix if shown != "stdin" else "pipe in the CSV itself")
    if begin[257:262] == b"ustar":
        raise RefusedError(f"{shown} is a tar archive, not CSV", fix="unpack it with tar -xf, and name the CSV file")
    is_wide = b"\x00" in ",".encode(encoding)
    if not is_wide or codecs.lookup(encoding).name in ("utf-16", "utf-32"):
        check_wide(begin, shown)
    if not is_wide:
        check_binary(begin, shown)


def check_wide(begin: bytes, shown: str) -> None:
    """Raise RefusedError for UTF-16 without a byte order mark: each second byte of an ASCII header is NUL."""
    even, odd = begin[:40:2], begin[1:40:2]
    for name, zeros, letters in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if len(zeros) > 1 and not zeros.strip(b"\x00") and b"\x00" not in letters[: len(zeros)]:
            raise RefusedError(
                f"{shown} is UTF-16 without a byte order mark", why="each second byte is NUL",
                fix=f"add --encoding {name}",
            )  # fmt: skip


def check_binary(begin: bytes, shown: str) -> None:
    """Raise RefusedError for control characters in the first line, which text does not have."""
    first = re.split(rb"[\r\n]", begin.lstrip(b"\r\n"), maxsplit=1)[0]
    found = re.search(rb"[\x00-\x08\x0e-\x1f]", first)
    if found:
        what = "NUL bytes" if found[0] == b"\x00" else f"the control character \\x{found[0].hex()}"
        raise RefusedError(
            f"{shown} is not text", why=f"its first line has {what}", fix="name a CSV file, or .xlsx, or .csv.gz"
        )


def check_markup(text: str, shown: str) -> None:
    """Raise RefusedError for a text that begins as HTML, XML or JSON does."""
    begin = text.lstrip("\ufeff \t\r\n")
    if PAGE.match(begin):
        title = TITLE.search(begin)
        raise RefusedError(
            f"{shown} is a page of HTML, not CSV",
            why=f"its title is {' '.join(title[1].split())!r}" if title and title[1].strip() else None,
            fix="if it was downloaded, sign in there and download it again; if it shows a table, " + SAVE,
        )
    if re.match(r"<(\?xml|[a-z][\w:.-]*(\s[^>]*)?>)", begin, re.IGNORECASE):
        is_sheet = "schemas-microsoft-com:office:spreadsheet" in begin
        what = "an XML spreadsheet" if is_sheet else "XML"
        raise RefusedError(f"{shown} is {what}, not CSV", fix=SAVE if is_sheet else "export it as CSV")
    if re.match(r'[{\[]\s*["{\[\]}]', begin):
        raise RefusedError(
            f"{shown} is JSON, not CSV", fix="export it as CSV; an export of rollbook is CSV without --json"
        )


def check_ole(content: IO[bytes], shown: str) -> None:
    """Raise RefusedError for an OLE file: an .xls workbook, an .xlsx with a password, or an old document."""
    found = content.read(SEARCHED)
    if "EncryptedPackage".encode("utf-16-le") in found:
        raise RefusedError(
            f"{shown} is a workbook with a password",
            fix="open it in a spreadsheet program, remove the password, and save it",
        )
    what = "a document of Word" if "WordDocument".encode("utf-16-le") in found else "an .xls workbook"
    raise RefusedError(f"{shown} is {what}, not CSV", fix=SAVE)


def workbook_file(content: IO[bytes], shown: str) -> IO[bytes]:
    """Return an .xlsx as a file that can be sought. Raises RefusedError for any other zip archive."""
    import tempfile  # as zipfile, it costs start-up time
    import zipfile

    file = tempfile.SpooledTemporaryFile(max_size=SEARCHED)  # noqa: SIM115 (the caller closes it)
    try:
        for block in blocks(content):
            file.write(block)
        names = zipfile.ZipFile(file).namelist()
        if "xl/workbook.xml" in names:
            file.seek(0)
            return file
        raise other_archive(names, zipfile.ZipFile(file), shown)
    except zipfile.BadZipFile as exc:
        file.close()
        raise RefusedError(
            f"{shown} is a damaged zip archive or workbook", why=str(exc), fix="copy it again; the end may be missing"
        ) from exc
    except BaseException:
        file.close()
        raise


def other_archive(names: list[str], archive: zipfile.ZipFile, shown: str) -> RefusedError:
    """Return the error for a zip archive that is not an .xlsx."""
    kind = archive.read("mimetype")[:80].decode("ascii", "replace") if "mimetype" in names else ""
    if "opendocument.spreadsheet" in kind:
        return RefusedError(f"{shown} is an .ods workbook, not CSV", fix=SAVE)
    if "xl/workbook.bin" in names:
        return RefusedError(f"{shown} is an .xlsb workbook, not CSV", fix=SAVE)
    if "opendocument" in kind or "word/document.xml" in names or "ppt/presentation.xml" in names:
        return RefusedError(f"{shown} is a document, not CSV", fix="export its table as CSV UTF-8")
    if "Index/Document.iwa" in names:
        return RefusedError(f"{shown} is a Numbers document, not CSV", fix="export it as CSV or .xlsx")
    inside = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX")]
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    bundle = any(name.rpartition("/")[2] == "manifest.csv" for name in inside)
    fix = f"unzip {quoted(shown)} -d DIRECTORY, " if shown != "stdin" else "unpack it, "
    return RefusedError(
        f"{shown} is a zip archive, not CSV", why=f"it holds {', '.join(inside[:3]) or 'nothing'}{more}",
        fix=fix + ("and name it: rollbook user import --oneroster DIRECTORY" if bundle else "and name the CSV file"),
    )  # fmt: skip


def blocks(content: IO[bytes]) -> Iterator[bytes]:
    """Yield a file in pieces."""
    return iter(lambda: content.read(1 << 20), b"")


class Rejoined(io.RawIOBase):
    """A stream from its beginning again, of which the first bytes have been read. Closing it closes nothing else.

    Raises RefusedError for an endless line, before the memory is full.
    """

    def __init__(self, begin: bytes, rest: IO[bytes], shown: str) -> None:
        """Put `begin` before what `rest` still has."""
        self.begin = begin
        self.rest = rest
        self.shown = shown
        self.line = 0  # bytes since a block had a line end

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with what comes next, and return the number of bytes."""
        found = self.begin[: len(buffer)] or self.rest.read(len(buffer))
        self.begin = self.begin[len(buffer) :]
        buffer[: len(found)] = found
        self.line = 0 if b"\n" in found or b"\r" in found else self.line + len(found)
        if self.line > LINE_LENGTH:
            raise RefusedError(
                f"{self.shown} has a line of more than {LINE_LENGTH} bytes", fix="check that it is a CSV file"
            )
        return len(found)
