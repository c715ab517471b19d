"""Reading an .xlsx workbook: the rows of a sheet as text, and what in it must not be taken for a value.

Own code on zipfile and ElementTree, because an import must not lose a value in silence: python-calamine reads #N/A as
an empty cell, openpyxl does not report hidden and merged cells while it streams. See docs/decisions/0005.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import IO, TYPE_CHECKING
from xml.etree import ElementTree

from rollbook.core.errors import RefusedError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

UNPACKED_BYTES = 1 << 30  # more is not a list of people
DIGITS = 15  # a spreadsheet keeps as many of a number
DATES, TIMES = {*range(14, 18), *range(27, 37), *range(50, 59)}, {*range(18, 22), *range(45, 48)}  # built-in formats
BOTH = 22
NO_CODE = re.compile(r'"[^"]*"|\\.|_.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)  # what is not a code in a format
ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
PLACE = re.compile("([A-Z]+)([0-9]+)")


@dataclass(frozen=True)
class Fault:
    """What is wrong in a row: a cell (`column` counts from 0), or the row."""

    line: int
    column: int | None
    value: str | None
    reason: str


@dataclass(frozen=True)
class Style:
    """How a format shows a number: as a date, as a time, as both, or with at least `digits` digits."""

    is_date: bool = False
    is_time: bool = False
    digits: int = 0


class Workbook:
    """A workbook: `rows` yields those of its first visible sheet that has any; `faults` fills meanwhile."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Open a workbook; `name` is for messages. Raises RefusedError for a damaged or an overlarge one."""
        self.name = name
        self.faults: list[Fault] = []
        self.sheet: str | None = None
        self.unread: list[str] = []
        with self.damaged():
            self.zip = zipfile.ZipFile(file)
            if sum(part.file_size for part in self.zip.infolist()) > UNPACKED_BYTES:
                raise RefusedError(
                    f"{name} unpacks to more than {UNPACKED_BYTES >> 20} MB", fix="split it, or save it as CSV"
                )
            main = next(target for target, kind in self.related("").values() if kind == "officeDocument")
            parts = self.related(main)
            self.find_sheets(main, parts)
            by_kind = {kind: target for target, kind in parts.values()}
            self.texts = self.shared_texts(by_kind.get("sharedStrings"))
            self.styles = self.read_styles(by_kind.get("styles"))

    @contextmanager
    def damaged(self) -> Iterator[None]:
        """Raise RefusedError for what a damaged workbook raises."""
        try:
            yield
        except (
            zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, KeyError, IndexError, ValueError,
            StopIteration, NotImplementedError, RuntimeError,
        ) as exc:  # fmt: skip
            raise RefusedError(
                f"{self.name} is a damaged workbook", why=f"{type(exc).__name__}: {exc}",
                fix="open it in a spreadsheet program, save it again as .xlsx or as CSV UTF-8, and import that",
            ) from exc  # fmt: skip

    # --- the parts ----------------------------------------------------------------------------------------------------

    def tags(self, part: str, *wanted: str) -> Iterator[Element]:
        """Yield the complete elements of a part that have one of these names, whatever the namespace; then drop them.

        Names of other elements lose their namespace too.
        """
        with self.zip.open(part) as file:
            above: list[Element] = []
            for event, element in ElementTree.iterparse(file, ("start", "end")):  # noqa: S314 (size and entities are bounded)
                if event == "start":
                    above.append(element)
                    continue
                above.pop()
                element.tag = element.tag.rpartition("}")[2]
                if element.tag in wanted:
                    yield element
                    if above:
                        above[-1].clear()

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """Return what a part refers to: id -> path and kind, such as worksheet."""
        directory, file = posixpath.split(part)
        found = {}
        for element in self.tags(posixpath.join(directory, "_rels", f"{file}.rels"), "Relationship"):
            target = posixpath.normpath(posixpath.join("/", directory, element.get("Target", "")))
            found[element.get("Id", "")] = (target.lstrip("/"), element.get("Type", "").rpartition("/")[2])
        return found

    def find_sheets(self, main: str, parts: dict[str, tuple[str, str]]) -> None:
        """Keep name -> path of the visible sheets, in their order, and the epoch of dates."""
        self.sheets: dict[str, str] = {}
        self.epoch = date(1899, 12, 30)
        for element in self.tags(main, "sheet", "workbookPr"):
            if element.tag == "workbookPr":
                if element.get("date1904") in ("1", "true"):
                    self.epoch = date(1904, 1, 1)
                continue
            number = next(text for key, text in element.items() if key.endswith("}id"))
            path, kind = parts[number]
            if kind == "worksheet" and element.get("state", "visible") == "visible":
                self.sheets[element.get("name", "")] = path

    def shared_texts(self, part: str | None) -> list[str]:
        """Return the texts that cells refer to by number."""
        return [text_of(element) for element in self.tags(part, "si")] if part else []

    def read_styles(self, part: str | None) -> list[Style]:
        """Return the style of each number that cells refer to."""
        codes: dict[int, str] = {}
        styles: list[Style] = []
        for element in self.tags(part, "numFmt", "cellXfs") if part else ():
            if element.tag == "numFmt":
                codes[int(element.get("numFmtId", "0"))] = element.get("formatCode", "")
            else:
                styles = [style_of(int(each.get("numFmtId", "0")), codes) for each in element]
        return styles

    # --- the rows -----------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the cells of each row that is not blank, as wide as the first, which is the header."""
        found: Iterator[tuple[int, list[str]]] = iter(())
        with self.damaged():
            for name, path in self.sheets.items():
                faults: list[Fault] = []
                begun = self.read_rows(path, faults)
                first = next(begun, None)
                if first is None:
                    continue
                if self.sheet is None:
                    self.sheet, self.faults, found = name, faults, chain([first], begun)
                else:
                    self.unread.append(name)
            width = 0
            for line, cells in found:
                width = width or len(cells)
                yield line, cells + [""] * (width - len(cells))

    def read_rows(self, path: str, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of a sheet that are not blank; append what is wrong in them, but for the first."""
        line = 0
        lines: list[int] = []
        for element in self.tags(path, "row", "mergeCell"):
            if element.tag == "mergeCell":
                faults += merged(element.get("ref", ""), lines)
                continue
            line = int(element.get("r", line + 1))
            wrong: list[Fault] = []
            cells = self.cells(element, line, wrong)
            if not any(cells) and not wrong:
                continue
            if lines and element.get("hidden") in ("1", "true"):
                wrong.append(Fault(line, None, None, "the row is hidden, perhaps by a filter; show it or delete it"))
            lines.append(line)
            faults += wrong
            yield line, cells

    def cells(self, row: Element, line: int, wrong: list[Fault]) -> list[str]:
        """Return the texts of a row's cells; append what is wrong."""
        found: list[str] = []
        for element in row:
            if element.tag != "c":
                continue
            column = column_of(element.get("r")) if element.get("r") else len(found)
            found += [""] * (column - len(found))
            text, reason = self.value(element)
            found.append(text)
            if reason:
                wrong.append(Fault(line, column, text, f"cell {letters(column)}{line} {reason}"))
        while found and not found[-1]:
            found.pop()
        return found

    def value(self, cell: Element) -> tuple[str, str | None]:
        """Return a cell's value as text, and what is wrong with it."""
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return text_of(cell), None
        stored = cell.find("v")
        text = (stored.text or "") if stored is not None else ""
        if not text and kind != "str":  # a formula that gives no text has t="str"
            reason = "has a formula without its result: save the file in a spreadsheet program"
            return "", reason if cell.find("f") is not None else None
        match kind:
            case "s":
                return self.texts[int(text)], None
            case "b":
                return "true" if text == "1" else "false", None
            case "e":
                return text, f"shows the error {text}"
            case "n":
                return self.number(float(text), int(cell.get("s", "0")))
            case "str":
                return unescaped(text), None
        return text, None  # d: a date in ISO 8601

    def number(self, value: float, style_number: int) -> tuple[str, str | None]:
        """Return a number as its format shows it where that matters: a date, a time, leading zeros."""
        style = self.styles[style_number] if style_number < len(self.styles) else Style()
        if style.is_date or style.is_time:
            return self.moment(value, style)
        if not value.is_integer():
            return format(value, f".{DIGITS}g"), None
        text = str(int(value))
        if len(text.lstrip("-")) > DIGITS:
            return text, f"is a number of more than {DIGITS} digits, of which the last are lost: write it as text"
        return text.zfill(style.digits), None

    def moment(self, value: float, style: Style) -> tuple[str, str | None]:
        """Return a date or time in ISO 8601."""
        try:
            at = datetime(self.epoch.year, self.epoch.month, self.epoch.day) + timedelta(days=value)
        except OverflowError:
            return format(value, f".{DIGITS}g"), "has the format of a date, and no value of one"
        if value < 61 and self.epoch.year < 1904:  # Excel has a 29 February 1900
            at += timedelta(days=1)
        at = (at + timedelta(microseconds=500_000)).replace(microsecond=0)
        if not style.is_date:
            minutes, seconds = divmod(round(value * 86400), 60)
            return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}", None
        if not style.is_time or value.is_integer():
            return at.date().isoformat(), None
        return at.isoformat(sep=" "), None


