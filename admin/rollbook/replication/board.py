"""What `rollbook top` has seen: of each course the lag and the rows written in the last looks, and its last error."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rollbook.core.states import SEVERITY
from rollbook.replication.state import Line

LOOKS = 120  # that are kept
SORTS = ("worst first", "by course", "by lag", "by rows/s")
ERRORS = ("broken", "unreachable", "drifted", "unknown")  # states whose reason is an error


@dataclass
class Track:
    """A course, over the looks."""

    line: Line
    lags: deque[float | None] = field(default_factory=lambda: deque(maxlen=LOOKS))  # seconds; None: not known
    rates: deque[float | None] = field(default_factory=lambda: deque(maxlen=LOOKS))  # rows a second
    error: str | None = None
    error_at: datetime | None = None  # when it was seen first

    @property
    def rate(self) -> float | None:
        """Return the rows a second that were written between the last two looks, None if that is not known."""
        return self.rates[-1] if self.rates else None


class Board:
    """The courses as they were at the last look, and before. A look without an answer leaves a gap."""

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.answered_at: datetime | None = None
        self.silent_since: datetime | None = None  # None: the last look had an answer
        self.silence: str = ""  # why there is none
        self.looks = 0
        self.before: tuple[float, Mapping[str, int]] | None = None

    def add(self, lines: Iterable[Line], rows: Mapping[str, int], at: datetime, clock: float) -> None:
        """Add a look; `rows` are counters by course, `clock` are seconds of a clock that only goes forward."""
        tracks = {}
        for line in lines:
            track = self.tracks.get(line.course) or Track(line, deque([None] * self.looks, LOOKS))
            track.line = line
            track.lags.append(line.lag_seconds)
            track.rates.append(self.rate(line.course, rows, clock))
            if line.state in ERRORS and (words := line.reason or line.state) != track.error:
                track.error, track.error_at = words, at
            tracks[line.course] = track
        self.tracks = tracks
        self.before = (clock, rows)
        self.answered_at, self.silent_since = at, None
        self.looks = min(self.looks + 1, LOOKS)

    def rate(self, course: str, rows: Mapping[str, int], clock: float) -> float | None:
        """Return the rows a second since the look before; None without one, or where the counters began again."""
        if self.before is None or course not in rows or course not in self.before[1]:
            return None
        written, seconds = rows[course] - self.before[1][course], clock - self.before[0]
        return written / seconds if written >= 0 and seconds > 0 else None

    def miss(self, why: str, at: datetime) -> None:
        """Record a look without an answer: nothing is known of now."""
        self.silent_since = self.silent_since or at
        self.silence = why
        self.before = None
        self.looks = min(self.looks + 1, LOOKS)
        for track in self.tracks.values():
            track.lags.append(None)
            track.rates.append(None)

    @property
    def rows_per_second(self) -> float | None:
        """Return the rows a second of all courses."""
        rates = [track.rate for track in self.tracks.values() if track.rate is not None]
        return sum(rates) if rates else None

    def sorted(self, order: str, wanted: str = "") -> list[Track]:
        """Return the courses whose name, target or state contains `wanted`, in one of the SORTS."""
        text = wanted.casefold()
        found = [
            track for track in self.tracks.values()
            if any(text in word.casefold() for word in (track.line.course, track.line.target, track.line.state))
        ]  # fmt: skip

        def key(track: Track) -> tuple[float, str]:
            line = track.line
            number = {
                "worst first": SEVERITY[line.state], "by course": 0, "by lag": -(line.lag_seconds or 0),
                "by rows/s": -(track.rate or 0),
            }[order]  # fmt: skip
            return number, line.course

        return sorted(found, key=key)
