"""The HTTP server of `rollbook metrics --listen`: GET /metrics, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import signal
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import UnreachableError, UsageError
from rollbook.system.metrics import text

if TYPE_CHECKING:
    from rollbook.system.metrics import Exporter

IDLE_SECONDS = 30  # a client that sends nothing for so long is left
PATH = "/metrics"
# What Prometheus gives up after, in a header; the answer has to be there before.
BOUND, SHARE = "X-Prometheus-Scrape-Timeout-Seconds", 0.9


def endpoint(given: str) -> tuple[str, int]:
    """Return HOST and PORT of `HOST:PORT`, `[::1]:PORT`. Raises UsageError."""
    host, colon, port = given.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and port.isdecimal() and int(port) < 1 << 16) or (":" in bare and host == bare):
        raise UsageError(
            f"--listen {given} is not HOST:PORT", fix="such as --listen 127.0.0.1:9863, or --listen '[::1]:9863'"
        )
    return bare, int(port)


class Server(ThreadingHTTPServer):
    """Answers each scrape in a thread of its own."""

    daemon_threads = True

    def __init__(self, host: str, port: int, exporter: Exporter, seconds: float) -> None:
        """Listen. Raises UnreachableError where that is not possible."""
        self.exporter, self.seconds = exporter, seconds
        try:
            where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = where[0]
            super().__init__(where[4][:2], Handler)  # type: ignore[arg-type]
        except OSError as exc:
            raise UnreachableError(
                f"cannot listen on {host}:{port}", why=exc.strerror or str(exc),
                fix="name a host of this machine and a free port: --listen HOST:PORT",
            ) from exc  # fmt: skip
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}{PATH}"

    def server_bind(self) -> None:
        """Bind without a look-up of the host's name, which may hang."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as in socketserver)
        """Keep quiet about clients that leave before the answer; report everything else."""
        import sys

        del request, client_address
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.exporter.report(f"a scrape failed: {type(error).__name__}: {error}")

    def serve(self) -> None:
        """Answer until SIGTERM, or Ctrl-C."""

        def end(*_: object) -> None:
            threading.Thread(target=self.shutdown, daemon=True).start()

        before = signal.signal(signal.SIGTERM, end)
        try:
            with contextlib.closing(self.exporter), self:
                self.serve_forever(0.2)
        finally:
            signal.signal(signal.SIGTERM, before)


class Handler(BaseHTTPRequestHandler):
    """A scrape."""

    server: Server
    timeout = IDLE_SECONDS

    def version_string(self) -> str:
        """Name the program, and no version of anything."""
        return "rollbook"

    def log_message(self, *arguments: object) -> None:
        """Log no requests: a scrape comes every few seconds."""

    def do_HEAD(self) -> None:
        """Answer a look at whether the server is there."""
        self.answer(HTTPStatus.OK if self.path.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND, b"", "text/plain")

    def do_GET(self) -> None:
        """Collect once, and answer."""
        if self.path.partition("?")[0] != PATH:
            self.answer(HTTPStatus.NOT_FOUND, f"metrics are at {PATH}\n".encode(), "text/plain; charset=utf-8")
            return
        content, kind = text(self.server.exporter.scrape(self.bound()), self.headers.get("Accept", ""))
        zips = "gzip" in self.headers.get("Accept-Encoding", "")
        self.answer(HTTPStatus.OK, gzip.compress(content, 1) if zips else content, kind, is_zipped=zips)

    def bound(self) -> float:
        """Return the seconds that this scrape may take: ours, or what Prometheus asks for if that is less."""
        try:
            asked = float(self.headers.get(BOUND, "")) * SHARE
        except ValueError:
            return self.server.seconds
        return min(self.server.seconds, asked) if asked > 0 else self.server.seconds

    def answer(self, status: HTTPStatus, content: bytes, kind: str, *, is_zipped: bool = False) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if is_zipped:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(content)
