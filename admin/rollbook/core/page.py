"""An answer as a page for a browser or a printer: one file, without a script, with charts that it draws itself.

Every text passes `safe`: a name from the database is never markup. The page asks for nothing from a network, and its
Content-Security-Policy forbids it to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import Any

from rollbook.core.table import heading
from rollbook.core.values import human, marked, visible

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Amount:
    """A bar, or a part of one: what it is of, how much, in words, and the colour of a state."""

    name: str
    value: float
    words: str
    color: str = "accent"


def safe(text: object) -> str:
    """Return a text as HTML, with escapes for what hides in a text or changes its direction."""
    return escape(visible(str(text)))


def breakable(text: str) -> str:
    """Return a name as HTML, which may be broken where its parts end."""
    return re.sub("([/_+:.])(?=[^ ])", r"\1<wbr>", safe(text))


def utc(at: datetime) -> str:
    """Return a time for a reader, who reads a page later than it was written: the time itself, no age."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def page(title: str, subtitle: str, at: datetime, body: Sequence[str]) -> str:
    """Return a page; `body` is HTML, all else text."""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)} · {utc(at)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{safe(title)}</h1>\n<p>{safe(subtitle)} · {stamp(at)}</p>\n</header>\n"
        f"<main>\n{''.join(body)}</main>\n</body>\n</html>\n"
    )


def stamp(at: datetime) -> str:
    """Return a time as HTML."""
    return f'<time datetime="{at.astimezone(UTC).isoformat()}">{utc(at)}</time>'


def section(title: str, content: str, *, remark: str = "", is_card: bool = True) -> str:
    """Return a part of a page with its heading."""
    small = f" <small>{safe(remark)}</small>" if remark else ""
    kind = ' class="card"' if is_card else ""
    return f"<section{kind}>\n<h2>{safe(title)}{small}</h2>\n{content}</section>\n"


def pair(*sections: str) -> str:
    """Return parts side by side, where there is room."""
    return f'<div class="pair">\n{"".join(sections)}</div>\n' if any(sections) else ""


def tiles(values: Mapping[str, tuple[str, str]]) -> str:
    """Return numbers in large type: what -> the number and its colour."""
    found = (
        f'<div class="tile"><b class="{color}">{safe(number)}</b><span>{safe(what)}</span></div>\n'
        for what, (number, color) in values.items()
    )
    return f'<div class="tiles">\n{"".join(found)}</div>\n'


def rect(x: float, y: float, width: float, height: float, title: str, color: str = "") -> str:
    """Return a part of a drawing, whose title appears under the pointer."""
    kind = f' class="{color}" fill="currentColor"' if color else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{max(height, 0):.2f}"{kind}>'
        f"<title>{safe(title)}</title></rect>"
    )


def drawing(width: float, height: float, label: str, parts: Sequence[str], kind: str = "") -> str:
    """Return a drawing that is as wide as its place; its words are outside, so that they keep their size."""
    return (
        f'<svg{f" class={kind!r}" if kind else ""} role="img" aria-label="{safe(label)}" '
        f'viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none">{"".join(parts)}</svg>\n'
    )


def shares(label: str, parts: Sequence[Amount]) -> str:
    """Return how a whole is divided: one bar, and a legend with the words; `words` is a mark before the name."""
    whole = sum(part.value for part in parts) or 1
    drawn, at = [], 0.0
    for part in parts:
        width = 100 * part.value / whole
        gap = 0.3 if at else 0
        drawn.append(rect(at + gap, 0, width - gap, 10, f"{part.name}: {part.value:g}", part.color))
        at += width
    legend = "".join(
        f'<li class="{part.color}">{safe(part.words)} {safe(part.name)} <b>{part.value:,g}</b></li>' for part in parts
    )
    return f'{drawing(100, 10, label, drawn, "share")}<ul class="legend">{legend}</ul>\n'


def bars(label: str, amounts: Sequence[Amount], top: float) -> str:
    """Return a bar for each amount, from 0 to `top`, between its name and its words."""
    lines = []
    for each in amounts:
        width = 100 * min(1.0, each.value / top) if top > 0 else 0
        title = f"{each.name}: {each.words}"
        drawn = drawing(100, 10, title, [rect(0, 0, max(width, 0.6 if each.value > 0 else 0), 10, title, each.color)])
        lines.append(
            f'<div><div class="name" title="{safe(each.name)}">{breakable(each.name)}</div>'
            f'{drawn}<div class="amount">{safe(each.words)}</div></div>\n'
        )
    return f'<div class="bars" role="group" aria-label="{safe(label)}">\n{"".join(lines)}</div>\n'


def columns(label: str, values: Mapping[date, int], noun: str) -> str:
    """Return a column for each day of a time without gaps."""
    most = max(values.values())
    days = list(values)
    drawn = [
        rect(n + 0.1, 100 - 100 * value / (most or 1), 0.8, 100 * value / (most or 1), f"{day}: {value:,} {noun}")
        for n, (day, value) in enumerate(values.items())
    ]
    axis = "".join(f"<span>{day:%Y-%m-%d}</span>" for day in (days[0], days[len(days) // 2], days[-1]))
    scale = f'<div class="scale"><span>{most:,}</span><span>0</span></div>'
    return f'<div class="days">{scale}{drawing(len(days), 100, label, drawn)}<div class="axis">{axis}</div></div>\n'


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return rows with the headings and words of a terminal, but for times, which are not ages."""
    number = {
        name: all(isinstance(row[name], int | float | None) and not isinstance(row[name], bool) for row in rows)
        and any(row[name] is not None for row in rows)
        for name in names
    }
    head = "".join(
        f"<th scope='col'{' class=number' if number[name] else ''}>{safe(heading(name))}</th>" for name in names
    )
    lines = "".join(
        f"<tr>{''.join(cell(name, row[name], is_number=number[name]) for name in names)}</tr>\n" for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>\n"


def cell(name: str, value: object, *, is_number: bool) -> str:
    """Return a cell of a table."""
    mark, color = marked(name, value)
    content = (
        stamp(value)
        if isinstance(value, datetime)
        else breakable(human(name, value))
        if isinstance(value, str)
        else safe(human(name, value))
    )
    kinds = [*(["number"] if is_number else []), *(["mark", color] if mark else [])]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    return f'<td{kind} data-name="{safe(heading(name))}"><span>{content}</span></td>'
