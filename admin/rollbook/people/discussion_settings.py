"""The settings of the discussion service: where it is, its key, and whether changes are queued for it."""

from __future__ import annotations

import html
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlsplit

from rollbook.core import history
from rollbook.core.errors import RefusedError, UsageError
from rollbook.people.queries import discussion as queries
from rollbook.people.queries.discussion import Settings

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

URL, KEY = "ROLLBOOK_DISCUSSION_URL", "ROLLBOOK_DISCUSSION_API_KEY"


@dataclass(frozen=True)
class Service:
    """Where the service is, and the key to it."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def hidden(self, text: str) -> str:
        """Return a text without the key, in whatever form a service may echo it."""
        if self.api_key:
            key = self.api_key
            for form in {key, quote(key), quote(key, ""), quote_plus(key), json.dumps(key)[1:-1], html.escape(key)}:
                text = text.replace(form, "***")
        return text


def checked_url(url: str) -> str:
    """Return an address of the service without a slash at its end. Raises UsageError; never repeats a secret."""
    fix = "write it like http://localhost:4567"
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        raise UsageError("the address of the discussion service cannot be read", fix=fix) from None
    if "@" in url or parts.query or parts.fragment or "?" in url or "#" in url:
        raise UsageError(
            "the address of the discussion service has more than host, port and path",
            why="reports show it, so it must not contain a secret",
            fix=f"{fix}, and give the key with --api-key-file FILE",
        )
    url = parts.scheme + url[len(parts.scheme) :]  # in lower case
    if bad or re.search(r"[\x00-\x1f\x7f\\]", url) or not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise UsageError("the address of the discussion service is not an http or https URL", fix=fix)
    return url.rstrip("/")


def checked_key(key: str, where: str) -> str:
    """Return a key without the line's end. Raises UsageError if there is none, or if it is not one line."""
    key = key.strip()
    if not key or not key.isprintable():
        raise UsageError(f"there is no key in {where}", fix="write only the key there, on one line")
    return key


def service(found: Settings) -> Service:
    """Return the service that the environment names, else the database. Raises UsageError."""
    url = os.environ.get(URL) or found.url
    key = os.environ.get(KEY)
    return Service(checked_url(url), checked_key(key, KEY) if key else found.api_key)


def active_service(conn: Conn) -> Service:
    """Return the service. Raises RefusedError while it is not active."""
    found = queries.settings(conn)
    if not found.active:
        raise RefusedError(
            "the discussion service is not active", why="nothing is queued for it or sent to it",
            fix="rollbook discussion activate --url URL --api-key-file FILE",
        )  # fmt: skip
    return service(found)


def read_key(file: str) -> str:
    """Return the key in a file; - is standard input. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8" if file == "-" else "utf-8-sig")
    except OSError as exc:
        raise UsageError(f"cannot read {file}", why=exc.strerror) from exc
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8") from None  # the bytes may be of the key
    return checked_key(text, "standard input" if file == "-" else file)


def configure(
    conn: Conn, run: Run, *, active: bool, url: str | None = None, api_key: str | None = None
) -> tuple[Settings, str]:
    """Store the settings that are not None; return all, and the outcome: activated, deactivated, changed, unchanged."""
    before = queries.settings(conn)
    if not queries.configure(conn, active=active, url=url, api_key=api_key):
        return before, "unchanged"
    after = queries.settings(conn)
    outcome = "changed" if before.active == active else "activated" if active else "deactivated"
    history.record(conn, run, "discussion", outcome, before=vars(before), after=vars(after))
    return after, outcome
