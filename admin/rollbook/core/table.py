r"""Rows for a reader: a table, or records (as psql's `\\x auto`) where a terminal is too narrow for one.

On a terminal the key and other texts are shortened in their middle, prose and names of slots are wrapped, and columns
of low priority are hidden; only what still does not fit becomes records. A pipe or a file gets its natural width.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from rollbook.core.output import console
from rollbook.core.values import human, marked, one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from rollbook.core.command import Run
    from rollbook.core.rows import Row

GAP = 2
LEAST = 16  # cells that a shortened or wrapped text keeps
LEAST_WHOLE = 32  # of those that a wrapped name keeps
PROSE = (
    "message", "resolution", "reason", "fix", "detail", "difference", "problem", "description", "title", "locks",
    "error", "last_error", "rationale", "before", "after", "columns", "request", "value", "why",
)  # fmt: skip
WHOLE = ("check", "slot")  # names that differ in their middle alone: one that does not fit is wrapped
SEVERAL_LINES = ("rationale", "before", "after", "title", "description", "request", "value")  # as people wrote them
# A narrow terminal hides these, in this order. The first column is the key and is never hidden.
LOW_PRIORITY = (
    "on_fault", "closed_at", "paused_at", "pause_reason", "member", "sha256", "archive", "status", "created_at",
    "target", "observed_at", "in_flight", "portal_rows", "course_rows", "schema_name", "created", "is_staff",
    "is_superuser", "down_revision", "last_login", "date_joined", "inactive_since", "active", "since", "on_leave",
    "requested_at", "sqlstate", "verified_at", "lag_bytes", "lag_seconds", "hop_seconds", "lsn", "warning", "critical",
    "count",
)  # fmt: skip


def heading(name: str) -> str:
    """Return the heading of a column: its name without the unit, which the values show."""
    if name == "lag_seconds":
        return "LAG TIME"
    for unit in ("_bytes", "_seconds", "_at"):
        name = name.removesuffix(unit)
    return name.replace("_", " ").upper()


def blocks(value: float, most: float, width: int) -> str:
    """Return a bar of block characters, to an eighth of a character; a value above zero is always visible."""
    eighths = round(width * 8 * value / most) if most > 0 else 0
    full, rest = divmod(max(eighths, 1) if value > 0 else 0, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()


def shortened(text: str, room: int) -> str:
    """Return a text of at most `room` cells, with an ellipsis in the middle of a longer one."""
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if cell_len(head + first + tail) >= room:
            break
        head += first
        if cell_len(head + last + tail) >= room:
            break
        tail = last + tail
    return f"{head}…{tail}"


def fitted(
    run: Run, width: dict[str, int], least: dict[str, int], room: int, empty: set[str]
) -> dict[str, int] | None:  # fmt: skip
    """Return the columns to show and their widths in cells; None if even the least widths do not fit.

    Of those that may be hidden the `empty` ones, without a value in any row, are the first.
    `--fields` names what must be seen: nothing of that is hidden.
    """
    names = list(width)
    droppable = [] if run.fields else [name for name in LOW_PRIORITY if name in names[1:]]
    droppable.sort(key=lambda name: name not in empty)
    room += GAP  # the last column needs none
    while sum(least[name] + GAP for name in names) > room:
        if not droppable:
            return None
        names.remove(droppable.pop(0))
    shown = {name: width[name] for name in names}
    while sum(cells + GAP for cells in shown.values()) > room:
        widest = max((name for name in names if shown[name] > least[name]), key=shown.__getitem__)
        shown[widest] -= 1
    return shown


def table(
    run: Run, out: IO[str], found: list[Row], names: list[str], *, bar: str | None = None, indent: int = 0
) -> None:
    """Write rows as a table, with bars in the room that is left, or as records; name the hidden columns."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    screen = console(run, out)
    narrow = out.isatty() and not run.wide
    room = screen.width - indent
    cells = [{name: cell(name, row[name]) for name in names} for row in found]
    width = {
        name: max(cell_len(line) for text in (heading(name), *(c[name] for c in cells)) for line in text.split("\n"))
        for name in names
    }
    least = {
        name: max(min(width[name], LEAST_WHOLE if name in WHOLE else LEAST), cell_len(heading(name)))
        if may_shrink(name, found)
        else width[name]
        for name in names
    }
    empty = {name for name in names if all(row[name] is None for row in found)}
    shown = fitted(run, width, least, room, empty) if narrow else width
    if shown is None:
        write(screen, out, records(cells, room, shorten=True), indent)
        return
    if out.isatty() and run.wide:
        screen.width = 10_000
    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=not run.no_header, header_style="bold")
    for name in shown:
        number = all(isinstance(row[name], int | float | None) and not isinstance(row[name], bool) for row in found)
        grid.add_column(heading(name), justify="right" if number else "left", overflow="fold", width=shown[name])
    left = room - sum(cells + GAP for cells in shown.values()) - GAP if bar else 0
    most = max(row[bar] for row in found) if bar else 0
    if left >= 5:
        grid.add_column("")
    for row, texts_of_row in zip(found, cells, strict=True):
        line = [
            Text(
                shortened(texts_of_row[name], shown[name]) if narrow and name not in (*PROSE, *WHOLE)
                else texts_of_row[name],
                style=marked(name, row[name])[1],
            )
            for name in shown
        ]  # fmt: skip
        if bar and left >= 5:
            line.append(Text(blocks(row[bar], most, min(left, 40)), style="cyan"))
        grid.add_row(*line)
    write(screen, out, grid, indent)
    hidden = [name for name in names if name not in shown]
    if hidden and not run.quiet:
        write(screen, out, Text(f"hidden: {', '.join(hidden)}; --wide shows all columns"), indent)


