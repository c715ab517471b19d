"""What commands on people share: the users that a command line names, and what is to be when one is not there."""

from pathlib import Path

import typer

from rollbook.core import render
from rollbook.core.command import OnError, Run
from rollbook.core.db import Conn
from rollbook.core.errors import RefusedError, UsageError
from rollbook.people.queries.names import User as Named
from rollbook.people.queries.names import find_users


def expanded(users: list[str], what: str = "users") -> list[str]:
    """Return what is named, with `-` (stdin) and @FILE replaced by their lines. Raises UsageError; RefusedError."""
    named: list[str] = []
    for user in users:
        if user == "-" or user.startswith("@"):
            try:
                lines = (
                    typer.get_text_stream("stdin").read().removeprefix("\ufeff")
                    if user == "-"
                    else Path(user[1:]).read_text("utf-8-sig")
                )
            except (OSError, UnicodeDecodeError) as exc:
                raise UsageError(f"cannot read {user}", why=str(exc)) from exc
            named += [line.strip() for line in lines.splitlines() if line.strip()]
        else:
            named.append(user)
    if any("\x00" in name for name in named):
        raise RefusedError(f"a NUL character among the {what}", fix="pipe in text, one a line")
    if not named:
        raise UsageError(f"no {what} named", fix=f"name {what}, or pipe them in, one a line")
    return named


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
