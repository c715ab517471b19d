"""Telling the discussion service: one change after the other, each struck out when the service has taken it.

Of one user the order is kept: the oldest change first, and none after one that failed. Two that deliver at a time claim
users by advisory locks, which a killed session loses; no transaction is open while the service is asked, and nothing
that a writer of users waits for is locked. Killed between the answer and its removal, a change is sent again,
which is harmless: it says what the user is called, not what has changed.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, quote_plus, urlsplit

from rollbook.core.errors import RefusedError, UsageError
from rollbook.people.queries import discussion as queries

if TYPE_CHECKING:
    from types import TracebackType

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

SECONDS = 5.0  # for a whole request, from the name's look-up to the end of the answer
SILENCE_SECONDS = 15.0  # with no answer for so long to anything, a sync stops
OTHERS_SECONDS = 15.0  # how long a sync waits for users that another one holds and does not finish
MOST_BYTES = 1_000_000  # of an answer
MOST_WORDS = 300  # characters of an answer that are kept as an error

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


@dataclass(frozen=True)
class Answer:
    """What came of a request; without an error it is delivered."""

    status: int | None
    error: str | None


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
            "the address of the discussion service holds more than host, port and path",
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
        raise UsageError(f"there is no key in {where}", fix="write the key there alone, on one line")
    return key


def service(found: Row) -> Service:
    """Return the service that the environment names, else the database. Raises UsageError."""
    url = os.environ.get(URL) or found["url"]
    key = os.environ.get(KEY)
    return Service(checked_url(url), checked_key(key, KEY) if key else found["api_key"])


def active_service(conn: Conn) -> Service:
    """Return the service. Raises RefusedError while it is not active."""
    found = queries.settings(conn)
    if not found["active"]:
        raise RefusedError(
            "the discussion service is not active", why="nothing is queued for it or sent to it",
            fix="rollbook discussion activate --url URL --api-key-file FILE",
        )  # fmt: skip
    return service(found)


class Client:
    """Asks the service, within 5 s a request in all; follows no redirect, and goes past proxies.

    The library's own time-outs bound each wait alone, so that a service that sends a byte now and then could hold a
    request for ever; an event loop can end it.
    """

    def __init__(self, to: Service) -> None:
        import httpx2

        self.to = to
        headers = {"user-agent": "rollbook", "accept": "application/json", "accept-encoding": "identity"}
        if not to.url.startswith("https:"):
            # Without TLS a new connection is cheap, and a plain server that writes its answer in two pieces makes each
            # request on an old one wait 40 ms for an acknowledgement.
            headers["connection"] = "close"
        self.client = httpx2.AsyncClient(
            timeout=SECONDS, follow_redirects=False, trust_env=False, headers=headers
        )  # fmt: skip
        self.runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    def tell(self, change: Row) -> Answer:
        """Tell the service of a change."""
        method, known = "DELETE", {}
        if change["operation"] == "put":
            method = "PUT"
            known = {
                "username": change["username"], "external_id": str(change["user_id"]), "email": change["email"],
            }  # fmt: skip
        form = {name: text for name, text in {**known, "api_key": self.to.api_key}.items() if text is not None}
        status, said = self.ask(method, f"/api/v1/users/{change['user_id']}", form)
        error = said if status is None else refusal(status, said)
        return Answer(status, None if error is None else shortened(self.to.hidden(error)))

    def is_there(self) -> bool:
        """Say whether the service answers, whatever it says; the key is not sent."""
        return self.ask("GET", "/", None)[0] is not None

    def ask(self, method: str, path: str, form: dict[str, Any] | None) -> tuple[int | None, str]:
        """Return the status and the body, or None and why there is no answer."""
        import httpx2

        try:
            return self.runner.run(self.request(method, self.to.url + path, form))
        except (TimeoutError, httpx2.TimeoutException):
            return None, f"no answer within {SECONDS:g} s"
        except httpx2.ConnectError as exc:
            return None, f"cannot connect: {exc}"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            return None, f"no answer: {exc or type(exc).__name__}"

    async def request(self, method: str, url: str, form: dict[str, Any] | None) -> tuple[int, str]:
        """Ask and read the answer, which is cut where it is too long."""
        async with asyncio.timeout(SECONDS), self.client.stream(method, url, data=form) as response:
            body = b""
            async for part in response.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    break
        return response.status_code, body.decode("utf-8", "replace")


def refusal(status: int, body: str) -> str | None:
    """Return why an answer does not count, None where it does: 200 with JSON, and nothing else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        if status == 200:
            return f"200, but no JSON: {body}" if body.strip() else "200, but no JSON: the answer is empty"
        said = body
    if status == 200:
        return None
    if isinstance(said, list):
        said = "; ".join(str(item) for item in said)
    return f"{status}: {said if isinstance(said, str) else body}" if body.strip() else str(status)


def shortened(text: str) -> str:
    """Return a text as one short line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"


@dataclass
class Delivery:
    """One pass over the outbox. `ids` None: of all users; `until` bounds it where writers go on."""

    conn: Conn
    client: Client
    ids: list[int] | None = None
    at_once: bool = False
    until: int | None = None
    patience: float = OTHERS_SECONDS
    delivered: int = 0
    failed: int = 0
    is_stopped: bool = False  # the service was silent for too long
    silent_since: float | None = None

    def results(self) -> Iterator[Row]:
        """Deliver what is due; yield username operation outcome http_status error of each change that was tried."""
        held: set[int] = set()  # failed: their later changes wait
        busy: set[int] = set()  # another sync is at them
        end = time.monotonic() + self.patience
        while not self.is_stopped:
            batch = queries.due(self.conn, self.ids, [*held, *busy], at_once=self.at_once, until=self.until)
            if not batch:
                if not busy or time.monotonic() > end:
                    return
                busy.clear()
                time.sleep(0.05)
                continue
            for number, user_id in ((row["id"], row["user_id"]) for row in batch):
                if user_id in held or user_id in busy:
                    continue
                with queries.claimed(self.conn, user_id) as ours:
                    result = self.try_(number) if ours else None
                if not ours:
                    busy.add(user_id)
                elif result is not None:
                    end = time.monotonic() + self.patience
                    if result["outcome"] == "failed":
                        held.add(user_id)
                    yield result
                if self.is_stopped:
                    break

    def try_(self, number: int) -> Row | None:
        """Try one change of a claimed user; None where another sync was faster."""
        change = queries.head(self.conn, number, at_once=self.at_once)
        if change is None:
            return None
        result = {"username": change["username"], "operation": change["operation"], "http_status": None, "error": None}
        if change["is_gone"]:
            queries.delivered(self.conn, number)
            return {**result, "outcome": "dropped", "error": "the user is gone"}
        began = time.monotonic()
        answer = self.client.tell(change)
        result |= {"http_status": answer.status, "error": answer.error}
        if answer.status is not None:
            self.silent_since = None
        else:
            self.silent_since = began if self.silent_since is None else self.silent_since
            self.is_stopped = time.monotonic() - self.silent_since >= SILENCE_SECONDS
        if answer.error is None:
            queries.delivered(self.conn, number)
            self.delivered += 1
            return {**result, "outcome": "delivered"}
        if queries.gives_way(self.conn, number, answer.status):
            return {**result, "outcome": "dropped"}
        queries.failed(self.conn, number, answer.status, answer.error)
        self.failed += 1
        return {**result, "outcome": "failed"}

    def left(self) -> int:
        """Return how many of the requested changes are not delivered."""
        return queries.total(self.conn, self.ids, self.until)
