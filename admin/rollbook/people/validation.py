"""What an account may be named and hold, checked before anything is sent to the database."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import RefusedError
from rollbook.people.fields import WIDTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE_META = """write it as '{"name": "value"}'"""


def checked_email(address: str) -> str:
    """Return the address, normalised. Raises RefusedError with the reason."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise RefusedError(
            f"Valid e-mail is required: {address!r} is not an e-mail address", why=str(exc),
            fix="write it as name@example.org",
        ) from exc  # fmt: skip


def checked_username(username: str) -> None:
    """Raise RefusedError for a username that is too short or has a character that is not allowed."""
    if len(username) < 2:
        raise RefusedError("Username must be minimum of two characters long.", fix="choose a longer username")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", username):
        raise RefusedError(
            "Username should only consist of A-Z and 0-9.",
            why="_ and - are allowed too; blanks and control characters are not", fix="choose another username",
        )  # fmt: skip


def checked_name(name: str) -> None:
    """Raise RefusedError for a full name of one character; an empty one is allowed."""
    if name and len(name.strip()) < 2:
        raise RefusedError("Your legal name must be a minimum of two characters long.", fix="give the full name")


def checked_meta(text: str) -> dict[str, Any]:
    """Return the meta, which must be a JSON object. Raises RefusedError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            refuse(number)
        return float(number)

    try:
        content = json.loads(text, parse_constant=refuse, parse_float=finite)
        written = json.dumps(content, ensure_ascii=False)
        written.encode()  # fails for an unpaired surrogate
        if re.search(r"(?<!\\)(?:\\\\)*\\u0000", written):
            refuse("a NUL")
    except (ValueError, RecursionError) as exc:
        raise RefusedError("meta is not JSON", why=str(exc), fix=EXAMPLE_META) from exc
    if not isinstance(content, dict):
        raise RefusedError("meta is not a JSON object", fix=EXAMPLE_META)
    return content


def checked_texts(values: Mapping[str, Any]) -> None:
    """Raise RefusedError for a text that does not fit its column, before anything is written."""
    for name, width in WIDTHS.items():
        value = values.get(name)
        if isinstance(value, str) and len(value) > width:
            raise RefusedError(f"{name} has {len(value)} characters, at most {width} fit", fix="shorten it")
    for name, value in values.items():
        if isinstance(value, str) and "\x00" in value:
            raise RefusedError(f"{name} has a NUL character, which PostgreSQL cannot store", fix="remove it")