def mapping(run: Run, out: IO[str], part: dict[str, Any], *, indent: int = 0) -> None:
    """Write one record: a line of name and value each."""
    screen = console(run, out)
    texts = {name: cell(name, value) for name, value in part.items()}
    write(screen, out, records([texts], screen.width - indent, shorten=out.isatty() and not run.wide), indent)


def cell(name: str, value: Any) -> str:  # noqa: ANN401
    """Return the text of a cell; what people wrote alone may have several lines."""
    text = human(name, value)
    if name in SEVERAL_LINES:
        return text
    return one_line(text) if name in PROSE else text.replace("\n", r"\n")


def may_shrink(name: str, found: list[Row]) -> bool:
    """Return whether the values of a column may be shortened or wrapped: texts, but not states."""
    return name in PROSE or all(isinstance(row[name], str | None) and not marked(name, row[name])[0] for row in found)


def records(cells: list[dict[str, str]], room: int, *, shorten: bool) -> RenderableType:
    """Return rows as records: a line of name and value each, a blank line between two. The key keeps to one line."""
    from rich.table import Table
    from rich.text import Text

    pad = max(len(name) for row in cells for name in row)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(width=pad, no_wrap=True)
    grid.add_column(overflow="fold", max_width=max(room - pad - GAP, LEAST // 2))
    for number, row in enumerate(cells):
        if number:
            grid.add_row("", "")
        for position, (name, text) in enumerate(row.items()):
            key = shorten and position == 0
            grid.add_row(Text(name), Text(shortened(text, max(room - pad - GAP, LEAST // 2)) if key else text))
    return grid


def write(screen: Console, out: IO[str], drawing: RenderableType, indent: int) -> None:
    """Write a drawing, without blanks at the ends of its lines."""
    with screen.capture() as drawn:  # Rich itself would end the program with 1 at a closed pipe
        screen.print(drawing, crop=False)
    out.writelines(f"{' ' * indent}{line}".rstrip() + "\n" for line in drawn.get().splitlines())
