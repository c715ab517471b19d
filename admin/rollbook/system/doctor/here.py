"""Files of this machine that hold passwords. Those of a server's own user cannot be seen from here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core.conninfo import conninfo
from rollbook.core.shell import quoted
from rollbook.replication.link import Server, has_password
from rollbook.system.doctor.finding import HERE, Finding, attention


def look(dsn: str | None, servers: Iterable[Server]) -> list[Finding]:
    """Return the files that others can read, and the routes that hold a password."""
    asked = list(servers)
    found = [*modes(dsn, asked), *routes(asked)]
    return found or [Finding("file mode", HERE, "ok", "nothing", None, None)]


def set_route(server: str, column: str, route: str) -> str:
    """Return the SQL that changes a recorded route of a server."""
    text = route.replace("'", "''")
    return f"update rollbook.server set {column} = '{text}' where name = '{server}';"  # noqa: S608 (to be read)


def modes(dsn: str | None, servers: Iterable[Server]) -> Iterator[Finding]:
    """Return the files with passwords that the group or everybody may read. libpq does not use such a .pgpass."""
    home = Path.home()
    given = [conninfo(dsn), *(server.admin_dsn for server in servers if server.admin_dsn)]
    parts = [conninfo_to_dict(route) for route in given]
    passwords = [os.environ.get("PGPASSFILE") or home / ".pgpass", *(part.get("passfile") for part in parts)]
    services = [
        os.environ.get("PGSERVICEFILE") or home / ".pg_service.conf",
        *(part.get("servicefile") for part in parts),
    ]
    keys = [part.get("sslkey") for part in parts]
    for path in {Path(str(each)).expanduser() for each in (*passwords, *keys) if each}:
        if is_open(path):
            yield mode(path, "libpq does not use it")
    for path in {Path(str(each)).expanduser() for each in services if each}:
        if is_open(path) and holds_password(path):
            yield mode(path, "it holds a password")


def mode(path: Path, why: str) -> Finding:
    """Return the finding of a file that others can read."""
    return attention(
        "file mode", HERE, f"{path} can be read by others ({stat.S_IMODE(path.stat().st_mode):o}): {why}", "600",
        f"chmod 600 {quoted(str(path))}",
    )  # fmt: skip


def is_open(path: Path) -> bool:
    """Return whether a file is there, and its group or others may read it."""
    try:
        return path.is_file() and bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def holds_password(path: Path) -> bool:
    """Return whether a service file has a line with a password; what cannot be read counts as one without."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip().lower().startswith("password") for line in lines)


def routes(servers: Iterable[Server]) -> Iterator[Finding]:
    """Return the admin routes that hold a password, in the portal's database and in its dumps."""
    for server in servers:
        if not server.admin_dsn or not has_password(server.admin_dsn):
            continue
        given = {name: str(text) for name, text in conninfo_to_dict(server.admin_dsn).items() if name != "password"}
        entry = ":".join(str(given.get(part, "*")) for part in ("host", "port", "dbname", "user"))
        without = make_conninfo(**given)
        yield attention(
            "password", HERE, f"the route to server {server.name} holds a password, as do dumps of the portal",
            "a password file",
            f"echo {quoted(f'{entry}:PASSWORD', always=True)} >> ~/.pgpass && chmod 600 ~/.pgpass; then: "
            f"on the portal: {set_route(server.name, 'admin_dsn', without)}",
        )  # fmt: skip
