"""Times of the command line: an age such as `-7d`, a word such as `yesterday`, a date or a time; of UTC by default."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from rollbook.core.errors import UsageError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
AGE = re.compile(
    r"-?\s*(\d{1,6})\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)(?:\s+ago)?", re.IGNORECASE
)
DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
FORMS = "-7d, 2h, 30m, '2w ago', now, today, yesterday, 2012-09-01, 2012-09-01T12:00 (UTC) or 2012-09-01T12:00+02:00"


class Period(TypedDict):
    """The times of a list, half open: from `since` on, before `until`; None has no bound. Also query parameters."""

    since: datetime | None
    until: datetime | None


def within(period: Period, at: datetime | None) -> bool:
    """Return whether a time is in a period; one that is not known is in none that has a bound."""
    begin, end = period["since"], period["until"]
    if at is None:
        return begin is None and end is None
    return (begin is None or at >= begin) and (end is None or at < end)


ALWAYS = Period(since=None, until=None)


def since(option: str, given: str) -> timedelta | datetime:
    """Return an age or a time; one without a zone is in UTC, and a day begins at midnight. Raises UsageError."""
    text = given.strip()
    if found := AGE.fullmatch(text):
        age = timedelta(**{UNITS[found[2][0].lower()]: int(found[1])})
        if age < timedelta(days=365 * 1000):
            return age
    now = datetime.now(UTC)
    if text.lower() == "now":
        return now
    if text.lower() in DAYS:
        return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=DAYS[text.lower()])
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} is not a time: {given}", fix=f"write {FORMS}") from None


def period(since_text: str | None, until_text: str | None) -> Period:
    """Return the period of --since and --until. Raises UsageError for other texts, or an end before the beginning."""
    now = datetime.now(UTC)

    def moment(option: str, text: str | None) -> datetime | None:
        at = None if text is None else since(option, text)
        return now - at if isinstance(at, timedelta) else at

    begin, end = moment("--since", since_text), moment("--until", until_text)
    if begin and end and begin > end:
        raise UsageError(
            "--since is after --until", why=f"{begin:%Y-%m-%d %H:%M} is after {end:%Y-%m-%d %H:%M} (UTC)",
            fix="exchange them",
        )  # fmt: skip
    return Period(since=begin, until=end)
