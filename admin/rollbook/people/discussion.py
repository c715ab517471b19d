"""Delivery to the discussion service: one change after the other, each removed once the service has accepted it.

The changes of one user are delivered in order, and none after one that failed. Concurrent deliveries claim users by
advisory locks, which end with the session. No transaction is open during a request, and no lock blocks a writer of
users. If the program is killed after an answer and before the removal, the change is sent again, which is harmless: it
has the user's present name and address, not a difference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rollbook.people.discussion_settings import Service, active_service
from rollbook.people.queries import discussion as queries

if TYPE_CHECKING:
    from types import TracebackType

    from rollbook.core.db import Conn
    from rollbook.people.queries.discussion import Change

# Ctrl-C may come when a request is made and not begun, or ended and not looked at: that is nobody's mistake.
logging.getLogger("asyncio").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

SECONDS = 5.0  # for a whole request, from the name's look-up to the end of the answer
SILENCE_SECONDS = 15.0  # a delivery stops after this time without any answer
OTHERS_SECONDS = 15.0  # how long a delivery waits for users that another one has claimed
LOOK_SECONDS = 10.0  # the longest pause of `follow`: a NOTIFY is lost if the session was replaced
MOST_BYTES = 1_000_000  # of an answer
MOST_WORDS = 300  # characters of an answer that are kept as an error


@dataclass(frozen=True)
class Answer:
    """The answer to a request; without an error the change is delivered."""

    status: int | None
    error: str | None


@dataclass(frozen=True)
class Result:
    """An attempt to deliver a change; the outcome is delivered, dropped or failed."""

    username: str | None
    operation: str
    outcome: str
    http_status: int | None = None
    error: str | None = None


class Client:
    """An HTTP client for the service: 5 s a request in all, no redirects, no proxies.

    The library's time-outs bound each read, so a service that sends a byte now and then could hold a request for ever;
    an event loop can end it.
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

    def send(self, change: Change) -> Answer:
        """Send a change to the service."""
        method, known = "DELETE", {}
        if change.operation == "put":
            method = "PUT"
            known = {"username": change.username, "external_id": str(change.user_id), "email": change.email}
        form = {name: text for name, text in {**known, "api_key": self.to.api_key}.items() if text is not None}
        status, body = self.ask(method, f"/api/v1/users/{change.user_id}", form)
        error = body if status is None else refusal(status, body)
        return Answer(status, None if error is None else shortened(self.to.hidden(error)))

    def is_there(self) -> bool:
        """Return whether the service answers at all; the key is not sent."""
        return self.ask("GET", "/", None)[0] is not None

    def ask(self, method: str, path: str, form: dict[str, Any] | None) -> tuple[int | None, str]:
        """Return the status and the body, or None and the reason why there is no answer."""
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
        """Send a request and read the answer, up to MOST_BYTES."""
        async with asyncio.timeout(SECONDS), self.client.stream(method, url, data=form) as response:
            body = b""
            async for part in response.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    break
        return response.status_code, body.decode("utf-8", "replace")


def refusal(status: int, body: str) -> str | None:
    """Return why an answer is an error; None for 200 with JSON, the only success."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        if status == 200:
            return f"200, but the answer is not JSON: {body}" if body.strip() else "200, but the answer is empty"
        content = body
    if status == 200:
        return None
    if isinstance(content, list):
        content = "; ".join(str(item) for item in content)
    return f"{status}: {content if isinstance(content, str) else body}" if body.strip() else str(status)


def shortened(text: str) -> str:
    """Return a text as one short line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"


@dataclass
class Delivery:
    """One pass over the outbox. `ids` None: of all users; `until` is the last change to deliver."""

    conn: Conn
    client: Client
    ids: list[int] | None = None
    at_once: bool = False
    until: int | None = None
    patience: float = OTHERS_SECONDS
    delivered: int = 0
    failed: int = 0
    is_stopped: bool = False  # no answer for too long
    silent_since: float | None = None

    def results(self) -> Iterator[Result]:
        """Deliver what is due; yield the result of each attempt."""
        held: set[int] = set()  # failed: their later changes wait
        busy: set[int] = set()  # claimed by another delivery
        end = time.monotonic() + self.patience
        while not self.is_stopped:
            batch = queries.due(self.conn, self.ids, [*held, *busy], at_once=self.at_once, until=self.until)
            if not batch:
                if not busy or time.monotonic() > end:
                    return
                busy.clear()
                time.sleep(0.05)
                continue
            for number, user_id in batch:
                if user_id in held or user_id in busy:
                    continue
                with queries.claimed(self.conn, user_id) as ours:
                    result = self.attempt(number) if ours else None
                if not ours:
                    busy.add(user_id)
                elif result is not None:
                    end = time.monotonic() + self.patience
                    if result.outcome == "failed":
                        held.add(user_id)
                    yield result
                if self.is_stopped:
                    break

    def attempt(self, number: int) -> Result | None:
        """Try to deliver a change of a claimed user; None if another delivery was faster."""
        change = queries.head(self.conn, number, at_once=self.at_once)
        if change is None:
            return None
        if change.is_gone:
            queries.delivered(self.conn, number)
            return Result(change.username, change.operation, "dropped", error="the user is gone")
        began = time.monotonic()
        answer = self.client.send(change)
        if answer.status is not None:
            self.silent_since = None
        else:
            self.silent_since = began if self.silent_since is None else self.silent_since
            self.is_stopped = time.monotonic() - self.silent_since >= SILENCE_SECONDS
        outcome = self.settle(number, answer)
        return Result(change.username, change.operation, outcome, answer.status, answer.error)

    def settle(self, number: int, answer: Answer) -> str:
        """Record the answer to a change and return the outcome."""
        if answer.error is None:
            queries.delivered(self.conn, number)
            self.delivered += 1
            return "delivered"
        if queries.gives_way(self.conn, number, answer.status):
            return "dropped"
        queries.failed(self.conn, number, answer.status, answer.error)
        self.failed += 1
        return "failed"

    def left(self) -> int:
        """Return the number of changes in this pass that are not delivered."""
        return queries.total(self.conn, self.ids, self.until)


def follow(
    conn: Conn, ids: list[int] | None, *, at_once: bool, report: Callable[[Sequence[Result]], None]
) -> None:  # fmt: skip
    """Deliver present and new changes without end; each round reads the settings again, and the revision."""
    from rollbook.core.db import check_revision  # psycopg, which --help does not need

    queries.listen(conn)
    while True:
        to = active_service(conn)
        with Client(to) as client:
            while active_service(conn) == to:
                check_revision(conn)
                work = Delivery(conn, client, ids, at_once=at_once, patience=0)
                results: list[Result] = []
                try:
                    results.extend(work.results())
                finally:
                    report(results)
                at_once = False  # from the second round on, each change waits for its next try
                soon = queries.next_try(conn)
                pause = LOOK_SECONDS if soon is None or work.is_stopped else min(max(soon, 0.5), LOOK_SECONDS)
                queries.wait(conn, pause)
