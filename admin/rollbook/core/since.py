"""The beginning of a period as an option names it: an age such as `1h`, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rollbook.core.errors import UsageError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def since(option: str, given: str) -> timedelta | datetime:
    """Return an age or a time; one without a zone is in UTC. Raises UsageError."""
    if found := re.fullmatch(r"(\d{1,6})\s*([smhdw])", given.strip()):
        return timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(given.strip())
    except ValueError:
        raise UsageError(
            f"{option} is neither an age nor a time: {given}", fix="such as 90s, 30m, 1h, 2d or 2012-09-01T12:00"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
