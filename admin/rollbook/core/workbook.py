"""Reading an .xlsx workbook by openpyxl: the rows of a sheet as text, and what in it must not be taken for a value.

openpyxl is of the extra `xlsx`; it is imported when a workbook is read. See docs/decisions/0005.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import groupby
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any

from rollbook.core.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from openpyxl.cell import Cell, MergedCell
    from openpyxl.worksheet.worksheet import Worksheet

UNPACKED_BYTES = 100 << 20  # openpyxl holds all cells in memory, at ten times this
DIGITS = 15  # a spreadsheet keeps as many of a number
NO_CODE = re.compile(r'"[^"]*"|\\.|_.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)  # what is not a code in a format
RESAVE = "open it in a spreadsheet program, save it again as .xlsx or as CSV UTF-8, and import that"


@dataclass(frozen=True)
class Fault:
    """What is wrong in a row: a cell (`column` counts from 0), or the row."""

    line: int
    column: int | None
    value: str | None
    reason: str


class Workbook:
    """A workbook: `rows` yields those of its first visible sheet that has any; `faults` fills meanwhile."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Load a workbook; `name` is for messages.

        Raises RefusedError for a damaged or an overlarge one, UnreachableError without openpyxl.
        """
        try:
            import openpyxl
        except ImportError:
            raise UnreachableError(
                f"{name} is a workbook, which cannot be read here", why="the Python package openpyxl is not installed",
                fix="save it as CSV UTF-8, or install it where rollbook is: pip install openpyxl",
            ) from None  # fmt: skip
        self.file = file
        self.name = name
        self.faults: list[Fault] = []
        with self.damaged(), zipfile.ZipFile(file) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        if unpacked > UNPACKED_BYTES:
            raise RefusedError(
                f"{name} unpacks to more than {UNPACKED_BYTES >> 20} MB", fix="split it, or save it as CSV UTF-8"
            )
        with self.damaged():
            book = openpyxl.load_workbook(file, data_only=True)
        if not book.worksheets:
            raise RefusedError(
                f"{name} has no sheet that can be read", why="perhaps it is a Strict workbook", fix=RESAVE
            )
        filled = [each for each in book.worksheets if each.sheet_state == "visible" and has_values(each)]
        self.sheet: Worksheet | None = filled[0] if filled else None
        self.unread = [each.title for each in filled[1:]]

    @contextmanager
    def damaged(self) -> Iterator[None]:
        """Raise RefusedError for whatever openpyxl raises, and drop its warnings, such as of a lost drawing."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as exc:
            raise RefusedError(
                f"{self.name} is a damaged workbook", why=f"{type(exc).__name__}: {exc}", fix=RESAVE
            ) from exc

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the cells of each row that is not blank, as wide as the first, which is the header."""
        if self.sheet is None:
            return
        formulas = self.formulas(self.sheet)
        hidden = {line for line, row in self.sheet.row_dimensions.items() if row.hidden}
        cells = self.sheet._cells  # not iter_rows(), which makes a cell for each place of a sheet that is wide and long
        lines: list[int] = []
        width = 0
        for line, places in groupby(sorted(cells), itemgetter(0)):
            fields: list[str] = []
            wrong: list[Fault] = []
            for place in places:
                cell = cells[place]
                text, reason = value(cell)
                if cell.value is None and place in formulas:
                    reason = "has a formula without its result: save the file in a spreadsheet program"
                if text:
                    fields += [""] * (place[1] - 1 - len(fields)) + [text]
                if reason:
                    wrong.append(Fault(line, place[1] - 1, text, f"cell {cell.coordinate} {reason}"))
            if not fields and not wrong:
                continue
            if lines and line in hidden:
                wrong.append(Fault(line, None, None, "the row is hidden, perhaps by a filter; show it or delete it"))
            self.faults += wrong
            lines.append(line)
            width = width or len(fields)
            yield line, fields + [""] * (width - len(fields))
        for area in self.sheet.merged_cells.ranges:
            reason = f"the cells {area.coord} are merged, and only the first has a value: split them"
            within = range(area.min_row, area.max_row + 1)
            self.faults += [Fault(line, area.min_col - 1, None, reason) for line in lines[1:] if line in within]

    def formulas(self, sheet: Worksheet) -> set[tuple[int, int]]:
        """Return the places of the formulas, if any cell may be one without its result: they are read by themselves."""
        import openpyxl

        if not any(cell.value is None and cell.data_type == "n" for cell in sheet._cells.values()):
            return set()
        with self.damaged():
            again: Any = openpyxl.load_workbook(self.file, read_only=True)[sheet.title]
            again.reset_dimensions()  # what the file declares may be wrong
            # A formula whose result is the empty text has the type str among the values.
            return {
                (cell.row, cell.column)
                for row in again.iter_rows() for cell in row
                if cell.data_type == "f" and sheet._cells[cell.row, cell.column].data_type == "n"
            }  # fmt: skip


def has_values(sheet: Worksheet) -> bool:
    """Return whether a sheet has a cell with a value."""
    return any(cell.value is not None for cell in sheet._cells.values())


def value(cell: Cell | MergedCell) -> tuple[str, str | None]:
    """Return a cell's value as text, as its format shows it where that matters, and what is wrong with it."""
    from openpyxl.utils.escape import unescape

    found: Any = cell.value
    match found:
        case None:
            return "", None
        case bool():
            return str(found).lower(), None
        case str():
            text: str = unescape(found)  # _x000D_ and the like
            return text, f"shows the error {text}" if cell.data_type == "e" else None
    code = NO_CODE.sub("", cell.number_format.partition(";")[0]).lower()
    if not isinstance(found, int | float):
        return moment(found, code)
    if found != int(found):
        return format(found, f".{DIGITS}g"), None
    text = str(int(found))
    if len(text.lstrip("-")) > DIGITS:
        return text, f"is a number of more than {DIGITS} digits, of which the last are lost: write it as text"
    return text.zfill(len(code) if re.fullmatch("0{2,}", code) else 0), None


def moment(found: datetime | date | time | timedelta, code: str) -> tuple[str, str | None]:
    """Return a date, a time or both in ISO 8601, as the format shows it, and what is wrong with it."""
    if isinstance(found, timedelta):
        minutes, seconds = divmod(round(found.total_seconds()), 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}", None
    is_time = bool(re.search("[hs]", code))
    is_date = bool(re.search("[dy]", code)) or not is_time
    if isinstance(found, time):  # a number below 1
        if is_date:
            return found.isoformat("seconds"), "has the format of a date, and no value of one"
        found = datetime.combine(date(1900, 1, 1), found)
    if not isinstance(found, datetime):
        return found.isoformat(), None
    found = (found + timedelta(microseconds=500_000)).replace(microsecond=0)
    if not is_date:
        return found.time().isoformat(), None
    return found.isoformat(sep=" ") if is_time and found.time() != time() else found.date().isoformat(), None
