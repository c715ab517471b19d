"""`rollbook user password`."""

from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core.arguments import User
from rollbook.core.command import Run, command
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import Row
from rollbook.core.users import find_users
from rollbook.people import secret
from rollbook.people.commands.password_options import FROM_STDIN, PASSWORD_PANEL, File, Stdin, given_hash
from rollbook.people.commands.user import app
from rollbook.people.queries import user as accounts

__all__ = ["app"]

PASSWORD = ("username", "algorithm", "iterations", "outcome")


@command(
    app, "password", sets=("data", "writes"), columns=PASSWORD,
    examples=(
        "user password ada --stdin < password.txt", "user password ada --check --file password.txt",
        "user password ada --unusable",
    ),
    exits="0 set, or it matches, 1 refused, or it does not match, 2 usage, 3 unreachable, or not checkable here, "
    "6 no terminal to ask on",
    see="rollbook user show",
)  # fmt: skip
def password(
    run: Run,
    user: User,
    password_stdin: Stdin = False,
    password_file: File = None,
    password_hash_file: Annotated[
        str | None,
        typer.Option(
            "--password-hash-file",
            "--hash-file",
            metavar="FILE",
            help="Read a Django password hash from FILE.",
            rich_help_panel=PASSWORD_PANEL,
        ),
    ] = None,
    unusable: Annotated[
        bool,
        typer.Option("--unusable", help="Disable password sign-in for this account.", rich_help_panel=PASSWORD_PANEL),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; check whether this is the password.")] = False,
) -> None:
    """Set or check a user's password. Without an option, the command asks for it twice on the terminal.

    The user's courses have it when the command ends.
    """
    if unusable and (password_stdin or password_file or password_hash_file):
        raise UsageError("--unusable and a password exclude each other")
    if check and (unusable or password_hash_file):
        raise UsageError("--check needs the password itself", fix=FROM_STDIN)
    if check:
        plain = secret.from_stdin("password") if password_stdin else None
        plain = secret.from_file(password_file, "password") if plain is None and password_file else plain
        plain = render.secret(run, "password", fix=FROM_STDIN) if plain is None else plain
    else:
        given = secret.unusable() if unusable else given_hash(password_stdin, password_file, password_hash_file)
        stored = given or secret.hashed(asked_twice(run))
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        old = accounts.password(conn, found["id"])
        if check:
            stored = old
            if not plain or not secret.matches(plain, stored):
                is_unusable = secret.described(stored)[0] == "unusable"
                why = "the account has no password that can be used" if is_unusable else None
                raise RefusedError(f"this is not the password of {found['username']}", why=why)
        else:
            accounts.set_password(conn, found["id"], stored)
            before, after = (described(one) for one in (old, stored))
            history.record(conn, run, found["username"], "changed", before=before, after=after, user_id=found["id"])
    outcome = "match" if check else "changed"
    render.rows(run, [{"username": found["username"], **described(stored), "outcome": outcome}], PASSWORD)


def described(stored: str) -> Row:
    """Return algorithm and iterations of a stored hash."""
    algorithm, iterations = secret.described(stored)
    return {"algorithm": algorithm, "iterations": iterations}


def asked_twice(run: Run) -> str:
    """Return a password from the terminal. Raises RefusedError if the two answers differ."""
    first = secret.checked_password(render.secret(run, "new password", fix=FROM_STDIN))
    if render.secret(run, "repeat the password", fix=FROM_STDIN) != first:
        raise RefusedError("the two passwords differ; nothing was changed", fix="try again")
    return first
