"""The options that give a password, and what they give."""

from typing import Annotated

import typer

from rollbook.core.errors import UsageError
from rollbook.people import secret

PASSWORD_PANEL = "Password options"  # noqa: S105 (a title)
Stdin = Annotated[
    bool,
    typer.Option(
        "--password-stdin", "--stdin", help="Read the password from standard input.", rich_help_panel=PASSWORD_PANEL
    ),
]
File = Annotated[
    str | None,
    typer.Option(
        "--password-file", "--file", metavar="FILE", help="Read the password from FILE.", rich_help_panel=PASSWORD_PANEL
    ),
]
HashFile = Annotated[
    str | None,
    typer.Option(
        "--password-hash-file",
        metavar="FILE",
        help="Read a Django password hash from FILE.",
        rich_help_panel=PASSWORD_PANEL,
    ),
]
FROM_STDIN = "give it with --password-stdin or --password-file, or on a terminal"


def given_hash(stdin: bool, file: str | None, hash_file: str | None) -> str | None:
    """Return the hash of the password that the options give, None if they give none. Raises UsageError."""
    if sum((stdin, file is not None, hash_file is not None)) > 1:
        raise UsageError("give the password in one way only", fix="--password-stdin, -file or -hash-file")
    if hash_file is not None:
        return secret.checked_hash(secret.from_file(hash_file, "hash"))
    if stdin:
        return secret.hashed(secret.from_stdin("password"))
    return None if file is None else secret.hashed(secret.from_file(file, "password"))
