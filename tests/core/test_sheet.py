"""What a file is by its content: CSV, gzip, a workbook, or something else that is called by its name."""

from __future__ import annotations

import bz2
import codecs
import datetime
import gzip
import io
import lzma
import os
import re
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter

from rollbook.core.command import Run
from rollbook.core.errors import AdminError, RefusedError, UnreachableError
from rollbook.core.sheet import line_count, opened, records
from rollbook.core.workbook import Fault

PEOPLE = "username,email\nzoe,z@example.org\nyan,y@example.org\n"
READ = [(1, ["username", "email"]), (2, ["zoe", "z@example.org"]), (3, ["yan", "y@example.org"])]
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


def read(path: Path | str, **options: Any) -> tuple[list[tuple[int, list[str]]], list[Fault]]:
    """The records of a file, and what is wrong with its cells."""
    run = Run(**options)
    with opened(str(path), run.encoding) as file:
        found = records(file, run, str(path))
        return list(found), found.faults


def numbered(value: object) -> str | None:
    """The name of a case: none for bytes, which are packed anew by each worker."""
    return "bytes" if isinstance(value, bytes) else None


def archive(**members: str | bytes) -> bytes:
    """A zip archive; __ in a name is a slash, _ a dot."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name.replace("__", "/").replace("_", "."), text)
    return content.getvalue()


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (gzip.compress(PEOPLE.encode()), {}),
        (gzip.compress(PEOPLE[:20].encode()) + gzip.compress(PEOPLE[20:].encode()), {}),
        (gzip.compress(PEOPLE.encode("utf-16")), {}),
        (PEOPLE.encode("utf-16"), {}),
        (codecs.BOM_UTF16_BE + PEOPLE.encode("utf-16-be"), {}),
        (PEOPLE.encode("utf-32"), {}),
        (PEOPLE.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (PEOPLE.encode("utf-8-sig"), {"encoding": "utf-8"}),
        (PEOPLE.encode("utf-8-sig"), {"encoding": "cp1252"}),
        (PEOPLE.replace("\n", "\r").encode(), {}),
    ],
    ids=numbered,
)
def test_text_is_read_as_it_was_saved(tmp_path: Path, content: bytes, options: dict[str, str]) -> None:
    file = tmp_path / "people.txt"
    file.write_bytes(content)
    assert read(file, **options) == (READ, [])
    assert line_count(str(file)) in (None, 0, 2, 3)


@pytest.mark.parametrize("begin", ["sep=;\r\n", "SEP=;\n", '"sep=;"\r\n'])
def test_the_first_line_of_excel_names_the_delimiter(tmp_path: Path, begin: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text(begin + 'username;goals\r\nzoe;\'a,\r\n\r\nyan;"two\r\nlines"\r\neve;x\r\n', newline="")
    lines, _ = read(file)
    assert lines == [(2, ["username", "goals"]), (3, ["zoe", "'a,"]), (5, ["yan", "two\r\nlines"]), (7, ["eve", "x"])]
    file.write_text(begin + 'username;goals\nzoe;"x"y\n')
    with pytest.raises(RefusedError, match=r"line 3 of people\.csv is not valid CSV"):
        read(file)


PACKED = gzip.compress(os.urandom(9999).hex().encode())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "people.csv is empty; None; export it again"),
        (gzip.compress(b""), "people.csv is empty"),
        (PACKED[:-9], "people.csv is cut off; .*; copy it again; gzip -t .*/people.csv checks it"),
        (PACKED[:5000] + b"!" * 99 + PACKED[5099:], "people.csv is damaged; .*; copy it again; gzip -t"),
        (PACKED[:-8] + bytes(8), "people.csv is damaged"),
        (gzip.compress(PACKED), "people.csv is compressed by gzip twice, not CSV; None; gunzip"),
        (gzip.compress(b"a,b\n" + b"x" * 20_100_000), "line of more than 20000000 bytes"),
        (bz2.compress(b"a"), "people.csv is compressed by bzip2, not CSV; None; bunzip2 -k people.csv"),
        (lzma.compress(b"a"), "people.csv is compressed by xz, not CSV; None; unxz"),
        (gzip.compress(bytes(257) + b"ustar\x0000"), "people.csv is a tar archive, not CSV"),
        (b"%PDF-1.7\n%\xe2\xe3", "people.csv is a PDF, not CSV"),
        (b"PGDMP\x01\x10", "a dump of pg_dump"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "is a workbook with a password; .*remove the password"),
        (OLE + "Workbook".encode("utf-16-le"), "is an .xls workbook, not CSV; .* save it as CSV UTF-8"),
        (archive(mimetype="application/vnd.oasis.opendocument.spreadsheet"), r"an .ods workbook, not CSV"),
        (archive(xl__workbook_bin="x"), r"an .xlsb workbook, not CSV"),
        (archive(word__document_xml="x"), "is a document, not CSV"),
        (archive(people_csv=PEOPLE), "is a zip archive, not CSV; it holds people.csv; unzip people.csv -d DIRECTORY"),
        (archive(manifest_csv="x"), "zip archive.*rollbook user import --oneroster DIRECTORY"),
        (archive(people_csv=PEOPLE)[:60], "a damaged zip archive or workbook"),
        (archive(xl__workbook_xml="x"), "is a damaged workbook; .*; open it in a spreadsheet program, save"),
        (b"<!DOCTYPE html>\n<html><head>\n<title>Sign\n in</title>", "page of HTML, not CSV; its title is 'Sign in'"),
        ("\ufeff\r\n <!-- x --><HTML lang=de>".encode(), "a page of HTML"),
        ("<table><tr><td>username".encode("utf-16"), "a page of HTML"),
        (b'<?xml version="1.0"?>\n<people/>', "people.csv is XML, not CSV"),
        (b'<?xml?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">', "is an XML spreadsheet"),
        (b'[{"username": "zoe"}]', "people.csv is JSON, not CSV"),
        (b'{"error": "not signed in"}', "people.csv is JSON"),
        (PEOPLE.encode("utf-16-le"), "UTF-16 without a byte order mark; .*; add --encoding utf-16-le"),
        (PEOPLE.encode("utf-16-be"), "UTF-16 without a byte order mark; .*; add --encoding utf-16-be"),
        (b"user\x00name\n", "people.csv is not text; its first line has NUL bytes"),
        (b"\x7fELF\x02\x01\n", "people.csv is not text"),
    ],
    ids=numbered,
)  # fmt: skip
def test_what_is_no_csv_is_called_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes(content)
    with pytest.raises(AdminError) as refused:
        read(file)
    error = refused.value
    said = f"{error.message}; {error.why}; {error.fix}"
    assert re.search(says, said), said


def test_the_encoding_that_is_named_works(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    for content, tried, fix in (
        (b"username\nzo\xeb\n", "utf-8-sig", "cp1252"),
        (b"username\nzo\x81\n", "utf-8-sig", "latin-1"),
        (b"username\nzo\x81\n", "cp1252", "latin-1"),
        ("username\nzoë\n".encode(), "utf-16", "utf-8"),
        ("username\nzoë\n".encode("utf-16-le"), "utf-16", "utf-16-le"),
    ):
        for packed in (False, True):
            file.write_bytes(gzip.compress(content) if packed else content)
            with pytest.raises(RefusedError) as refused:
                read(file, encoding=tried)
            assert str(refused.value.fix).endswith(f"--encoding {fix}")
            assert len(read(file, encoding=fix)[0]) == 2


def test_directories_and_streams(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match="is a directory") as refused:
        read(tmp_path)
    assert refused.value.fix == "name a file in it"
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(AdminError, match="is a directory") as refused:
        read(tmp_path)
    assert refused.value.fix == f"rollbook user import --oneroster {tmp_path}"
    os.mkfifo(pipe := tmp_path / "pipe")
    content = io.BytesIO()
    with xlsxwriter.Workbook(content) as book:
        book.add_worksheet().write_row(0, 0, ["username"])

    def write(data: bytes) -> None:
        with pipe.open("wb", buffering=0) as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])

    for data, rows in ((gzip.compress(PEOPLE.encode()), READ), (content.getvalue(), [(1, ["username"])])):
        writer = threading.Thread(target=write, args=(data,))
        writer.start()
        assert read(pipe) == (rows, [])
        writer.join()


# --- workbooks --------------------------------------------------------------------------------------------------------

Fill = Callable[[Any, Any], None]


def book(path: Path, fill: Fill, **options: Any) -> Path:
    """Write a workbook with xlsxwriter."""
    with xlsxwriter.Workbook(path, options) as file:
        fill(file, file.add_worksheet("People"))
    return path


def values(file: Any, sheet: Any) -> None:
    """Write a value of each kind that people keep in sheets."""

    def as_format(code: str) -> Any:
        return file.add_format({"num_format": code})

    sheet.write_row(0, 0, ["year", "day", "active", "share", "number", "text", "sum", "at", "time", "rich", "name"])
    sheet.write(1, 0, 1990.0)
    sheet.write_datetime(1, 1, datetime.datetime(2012, 9, 1), as_format("dd/mm/yy"))
    sheet.write_boolean(1, 2, True)
    sheet.write(1, 3, 0.1 + 0.2, as_format("0%"))
    sheet.write(1, 4, 7, as_format("000000"))
    sheet.write_string(1, 5, "007")
    sheet.write_formula(1, 6, "=1+1", None, 2)
    sheet.write_datetime(1, 7, datetime.datetime(2012, 9, 1, 10, 30), as_format('d. mmm yyyy "um" h:mm'))
    sheet.write_datetime(1, 8, datetime.time(10, 30), as_format("[$-F400]h:mm:ss AM/PM"))
    sheet.write_rich_string(1, 9, "a", file.add_format({"bold": True}), " b\n")
    sheet.write_formula(1, 10, '="zo"&"ë"', None, "zoë")
    sheet.write_url(4, 0, "mailto:z@example.org", string="a & <ë>")


WRITTEN = [
    "1990", "2012-09-01", "true", "0.3", "000007", "007", "2", "2012-09-01 10:30:00", "10:30:00", "a b\n", "zoë",
]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"constant_memory": True}, {"date_1904": True}])
def test_a_workbook_gives_values_as_the_sheet_shows_them(tmp_path: Path, options: dict[str, bool]) -> None:
    path = book(tmp_path / "people.xlsx", values, **options)
    again = openpyxl.load_workbook(path)  # written anew by another program, which drops the results of formulas
    path = path.rename(tmp_path / "people.csv")  # the name does not count
    (_, *lines), faults = read(path, encoding="latin-1", delimiter=";")
    assert (lines[0], lines[1][0], lines[1][1][0], faults) == ((2, WRITTEN), 5, "a & <ë>", [])
    again.active["G2"], again.active["K2"] = 2, "zoë"
    again.save(tmp_path / "again.xlsx")
    assert read(tmp_path / "again.xlsx")[0][1] == (2, WRITTEN)


def wrong(file: Any, sheet: Any) -> None:
    """Write what must not be taken for a value."""
    sheet.write_row(0, 0, ["username", "email"])
    sheet.write_row(1, 0, ["zoe", "z@example.org"])
    sheet.write_formula(2, 1, "=NA()", None, "#N/A")
    sheet.write(3, 0, 12345678901234567)
    sheet.write_row(4, 0, ["hidden"])
    sheet.set_row(4, None, None, {"hidden": True})
    sheet.merge_range("A6:A8", "merged")
    sheet.write(6, 1, "below")
    sheet.write_row(8, 0, ["a", "b", "", "beside"])
    file.add_worksheet("Notes").write(0, 0, "see below")
    file.add_worksheet("Empty")
    file.add_worksheet("Old").hide()


def test_what_must_not_be_taken_for_a_value_is_named_with_its_cell(tmp_path: Path, capsys: Any) -> None:
    lines, faults = read(book(tmp_path / "people.xlsx", wrong))
    assert [(each.line, each.column, each.reason.partition(":")[0]) for each in faults] == [
        (3, 1, "cell B3 shows the error #N/A"),
        (4, 0, "cell A4 is a number of more than 15 digits, of which the last are lost"),
        (5, None, "the row is hidden, perhaps by a filter; show it or delete it"),
        (6, 0, "the cells A6"), (7, 0, "the cells A6"),
    ]  # fmt: skip
    assert [line for line, _ in lines] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert lines[-1][1] == ["a", "b", "", "beside"]
    assert capsys.readouterr().err == "read the sheet 'People', not 'Notes'\n"
    path = tmp_path / "formula.xlsx"
    made = openpyxl.Workbook()
    made.active.append(["username"])
    made.create_sheet("People", 0)  # an empty one before it
    made["Sheet"]["A2"] = '="zo"&"e"'
    made.save(path)
    assert read(path)[1] == [
        Fault(2, 0, "", "cell A2 has a formula without its result: save the file in a spreadsheet program")
    ]


def test_a_workbook_that_is_damaged_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "people.xlsx", values)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        begin = file.getinfo("xl/worksheets/sheet1.xml").header_offset + 100
    for damage in (whole[:-100], whole[:begin] + bytes(50) + whole[begin + 50 :]):
        path.write_bytes(damage)
        with pytest.raises(RefusedError, match="damaged"):
            read(path)
    path.write_bytes(whole)
    monkeypatch.setattr("rollbook.core.workbook.UNPACKED_BYTES", 1 << 10)
    with pytest.raises(RefusedError, match="unpacks to more than"):
        read(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)  # not installed
    with pytest.raises(UnreachableError, match=r"people\.xlsx is a workbook, which cannot be read here") as refused:
        read(path)
    assert refused.value.why == "the Python package openpyxl is not installed"
    assert refused.value.fix == "save it as CSV UTF-8, or install it where rollbook is: pip install openpyxl"


def test_a_workbook_with_cells_far_apart_and_a_strict_one(tmp_path: Path) -> None:
    def far(file: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["username"])
        sheet.write_row(1, 0, ["zo_x000D_e"])
        sheet.write_blank(1_048_575, 16_383, None, file.add_format({"bold": True}))

    path = book(tmp_path / "people.xlsx", far)
    assert read(path) == ([(1, ["username"]), (2, ["zo\re"])], [])
    strict = tmp_path / "strict.xlsx"
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(strict, "w") as made:
        for part in file.namelist():
            made.writestr(part, file.read(part).replace(
                b"http://schemas.openxmlformats.org/spreadsheetml/2006/main", b"http://purl.oclc.org/ooxml/spreadsheetml/main"
            ).replace(
                b"http://schemas.openxmlformats.org/officeDocument/2006", b"http://purl.oclc.org/ooxml/officeDocument"
            ))  # fmt: skip
    with pytest.raises(RefusedError, match=r"strict\.xlsx has no sheet that can be read"):
        read(strict)
