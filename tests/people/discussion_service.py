"""A discussion service to test against: real HTTP, with the faults that a test plans; it keeps what it was told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "s3cr&t key"


@dataclass(frozen=True)
class Told:
    """One request."""

    method: str
    path: str
    form: dict[str, str]
    content_type: str

    @property
    def user_id(self) -> int:
        return int(self.path.rpartition("/")[2])

    @property
    def words(self) -> tuple[str, int, str | None, str | None]:
        return self.method, self.user_id, self.form.get("username"), self.form.get("email")


@dataclass(frozen=True)
class Reply:
    """How a request is answered: after `seconds`; `drip` lets the bytes come one by one, so many seconds apart."""

    status: int = 200
    body: str = "{}"
    seconds: float = 0
    drip: float = 0
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


OK = Reply()
Plan = Callable[[Told], Reply]


class Service:
    """The service, in a thread of its own. `plan` says how each request is answered."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.probes = 0
        self.plan: Plan = lambda _: OK
        self.ending = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.probes += 1
                self.answer(Reply(404, "no such page"))

            def do_PUT(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode()
                if len(body.encode()) < length:  # whoever asked was killed while asking: no request
                    self.close_connection = True
                    return
                fields = parse_qs(body, keep_blank_values=True, strict_parsing=bool(body))
                form = {name: values[0] for name, values in fields.items()}
                assert urlsplit(self.path).query == ""
                told = Told(self.command, self.path, form, self.headers.get("content-type", ""))
                service.told.append(told)
                self.answer(service.plan(told))

            do_DELETE = do_PUT  # noqa: N815

            def answer(self, reply: Reply) -> None:
                service.ending.wait(reply.seconds)
                if reply.hang_up:
                    self.close_connection = True
                    return
                body = reply.body.encode()
                try:
                    if reply.drip:
                        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
                            self.wfile.write(bytes([byte]))
                            service.ending.wait(reply.drip)
                        return
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked is gone

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections: the port refuses them."""
        self.ending.set()
        self.http.shutdown()
        self.http.server_close()

    def words(self) -> list[tuple[str, int, str | None, str | None]]:
        """What it was told: method, user, username, e-mail."""
        return [told.words for told in self.told]

    def by_user(self) -> dict[int, list[str]]:
        """What it was told of each user, in order: the e-mail of a PUT, or `gone`."""
        found: dict[int, list[str]] = {}
        for method, user_id, _, email in self.words():
            found.setdefault(user_id, []).append("gone" if method == "DELETE" else str(email))
        return found


def failing(status: int, body: str = "", *, only: set[int] | None = None) -> Plan:
    """A plan: this answer for all users, or for some."""
    return lambda told: Reply(status, body) if only is None or told.user_id in only else OK


def users_of(service: Service) -> dict[int, tuple[str, str]]:
    """What the service believes, had it done as it was told."""
    believed: dict[int, tuple[str, str]] = {}
    for told in service.told:
        if told.method == "DELETE":
            believed.pop(told.user_id, None)
        else:
            believed[told.user_id] = told.form["username"], told.form["email"]
    return believed


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def messages(*words: str) -> str:
    """The body of a refusal: messages as JSON."""
    return json.dumps(list(words))
