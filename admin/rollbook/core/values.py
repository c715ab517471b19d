"""Values as text: for JSON, for a cell of CSV or TSV, and for a reader."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, date, datetime
from typing import Any

from rollbook.core.states import STATES

# Colour alone never carries a state: each has a mark.
MARKS = {
    **{state.name: (state.mark, state.color) for state in STATES},
    "match": ("✓", "green"), "active": ("✓", "green"),
    "differs": ("✗", "red"), "missing": ("✗", "red"),
    "not_comparable": ("✗", "red"), "changed": ("!", "yellow"), "extra": ("!", "yellow"),
    "created": ("+", "green"), "removed": ("-", "yellow"), "unchanged": ("=", "dim"),
    "activated": ("✓", "green"), "deactivated": ("-", "yellow"), "granted": ("+", "green"), "revoked": ("-", "yellow"),
    "attached": ("+", "green"), "resumed": ("✓", "green"), "would attach": ("+", "cyan"),
    "accepted": ("✓", "green"), "rejected": ("✗", "red"), "cancelled": ("-", "yellow"), "due": ("→", "cyan"),
    "would create": ("+", "cyan"), "would remove": ("-", "cyan"), "would change": ("!", "cyan"),
}  # fmt: skip
MARKED = ("state", "verdict", "outcome", "verdict_after", "finding", "damage")
# Control characters, and those that change the direction of text or have no width, but not the line feed.
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def visible(text: str) -> str:
    r"""Return a text whose control characters are escapes, such as \x1b: it cannot steer a terminal."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value for JSON: times as RFC 3339 in UTC, everything else as it is."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(value: Any) -> str:  # noqa: ANN401
    """Return a value for a CSV or TSV cell: null is empty, lists joined with commas, booleans true and false."""
    if value is None or isinstance(value, str):
        return value or ""
    if type(value) is int:
        return str(value)
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(flat(item) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def human(name: str, value: Any) -> str:  # noqa: ANN401
    """Return a value for a reader: sizes and ages in words, marks before states."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return ago(value)
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return f"{value:g} s"
    if isinstance(value, list):
        return ", ".join(human(name, item) for item in value)
    mark, _ = marked(name, value)
    # What students write must not steer the operator's terminal.
    return f"{mark} {value}" if mark else visible(flat(value))


def marked(name: str, value: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return the mark and the colour of a state; empty for anything else."""
    return MARKS.get(str(value), ("", "")) if name in MARKED or name.endswith("_copy") else ("", "")


def ago(at: datetime) -> str:
    """Return how long ago a time was, or the date where that says more."""
    seconds = time.time() - at.timestamp()
    for unit, length, until in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400)):
        if 0 <= seconds < until:
            return f"{int(seconds // length)} {unit} ago"
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Return bytes in the unit that leaves up to four digits."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"
