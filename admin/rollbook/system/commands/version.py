"""`rollbook version`: what a bug report needs."""

import platform
from importlib.metadata import version as installed

import typer

from rollbook.core import render
from rollbook.core.command import Run, command
from rollbook.core.errors import AdminError, UsageError

app = typer.Typer()


@command(
    app, "version", sets=("document",), configured=False,
    examples=("version", "version --json"),
    exits="0 always, even if no database answers", see="rollbook schema current",
)  # fmt: skip
def version(run: Run) -> None:
    """Show the versions of the program and its parts, and of the database if one answers."""
    import psycopg

    from rollbook.core.db import revision
    from rollbook.core.migrating import known_revisions

    found = {
        "rollbook": installed("rollbook"),
        "ships_revision": known_revisions()[-1],
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "libpq": str(psycopg.pq.version() // 10000) + "." + str(psycopg.pq.version() % 10000),
        "server": None,
        "database_revision": None,
    }
    try:
        run.configure()
        with run.connect(migrated=False) as conn:
            found["server"] = conn.info.parameter_status("server_version")
            found["database_revision"] = revision(conn)
    except AdminError as exc:
        is_usage = isinstance(exc, UsageError)  # the configuration is broken: the message has the file and its line
        render.note(run, f"no database: {exc.message if is_usage else exc.why or exc.message}")
    render.document(run, found, lambda out: render.sections(run, out, {"Rollbook": found}))
