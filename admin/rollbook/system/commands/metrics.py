"""`rollbook metrics`: what Prometheus scrapes, in a file for node_exporter or over HTTP."""

from contextlib import closing
from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.errors import UsageError

app = typer.Typer()

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@command(
    app, "metrics",
    examples=("metrics --textfile /var/lib/node_exporter/rollbook.prom", "metrics --listen 127.0.0.1:9863"),
    exits="0 written, or ended by SIGTERM, 2 usage, 3 the portal did not answer (the file says so), or cannot listen",
    see="rollbook check, rollbook status",
)  # fmt: skip
def metrics(
    run: Run,
    textfile: Annotated[
        str | None, typer.Option("--textfile", metavar="FILE", help="Write FILE once, for node_exporter; - prints it.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Answer GET /metrics until SIGTERM or Ctrl-C.")
    ] = None,
) -> int:
    """Export the state of courses, servers, slots and queues for Prometheus.

    What was not measured is absent, never 0; --timeout (10) bounds each scrape.
    """
    from rollbook.core.files import written
    from rollbook.system.listening import Server, endpoint
    from rollbook.system.metrics import SCRAPE_SECONDS, Exporter, require_client, text

    if (textfile is None) == (listen is None):
        raise UsageError("either --textfile FILE or --listen HOST:PORT", fix="rollbook metrics --help")
    where = endpoint(listen) if listen else None
    require_client()
    exporter = Exporter(run, lambda words: render.note(run, words))
    seconds = run.timeout or SCRAPE_SECONDS
    if where:
        server = Server(*where, exporter, seconds)
        render.note(run, f"metrics: {server.url}")
        if where[0] not in LOOPBACK:
            render.note(run, "whoever reaches this port reads the names of courses and servers")
        server.serve()
        return 0
    with closing(exporter):
        found = exporter.scrape(seconds)
    content = text(found)[0].decode()
    if textfile == "-":
        render.text(run, content)
    else:
        with written(str(textfile), "--textfile", mode=0o644) as file:
            file.write(content)
    if exporter.error:
        raise exporter.error
    return 0 if any(sample.name == "rollbook_up" and sample.value for sample in found) else 3
