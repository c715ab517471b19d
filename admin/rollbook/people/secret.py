"""Secrets: read from where no process list shows them, and passwords as Django keeps them.

A hash of Django's is its algorithm, then `$` and the parts of that, such as `pbkdf2_sha256$ITERATIONS$SALT$HASH`; one
that starts with ! matches no password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
import sys
from pathlib import Path

from rollbook.core.errors import RefusedError, UnreachableError, UsageError

# As in Django 6.1 (1,200,000 in 6.0, 1,000,000 in 5.2). A Django with another number renews a hash at the next sign-in.
ITERATIONS = 1_500_000
SALT = 22  # characters: 128 bits and more, below which Django renews a hash as well
SHORTEST, LONGEST = 2, 4096  # characters of a password
WIDTH = 128  # of the column

# Algorithm -> its hashes, for Python and for PostgreSQL. The last three are of old Djangos, and md5 may have no parts.
FORMS = {
    "pbkdf2_sha256": r"pbkdf2_sha256\$[1-9][0-9]{0,7}\$[^$\s]+\$[A-Za-z0-9+/]{43}=",
    "pbkdf2_sha1": r"pbkdf2_sha1\$[1-9][0-9]{0,7}\$[^$\s]+\$[A-Za-z0-9+/]{27}=",
    "argon2": r"argon2\$argon2(?:id|i|d)(?:\$v=[0-9]+)?\$m=[0-9]+,t=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+",
    "bcrypt_sha256": r"bcrypt_sha256\$\$2[abxy]\$[0-9][0-9]\$[./A-Za-z0-9]{53}",
    "bcrypt": r"bcrypt\$\$2[abxy]\$[0-9][0-9]\$[./A-Za-z0-9]{53}",
    "scrypt": r"scrypt\$[1-9][0-9]{0,7}\$[^$\s]+\$[1-9][0-9]{0,3}\$[1-9][0-9]{0,3}\$[A-Za-z0-9+/]{86}==",
    "sha1": r"sha1\$[^$\s]*\$[0-9a-f]{40}",
    "md5": r"(?:md5\$[^$\s]*\$)?[0-9a-f]{32}",
    "crypt": r"crypt\$[^$\s]*\$[./A-Za-z0-9]{13}",
}
HASH = "|".join(["![!-~]*", *FORMS.values()])
# What else is given as a hash, and what is wrong with it; the first that fits.
MISFITS = {
    **{rf"\$2{variant}\$.*": f"$2{variant}$ needs bcrypt$ before it" for variant in "abxy"},
    r"\$argon2.*": "$argon2 needs argon2 before it",
    rf"(?:{'|'.join(FORMS)})\$.*": "its parts are not those of its algorithm",
    r"[^$]*": "plain text",
    r".*": "its algorithm is none that Django has",
}
PACKAGES = {"argon2": "argon2-cffi", "bcrypt": "bcrypt", "bcrypt_sha256": "bcrypt"}


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
    if len(text) > WIDTH or not re.fullmatch(HASH, text):
        raise RefusedError(
            "this is not a password hash of Django's",
            why=next((why for form, why in MISFITS.items() if re.fullmatch(form, text)), "it has several lines")
            if len(text) <= WIDTH else f"{len(text)} characters, at most {WIDTH} fit",
            fix="copy the whole hash, such as pbkdf2_sha256$ITERATIONS$SALT$HASH, or let rollbook make it: "
            "--password-stdin",
        )  # fmt: skip
    return text


def described(stored: str) -> tuple[str, int | None]:
    """Return the public part of a stored hash: the algorithm (or unusable, unknown), and the iterations of PBKDF2."""
    if not stored or stored.startswith("!"):
        return "unusable", None
    algorithm = next((name for name, form in FORMS.items() if re.fullmatch(form, stored)), "unknown")
    return algorithm, int(stored.split("$")[1]) if algorithm.startswith("pbkdf2") else None


def matches(password: str, stored: str) -> bool:
    """Return whether this is the password.

    Raises UnreachableError for a hash that cannot be checked here, RefusedError for what is none.
    """
    from passlib.exc import MissingBackendError

    algorithm, _ = described(stored)
    if algorithm == "unknown":
        raise RefusedError(
            "the stored password is not a pbkdf2_sha256 hash, nor another of Django's", fix="set a new password"
        )
    if algorithm == "unusable":
        return False
    try:
        return verified(algorithm, password, stored)
    except MissingBackendError:
        package = PACKAGES[algorithm]
        raise UnreachableError(
            f"{algorithm} cannot be checked here", why=f"the Python package {package} is not installed",
            fix="install it where rollbook is: pip install " + package,
        ) from None  # fmt: skip
    except ValueError:  # not from the cause: that one may quote the hash
        raise UnreachableError(
            f"this {algorithm} hash cannot be checked here", why="the library does not take its parameters",
            fix="sign in at the web application",
        ) from None  # fmt: skip


def verified(algorithm: str, password: str, stored: str) -> bool:
    """Return whether this is the password. Raises MissingBackendError, ValueError."""
    from passlib import hash as hashes

    secret = password.encode()
    kept = stored.removeprefix(f"{algorithm}$")
    if algorithm == "argon2":
        return bool(hashes.argon2.verify(password, f"${kept}"))
    if algorithm == "bcrypt":
        return bool(hashes.bcrypt.verify(secret[:72], kept))  # more is not looked at
    if algorithm == "bcrypt_sha256":
        return bool(hashes.bcrypt.verify(hashlib.sha256(secret).hexdigest(), kept))
    if algorithm == "crypt":
        return bool(hashes.des_crypt.verify(password, kept.partition("$")[2]))
    *parts, expected = kept.split("$")
    salt = parts[-1].encode() if parts else b""
    if algorithm.startswith("pbkdf2"):
        made = base64.b64encode(
            hashlib.pbkdf2_hmac(algorithm.removeprefix("pbkdf2_"), secret, salt, int(parts[0]))
        ).decode()
    elif algorithm == "scrypt":
        cost, block, parallel = int(parts[0]), int(parts[2]), int(parts[3])
        made = base64.b64encode(hashlib.scrypt(
            secret, salt=parts[1].encode(), n=cost, r=block, p=parallel, dklen=64,
            maxmem=256 * block * (cost + parallel),
        )).decode()  # fmt: skip
    else:
        made = hashlib.new(algorithm, salt + secret, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(made, expected)
