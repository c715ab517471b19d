"""Charts of numbers over time, in block characters; plain ASCII where the locale has no others."""

from __future__ import annotations

import os
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " _.:-=+*#"
LEAST_TOP = 0.1  # of a chart of lag, in seconds: milliseconds alone stay low


def has_blocks() -> bool:
    """Return whether the locale that the user has set is one of UTF-8.

    Where that is C, or none, Python itself sets LC_CTYPE to C.UTF-8 as it starts.
    """
    lang, kind = os.environ.get("LANG", ""), os.environ.get("LC_CTYPE", "")
    if kind == "C.UTF-8" and lang in ("", "C", "POSIX"):
        kind = ""
    return "utf" in (os.environ.get("LC_ALL") or kind or lang).replace("-", "").casefold()


def chart(values: Sequence[float | None], top: float, rows: int = 1) -> list[str]:
    """Return the lines of a chart, the highest first, a character for each value from 0 to `top`.

    None is a gap; 0 still shows. One row is a sparkline.
    """
    marks = BLOCKS if has_blocks() else ASCII
    steps = len(marks) - 1
    heights = [None if value is None else max(1, round(min(1.0, value / top) * steps * rows)) for value in values]
    return [
        "".join(marks[0 if height is None else min(steps, max(0, height - row * steps))] for height in heights).rstrip()
        for row in reversed(range(rows))
    ]
