"""How to reach a database: libpq's conninfo, untouched, and its passwords, never shown."""

from __future__ import annotations

import os
import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core.errors import UsageError

FIX = "write key=value pairs or a URI; quote or percent-encode odd characters"


# What libpq takes as a secret: sslpassword= too, and in a URI a keyword that hides behind an encoding.
SECRET = re.compile(
    r"((?:password|oauth_client_secret|scram_(?:client|server)_key)\s*=\s*|[?&][^=&\s]*%[^=&\s]*=)"
    r"('(?:[^'\\]|\\.)*'|\S+)",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return the text without passwords of conninfo strings and URIs."""
    text = re.sub(r"(\w+://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    return SECRET.sub(r"\1***", text)


def sentences(text: str) -> str:
    """Return what libpq says in several lines on one, without passwords: where a line has no stop, one is put there."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    ended = [line if line.endswith((".", ":", ";", ",", "?", "!")) else f"{line}." for line in lines if line]
    return masked(" ".join(ended)).removesuffix("." if lines and not text.rstrip().endswith(".") else "")


def conninfo(dsn: str | None) -> str:
    """Return what libpq gets: a URI or key=value unchanged; a bare word is the dbname. Raises UsageError."""
    given = dsn if dsn is not None else os.environ.get("ROLLBOOK_DSN", "")
    if given and "=" not in given and "://" not in given:
        return make_conninfo(dbname=given)
    parts(given)
    return given


def parts(given: str, option: str = "") -> dict[str, str]:
    """Return the parts of a conninfo. Raises UsageError, which quotes nothing of it; `option` names where it is from.

    A password with a slash or an at sign that is not percent-encoded splits a URI in the wrong places. libpq would
    accept that, and quote a part of the password as the port or the host.
    """
    what = f"{option}: this conninfo" if option else "the conninfo"
    try:
        found = {name: str(text) for name, text in conninfo_to_dict(given).items()}
    except psycopg.ProgrammingError:
        raise UsageError(f"{what} cannot be read", fix=FIX) from None
    port = found.get("port", "")
    if not re.fullmatch(r"[\d,\s]*", port) or (
        "://" in given and "@" in found.get("host", "") + found.get("dbname", "")
    ):
        raise UsageError(
            f"{what} cannot be read", why="the port is not a number, or the host or database has an @",
            fix="percent-encode the special characters of the password: %2F for /, %40 for @, %3A for :",
        )  # fmt: skip
    return found
