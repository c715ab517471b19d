"""`rollbook user pseudonym`."""

from typing import Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import Users
from rollbook.core.command import Run, command
from rollbook.core.completion import courses
from rollbook.core.errors import UsageError
from rollbook.core.users import expanded, find_users
from rollbook.people.commands.user import app
from rollbook.people.pseudonym import pseudonyms, secret_key
from rollbook.replication.queries.courses import known_courses

__all__ = ["app"]

PSEUDONYM = ("username", "pseudonym")


@command(
    app, "pseudonym", sets=("data",), columns=PSEUDONYM,
    examples=(
        "user pseudonym ada bob --secret-file survey.key", "user pseudonym @users.txt --legacy --secret-file site.key",
    ),
    exits="0 printed, 1 unknown user or course, 2 no secret, 3 unreachable, 4 not migrated", see="rollbook user show",
)  # fmt: skip
def pseudonym(
    run: Run,
    user: Users,
    course: Annotated[
        str | None,
        typer.Option(
            metavar="COURSE",
            help="Print the pseudonym for this course; each course has another.",
            autocompletion=courses,
        ),
    ] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Use the old form: MD5 of secret and id.")] = False,
    secret_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The file with the secret. Default: ROLLBOOK_SECRET_KEY.")
    ] = None,
) -> None:
    """Print pseudonymous ids: a keyed hash of the user id, stable across runs."""
    if legacy and course is not None:
        raise UsageError("--legacy and --course exclude each other", why="the old form is the same in every course")
    form = pseudonyms(secret_key(secret_file), course, legacy=legacy)
    with run.connect() as conn:
        if course is not None:
            known_courses(conn, [course])
        found = find_users(conn, expanded(user))
    render.rows(run, [{"username": row["username"], "pseudonym": form(row["id"])} for row in found], PSEUDONYM)
