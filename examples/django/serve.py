"""Serve a site: python serve.py portal|course PORT [...]; on the first free port, until stdin ends. Prints the port."""

import os
import socketserver
import sys
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each request; good enough to look at, not to serve a class."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Writes no log."""

    def log_message(self, *_: object) -> None: ...


site, *ports = sys.argv[1:]
os.environ["DJANGO_SETTINGS_MODULE"] = f"campus.{site}"
application = StaticFilesHandler(get_wsgi_application())
for port in ports:
    try:
        server = make_server("127.0.0.1", int(port), application, Server, Handler)
    except OSError:
        continue
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    break
