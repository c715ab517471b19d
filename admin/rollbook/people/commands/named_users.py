"""What commands on people share: what is to be when a named user is not there."""

from rollbook.core import render
from rollbook.core.command import OnError, Run
from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError
from rollbook.core.users import User as Named
from rollbook.core.users import expanded, find_users


def chosen(conn: Conn, run: Run, users: list[str]) -> tuple[list[Named], int]:
    """Return the users (id, username, email), each once, and the exit code: 0, or 5 where some were skipped.

    Raises RefusedError for one that is unknown or ambiguous; with --on-error skip only if there is none else.
    """
    named = expanded(users)
    try:
        return find_users(conn, named), 0
    except RefusedError as exc:
        if run.on_error is not OnError.skip:
            raise
        first = exc
    found: list[Named] = []
    failures: list[RefusedError] = []
    for token in named:
        try:
            found += [row for row in find_users(conn, [token]) if row not in found]
        except RefusedError as exc:
            failures.append(exc)
    if not found:
        raise first
    for failure in failures:
        render.error(run, failure)
    return found, 5
