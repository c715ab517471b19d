"""Pseudonyms: a keyed hash of the user id, for surveys and other places where users must not be known by name."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from rollbook.core.errors import UsageError
from rollbook.people import secret

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "ROLLBOOK_SECRET_KEY"


def secret_key(file: str | None) -> str:
    """Return the key of the hash, from a file or the environment. Raises UsageError if there is none."""
    key = os.environ.get(VARIABLE, "") if file is None else secret.from_file(file, "secret")
    if not key:
        raise UsageError("there is no secret", fix=f"name its file with --secret-file, or set {VARIABLE}")
    return key


def pseudonyms(key: str, course: str | None, *, legacy: bool) -> Callable[[int], str]:
    """Return the function from a user id to its pseudonym: 32 characters, 0 to 9 and a to f."""
    if legacy:
        return lambda user_id: hashlib.md5(f"{key}{user_id}".encode(), usedforsecurity=False).hexdigest()
    place = "" if course is None else f"\n{course}"
    return lambda user_id: hmac.new(key.encode(), f"{user_id}{place}".encode(), hashlib.sha256).hexdigest()[:32]