# --- what cells hold --------------------------------------------------------------------------------------------------


def text_of(element: Element) -> str:
    """Return the text of a shared or an inline string, of several runs perhaps, without its reading aid."""
    found = []
    for part in element:
        name = part.tag.rpartition("}")[2]
        if name == "t":
            found.append(part.text or "")
        elif name in ("r", "is"):
            found.append(text_of(part))
    return unescaped("".join(found))


def unescaped(text: str) -> str:
    r"""Return a text with its characters for _x000D_ and the like."""
    return ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def style_of(number: int, codes: dict[int, str]) -> Style:
    """Return what a format does to a number; `codes` are those that the file defines."""
    if number not in codes:
        return Style(number in DATES or number == BOTH, number in TIMES or number == BOTH)
    code = NO_CODE.sub("", codes[number].partition(";")[0]).lower()
    if re.fullmatch("0{2,}", code):
        return Style(digits=len(code))
    if code == "general":
        return Style()
    is_time = bool(re.search("[hs]", code))
    return Style(bool(re.search("[yd]", code)) or ("m" in code and not is_time), is_time)


def column_of(place: str | None) -> int:
    """Return the column, from 0, of a place such as BC12. Raises KeyError."""
    found = PLACE.fullmatch(place or "")
    if found is None:
        raise KeyError(place)
    number = 0
    for letter in found[1]:
        number = number * 26 + ord(letter) - ord("A") + 1
    if number > 16384:  # the widest sheet
        raise KeyError(place)
    return number - 1


def letters(column: int) -> str:
    """Return the letters of a column, from 0."""
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def merged(cells: str, lines: list[int]) -> list[Fault]:
    """Return the faults of merged cells: only the first has their value. `lines` are those that have been read."""
    begin, _, end = cells.partition(":")
    first, last = (int(place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")) for place in (begin, end or begin))
    reason = f"the cells {cells} are merged, and only the first has a value: split them"
    return [Fault(line, column_of(begin), None, reason) for line in lines[1:] if first <= line <= last]
