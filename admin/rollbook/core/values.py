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
# What steers a terminal or hides in a text: control characters but the line feed, and characters that change the
# direction of text or have no width.
UNSEEN = re.compile(
    "\x1b\\[[0-9;]*m|[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def visible(text: str, *, tabs: bool = False, colours: bool = False) -> str:
    r"""Return a text with escapes, such as \x1b or \u202e, for what steers a terminal or hides in a text.

    JSON stays JSON: its own escapes have the same form. `tabs` and `colours` stay if asked for.
    """
    return UNSEEN.sub(lambda found: kept(found[0], tabs=tabs, colours=colours), text)


def one_line(text: str) -> str:
    """Return a text on one line: what others wrote cannot begin a line that looks like one of this program's."""
    return re.sub(r"\s*\n\s*", " ", text)


def kept(found: str, *, tabs: bool, colours: bool) -> str:
    """Return a match of UNSEEN unchanged, if it may stay, or as an escape."""
    if (tabs and found == "\t") or (colours and len(found) > 1):
        return found
    first, rest = found[0], found[1:]
    if first < " ":
        return first.encode("unicode_escape").decode() + rest
    return f"\\u{ord(first):04x}" if first < "\U00010000" else json.dumps(first)[1:-1]


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
    if name not in MARKED and not name.endswith("_copy"):
        return "", ""
    word = "unreachable" if str(value).startswith("unreachable through ") else str(value)
    return MARKS.get(word, ("", ""))


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
