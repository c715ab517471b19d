"""Secrets: read from where no process list shows them, and passwords as Django keeps them.

A password's hash is `pbkdf2_sha256$ITERATIONS$SALT$HASH`; one that starts with ! matches no password.
"""

from __future__ import annotations

import re
import secrets
import string
import sys
from pathlib import Path

from rollbook.core.errors import RefusedError, UsageError

ITERATIONS = 1_000_000  # as Django 5.2 has it; a hash with fewer is renewed by Django at the next sign-in
SALT = 22  # characters: 128 bits and more, below which Django renews a hash as well
SHORTEST, LONGEST = 2, 4096  # characters of a password
HASH = re.compile(r"pbkdf2_sha256\$([1-9][0-9]{0,7})\$([^$\s]+)\$[A-Za-z0-9+/]{43}=")
WIDTH = 128  # of the column


def from_stdin(what: str) -> str:
    """Return the content of stdin, without the end of the line. Raises UsageError."""
    return one_line(sys.stdin.buffer.read(), what, "stdin")


def from_file(name: str, what: str) -> str:
    """Return the content of a file, without the end of the line. Raises UsageError."""
    try:
        return one_line(Path(name).read_bytes(), what, name)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else None
        raise UsageError(f"cannot read {name}", why=why, fix=f"name the file that holds the {what}") from exc


def one_line(content: bytes, what: str, where: str) -> str:
    """Return the only line of a text. Raises UsageError for several, or for bytes that are not text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not raised from the cause: that one quotes the secret.
        raise UsageError(f"the {what} on {where} is not UTF-8", fix="write it in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if any(character in text for character in "\r\n\0"):
        raise UsageError(f"the {what} on {where} is more than one line", fix=f"give the {what} alone")
    return text


def checked_password(password: str) -> str:
    """Return a password that may be set. Raises RefusedError for one that is blank, or too short."""
    if not password.strip():
        raise RefusedError("the password is blank", fix="give one, or --unusable for an account without a password")
    if len(password) < SHORTEST:
        raise RefusedError(f"the password is too short: at least {SHORTEST} characters", fix="give a longer one")
    if len(password) > LONGEST:
        raise RefusedError(f"the password is too long: at most {LONGEST} characters", fix="give a shorter one")
    return password


def hashed(password: str) -> str:
    """Return the hash of a password, with a salt of its own. Takes about half a second."""
    from passlib.hash import django_pbkdf2_sha256

    return str(django_pbkdf2_sha256.using(rounds=ITERATIONS, salt_size=SALT).hash(checked_password(password)))


def unusable() -> str:
    """Return a hash that no password matches, different each time."""
    return "!" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40))


def checked_hash(text: str) -> str:
    """Return a hash as Django writes it, or one that starts with !. Raises RefusedError, without quoting it."""
    if not (HASH.fullmatch(text) or re.fullmatch(r"![!-~]*", text)) or len(text) > WIDTH:
        raise RefusedError(
            "this is not a password hash of Django's", why="expected pbkdf2_sha256$ITERATIONS$SALT$HASH",
            fix="copy the whole hash, or let rollbook make it: --password-stdin",
        )  # fmt: skip
    return text


def described(stored: str) -> tuple[str, int | None]:
    """Return the public part of a stored hash: the algorithm (or unusable, unknown) and its iterations."""
    if stored.startswith("!"):
        return "unusable", None
    match = HASH.fullmatch(stored)
    return ("pbkdf2_sha256", int(match[1])) if match else ("unknown", None)


def matches(password: str, stored: str) -> bool:
    """Say whether this is the password. Raises RefusedError for a hash that cannot be checked here."""
    from passlib.hash import django_pbkdf2_sha256

    algorithm, _ = described(stored)
    if algorithm == "unknown":
        raise RefusedError("the stored password is not a pbkdf2_sha256 hash", fix="set a new password")
    return algorithm != "unusable" and bool(django_pbkdf2_sha256.verify(password, stored))
