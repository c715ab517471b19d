"""What an account may be named and hold. The rules of names are functions of the database."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, LiteralString

from rollbook.core.errors import RefusedError
from rollbook.core.rows import one
from rollbook.people.fields import WIDTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollbook.core.db import Conn

USERNAME = "select rollbook.username_fault(%s) as fault, rollbook.normal_username(%s) as normal"
NAME = "select rollbook.name_fault(%s) as fault, rollbook.normal_name(%s) as normal"
EXAMPLE_META = """write it as '{"name": "value"}'"""


def checked_email(address: str) -> str:
    """Return the address, normalised. Raises RefusedError with the reason."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(address.strip(), check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise RefusedError(
            f"Valid e-mail is required: {address!r} is not an e-mail address", why=str(exc),
            fix="write it as name@example.org",
        ) from exc  # fmt: skip


def checked_username(conn: Conn, username: str) -> str:
    """Return the username as it is stored. Raises RefusedError with the database's reason."""
    return judged(conn, USERNAME, username, fix="choose another username")


def checked_name(conn: Conn, name: str) -> str:
    """Return a person's name as it is stored; an empty one is allowed. Raises RefusedError with the reason."""
    return judged(conn, NAME, name, fix="give the full name")


def judged(conn: Conn, query: LiteralString, text: str, fix: str) -> str:
    """Return a text in its normal form. Raises RefusedError with the database's reason."""
    found = one(conn, query, [text, text])
    if found["fault"] is not None:
        raise RefusedError(str(found["fault"]), fix=fix)
    return str(found["normal"])


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
